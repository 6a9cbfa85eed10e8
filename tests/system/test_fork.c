/* A forked child shares the blocks, attaches as a client of its own, and keeps the parent's scoped blocks alive. */
#include "tests/system/system.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "client/shmalloc.h"

#define BLOCKS 2000

static uint32_t own_id(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	child_check(shma_stats_get(shma_default(), &stats) == 0);
	return stats.client;
}

static size_t size_of(size_t i)
{
	return 16 + i * 37 % 5000;
}

static void fill(unsigned char **block, unsigned flags)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		block[i] = shma_heap_alloc(shma_default(), size_of(i), 0, flags);
		child_check(block[i]);
		memset(block[i], (int)(i & 0xff), size_of(i));
	}
}

static void expect_filled(unsigned char *const *block)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < size_of(i); at++)
			child_check(block[i][at] == (i & 0xff));
}

static void free_all(unsigned char *const *block)
{
	for (size_t i = 0; i < BLOCKS; i++)
		shma_free(block[i]);
}

/* Takes whatever memory is to be had and writes all over it: what was given back by mistake does not survive. */
static int scribble(void *arg)
{
	unsigned char *block[BLOCKS];

	(void)arg;
	for (int round = 0; round < 5; round++) {
		for (size_t i = 0; i < BLOCKS; i++) {
			block[i] = shma_malloc(size_of(i));
			child_check(block[i]);
			memset(block[i], 0xee, size_of(i));
		}
		free_all(block);
	}
	return 0;
}

static int join(pid_t pid)
{
	int status = -1;

	child_check(waitpid(pid, &status, 0) == pid);
	return status;
}

static int child_frees_what_parent_made(void *arg)
{
	unsigned char *block[BLOCKS], *childs[BLOCKS];
	unsigned char **shared = shma_malloc(sizeof(*shared) * BLOCKS);
	uint32_t parent = own_id();

	(void)arg;
	child_check(shared);
	fill(block, 0);
	pid_t pid = fork();

	if (pid == 0) {
		expect_filled(block);
		fill(childs, 0);
		child_check(own_id() != parent);
		free_all(block);
		memcpy(shared, childs, sizeof(childs));
		_exit(0);
	}
	child_check(join(pid) == 0);
	expect_filled(shared); /* they outlive their maker */
	free_all(shared);
	shma_free(shared);
	child_check(own_id() == parent);
	return 0;
}

Test(fork, child_and_parent_free_each_others_blocks)
{
	struct test_daemon d;

	system_start(&d, NULL);
	cr_expect_eq(child_run(child_frees_what_parent_made, NULL), 0);
	system_expect_empty(&d);
	system_end(&d);
}

struct daemonized {
	int parent_gone[2], done[2]; /* pipes: a byte each */
};

/* Forks and ends, as a program does that becomes a daemon; the child goes on with the parent's scoped blocks. */
static int daemonize(void *arg)
{
	struct daemonized *pipes = arg;
	unsigned char *block[BLOCKS], *childs[BLOCKS];
	char byte;

	fill(block, SHMA_SCOPED);
	if (fork() != 0)
		_exit(0);
	fill(childs, SHMA_SCOPED);
	child_check(read(pipes->parent_gone[0], &byte, 1) == 1);
	expect_filled(block);
	expect_filled(childs);
	free_all(childs);
	child_check(write(pipes->done[1], "x", 1) == 1);
	child_check(read(pipes->parent_gone[0], &byte, 1) == 1);
	_exit(0); /* without freeing the parent's blocks: they go with the last user */
}

Test(fork, scoped_blocks_live_as_long_as_a_forked_child)
{
	struct test_daemon d;
	struct daemonized pipes;
	int64_t last;
	char byte = 0;

	system_start(&d, NULL);
	cr_assert_eq(pipe(pipes.parent_gone), 0);
	cr_assert_eq(pipe(pipes.done), 0);
	cr_expect_eq(child_run(daemonize, &pipes), 0);
	cr_expect_eq(child_run(scribble, NULL), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_assert_eq(write(pipes.parent_gone[1], "x", 1), 1);
	close(pipes.done[1]); /* a child that fails is seen as an end of file */
	cr_assert_eq(read(pipes.done[0], &byte, 1), 1, "the child did not find its blocks as they were");
	cr_expect_gt(test_ctl_stat(&d, "live_bytes"), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_assert_eq(write(pipes.parent_gone[1], "x", 1), 1);
	cr_expect_eq(test_ctl_settle(&d, "live_bytes", 0, 0, &last), 0);
	system_expect_empty(&d);
	system_end(&d);
}

static void *allocate_on(void *stop)
{
	while (!__atomic_load_n((int *)stop, __ATOMIC_RELAXED)) {
		void *block = shma_malloc(300);

		child_check(block);
		shma_free(block);
	}
	return NULL;
}

/* fork while other threads are inside the allocator: the child must not wait for locks that they held. */
static int fork_among_threads(void *arg)
{
	pthread_t thread[3];
	int stop = 0;

	(void)arg;
	for (int i = 0; i < 3; i++)
		child_check(pthread_create(&thread[i], NULL, allocate_on, &stop) == 0);
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			unsigned char *block[BLOCKS];

			fill(block, 0);
			expect_filled(block);
			free_all(block);
			_exit(0);
		}
		child_check(join(pid) == 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	return 0;
}

Test(fork, among_running_threads)
{
	struct test_daemon d;

	system_start(&d, NULL);
	cr_expect_eq(child_run(fork_among_threads, NULL), 0);
	system_expect_empty(&d);
	system_end(&d);
}
