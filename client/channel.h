/* What the three files of the control channel share; the rest of the library has its part of client/heap.h.
 *
 *	sock.c       the socket, and one message on it
 *	greeting.c   connecting: who we are, and which client we were
 *	channel.c    requests, one at a time, repeated under their number
 */
#ifndef CLIENT_CHANNEL_H
#define CLIENT_CHANNEL_H

#include "client/heap.h"

/* How long nobody who can do without waits for a daemon that was waited for in vain. */
#define SHMI_LOOK_AGAIN_NS 200000000ll

/* ---- sock.c ---- */

/* Out of the way: a program that starts with 0, 1 or 2 closed would read and write here. Under a low limit 3 is the best there is;
 * without a free descriptor it stays where it is. Returns what it is now. */
int shmi_sock_away(int fd);

void shmi_sock_open(struct shmi_sock *sock, int fd);

/* Whether the number is still that file's. */
bool shmi_sock_is_there(const struct shmi_sock *sock);

/* The line of $SHMALLOC_DEBUG. */
void shmi_channel_debug(const struct shma_heap *heap, const char *way, const struct wire_msg *msg);

/* Returns 0, EAGAIN (time is up) or ECONNRESET. */
int shmi_channel_send(int sock, const unsigned char *bytes, size_t len, int64_t deadline);

/* Receives the reply with this serial into heap->buffers->reply; older ones, to requests that nobody waits for, are dropped. Returns 0
 * or what an ERROR says, EAGAIN (time is up), EPROTO or ECONNRESET. */
int shmi_channel_receive(struct shma_heap *heap, int sock, uint64_t serial, int *fds, int64_t deadline);

/* ---- greeting.c ---- */

/* `error` is what the reply in the buffer says. Of an eviction we take note: nothing that is asked later can end otherwise. */
void shmi_channel_note_eviction(struct shma_heap *heap, int error);

/* The daemon may be on its way: what says so is tried again until the deadline. */
bool shmi_channel_may_pass(int error);

#endif
