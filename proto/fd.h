/* A descriptor that is closed when its variable goes out of scope.
 *
 *	FD_AUTO int fd = open(...);
 *	...
 *	*out = shmi_fd_pass(&fd); // the caller's now
 */
#ifndef PROTO_FD_H
#define PROTO_FD_H

#include <errno.h>
#include <unistd.h>

#define FD_AUTO __attribute__((cleanup(shmi_fd_close)))

/* Closes *fd unless it is negative, and makes it so. errno is kept. */
static inline void shmi_fd_close(int *fd)
{
	int kept = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = kept;
}

/* The descriptor, which is the variable's no longer. */
static inline int shmi_fd_pass(int *fd)
{
	int passed = *fd;

	*fd = -1;
	return passed;
}

#endif
