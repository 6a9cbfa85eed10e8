/* One connection on the event loop: a socket around a dialogue.
 *
 * Non-blocking. At most one answer is kept for a peer whose queue is full (64 KiB), and while it is kept nothing is read from
 * that peer; if it has not gone within POLICY_STUCK_MS the connection ends. No descriptor that a peer sends is ever
 * installed: the socket is read without a place for them.
 */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include <sys/queue.h>

#include "daemon/dialogue.h"
#include "daemon/fair.h"
#include "daemon/timer.h"

struct server;

struct session {
	LIST_ENTRY(session) link;
	struct server *server;
	struct dialogue dialogue;
	int sock;
	struct fair_user *user; /* whose share of the loop it uses */
	bool figures; /* have been asked for, and are being gathered */
	bool paused; /* its user has had all of its rate */
	uint64_t came_us; /* when the last packet was read */
	struct event *readable, *writable;
	struct timer timer; /* hello, or a stuck answer */
	unsigned char *pending; /* the answer that could not be sent */
	size_t pending_len;
	bool pending_descriptors;
};

LIST_HEAD(session_list, session);

/* Consumes `sock` and `peer`. Returns NULL if there is no memory, or there are too many. */
struct session *session_new(struct server *server, int sock, const struct peer *peer);

/* Something has happened to it; it may be gone afterwards. */
void session_event(struct session *session, enum session_event event);

/* Reads again, if it was paused. */
void session_resume(struct session *session);

/* The core's answer to a long request. */
void session_finished(struct session *session, const struct answer *answer, bool last);

struct session *session_of(struct caller *caller);

#endif
