#include "tests/stress/stepping/steps.h"

#include <stdio.h>

#include "shm/threadrec.h"
#include "tests/lib/stepper.h"
#include "tests/stress/stepping/greedy.h"
#include "tests/stress/stepping/scene.h"

#define ENTRIES 192u /* of a magazine that are watched */
#define SHOWN 8u /* violations that are printed, per variant */

struct run {
	struct world *w;
	const struct variant *v;
	struct oracle *o;
	struct stepper stepper;
	struct stepper_watch watch;
	struct stepper_seen seen;
	struct takes takes;
	struct test_random *random;
	uint64_t version; /* that `watch` was made for */
	bool grabbed;
	bool orphaned; /* the daemon dies as well */
	bool greedy; /* holders take at once what the reclaim puts */
	struct tally tally;
};

/* ---- which states are new ---- */

static void watch_record(struct run *r, uint32_t thread)
{
	const struct shmi_image *img = &r->w->heap.img;
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);
	uint8_t parts = shmi_thread_slot_at(img, thread)->parts;

	stepper_watch_add(&r->watch, rec, sizeof(*rec));
	for (uint32_t c = SHMI_ATTRS; c < SHMI_CLASS_LARGE * SHMI_ATTRS; c++) {
		const struct shmi_magazine *mag = shmi_magazine_at(img, rec, (shmi_sclass){(uint16_t)c});
		uint32_t cap = img->classes[c / SHMI_ATTRS].mag_cap;

		if (parts >> c % SHMI_ATTRS & 1)
			stepper_watch_add(&r->watch, mag, sizeof(*mag) + (cap < ENTRIES ? cap : ENTRIES) * 8);
	}
}

/* What the victim can change: its records, and the bitmaps of all spans. meta changes only when the daemon serves. */
static void watch_again(struct run *r)
{
	const struct shmi_image *img = &r->w->heap.img;
	struct shmi_walk walk = shmi_walk_start(img);
	uint32_t victim = world_victim(r->w);

	stepper_watch_free(&r->watch);
	r->version = r->w->version;
	for (uint32_t t = 0; t < SHMI_MAX_THREADS && victim != SHMI_NOBODY; t++)
		if (shmi_thread_slot_at(img, t)->client == victim)
			watch_record(r, t);
	while (shmi_walk_next(img, &walk))
		if (walk.word.state == SHMI_SPAN_OWNED || walk.word.state == SHMI_SPAN_CENTRAL)
			stepper_watch_add(&r->watch, shmi_bitmap_at(img, walk.page),
			        img->classes[shmi_sclass_size_class(walk.word.sclass)].words * sizeof(uint64_t));
}

/* ---- deaths ---- */

static void on_moved(void *ctx);

static void violation(struct run *r, const char *when, const char *what)
{
	if (r->tally.violations++ < SHOWN)
		fprintf(stderr, "%s, %s (%u B, flags %u, %u, %u): boundary %llu (%#llx), %s: %s\n", r->v->group,
		        r->v->name, r->v->size, r->v->flags, r->v->n, r->v->to,
		        (unsigned long long)r->stepper.boundaries, (unsigned long long)r->stepper.pc, when, what);
}

static void die_once(struct run *r, const char *when)
{
	if (r->greedy)
		greedy_start(r->o);
	uint32_t turns = r->orphaned ? world_succeed(r->w) : world_reap(r->w);
	uint64_t twice = 0;

	if (r->greedy)
		r->tally.snatched += greedy_stop(&twice);
	const char *text = turns > WORLD_TURNS ? "the reclaim does not end"
	                   : twice             ? "a slot was put again that its holder had taken"
	                                       : oracle_verify(r->o);

	r->tally.deaths++;
	if (turns > r->tally.most_turns)
		r->tally.most_turns = turns;
	if (text)
		violation(r, when, text);
	world_restore(r->w);
}

static void die_after_takes(struct run *r, uint64_t some)
{
	uint64_t old = r->o->old;

	scene_take(r->w, r->o, &r->takes, some);
	oracle_before(r->o);
	if (r->takes.count)
		die_once(r, "with slots taken again");
	else
		world_restore(r->w);
	scene_forget(r->o, &r->takes);
	r->o->old = old;
}

static void die_with_the_daemon(struct run *r)
{
	static struct oracle after;
	struct oracle *before = r->o;

	after = *before;

	r->o = &after;
	r->orphaned = true;
	oracle_before(&after);
	die_once(r, "the daemon dead as well");
	r->orphaned = false;
	r->o = before;
}

static void die_among_the_greedy(struct run *r)
{
	static struct oracle after;
	struct oracle *before = r->o;

	after = *before;
	r->o = &after;
	r->greedy = true;
	scene_take(r->w, &after, &r->takes, ~0ull);
	oracle_before(&after);
	die_once(r, "with slots taken as soon as they are put");
	r->greedy = false;
	r->o = before;
}

static void die_after_hand_over(struct run *r)
{
	static struct oracle after;
	struct oracle *before = r->o;

	after = *before;
	r->o = &after;
	r->w->moved = NULL;
	scene_hand_over(r->w, r->v, &after);
	r->w->moved = on_moved;
	oracle_before(&after);
	die_once(r, "with its neighbour's spans handed over");
	r->o = before;
}

/* The victim is dead: what of it? `stirred`: the daemon has done something, or has something to read. */
static void die_here(struct run *r, bool stirred)
{
	if (r->version != r->w->version || !r->watch.count)
		watch_again(r);
	if (!stepper_watch_look(&r->watch) && !stirred)
		return;
	uint64_t digest = r->watch.digest + r->w->version * 0x9e3779b97f4a7c15ull;

	if (!stepper_seen_new(&r->seen, digest * 2 + world_request_waits(r->w)))
		return;
	r->tally.states++;
	world_save(r->w);
	oracle_before(r->o);
	const char *text = oracle_check(r->o);

	if (text)
		violation(r, "alive", text);
	die_once(r, "dead");
	die_with_the_daemon(r);
	if (r->v->about & V_FOREIGN)
		die_after_takes(r, ~0ull);
	if (r->v->about & V_FOREIGN)
		die_among_the_greedy(r);
	if (r->v->about & V_FOREIGN)
		die_after_hand_over(r);
	if (r->v->about & V_FOREIGN && r->random)
		die_after_takes(r, test_random_next(r->random));
}

static void on_moved(void *ctx)
{
	die_here(ctx, true);
}

static void on_served(void *ctx)
{
	struct run *r = ctx;

	die_here(r, true);
	if (!(r->v->about & V_GRAB) || r->grabbed)
		return;
	r->grabbed = true;
	r->w->moved = NULL;
	scene_grab(r->w, r->v, r->o);
	r->w->moved = on_moved;
	r->w->version++;
	die_here(r, true);
}

/* ---- variants ---- */

struct arg {
	struct note *note;
	const struct variant *v;
};

static void child(void *arg)
{
	const struct arg *a = arg;

	victim_main(a->note, a->v);
}

/* To the first marker. False if the variant could not be prepared. */
static bool prepare(struct run *r)
{
	struct arg arg = {r->w->note, r->v};

	r->stepper = (struct stepper){.at_syscall = world_serve, .ctx = r->w};
	if (stepper_start(&r->stepper, child, &arg) != 0)
		world_die("a child cannot be traced");
	r->w->pid = r->stepper.pid;
	for (;;) {
		enum stepper_stop stop = stepper_run(&r->stepper);

		if (stop == STEPPER_MARK && r->stepper.mark == MARK_BEGIN)
			return true;
		if (stop != STEPPER_MARK || r->stepper.mark == MARK_FAILED)
			return false;
		scene_free_own(r->w);
	}
}

static void step_all(struct run *r)
{
	enum stepper_stop stop;

	oracle_begin(r->o, r->w, r->v->about & V_ALLOCATES);
	r->w->ctx = r;
	r->w->moved = on_moved;
	r->w->served = on_served;
	do {
		die_here(r, false);
		stop = stepper_step(&r->stepper);
	} while (stop == STEPPER_BOUNDARY);
	const char *text = oracle_end(r->o, r->w->note->result);

	bool good = r->v->about & V_ENDS ? stop == STEPPER_ENDED && r->stepper.status == 0
	                                 : stop == STEPPER_MARK && r->stepper.mark == MARK_END;

	if (!good)
		violation(r, "operation", r->w->note->failure[0] ? r->w->note->failure : "it did not end");
	else if (text)
		violation(r, "end", text);
	r->tally.boundaries = r->stepper.boundaries;
	r->tally.most_written_off = r->o->most_written_off;
	r->tally.most_lost = r->o->lost != 0;
}

struct tally steps_run(const struct variant *v, struct test_random *random)
{
	static struct oracle oracle;
	struct run r = {.w = world_new(), .v = v, .o = &oracle, .random = random, .tally = {.variants = 1}};

	scene_make(r.w, v);
	if (prepare(&r))
		step_all(&r);
	else
		violation(&r, "preparation", r.w->note->failure[0] ? r.w->note->failure : "the child has ended");
	r.tally.failed = r.tally.violations != 0;
	stepper_kill(&r.stepper);
	stepper_watch_free(&r.watch);
	stepper_seen_free(&r.seen);
	world_free(r.w);
	return r.tally;
}
