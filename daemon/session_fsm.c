#include "daemon/session_fsm.h"

#define RUN ACTION_RUN
#define REFUSE ACTION_REFUSE
#define SEND ACTION_SEND
#define LEAVE ACTION_LEAVE
#define DROP ACTION_DROP

/* Rows that several states share: how a connection ends, without and with something that the core must be told. */
#define ENDS_PLAIN                                                                                                     \
	[EVENT_HANGUP] = {SESSION_CLOSED, DROP}, [EVENT_STUCK] = {SESSION_CLOSED, DROP},                               \
	[EVENT_STOP] = {SESSION_CLOSED, DROP}
#define ENDS_LEAVING                                                                                                   \
	[EVENT_HANGUP] = {SESSION_CLOSED, LEAVE | DROP}, [EVENT_STUCK] = {SESSION_CLOSED, LEAVE | DROP},               \
	[EVENT_STOP] = {SESSION_CLOSED, LEAVE | DROP}

static const struct session_step table[SESSION_STATES][EVENTS] =
        {
                [SESSION_NEW] =
                        {
                                [EVENT_HELLO] = {SESSION_NEW, RUN},
                                [EVENT_ATTACH] = {SESSION_CLOSING, REFUSE},
                                [EVENT_REQUEST] = {SESSION_CLOSING, REFUSE},
                                [EVENT_QUERY] = {SESSION_CLOSING, REFUSE},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, REFUSE},
                                [EVENT_ANSWERED] = {SESSION_CLOSED, DROP},
                                [EVENT_GREETED] = {SESSION_GREETED, 0},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, DROP},
                                [EVENT_LATER] = {SESSION_CLOSED, DROP},
                                [EVENT_REFUSED] = {SESSION_CLOSING, 0},
                                [EVENT_FINISHED] = {SESSION_CLOSED, DROP},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSED, DROP},
                                [EVENT_SILENT] = {SESSION_CLOSED, DROP},
                                [EVENT_FLUSHED] = {SESSION_NEW, 0},
                                [EVENT_DEATH] = {SESSION_CLOSED, DROP},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_PLAIN,
                        },
                [SESSION_GREETED] =
                        {
                                [EVENT_HELLO] = {SESSION_CLOSING, REFUSE},
                                [EVENT_ATTACH] = {SESSION_GREETED, RUN},
                                [EVENT_REQUEST] = {SESSION_CLOSING, REFUSE},
                                [EVENT_QUERY] = {SESSION_GREETED, RUN},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, REFUSE},
                                [EVENT_ANSWERED] = {SESSION_GREETED, 0},
                                [EVENT_GREETED] = {SESSION_CLOSED, DROP},
                                [EVENT_ATTACHED] = {SESSION_ATTACHED, 0},
                                [EVENT_LATER] = {SESSION_WORKING, 0},
                                [EVENT_REFUSED] = {SESSION_CLOSING, 0},
                                [EVENT_FINISHED] = {SESSION_CLOSED, DROP},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSED, DROP},
                                [EVENT_SILENT] = {SESSION_GREETED, 0},
                                [EVENT_FLUSHED] = {SESSION_GREETED, 0},
                                [EVENT_DEATH] = {SESSION_CLOSED, DROP},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_PLAIN,
                        },
                [SESSION_WORKING] =
                        {
                                [EVENT_HELLO] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ATTACH] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_REQUEST] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_QUERY] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ANSWERED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_GREETED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_LATER] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_REFUSED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_FINISHED] = {SESSION_GREETED, SEND},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSING, SEND},
                                [EVENT_SILENT] = {SESSION_WORKING, 0},
                                [EVENT_FLUSHED] = {SESSION_WORKING, 0},
                                [EVENT_DEATH] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_REPLACED] = {SESSION_CLOSED, LEAVE | DROP},
                                ENDS_LEAVING,
                        },
                [SESSION_ATTACHED] =
                        {
                                [EVENT_HELLO] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ATTACH] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_REQUEST] = {SESSION_ATTACHED, RUN},
                                [EVENT_QUERY] = {SESSION_ATTACHED, RUN},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ANSWERED] = {SESSION_ATTACHED, 0},
                                [EVENT_GREETED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_LATER] = {SESSION_BUSY, 0},
                                [EVENT_REFUSED] = {SESSION_CLOSING, LEAVE},
                                [EVENT_FINISHED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_SILENT] = {SESSION_ATTACHED, 0},
                                [EVENT_FLUSHED] = {SESSION_ATTACHED, 0},
                                [EVENT_DEATH] = {SESSION_HELD, 0},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_LEAVING,
                        },
                [SESSION_BUSY] =
                        {
                                [EVENT_HELLO] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ATTACH] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_REQUEST] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_QUERY] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, LEAVE | REFUSE},
                                [EVENT_ANSWERED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_GREETED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_LATER] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_REFUSED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_FINISHED] = {SESSION_ATTACHED, SEND},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSING, SEND},
                                [EVENT_SILENT] = {SESSION_BUSY, 0},
                                [EVENT_FLUSHED] = {SESSION_BUSY, 0},
                                [EVENT_DEATH] = {SESSION_HELD, 0},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_LEAVING,
                        },
                [SESSION_HELD] =
                        {
                                /* A child does not speak on its dead parent's connection. */
                                [EVENT_HELLO] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ATTACH] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_REQUEST] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_QUERY] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_GARBAGE] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ANSWERED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_GREETED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_LATER] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_REFUSED] = {SESSION_CLOSED, LEAVE | DROP},
                                [EVENT_FINISHED] = {SESSION_HELD, 0},
                                [EVENT_FINISHED_LAST] = {SESSION_HELD, 0},
                                [EVENT_SILENT] = {SESSION_HELD, 0},
                                [EVENT_FLUSHED] = {SESSION_HELD, 0},
                                [EVENT_DEATH] = {SESSION_HELD, 0},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_LEAVING,
                        },
                [SESSION_CLOSING] =
                        {
                                [EVENT_HELLO] = {SESSION_CLOSING, 0},
                                [EVENT_ATTACH] = {SESSION_CLOSING, 0},
                                [EVENT_REQUEST] = {SESSION_CLOSING, 0},
                                [EVENT_QUERY] = {SESSION_CLOSING, 0},
                                [EVENT_GARBAGE] = {SESSION_CLOSING, 0},
                                [EVENT_ANSWERED] = {SESSION_CLOSED, DROP},
                                [EVENT_GREETED] = {SESSION_CLOSED, DROP},
                                [EVENT_ATTACHED] = {SESSION_CLOSED, DROP},
                                [EVENT_LATER] = {SESSION_CLOSED, DROP},
                                [EVENT_REFUSED] = {SESSION_CLOSED, DROP},
                                [EVENT_FINISHED] = {SESSION_CLOSING, 0},
                                [EVENT_FINISHED_LAST] = {SESSION_CLOSING, 0},
                                [EVENT_SILENT] = {SESSION_CLOSED, DROP},
                                [EVENT_FLUSHED] = {SESSION_CLOSED, DROP},
                                [EVENT_DEATH] = {SESSION_CLOSING, 0},
                                [EVENT_REPLACED] = {SESSION_CLOSED, DROP},
                                ENDS_PLAIN,
                        },
};

struct session_step session_fsm(enum session_state state, enum session_event event)
{
	/* CLOSED is the end: whatever is still on its way changes nothing. */
	if (state >= SESSION_CLOSED || event >= EVENTS)
		return (struct session_step){SESSION_CLOSED, 0};
	return table[state][event];
}

const char *session_state_name(enum session_state state)
{
	static const char *const name[SESSION_STATES] = {
	        "new", "greeted", "working", "attached", "busy", "held", "closing", "closed"};

	return state < SESSION_STATES ? name[state] : "?";
}
