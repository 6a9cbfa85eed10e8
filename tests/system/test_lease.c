/* Scoped blocks of a process live as long as any process forked from it has the heap, whatever descriptors those close and whether
 * or not the daemon is killed meanwhile; and no longer. */
#include "tests/system/system.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "client/shmalloc.h"
#include "tests/system/family.h"

#define BLOCKS 1500

static struct test_daemon d;

static void start(void)
{
	system_start(&d, NULL);
}

static void end(void)
{
	system_expect_empty(&d);
	system_end(&d);
}

static void kill_and_restart(void)
{
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
}

/* ---- blocks ---- */

struct blocks {
	unsigned char *at[BLOCKS];
	int mark;
};

static size_t size_of(size_t i)
{
	return i % 300 == 5 ? 300000 + i : 16 + i * 41 % 4000;
}

static void fill(struct blocks *b, int mark)
{
	b->mark = mark;
	for (size_t i = 0; i < BLOCKS; i++) {
		b->at[i] = shma_heap_alloc(shma_default(), size_of(i), 0, SHMA_SCOPED);
		child_check(b->at[i]);
		memset(b->at[i], (int)((i + (size_t)mark * 17) & 0xff), size_of(i));
	}
}

static void expect_filled(const struct blocks *b)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < size_of(i); at += 1 + at / 8)
			child_check(b->at[i][at] == ((i + (size_t)b->mark * 17) & 0xff));
}

/* Takes whatever memory is to be had and writes all over it: what was given back by mistake does not survive. */
static int scribble(void *arg)
{
	static struct blocks b;

	(void)arg;
	for (int round = 0; round < 5; round++) {
		fill(&b, 100);
		for (size_t i = 0; i < BLOCKS; i++)
			memset(b.at[i], 0xee, size_of(i));
		for (size_t i = 0; i < BLOCKS; i++)
			shma_free(b.at[i]);
	}
	return 0;
}

/* ---- ways to become a child ---- */

static pid_t by_fork(void)
{
	return fork();
}

/* No handler of a library runs. */
static pid_t by_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static pid_t by_bare_fork(void)
{
	return _Fork();
}

/* ---- a program that becomes a daemon ---- */

struct way {
	pid_t (*fork)(void);
	bool uses; /* the generations in between and the last one attach as well */
	bool closes; /* all descriptors but those it talks through */
	int generations;
};

static struct blocks made[4]; /* by each generation */

/* Each generation forks the next one and ends; the last one stays, and looks at all that was made. */
static void descend(struct family *f, const struct way *way, int generation)
{
	for (;; generation++) {
		if (generation == 0 || way->uses)
			fill(&made[generation], generation);
		if (generation == way->generations)
			break;
		pid_t pid = way->fork();

		child_check(pid >= 0);
		if (pid != 0)
			_exit(0);
	}
	if (way->closes)
		family_close_all(f);
	family_say(f);
	while (family_hears(f)) {
		for (int g = 0; g <= generation; g++)
			if (g == 0 || way->uses)
				expect_filled(&made[g]);
		family_say(f);
	}
	_exit(0);
}

static int first_generation(void *arg)
{
	struct family *f = arg;

	descend(f, f->arg, 0);
	return 0;
}

/* Each generation but the last one is dead; the daemon is killed at every stage. */
static void outlive(const struct way *way)
{
	struct family f;

	family_init(&f, way);
	cr_assert_eq(child_run(first_generation, &f), 0);
	family_await(&f);
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	cr_expect_eq(test_ctl_check(&d), 0);
	kill_and_restart();
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	kill_and_restart();
	kill_and_restart();
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_expect_gt(test_ctl_stat(&d, "live_bytes"), 0);
	family_end(&f);
}

Test(lease, a_child_of_a_dead_process, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_fork, .generations = 1});
}

Test(lease, a_child_that_attaches, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_fork, .generations = 1, .uses = true});
}

Test(lease, a_child_that_closes_all_descriptors, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_fork, .generations = 1, .uses = true, .closes = true});
}

Test(lease, forked_twice, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_fork, .generations = 2, .closes = true});
}

Test(lease, generations_of_which_each_makes_blocks, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_fork, .generations = 3, .uses = true, .closes = true});
}

Test(lease, a_bare_clone, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_clone, .generations = 2, .closes = true});
}

Test(lease, a_bare_fork, .init = start, .fini = end)
{
	outlive(&(struct way){.fork = by_bare_fork, .generations = 2, .uses = true});
}

/* ---- the parent dies while no daemon runs ---- */

static int parent_and_child(void *arg)
{
	struct family *f = arg;

	fill(&made[0], 0);
	pid_t pid = fork();

	child_check(pid >= 0);
	if (pid == 0)
		descend(f, f->arg, 1);
	for (;;)
		pause();
}

Test(lease, a_parent_that_dies_while_the_daemon_is_away, .init = start, .fini = end)
{
	static const struct way way = {.fork = by_fork, .generations = 1, .closes = true};
	struct family f;

	family_init(&f, &way);
	pid_t parent = child_start(parent_and_child, &f);

	family_await(&f);
	test_daemon_kill(&d);
	kill(parent, SIGKILL);
	cr_expect_eq(child_join(parent), 128 + SIGKILL);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	cr_expect_eq(test_ctl_check(&d), 0);
	family_end(&f);
}

/* The child ends while no daemon runs, too: nothing is kept. */
Test(lease, all_die_while_the_daemon_is_away, .init = start, .fini = end)
{
	static const struct way way = {.fork = by_fork, .generations = 1};
	struct family f;

	family_init(&f, &way);
	pid_t parent = child_start(parent_and_child, &f);

	family_await(&f);
	test_daemon_kill(&d);
	kill(parent, SIGKILL);
	cr_expect_eq(child_join(parent), 128 + SIGKILL);
	family_end(&f);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
}

/* ---- detach ---- */

/* The parent leaves the heap and lives on; the child stays. */
static int parent_that_leaves(void *arg)
{
	struct family *f = arg;

	fill(&made[0], 0);
	pid_t pid = fork();

	child_check(pid >= 0);
	if (pid == 0)
		descend(f, f->arg, 1);
	child_check(shma_detach(shma_default()) == 0);
	family_say(f);
	family_forget(f);
	for (;;)
		pause();
}

static void leave(bool restarts)
{
	static const struct way way = {.fork = by_fork, .generations = 1};
	struct family f;
	int64_t last;

	family_init(&f, &way);
	pid_t parent = child_start(parent_that_leaves, &f);

	family_await(&f);
	family_await(&f); /* both of them */
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	if (restarts)
		kill_and_restart();
	cr_expect_eq(child_run(scribble, NULL), 0);
	family_ask(&f);
	cr_expect_gt(test_ctl_stat(&d, "live_bytes"), 0);
	family_end(&f);
	cr_expect_eq(test_ctl_settle(&d, "live_bytes", 0, 0, &last), 0, "though the parent lives");
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	kill(parent, SIGKILL);
	cr_expect_eq(child_join(parent), 128 + SIGKILL);
}

Test(lease, a_parent_that_detaches, .init = start, .fini = end)
{
	leave(false);
}

Test(lease, a_parent_that_has_detached_and_the_next_daemon, .init = start, .fini = end)
{
	leave(true);
}

static int detach_at_once(void *arg)
{
	struct shma_stats stats = {.size = sizeof(stats)};
	struct shma_options options = {.size = sizeof(options), .label = "again"};

	(void)arg;
	fill(&made[0], 0);
	child_check(shma_detach(shma_default()) == 0);
	shma_heap *heap = shma_attach(&options);

	child_check(heap && shma_stats_get(heap, &stats) == 0);
	child_check(stats.owned + stats.central == 0);
	child_check(shma_detach(heap) == 0);
	return 0;
}

/* Without children all is back when the call returns. */
Test(lease, detach_is_at_once, .init = start, .fini = end)
{
	cr_expect_eq(child_run(detach_at_once, NULL), 0);
}
