/* The dialogue with one peer: packets in, packets out, without a socket. daemon/session.h puts a socket around it.
 *
 * Each function returns what the socket's owner has to do. The bytes of a move lie in a buffer of the core or of the heaps and are
 * good until the next call. A dialogue begins without a heap: an attach, or a request of the administration, picks one.
 */
#ifndef DAEMON_DIALOGUE_H
#define DAEMON_DIALOGUE_H

#include "daemon/heaps.h"
#include "daemon/session_fsm.h"

struct dialogue {
	struct heaps *heaps;
	struct core *core; /* of the heap that it is attached to, or had to do with last; NULL: none yet */
	enum session_state state;
	struct caller caller;
	bool refilling; /* the request under way, or whose answer is on its way, is a refill */
};

struct move {
	const unsigned char *bytes; /* to send; NULL: nothing */
	size_t len;
	bool descriptors; /* with the heap's three descriptors */
	bool drop; /* close the socket at once */
};

/* `peer` is consumed: its pidfd belongs to the dialogue, and to the client from an attach on. `groups` may be NULL: none. */
void dialogue_init(struct dialogue *d, struct heaps *heaps, const struct peer *peer, const struct peer_groups *groups);
void dialogue_deinit(struct dialogue *d);

/* A packet came; NULL: one that was too long or bore descriptors. */
struct move dialogue_packet(struct dialogue *d, const unsigned char *bytes, size_t len);

/* An event of the socket or of the daemon. */
struct move dialogue_event(struct dialogue *d, enum session_event event);

/* The core has finished a long request of this caller. */
struct move dialogue_finished(struct dialogue *d, const struct answer *answer, bool last);

/* The dialogue of a caller. */
struct dialogue *dialogue_of(struct caller *caller);

/* Whether a packet may come now: not while a request is under way or after the last answer. */
bool dialogue_listens(const struct dialogue *d);

#endif
