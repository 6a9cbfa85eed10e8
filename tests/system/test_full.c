/* Memory that runs out: NULL and ENOMEM, never a signal, and everything usable again after frees. */
#include "tests/system/system.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "client/shmalloc.h"

#define MOST 4000000 /* blocks of 16 bytes in the largest heap used here */
#define MIB (1024 * 1024ull)

static const size_t sizes[] = {64, 5000, 100000, MIB, 3 * MIB};

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* Takes blocks until there are no more, and writes to all of each. Returns how many. */
static size_t take_all(unsigned char **block, size_t size)
{
	size_t n = 0;

	for (errno = 0; n < MOST && (block[n] = shma_malloc(size)) != NULL; n++)
		memset(block[n], (int)(n & 0xff), size);
	child_check(n < MOST && errno == ENOMEM);
	return n;
}

static void free_all(unsigned char **block, size_t n, size_t size)
{
	for (size_t i = 0; i < n; i++) {
		child_check(block[i][0] == (i & 0xff) && block[i][size - 1] == (i & 0xff));
		shma_free(block[i]);
	}
}

/* A block stays as it was when it cannot grow. */
static void expect_refused(unsigned char *block, size_t size)
{
	volatile size_t tera = (size_t)1 << 40; /* so that the compiler does not refuse it first */
	unsigned char first = block[0];

	child_check(shma_realloc(block, tera) == NULL && errno == ENOMEM);
	child_check(shma_malloc(tera) == NULL && errno == ENOMEM);
	child_check(shma_calloc(tera / MIB, MIB) == NULL && errno == ENOMEM);
	child_check(shma_calloc(tera, tera) == NULL && errno == ENOMEM);
	child_check(block[0] == first && block[size - 1] == first);
}

/* For each size: at least `share` percent of `bytes` can be taken, and after frees that much again. */
static void expect_full_and_usable(uint64_t bytes, uint64_t share)
{
	unsigned char **block = calloc(MOST, sizeof(*block));

	child_check(block);
	for (size_t s = 0; s < SIZES; s++) {
		size_t first = take_all(block, sizes[s]);

		child_check(first * sizes[s] >= bytes * share / 100);
		expect_refused(block[0], sizes[s]);
		free_all(block, first, sizes[s]);
		size_t again = take_all(block, sizes[s]);

		child_check(again >= first * 9 / 10);
		free_all(block, again, sizes[s]);
	}
	free(block);
}

static int fill_small_heap(void *arg)
{
	(void)arg;
	expect_full_and_usable(48 * MIB, 70);
	return 0;
}

Test(full, heap)
{
	static const char *const args[] = {"--size=48MiB", NULL};
	struct test_daemon d;

	system_start(&d, args);
	cr_expect_eq(child_run(fill_small_heap, NULL), 0);
	cr_expect_gt(test_ctl_stat(&d, "limit_bytes"), 0);
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- limits ---- */

static int fill_to_limit(void *arg)
{
	(void)arg;
	expect_full_and_usable(16 * MIB, 70);
	return 0;
}

static int holding_to_limit(void *arg)
{
	unsigned char **block = calloc(MOST, sizeof(*block));

	(void)arg;
	child_check(block);
	size_t n = take_all(block, 5000);

	child_check(child_run(fill_to_limit, NULL) == 0); /* another client has a limit of its own */
	free_all(block, n, 5000);
	free(block);
	return 0;
}

Test(full, limit_of_a_client)
{
	static const char *const args[] = {"--size=256MiB", "--client-limit=16MiB", NULL};
	struct test_daemon d;

	system_start(&d, args);
	cr_expect_eq(child_run(holding_to_limit, NULL), 0);
	cr_expect_lt(test_ctl_stat(&d, "peak_backed_bytes"), 64 * (int64_t)MIB);
	system_expect_empty(&d);
	system_end(&d);
}

Test(full, limit_of_a_user)
{
	static const char *const args[] = {"--size=256MiB", "--user-limit=16MiB", NULL};
	struct test_daemon d;

	system_start(&d, args);
	cr_expect_eq(child_run(fill_to_limit, NULL), 0);
	cr_expect_eq(child_run(fill_to_limit, NULL), 0, "the limit of a user whose processes are gone is free again");
	cr_expect_lt(test_ctl_stat(&d, "peak_backed_bytes"), 32 * (int64_t)MIB);
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- two processes ---- */

struct talk {
	int to[2], from[2];
};

static void say(int fd)
{
	child_check(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
	char byte;

	child_check(read(fd, &byte, 1) == 1);
}

static int take_and_give_back(void *arg)
{
	struct talk *talk = arg;
	unsigned char **block = calloc(MOST, sizeof(*block));
	size_t n = take_all(block, 1000);

	say(talk->from[1]);
	hear(talk->to[0]);
	free_all(block, n, 1000);
	child_check(shma_trim(shma_default()) == 0);
	say(talk->from[1]);
	hear(talk->to[0]); /* alive, with nothing */
	free(block);
	return 0;
}

static int want_some(void *arg)
{
	struct talk *talk = arg;
	void *block[32];

	hear(talk->from[0]);
	child_check(shma_malloc(500000) == NULL && errno == ENOMEM);
	child_check(shma_malloc(200000) == NULL && errno == ENOMEM);
	say(talk->to[1]);
	hear(talk->from[0]);
	for (int i = 0; i < 32; i++)
		child_check((block[i] = shma_malloc(500000)) != NULL);
	for (int i = 0; i < 32; i++)
		shma_free(block[i]);
	say(talk->to[1]);
	return 0;
}

Test(full, what_one_process_frees_another_can_have)
{
	static const char *const args[] = {"--size=32MiB", NULL};
	struct test_daemon d;
	struct talk talk;

	system_start(&d, args);
	cr_assert_eq(pipe(talk.to), 0);
	cr_assert_eq(pipe(talk.from), 0);
	pid_t taker = child_start(take_and_give_back, &talk), wanter = child_start(want_some, &talk);

	cr_expect_eq(child_join(wanter), 0);
	close(talk.to[1]);
	cr_expect_eq(child_join(taker), 0);
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- /dev/shm ---- */

static int fill_tmpfs(void *arg)
{
	(void)arg;
	expect_full_and_usable(24 * MIB, 50);
	return 0;
}

Test(full, tmpfs)
{
	static const char *const args[] = {"--size=1GiB", NULL};
	struct test_daemon d;

	if (!system_private_shm("size=24m"))
		return;
	system_start(&d, args);
	cr_expect_eq(child_run(fill_tmpfs, NULL), 0);
	cr_expect_eq(child_run(fill_tmpfs, NULL), 0, "the next process has as much");
	system_expect_empty(&d);
	system_end(&d);
}

Test(full, tmpfs_too_small_for_a_heap)
{
	struct test_daemon d;
	char said[4096] = "";

	if (!system_private_shm("size=64k"))
		return;
	cr_assert_eq(test_daemon_init(&d, NULL), 0);
	cr_expect_gt(test_daemon_refused(&d, NULL, said, sizeof(said)), 0);
	cr_expect_not_null(strstr(said, "No space left"), "%s", said);
	cr_expect_eq(test_daemon_objects(&d), 0, "it leaves nothing");
	test_daemon_remove(&d);
}
