/* Heaps whose memory has no name in /dev/shm: memfds, sealed against becoming shorter or longer.
 *
 * No client can cut them, so the SIGBUS that POSIX shared memory allows cannot happen; and they are gone when nobody has them any
 * more, so nothing leaks. While no daemon runs the service manager's descriptor store keeps them (daemon/passed.h), under the names
 * HEAP.meta and so on. Without such a store the heap ends with the daemon.
 *
 * meta is given out through a descriptor opened anew for reading, as that of a POSIX object is. The file belongs to the daemon's user
 * with mode 0600: another user cannot open it for writing through /proc.
 */
#ifndef DAEMON_MEMFD_H
#define DAEMON_MEMFD_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/passed.h"

struct memfd_name {
	char text[PASSED_NAME];
};

/* The name under which a part of a heap is kept. */
struct memfd_name memfd_name(const char *heap, const char *part);

/* Whether it is a name of that kind: HEAP.meta, HEAP.aside-1.ctl and so on. */
bool memfd_is_part(const char *name);

/* A new one of `bytes`, all of it holes, sealed. Returns the descriptor or a negative errno. */
int memfd_new(const char *heap, const char *part, uint64_t bytes);

/* True if it is one of ours as memfd_new makes them: a memfd of this user, mode 0600, sealed. */
bool memfd_is_good(int fd);

/* Another descriptor of the same memory, that cannot write. Or a negative errno. */
int memfd_open_readonly(int fd);

#endif
