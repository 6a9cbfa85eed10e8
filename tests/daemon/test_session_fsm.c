#include "daemon/session_fsm.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <string.h>

/* The whole table, written out by hand: a letter for the next state, then the actions.
 * States: New Greeted Working Attached Busy cLosing Closed. Actions: ! run, ? refuse, > send, ~ leave, x drop. */
static const char *const expected[SESSION_STATES][EVENTS] = {
        /* HELLO  ATTACH  REQUEST QUERY   GARBAGE | ANSWERED GREETED ATTACHED LATER REFUSED | FINISHED LAST |
           HANGUP SILENT STUCK FLUSHED | DEATH REPLACED STOP */
        [SESSION_NEW] = {"N!", "L?", "L?", "L?", "L?", "Cx", "G", "Cx", "Cx", "L", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx",
                "Cx", "Cx", "Cx"},
        [SESSION_GREETED] = {"L?", "G!", "L?", "G!", "L?", "G", "Cx", "A", "W", "L", "Cx", "Cx", "Cx", "G", "Cx", "G",
                "Cx", "Cx", "Cx"},
        [SESSION_WORKING] = {"C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "G>", "C~x", "C~x",
                "W", "C~x", "W", "C~x", "C~x", "C~x"},
        [SESSION_ATTACHED] = {"L?~", "L?~", "A!", "A!", "L?~", "A", "C~x", "C~x", "B", "L~", "A", "C~x", "C~x", "A",
                "C~x", "A", "C~x", "C~x", "C~x"},
        [SESSION_BUSY] = {"C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "C~x", "A>", "L>", "C~x", "B",
                "C~x", "B", "C~x", "C~x", "C~x"},
        [SESSION_CLOSING] = {"L", "L", "L", "L", "L", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx", "Cx",
                "L", "Cx", "Cx"},
        [SESSION_CLOSED] = {"C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C", "C",
                "C"},
};

static unsigned action(char c)
{
	switch (c) {
	case '!':
		return ACTION_RUN;
	case '?':
		return ACTION_REFUSE;
	case '>':
		return ACTION_SEND;
	case '~':
		return ACTION_LEAVE;
	case 'x':
		return ACTION_DROP;
	default:
		cr_assert_fail("what is '%c'?", c);
	}
	return 0;
}

Test(session_fsm, every_state_and_event)
{
	static const char letters[] = "NGWABLC";

	for (int s = 0; s < SESSION_STATES; s++)
		for (int e = 0; e < EVENTS; e++) {
			const char *want = expected[s][e];

			cr_assert(want != NULL, "state %d, event %d is not written out", s, e);
			struct session_step step = session_fsm((enum session_state)s, (enum session_event)e);
			unsigned actions = 0;

			for (const char *c = want + 1; *c; c++)
				actions |= action(*c);
			cr_assert_eq(letters[step.next], want[0], "%s, event %d: to %s",
			        session_state_name((enum session_state)s), e,
			        session_state_name((enum session_state)step.next));
			cr_assert_eq(step.actions, actions, "%s, event %d: actions %u and not %u",
			        session_state_name((enum session_state)s), e, step.actions, actions);
		}
}

/* Whatever comes, a caller that the core knows is told before the connection is forgotten. */
Test(session_fsm, nobody_is_forgotten)
{
	static const bool known[SESSION_STATES] = {
	        [SESSION_WORKING] = true, [SESSION_ATTACHED] = true, [SESSION_BUSY] = true};

	for (int s = 0; s < SESSION_STATES; s++)
		for (int e = 0; e < EVENTS; e++) {
			struct session_step step = session_fsm((enum session_state)s, (enum session_event)e);
			bool ends = step.next == SESSION_CLOSED || step.next == SESSION_CLOSING;

			if (known[s] && ends && e != EVENT_FINISHED_LAST)
				cr_assert(step.actions & ACTION_LEAVE, "state %d, event %d", s, e);
			if (step.next == SESSION_CLOSED && s != SESSION_CLOSED)
				cr_assert(step.actions & ACTION_DROP, "state %d, event %d", s, e);
		}
}

/* With no messages and no events but hang-up, every state ends. */
Test(session_fsm, every_state_ends)
{
	for (int s = 0; s < SESSION_STATES; s++)
		cr_assert_eq(session_fsm((enum session_state)s, EVENT_HANGUP).next, SESSION_CLOSED);
}
