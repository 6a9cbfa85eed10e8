/* One whole message and its descriptors over a SOCK_SEQPACKET socket.
 *
 * Functions return 0, a negative errno, or a positive CHAN_E code. All sockets and received descriptors are close-on-exec;
 * SIGPIPE is never raised (MSG_NOSIGNAL). EINTR is handled.
 */
#ifndef PROTO_CHAN_H
#define PROTO_CHAN_H

#include <stddef.h>
#include <stdint.h>

#define CHAN_E_AGAIN 1 /* non-blocking and nothing there, or no room in the peer's queue */
#define CHAN_E_CLOSED 2 /* the peer has closed */
#define CHAN_E_TOO_LONG 3 /* a packet longer than the buffer, or more descriptors than wanted: all dropped and closed */

/* Sends one packet of at least one byte with `n_fds` descriptors, at most WIRE_FDS (may be 0). */
int shmi_chan_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds);

/* Receives one packet. With `fds` NULL no descriptor is accepted: the kernel drops what came, none is ever installed, and the
 * packet is CHAN_E_TOO_LONG. Else room for *n_fds of them, at most WIRE_FDS; *n_fds is how many came, 0 on any failure.
 * -EMFILE if they had no room in the process's table. An empty packet cannot be told from a hang-up and is one. */
int shmi_chan_recv(int sock, void *bytes, size_t room, size_t *len, int *fds, unsigned *n_fds);

/* Waits until the socket is readable (or, with `write`, writable) or the monotonic time `deadline_ns` has come (INT64_MAX:
 * for ever; a time that is past: looks once). Returns 0, also when the peer has hung up, or -ETIMEDOUT. */
int shmi_chan_wait(int sock, int write, int64_t deadline_ns);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t shmi_chan_now_ns(void);

/* Connects to the Unix socket at `path` (at most 107 bytes). The result is blocking, the connecting is not: -EAGAIN if the
 * daemon's backlog is full. *sock is -1 on failure. */
int shmi_chan_connect(const char *path, int *sock);

/* Makes a listening, non-blocking socket at `path`. A stale socket file (nobody listens) is replaced; one that somebody
 * listens on gives -EADDRINUSE, any other kind of file -ENOTSOCK. A file PATH.lock is left beside it: starters lock it while
 * they look, so that none removes another's new socket. */
int shmi_chan_listen(const char *path, unsigned mode, int backlog, int *sock);

#endif
