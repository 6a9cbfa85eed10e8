/* The client is killed at every instruction of every operation.
 *
 * A table of variants (victim.c) says what the victim prepares and which operation it runs then. The operation is stepped: the
 * code of libshmalloc.a as it is shipped, in a child, one instruction at a time (tests/lib/stepper.h). At each boundary at which
 * meta, ctl or the daemon's state differ from all states met before in this variant, the victim dies, in trials that are undone
 * afterwards (stepping/world.h). Each time the oracle (stepping/oracle.h) and the heap check say what is wrong:
 *
 *	alive          the heap check alone
 *	dead           the daemon's core hears of the death and reclaims
 *	orphaned       the daemon dies as well; the next one adopts the heap, finds out who lives, and reclaims
 *
 * and where others hold spans of the class, once more with
 *
 *	taken again    every slot that they can take taken by them: what was put before the death may have been given out again
 *	snatched       the same, and each slot that the reclaim puts taken at once (stepping/greedy.h)
 *	handed over    the holder dead before the victim, and its spans given to somebody else, who takes all of them
 *
 * The states between two steps of the daemon's jobs, and those with a request sent and not yet read, are states like others.
 *
 * Prints a table: what was tried, in how many boundaries and distinct states, and how many violations. SHMALLOC_SOAK=1 runs each
 * variant with other numbers of blocks and classes, and lets the others take random slots.
 *
 *	stepping --filter 'GROUP/NAME'    only these; a pattern as of the shell's
 */
#include <fnmatch.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shm/threadrec.h"
#include "tests/lib/random.h"
#include "tests/lib/stepper.h"
#include "tests/stress/stepping/greedy.h"
#include "tests/stress/stepping/scene.h"

#define ENTRIES 192u /* of a magazine that are watched */
#define WORKERS 8
#define ROUNDS 40u /* of all variants, with SHMALLOC_SOAK */
#define SHOWN 8u /* violations that are printed, per variant */

struct tally {
	uint32_t variants, failed;
	uint64_t boundaries, states, deaths, snatched, violations;
	uint32_t most_written_off, most_turns, most_lost;
};

struct run {
	struct world *w;
	const struct variant *v;
	struct oracle *o;
	struct stepper stepper;
	struct stepper_watch watch;
	struct stepper_seen seen;
	struct takes takes;
	uint64_t version; /* that `watch` was made for */
	bool grabbed;
	bool orphaned; /* the daemon dies as well */
	bool greedy; /* holders take at once what the reclaim puts */
	struct tally tally;
};

static struct test_random random_state;
static bool soak;
static uint32_t rounds = 1;

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
	if (r->v->about & V_FOREIGN && soak)
		die_after_takes(r, test_random_next(&random_state));
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

static struct tally run_variant(const struct variant *v)
{
	static struct oracle oracle;
	struct run r = {.w = world_new(), .v = v, .o = &oracle, .tally = {.variants = 1}};

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

/* ---- the table ---- */

static void add(struct tally *sum, const struct tally *t)
{
	sum->variants += t->variants;
	sum->failed += t->failed;
	sum->boundaries += t->boundaries;
	sum->states += t->states;
	sum->deaths += t->deaths;
	sum->snatched += t->snatched;
	sum->violations += t->violations;
	if (t->most_written_off > sum->most_written_off)
		sum->most_written_off = t->most_written_off;
	if (t->most_turns > sum->most_turns)
		sum->most_turns = t->most_turns;
	if (t->most_lost > sum->most_lost)
		sum->most_lost = t->most_lost;
}

static void print(const char *name, const struct tally *t)
{
	printf("%-40.40s %8u %11llu %8llu %8llu %5u %8u %6u %10llu\n", name, t->variants,
	        (unsigned long long)t->boundaries, (unsigned long long)t->states, (unsigned long long)t->deaths,
	        t->most_lost, t->most_written_off, t->most_turns, (unsigned long long)t->violations);
	(void)fflush(stdout);
}

static double now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Another variant of the same kind: other sizes, other numbers. Large blocks, and what is marked, keep their sizes. */
static struct variant vary(const struct variant *v)
{
	struct shmi_class classes[SHMI_CLASSES];
	struct variant other = *v;

	if (v->about & V_FIXED || strncmp(v->group, "large", 5) == 0)
		return other;
	shmi_class_table(classes);
	if (v->n)
		other.n = 1 + test_random_below(&random_state, 8);
	other.size = classes[1 + test_random_length(&random_state, SHMI_CLASSES - 2) % (SHMI_CLASSES - 2)].size;
	other.flags ^= test_random_below(&random_state, 2) ? SHMI_NOSCAN : 0;
	if (strcmp(v->group, "realloc") == 0) {
		other.size = other.size < 4096 ? other.size : 4096;
		other.to = other.size > 64 && test_random_below(&random_state, 2) ? other.size / 3 : other.size * 2;
	}
	return other;
}

/* ---- workers: one per processor, each of which takes the next variant ---- */

struct shared {
	_Atomic uint32_t next;
	struct tally tally[]; /* round by round */
};

static bool is_wanted(const struct variant *v, const char *filter)
{
	char name[128];

	(void)snprintf(name, sizeof(name), "%s/%s", v->group, v->name);
	return !filter || fnmatch(filter, name, 0) == 0;
}

static void work(struct shared *shared, int cpu, const char *filter)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	uint64_t seed = random_state.state;

	for (uint32_t i; (i = atomic_fetch_add(&shared->next, 1)) < n_variants * rounds;) {
		const struct variant *v = &variants[i % n_variants];

		if (!is_wanted(v, filter))
			continue;
		random_state.state = seed + i * 0x9e3779b97f4a7c15ull;
		struct variant other = i < n_variants ? *v : vary(v);

		shared->tally[i] = run_variant(&other);
		if (i % n_variants == 0 && i)
			fprintf(stderr, "round %u of %u\n", i / n_variants, rounds);
	}
}

/* True if all workers came to their end. */
static bool work_all(struct shared *shared, const char *filter)
{
	cpu_set_t cpus;
	bool good = true;
	int status;

	CPU_ZERO(&cpus);
	(void)sched_getaffinity(0, sizeof(cpus), &cpus);
	for (int cpu = 0, workers = 0; cpu < CPU_SETSIZE && workers < WORKERS; cpu++) {
		if (!CPU_ISSET((size_t)cpu, &cpus))
			continue;
		workers++;
		if (fork() != 0)
			continue;
		work(shared, cpu, filter);
		_exit(0);
	}
	while (wait(&status) > 0)
		good &= status == 0;
	return good;
}

static void print_group(const struct shared *shared, uint32_t first, uint32_t end, bool each, struct tally *group)
{
	for (uint32_t i = first; i < end; i++) {
		struct tally t = {0};

		for (uint32_t k = 0; k < rounds; k++)
			add(&t, &shared->tally[k * n_variants + i]);
		if (each && t.variants)
			print(variants[i].name, &t);
		add(group, &t);
	}
	if (group->variants)
		print(variants[first].group, group);
}

/* Returns how many groups there were, and in *good how many without a violation. */
static uint32_t print_table(const struct shared *shared, bool each, struct tally *total, uint32_t *good)
{
	uint32_t groups = 0;

	printf("%-40s %8s %11s %8s %8s %5s %8s %6s %10s\n", "operation", "variants", "boundaries", "states", "deaths",
	        "lost", "written", "turns", "violations");
	for (uint32_t first = 0, end; first < n_variants; first = end) {
		struct tally group = {0};

		for (end = first + 1; end < n_variants && strcmp(variants[first].group, variants[end].group) == 0;)
			end++;
		print_group(shared, first, end, each, &group);
		add(total, &group);
		groups += group.variants != 0;
		*good += group.variants && !group.violations;
	}
	print("all", total);
	return groups;
}

int main(int argc, char **argv)
{
	const char *filter = argc == 3 && strcmp(argv[1], "--filter") == 0 ? argv[2] : NULL;
	struct tally total = {0};
	uint32_t good = 0;
	double start = now();

	if (stepper_why_not()) {
		fprintf(stderr, "skipped: %s\n", stepper_why_not());
		return 77;
	}
	soak = getenv("SHMALLOC_SOAK") != NULL;
	rounds = soak ? ROUNDS : 1;
	size_t bytes = sizeof(struct shared) + (size_t)n_variants * rounds * sizeof(struct tally);
	struct shared *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared == MAP_FAILED)
		world_die("no memory");
	random_state = test_random_init("stepping");
	(void)fflush(NULL);
	bool ended = work_all(shared, filter);
	uint32_t groups = print_table(shared, filter != NULL, &total, &good);

	printf("client stepping: variants %u, boundaries %llu, distinct states %llu, deaths %llu, slots snatched %llu, "
	       "violations %llu, "
	       "%.0f s\n",
	        total.variants, (unsigned long long)total.boundaries, (unsigned long long)total.states,
	        (unsigned long long)total.deaths, (unsigned long long)total.snatched,
	        (unsigned long long)total.violations, now() - start);
	printf("Synthesis: Tested: %u | Passing: %u\n", groups, good);
	return total.violations || !ended || !groups;
}
