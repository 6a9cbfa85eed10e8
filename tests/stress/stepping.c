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
 * variant many times (ROUNDS=n) with other numbers of blocks and classes, and lets the others take random slots.
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

#include "tests/lib/stepper.h"
#include "tests/stress/stepping/steps.h"

#define WORKERS 8
#define ROUNDS 12u /* of all variants, with SHMALLOC_SOAK */

static struct test_random random_state;
static bool soak;
static uint32_t rounds = 1;

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

		shared->tally[i] = steps_run(&other, soak ? &random_state : NULL);
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
	const char *wanted = getenv("ROUNDS");

	rounds = wanted && atoi(wanted) > 0 ? (uint32_t)atoi(wanted) : soak ? ROUNDS : 1;
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
