#include "daemon/dialogue.h"

#include "daemon/log.h"

void dialogue_init(struct dialogue *d, struct heaps *heaps, const struct peer *peer, const struct peer_groups *groups)
{
	*d = (struct dialogue){.heaps = heaps, .state = SESSION_NEW, .caller = {.peer = *peer, .lease = -1}};
	if (groups)
		d->caller.groups = *groups;
}

void dialogue_deinit(struct dialogue *d)
{
	peer_close(&d->caller.peer);
	core_drop_lease(&d->caller);
}

struct dialogue *dialogue_of(struct caller *caller)
{
	return (struct dialogue *)(void *)((char *)caller - offsetof(struct dialogue, caller));
}

bool dialogue_listens(const struct dialogue *d)
{
	return d->state == SESSION_NEW || d->state == SESSION_GREETED || d->state == SESSION_ATTACHED;
}

static enum session_event event_of(const struct wire_msg *msg)
{
	switch (msg->kind) {
	case WIRE_HELLO:
		return EVENT_HELLO;
	case WIRE_ATTACH:
		return EVENT_ATTACH;
	case WIRE_TRIM:
	case WIRE_QUERY:
	case WIRE_EVICT:
		return EVENT_QUERY;
	case WIRE_THREAD:
	case WIRE_REFILL:
	case WIRE_LARGE:
	case WIRE_FREE:
	case WIRE_ROOT_SET:
	case WIRE_ROOT_DEL:
	case WIRE_DETACH:
		return EVENT_REQUEST;
	default:
		return EVENT_GARBAGE;
	}
}

/* Enters the next state and does what needs no message. */
static struct move enter(struct dialogue *d, struct session_step step)
{
	d->state = (enum session_state)step.next;
	if (step.actions & ACTION_LEAVE && d->core)
		core_caller_left(d->core, &d->caller);
	return (struct move){.drop = step.actions & ACTION_DROP};
}

struct move dialogue_event(struct dialogue *d, enum session_event event)
{
	return enter(d, session_fsm(d->state, event));
}

struct move dialogue_finished(struct dialogue *d, const struct answer *answer, bool last)
{
	struct session_step step = session_fsm(d->state, last ? EVENT_FINISHED_LAST : EVENT_FINISHED);
	struct move move = enter(d, step);

	if (step.actions & ACTION_SEND) {
		move.bytes = answer->bytes;
		move.len = answer->len;
	}
	return move;
}

static struct move run_request(struct dialogue *d, const struct wire_msg *msg)
{
	static const enum session_event event[] = {
	        [OUTCOME_ANSWERED] = EVENT_ANSWERED,
	        [OUTCOME_GREETED] = EVENT_GREETED,
	        [OUTCOME_ATTACHED] = EVENT_ATTACHED,
	        [OUTCOME_LATER] = EVENT_LATER,
	        [OUTCOME_REFUSED] = EVENT_REFUSED,
	};
	struct answer answer;

	heaps_run(d->heaps, &d->core, &d->caller, msg, &answer);
	struct move move = enter(d, session_fsm(d->state, event[answer.outcome]));

	if (answer.outcome != OUTCOME_LATER && !move.drop) {
		move.bytes = answer.bytes;
		move.len = answer.len;
		move.descriptors = answer.outcome == OUTCOME_ATTACHED;
	}
	return move;
}

static struct move refuse(struct dialogue *d, struct session_step step, uint64_t serial, const char *text)
{
	const struct log_fields about = {
	        .known = LOG_HAS_PROCESS, .pid = d->caller.peer.pid, .uid = d->caller.peer.uid};
	struct answer answer;

	log_event(LEVEL_WARN, LOG_PROTOCOL, about, "pid %d (uid %u) sent %s while %s; its connection ends",
	        d->caller.peer.pid, d->caller.peer.uid, text, session_state_name(d->state));
	struct move move = enter(d, step);

	heaps_refuse(d->heaps, serial, WIRE_E_PROTOCOL, text, &answer);
	move.bytes = answer.bytes;
	move.len = answer.len;
	return move;
}

struct move dialogue_packet(struct dialogue *d, const unsigned char *bytes, size_t len)
{
	static struct wire_msg msg; /* one packet at a time, in the whole daemon */
	bool good = bytes && !shmi_codec_decode(&msg, &d->heaps->scratch, bytes, len);
	enum session_event event = good ? event_of(&msg) : EVENT_GARBAGE;
	struct session_step step = session_fsm(d->state, event);

	if (step.actions & ACTION_RUN) {
		d->state = (enum session_state)step.next;
		d->refilling = msg.kind == WIRE_REFILL;
		return run_request(d, &msg);
	}
	if (step.actions & ACTION_REFUSE)
		return refuse(d, step, good ? msg.serial : 0,
		        event == EVENT_GARBAGE ? "what is not a request" : "a request out of order");
	return enter(d, step);
}
