/* The table among the examples, with workers and their parent killed: all results are there, right and once, and nothing else is left
 * but a block for each that was killed. */
#include "tests/system/killing.h"

#include "client/shmalloc.h"

#define KILLS 30
#define WORKERS 4u
#define NUMBERS 12000u
#define FIRST_NUMBER 4000000000ull
#define LARGEST_PRIME 63247u /* above the square root of the last number */
#define OWN_BLOCKS 17 /* the table, and cells for each shard */

static const char *const run[] = {"examples/table", "run", "12000", "4", NULL};

struct pool {
	struct killing killing;
	pid_t parent; /* 0: it has ended */
	pid_t worker[WORKERS];
	uint32_t workers;
};

/* A line of the parent's: a new worker, or that it is done. */
static void hear(struct pool *p)
{
	const char *line = killing_line(&p->killing);
	int pid;

	cr_assert_not_null(line);
	if (sscanf(line, "worker %d", &pid) == 1) {
		cr_assert_lt(p->workers, WORKERS);
		p->worker[p->workers++] = pid;
		return;
	}
	cr_expect_not_null(strstr(line, " 0 wrong,"), "%s", line);
	cr_expect_eq(child_join(p->parent), 0);
	p->parent = 0;
}

/* Its workers go with it. What it has said until then names processes that are no more. */
static void kill_parent(struct pool *p)
{
	if (killing_kill(&p->killing, p->parent))
		p->killing.kills += WORKERS;
	p->parent = 0;
	while (killing_line_is_there(&p->killing))
		killing_line(&p->killing);
}

/* One of these processes, which is not ours to wait for: the parent does, and says who comes in its place. */
static void kill_worker(struct pool *p)
{
	uint32_t victim = test_random_below(&p->killing.random, p->workers);

	if (kill(p->worker[victim], SIGKILL) == 0)
		p->killing.kills++;
	p->worker[victim] = p->worker[--p->workers];
	hear(p);
}

/* Prime factors of all numbers, by dividing each prime out of its multiples. */
static uint64_t count_factors(void)
{
	uint64_t *rest = calloc(NUMBERS, sizeof(*rest)), factors = 0;
	unsigned char *composite = calloc(LARGEST_PRIME + 1, 1);

	cr_assert(rest && composite);
	for (uint64_t i = 0; i < NUMBERS; i++)
		rest[i] = FIRST_NUMBER + i;
	for (uint64_t p = 2; p <= LARGEST_PRIME; p++) {
		for (uint64_t m = p * p; m <= LARGEST_PRIME; m += p)
			composite[m] = 1;
		for (uint64_t i = (p - FIRST_NUMBER % p) % p; !composite[p] && i < NUMBERS; i += p)
			for (; rest[i] % p == 0; rest[i] /= p)
				factors++;
	}
	for (uint64_t i = 0; i < NUMBERS; i++)
		factors += rest[i] > 1;
	free(rest);
	free(composite);
	return factors;
}

static void expect_all(const struct test_daemon *d, const struct killing *k)
{
	static const char *const drop[] = {"examples/table", "drop", NULL};
	char expected[128], *said = NULL;

	cr_assert_eq(program_run(run, &said), 0);
	snprintf(expected, sizeof(expected),
	        "run: %u numbers, %llu prime factors, 0 wrong, 0 workers killed, 0 numbers left undone;", NUMBERS,
	        (unsigned long long)count_factors());
	cr_expect_not_null(strstr(said, expected), "not \"%s\": %s", expected, said);
	free(said);
	int64_t live = killing_expect_blocks(k, d, NUMBERS + OWN_BLOCKS);

	cr_expect_eq(program_run(drop, &said), 0);
	snprintf(expected, sizeof(expected), "drop: %u results\n", NUMBERS);
	cr_expect_str_eq(said, expected);
	free(said);
	cr_expect_eq(killing_expect_blocks(k, d, 0), live - NUMBERS - OWN_BLOCKS);
}

Test(examples_table, workers_that_are_killed)
{
	struct pool p = {.parent = 0};
	struct test_daemon d;

	system_start(&d, NULL);
	killing_init(&p.killing, "table");
	while (p.killing.kills < KILLS) {
		if (!p.parent) {
			p.workers = 0;
			p.parent = killing_start(&p.killing, run);
		}
		while (p.parent && p.workers < WORKERS)
			hear(&p);
		killing_linger(&p.killing, 10000);
		if (p.parent && test_random_one_in(&p.killing.random, 10))
			kill_parent(&p);
		else if (p.parent)
			kill_worker(&p);
	}
	while (p.parent)
		hear(&p);
	expect_all(&d, &p.killing);
	killing_end(&p.killing);
	system_end(&d);
}

/* The root may be anything: it is looked at before it is used. */
static int leave_another(void *arg)
{
	void *block = shma_malloc(100);

	(void)arg;
	child_check(block && shma_root_set(shma_default(), "table", block) == 0);
	return 0;
}

Test(examples_table, a_root_of_another_program_is_refused)
{
	struct test_daemon d;

	system_start(&d, NULL);
	cr_assert_eq(child_run(leave_another, NULL), 0);
	cr_expect_eq(program_run(run, NULL), 1);
	cr_expect_eq(test_ctl_stat(&d, "live_blocks"), 1);
	system_end(&d);
}
