/* This process is evicted from its heap: what needs the daemon fails at once with EACCES, what it has stays usable, frees go on,
 * and nobody else notices. */
#include "tests/client/api.h"

#include <pthread.h>
#include <unistd.h>

TestSuite(evict, .timeout = 60);

#define TIMEOUT_MS 20000 /* what an eviction must not wait for */
#define AT_ONCE_MS 2000 /* on a busy machine */

static struct test_daemon d;
static shma_heap *heap;

static void start(void)
{
	api_start(&d, NULL);
	heap = api_attach(&d, TIMEOUT_MS);
	cr_assert_not_null(heap);
}

static void end(void)
{
	api_end(&d);
}

static void evict(void)
{
	char id[16];

	snprintf(id, sizeof(id), "%u", heap->proc->client);
	cr_assert_eq(test_ctl_run(&d, (const char *[]){"evict", id, NULL}, NULL), 0);
}

#define expect_evicted(failed)                                                                                         \
	do {                                                                                                           \
		long long begin_ = test_now_ms();                                                                      \
		errno = 0;                                                                                             \
		cr_expect(failed);                                                                                     \
		cr_expect_eq(errno, EACCES, "%s", strerror(errno));                                                    \
		cr_expect_lt(test_now_ms() - begin_, AT_ONCE_MS);                                                      \
	} while (0)

static void expect_nothing_is_granted(void *block)
{
	expect_evicted(shma_malloc(10 * MIB) == NULL);
	expect_evicted(shma_malloc(77777) == NULL);
	expect_evicted(shma_calloc(1, 200000) == NULL);
	expect_evicted(shma_heap_alloc(heap, 100, 0, SHMA_SCOPED) == NULL);
	expect_evicted(shma_realloc(block, 10 * MIB) == NULL);
	expect_evicted(shma_root_set(heap, "b", block) == -1);
	expect_evicted(shma_root_del(heap, "a") == -1);
}

Test(evict, what_needs_the_daemon_fails_at_once, .init = start, .fini = end)
{
	char *block = shma_malloc(1000);

	api_fill(block, 1000, 1);
	cr_assert_eq(shma_root_set(heap, "a", block), 0);
	evict();
	expect_nothing_is_granted(block);
	cr_expect_eq(shma_root_get(heap, "a"), block, "reading needs nobody");
	cr_expect(api_filled(block, 1000, 1), "what it has stays usable");
	cr_expect_eq(shma_detach(heap), 0);
	expect_evicted(api_attach(&d, TIMEOUT_MS) == NULL);
}

/* Each call after the first knows: it does not even ask. */
Test(evict, the_daemon_is_asked_once, .init = start, .fini = end)
{
	cr_assert_not_null(shma_malloc(100));
	evict();
	expect_evicted(shma_malloc(77777) == NULL);
	int64_t before = test_ctl_stat(&d, "requests");

	for (int i = 0; i < 1000; i++)
		expect_evicted(shma_malloc(77777) == NULL);
	cr_expect_lt(test_ctl_stat(&d, "requests") - before, 10);
	cr_expect_eq(shma_detach(heap), 0);
}

enum { N = 30000 };

static char *block[N];

static size_t size_of(size_t i)
{
	return i % 100 == 7 ? 300000 + i : 16 + i % 500;
}

static void *free_third(void *unused)
{
	for (size_t i = 2; i < N; i += 3)
		shma_free(block[i]);
	return unused;
}

/* Many more than a cache has room for, large ones among them, and from a thread that has no cache and can get none. */
Test(evict, frees_go_on, .init = start, .fini = end)
{
	pthread_t thread;

	for (size_t i = 0; i < N; i++) {
		block[i] = shma_malloc(size_of(i));
		cr_assert_not_null(block[i]);
		api_fill(block[i], size_of(i), i);
	}
	evict();
	long long begin = test_now_ms();

	for (size_t i = 0; i < N; i += 3)
		shma_free(block[i]);
	cr_assert_eq(pthread_create(&thread, NULL, free_third, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	for (size_t i = 1; i < N; i += 3) {
		cr_assert(api_filled(block[i], size_of(i), i), "block %zu", i);
		shma_free(block[i]);
	}
	cr_expect_lt(test_now_ms() - begin, 10 * AT_ONCE_MS);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_expect_eq(shma_detach(heap), 0);
	int64_t last;

	cr_expect_eq(test_ctl_settle(&d, "owned_bytes", 0, 0, &last), 0, "%lld bytes are held", (long long)last);
}

/* It has them again without the daemon. */
Test(evict, what_was_freed_can_be_had_again, .init = start, .fini = end)
{
	char *large = shma_malloc(MIB);

	for (size_t i = 0; i < 1000; i++)
		cr_assert_not_null(block[i] = shma_malloc(64));
	evict();
	expect_evicted(shma_malloc(77777) == NULL);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < 1000; i++)
			shma_free(block[i]);
		for (size_t i = 0; i < 1000; i++)
			cr_expect_not_null(block[i] = shma_malloc(64), "round %d, block %zu", round, i);
	}
	shma_free(large);
	large = shma_malloc(MIB);
	cr_expect_not_null(large);
	shma_free(large);
	expect_evicted(shma_trim(heap) == -1);
	cr_expect_eq(shma_detach(heap), 0);
}

/* The test's process may hold the only client, a child and its parent are two. */
static int allocate(void *arg)
{
	for (int i = 0; i < 1000; i++) {
		char *mine = shma_malloc(5000);

		child_check(mine != NULL);
		api_fill(mine, 5000, (size_t)i);
		child_check(api_filled(mine, 5000, (size_t)i));
		shma_free(mine);
	}
	child_check(shma_root_get(shma_default(), "shared") == arg);
	child_check(api_filled(arg, 1000, 1));
	return 0;
}

Test(evict, nobody_else_notices, .init = start, .fini = end)
{
	int go[2], ready[2];
	char byte;

	cr_assert(pipe(go) == 0 && pipe(ready) == 0);
	heap = shma_default();
	char *shared = shma_malloc(1000);

	api_fill(shared, 1000, 1);
	cr_assert_eq(shma_root_set(heap, "shared", shared), 0);
	fflush(NULL);
	pid_t pid = fork(); /* attached before the eviction */

	if (!pid) {
		child_check(shma_malloc(100) && write(ready[1], "x", 1) == 1 && read(go[0], &byte, 1) == 1);
		_exit(allocate(shared));
	}
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	evict();
	expect_evicted(shma_malloc(10 * MIB) == NULL);
	cr_assert_eq(write(go[1], "x", 1), 1);
	cr_expect_eq(child_join(pid), 0);
	cr_expect_eq(child_run(allocate, shared), 0, "one that is forked from it afterwards is a client of its own");
	expect_nothing_is_granted(shared);
	while (heap->refs > 1)
		cr_assert_eq(shma_detach(heap), 0);
	cr_expect_eq(shma_detach(heap), 0);
}

Test(evict, a_restart_of_the_daemon_changes_nothing, .init = start, .fini = end)
{
	char *mine = shma_malloc(1000);

	api_fill(mine, 1000, 1);
	evict();
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	expect_nothing_is_granted(mine);
	cr_expect(api_filled(mine, 1000, 1));
	cr_expect_eq(shma_detach(heap), 0);
	expect_evicted(api_attach(&d, TIMEOUT_MS) == NULL);
}

/* Whoever stands behind the daemon's back is told when it is there again, and not kept waiting longer. */
Test(evict, told_when_it_comes_again, .init = start, .fini = end)
{
	cr_assert_not_null(shma_malloc(100));
	heap->timeout_ms = 100;
	evict();
	test_daemon_kill(&d);
	errno = 0;
	cr_expect(shma_malloc(10 * MIB) == NULL && errno == EAGAIN, "it cannot know yet: %s", strerror(errno));
	heap->timeout_ms = TIMEOUT_MS;
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	expect_evicted(shma_malloc(10 * MIB) == NULL);
	cr_expect_eq(shma_detach(heap), 0);
}
