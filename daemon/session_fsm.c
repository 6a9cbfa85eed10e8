#include "daemon/session_fsm.h"

#include <stdbool.h>

#define RUN ACTION_RUN
#define REFUSE ACTION_REFUSE
#define SEND ACTION_SEND
#define LEAVE ACTION_LEAVE
#define DROP ACTION_DROP

/* What each state expects. Whatever is not here, hang-up, death and stop among it, ends the connection: see `otherwise`. */
static const struct rule {
	unsigned char state, event;
	struct session_step step;
} rules[] = {
        {SESSION_NEW, EVENT_HELLO, {SESSION_NEW, RUN}},
        {SESSION_NEW, EVENT_GREETED, {SESSION_GREETED, 0}},
        {SESSION_NEW, EVENT_REFUSED, {SESSION_CLOSING, 0}},
        {SESSION_NEW, EVENT_ATTACH, {SESSION_CLOSING, REFUSE}},
        {SESSION_NEW, EVENT_REQUEST, {SESSION_CLOSING, REFUSE}},
        {SESSION_NEW, EVENT_QUERY, {SESSION_CLOSING, REFUSE}},
        {SESSION_NEW, EVENT_GARBAGE, {SESSION_CLOSING, REFUSE}},

        {SESSION_GREETED, EVENT_ATTACH, {SESSION_GREETED, RUN}},
        {SESSION_GREETED, EVENT_QUERY, {SESSION_GREETED, RUN}},
        {SESSION_GREETED, EVENT_ANSWERED, {SESSION_GREETED, 0}},
        {SESSION_GREETED, EVENT_ATTACHED, {SESSION_ATTACHED, 0}},
        {SESSION_GREETED, EVENT_LATER, {SESSION_WORKING, 0}},
        {SESSION_GREETED, EVENT_REFUSED, {SESSION_CLOSING, 0}},
        {SESSION_GREETED, EVENT_FLUSHED, {SESSION_GREETED, 0}},
        {SESSION_GREETED, EVENT_SILENT, {SESSION_GREETED, 0}},
        {SESSION_GREETED, EVENT_HELLO, {SESSION_CLOSING, REFUSE}},
        {SESSION_GREETED, EVENT_REQUEST, {SESSION_CLOSING, REFUSE}},
        {SESSION_GREETED, EVENT_GARBAGE, {SESSION_CLOSING, REFUSE}},

        {SESSION_WORKING, EVENT_FINISHED, {SESSION_GREETED, SEND}},
        {SESSION_WORKING, EVENT_FLUSHED, {SESSION_WORKING, 0}},
        {SESSION_WORKING, EVENT_SILENT, {SESSION_WORKING, 0}},

        {SESSION_ATTACHED, EVENT_REQUEST, {SESSION_ATTACHED, RUN}},
        {SESSION_ATTACHED, EVENT_QUERY, {SESSION_ATTACHED, RUN}},
        {SESSION_ATTACHED, EVENT_ANSWERED, {SESSION_ATTACHED, 0}},
        {SESSION_ATTACHED, EVENT_LATER, {SESSION_BUSY, 0}},
        {SESSION_ATTACHED, EVENT_REFUSED, {SESSION_CLOSING, LEAVE}},
        /* an earlier connection of the client has asked for it: the answer is kept for when this one asks again */
        {SESSION_ATTACHED, EVENT_FINISHED, {SESSION_ATTACHED, 0}},
        {SESSION_ATTACHED, EVENT_FLUSHED, {SESSION_ATTACHED, 0}},
        {SESSION_ATTACHED, EVENT_SILENT, {SESSION_ATTACHED, 0}},
        {SESSION_ATTACHED, EVENT_HELLO, {SESSION_CLOSING, LEAVE | REFUSE}},
        {SESSION_ATTACHED, EVENT_ATTACH, {SESSION_CLOSING, LEAVE | REFUSE}},
        {SESSION_ATTACHED, EVENT_GARBAGE, {SESSION_CLOSING, LEAVE | REFUSE}},

        {SESSION_BUSY, EVENT_FINISHED, {SESSION_ATTACHED, SEND}},
        {SESSION_BUSY, EVENT_FINISHED_LAST, {SESSION_CLOSING, SEND}},
        {SESSION_BUSY, EVENT_FLUSHED, {SESSION_BUSY, 0}},
        {SESSION_BUSY, EVENT_SILENT, {SESSION_BUSY, 0}},

        {SESSION_CLOSING, EVENT_HELLO, {SESSION_CLOSING, 0}},
        {SESSION_CLOSING, EVENT_ATTACH, {SESSION_CLOSING, 0}},
        {SESSION_CLOSING, EVENT_REQUEST, {SESSION_CLOSING, 0}},
        {SESSION_CLOSING, EVENT_QUERY, {SESSION_CLOSING, 0}},
        {SESSION_CLOSING, EVENT_GARBAGE, {SESSION_CLOSING, 0}},
        {SESSION_CLOSING, EVENT_DEATH, {SESSION_CLOSING, 0}},
};

/* The core knows the callers of these states and must be told that they are gone. */
static const bool known[SESSION_STATES] = {
        [SESSION_WORKING] = true,
        [SESSION_ATTACHED] = true,
        [SESSION_BUSY] = true,
};

static struct session_step otherwise(enum session_state state)
{
	return (struct session_step){SESSION_CLOSED, known[state] ? LEAVE | DROP : DROP};
}

struct session_step session_fsm(enum session_state state, enum session_event event)
{
	/* CLOSED is the end: whatever is still on its way changes nothing. */
	if (state >= SESSION_CLOSED)
		return (struct session_step){SESSION_CLOSED, 0};
	for (unsigned i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].state == state && rules[i].event == event)
			return rules[i].step;
	return otherwise(state);
}

const char *session_state_name(enum session_state state)
{
	static const char *const name[SESSION_STATES] = {
	        "new", "greeted", "working", "attached", "busy", "closing", "closed"};

	return state < SESSION_STATES ? name[state] : "?";
}
