/* The state machine of a connection, as a table of rules: state and event give the next state and what to do.
 *
 *	NEW --hello--> GREETED --attach--> ATTACHED <--> BUSY
 *	                  ^ |
 *	             (trim) | v
 *	                WORKING
 *	any of them --last answer--> CLOSING --> CLOSED
 *
 * NEW       nothing said yet; dropped after POLICY_HELLO_MS
 * GREETED   versions agree: may query, trim, attach
 * WORKING   a trim is under way for it
 * ATTACHED  speaks for a client
 * BUSY      a long request of that client is under way
 * CLOSING   the last answer is on its way; nothing is read any more
 * CLOSED    to be freed: at once when the client's process dies, even if a forked child still has the socket open
 *
 * What no rule says, an event that a state should never see included, closes the connection: no case is undefined.
 */
#ifndef DAEMON_SESSION_FSM_H
#define DAEMON_SESSION_FSM_H

enum session_state {
	SESSION_NEW,
	SESSION_GREETED,
	SESSION_WORKING,
	SESSION_ATTACHED,
	SESSION_BUSY,
	SESSION_CLOSING,
	SESSION_CLOSED,
	SESSION_STATES
};

enum session_event {
	/* a message came */
	EVENT_HELLO,
	EVENT_ATTACH,
	EVENT_REQUEST, /* one that only a client may send */
	EVENT_QUERY, /* query, trim or evict */
	EVENT_GARBAGE, /* not a request */
	/* what became of the request */
	EVENT_ANSWERED,
	EVENT_GREETED,
	EVENT_ATTACHED,
	EVENT_LATER,
	EVENT_REFUSED,
	/* a long request is finished; with LAST its answer is the last one */
	EVENT_FINISHED,
	EVENT_FINISHED_LAST,
	/* the socket */
	EVENT_HANGUP,
	EVENT_SILENT, /* no hello in time */
	EVENT_STUCK, /* the peer does not fetch its answer */
	EVENT_FLUSHED, /* the answer is gone */
	/* the rest of the daemon */
	EVENT_DEATH, /* of the client's process */
	EVENT_REPLACED, /* another connection speaks for the client now */
	EVENT_STOP,
	EVENTS
};

/* What to do, in this order. */
enum session_action {
	ACTION_RUN = 1, /* carry the request out */
	ACTION_REFUSE = 2, /* answer that it is out of order */
	ACTION_SEND = 4, /* send the answer of the finished request */
	ACTION_LEAVE = 8, /* tell the core that this caller is gone */
	ACTION_DROP = 16 /* close the socket at once */
};

struct session_step {
	unsigned char next; /* enum session_state */
	unsigned char actions; /* of enum session_action */
};

struct session_step session_fsm(enum session_state state, enum session_event event);

/* For logs. */
const char *session_state_name(enum session_state state);

#endif
