#include "tests/interleave/explore.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/interleave/machine.h"

#define TRACE 4000u /* steps of one schedule: more is no end */
#define FRAMES 4000u
#define TRANSITIONS 32u
#define SNAPSHOTS ((size_t)1 << 30) /* of address space */
#define WATCH_FIRST 300u /* steps after each of which the watched memory is compared ... */
#define WATCH_EVERY 20000u /* ... and how often after that */

enum kind { RUN, DRAIN, KILL };

struct transition {
	uint8_t kind, who, choice;
};

struct traced {
	struct transition t;
	uint8_t pending;
	uint64_t at, value;
};

struct frame {
	struct transition t[TRANSITIONS];
	uint32_t n, next, traced;
	size_t snapshot;
	uint64_t key; /* in the table */
	double schedules;
};

static struct explore_result *r;
static struct frame frames[FRAMES];
static struct traced trace[TRACE];
static uint32_t n_frames, n_traced;
static unsigned char *snapshots;
static size_t snapshot_end;

/* ---- what can happen next ---- */

static bool blocked(uint32_t i)
{
	const struct actor *a = &explore_actor[i];

	if (!a->sp)
		return true;
	if (a->pending == AT_RMW)
		return machine_reserved(a->at, i) || (machine_explore->model == EXPLORE_TSO && !machine_can_drain(i));
	return a->pending == AT_FENCE && !machine_can_drain(i);
}

static bool is_local(uint32_t i)
{
	uint8_t p = explore_actor[i].pending;

	return explore_actor[i].sp && !machine_explore->wide && (p == AT_RECORD || p == AT_AFTER);
}

static bool can_kill(uint32_t client)
{
	bool any = false;

	if (!machine_explore->killable(client))
		return false;
	for (uint32_t i = 0; i < machine_explore->actors; i++) {
		if (explore_actor[i].client != client)
			continue;
		any = true;
		if (!machine_can_drain(i))
			return false;
	}
	return any;
}

static void add(struct frame *f, enum kind kind, uint32_t who, uint32_t choice)
{
	machine_must(f->n < TRANSITIONS, "too many choices");
	f->t[f->n++] = (struct transition){(uint8_t)kind, (uint8_t)who, (uint8_t)choice};
}

static void add_runs(struct frame *f, uint32_t i)
{
	uint32_t bits = 1;

	if (blocked(i))
		return;
	if (explore_actor[i].pending == AT_WAIT)
		bits = machine_explore->choices(i);
	for (uint32_t b = 0; bits >> b; b++)
		if (bits >> b & 1)
			add(f, RUN, i, b);
}

/* All that can happen; true if anybody can go on. */
static bool list_transitions(struct frame *f)
{
	f->n = f->next = 0;
	for (uint32_t i = 0; i < machine_explore->actors; i++)
		if (is_local(i)) {
			add(f, RUN, i, 0);
			if (can_kill(explore_actor[i].client))
				add(f, KILL, explore_actor[i].client, 0);
			return true;
		}
	for (uint32_t i = 0; i < machine_explore->actors; i++) {
		add_runs(f, i);
		if (explore_actor[i].buffered && !machine_reserved(explore_actor[i].buffer[0].at, i))
			add(f, DRAIN, i, 0);
	}
	bool alive = f->n != 0;

	for (uint32_t c = 0; c < CLIENTS; c++)
		if (can_kill(c))
			add(f, KILL, c, 0);
	if (alive && can_kill(NO_CLIENT))
		add(f, KILL, NO_CLIENT, 0);
	return alive;
}

static void kill_client(uint32_t client)
{
	for (uint32_t i = 0; i < machine_explore->actors; i++) {
		struct actor *a = &explore_actor[i];

		if (a->client != client)
			continue;
		machine_drain_all(a);
		*a = (struct actor){.client = a->client};
	}
	if (client != NO_CLIENT)
		states_forget(client);
	machine_explore->killed(client);
	if (client == NO_CLIENT) {
		machine_start(DAEMON);
		r->daemon_kills++;
	} else {
		r->kills++;
	}
}

static void perform(struct transition t)
{
	machine_must(n_traced < TRACE, "a schedule has no end");
	const struct actor *a = &explore_actor[t.kind == KILL ? 0 : t.who];

	trace[n_traced++] = (struct traced){.t = t,
	        .pending = a->pending,
	        .at = t.kind == DRAIN ? a->buffer[0].at : a->at,
	        .value = t.kind == DRAIN ? a->buffer[0].value : a->value};
	r->steps++;
	if (t.kind == KILL) {
		kill_client(t.who);
	} else if (t.kind == DRAIN) {
		machine_drain(&explore_actor[t.who]);
	} else {
		explore_actor[t.who].choice = t.choice;
		machine_resume(t.who);
	}
	if (!r->failed)
		machine_explore->step();
	if (!r->failed && (r->steps < WATCH_FIRST || r->steps % WATCH_EVERY == 0))
		states_look();
}

/* Goes on from the present state as long as there is one way; then the state is entered as a frame. True if it is a leaf, or was
 * seen: *schedules says how many schedules go on from it. */
static bool enter(double *schedules)
{
	struct frame *f = &frames[n_frames];

	machine_must(n_frames < FRAMES, "too deep");
	for (;;) {
		if (r->failed)
			return true;
		bool alive = list_transitions(f);

		f->schedules = 0;
		if (!alive) {
			r->ends++;
			f->schedules = 1;
			machine_explore->end();
			if (r->failed)
				return true;
		}
		if (f->n != 1 || !alive)
			break;
		perform(f->t[0]);
	}
	if (states_used * 2 >= states_room)
		states_grow();
	f->key = states_key();
	uint64_t at = states_find(f->key);

	if (states_table[at].key) {
		if (states_table[at].schedules < 0)
			explore_fail("the same state came again: no end");
		*schedules = states_table[at].schedules;
		return true;
	}
	states_used++;
	states_table[at] = (struct states_seen){f->key, f->n ? -1 : f->schedules};
	*schedules = f->schedules;
	if (!f->n)
		return true;
	f->traced = n_traced;
	f->snapshot = snapshot_end;
	snapshot_end += states_save(snapshots + snapshot_end);
	machine_must(snapshot_end < SNAPSHOTS - (1 << 20), "too many snapshots");
	n_frames++;
	if (n_frames > r->depth)
		r->depth = n_frames;
	return false;
}

static void print_step(const struct traced *t)
{
	static const char *const verb[] = {
	        "ends", "starts", "loads", "stores", "changes", "fences", "notes", "has done", "waits"};
	char name[128];

	if (t->t.kind == KILL) {
		fprintf(stderr, "    %s is killed\n", t->t.who == NO_CLIENT ? "the daemon" : "a client:");
		if (t->t.who != NO_CLIENT)
			fprintf(stderr, "        client %u\n", t->t.who);
		return;
	}
	fprintf(stderr, "    %s %u %s %s", t->t.who == DAEMON ? "daemon" : "actor", t->t.who,
	        t->t.kind == DRAIN ? "drains" : verb[t->pending], machine_explore->name(t->at, name, sizeof(name)));
	if (t->t.kind == DRAIN || t->pending == AT_STORE || t->pending == AT_RMW || t->pending == AT_RECORD)
		fprintf(stderr, " 0x%" PRIx64, t->value);
	if (t->pending == AT_WAIT)
		fprintf(stderr, "%" PRIu64 ", choice %u", t->value, t->t.choice);
	fputc('\n', stderr);
}

void explore_fail(const char *format, ...)
{
	va_list args;

	if (!r || !machine_active) {
		va_start(args, format);
		vfprintf(stderr, format, args);
		va_end(args);
		fprintf(stderr, ", in the preparation\n");
		abort();
	}
	if (r->failed)
		return;
	r->failed = true;
	fprintf(stderr, "  FAILED: ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n  after these steps:\n");
	for (uint32_t i = 0; i < n_traced; i++)
		print_step(&trace[i]);
	while (machine_in_actor) /* does not go on */
		machine_to_explorer();
}

static void prepare(void)
{
	if (!snapshots) {
		snapshots = mmap(
		        NULL, SNAPSHOTS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		machine_must(snapshots != MAP_FAILED, "no address space");
	}
	n_frames = n_traced = 0;
	snapshot_end = 0;
	memset(machine_stack, 0, sizeof(machine_stack));
	for (uint32_t i = 0; i < machine_explore->actors; i++)
		machine_start(i);
	states_begin();
}

void explore_run(const struct explore *explore, struct explore_result *result)
{
	double schedules = 0;

	machine_explore = explore;
	r = result;
	*r = (struct explore_result){0};
	prepare();
	machine_active = true;
	if (enter(&schedules))
		r->schedules = schedules;
	while (n_frames && !r->failed) {
		struct frame *f = &frames[n_frames - 1];

		if (f->next == f->n) {
			states_table[states_find(f->key)].schedules = f->schedules;
			snapshot_end = f->snapshot;
			if (--n_frames)
				frames[n_frames - 1].schedules += f->schedules;
			else
				r->schedules = f->schedules;
			continue;
		}
		if (f->next) {
			states_restore(snapshots + f->snapshot);
			n_traced = f->traced;
		}
		perform(f->t[f->next++]);
		if (enter(&schedules))
			f->schedules += schedules;
	}
	r->states = states_used;
	machine_active = false;
}
