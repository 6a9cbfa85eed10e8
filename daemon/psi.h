/* Memory pressure, as the system tells of it.
 *
 * A service manager names what to watch ($MEMORY_PRESSURE_WATCH) and what to write into it first ($MEMORY_PRESSURE_WRITE, base64):
 *
 *	a regular file   a PSI file of the kernel: a trigger is written, and it has an exceptional condition (POLLPRI) when it fires
 *	a FIFO           there is something to read, which is thrown away; nothing is written, for that would come back to us
 *	a socket         a stream socket that listens: connected to, then like a FIFO
 *	/dev/null        nothing is to be watched
 *
 * Without the variable /proc/pressure/memory is watched, for programs that wait for memory for 0.2 of 2 seconds; a kernel that lets
 * nobody but root do so, or has no such file, leaves us with what we see ourselves.
 *
 * `watch` is readable whenever there is something: for a PSI file it is an epoll descriptor, as event loops do not know POLLPRI.
 */
#ifndef DAEMON_PSI_H
#define DAEMON_PSI_H

#include <stdbool.h>
#include <stddef.h>

struct psi {
	int watch; /* -1: nothing is watched */
	int file; /* the PSI file inside of the epoll descriptor, else -1 */
};

#define PSI_NONE ((struct psi){-1, -1})

/* Returns 0, or a negative errno and the reason in words. */
int psi_open(struct psi *psi, char *why, size_t room);

/* `watch` was readable: takes what is there. False if there is nothing to come any more; then it is closed. */
bool psi_read(struct psi *psi);

void psi_close(struct psi *psi);

/* Decodes base64 with its padding: how many bytes, or -1 if it is none or does not fit. */
int psi_decode(const char *text, unsigned char *to, size_t room);

#endif
