/* The daemon is away: stopped for a while, or killed and started again. Programs go on from their caches; what needs the
 * daemon fails with EAGAIN in time, or waits and succeeds; and nothing is lost. */
#include "tests/client/api.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "tests/lib/witness.h"

TestSuite(away, .timeout = 60);

#define TIMEOUT_MS 100

static struct test_daemon d;
static shma_heap *heap;
static pid_t witness;

static void start_with(int timeout_ms)
{
	witness = witness_start();
	api_start(&d, NULL);
	heap = api_attach(&d, timeout_ms);
	cr_assert_not_null(heap);
}

static void start(void)
{
	start_with(TIMEOUT_MS);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
	witness_end(witness);
}

static void stop(void)
{
	cr_assert_eq(kill(d.pid, SIGSTOP), 0);
}

/* The next call of ours finds it awake, however busy the machine is. */
static void cont(void)
{
	cr_assert_eq(kill(d.pid, SIGCONT), 0);
	heap->timeout_ms = 10000;
}

/* What needs the daemon fails in time. */
#define expect_again(failed)                                                                                           \
	do {                                                                                                           \
		long long begin_ = test_now_ms();                                                                      \
		errno = 0;                                                                                             \
		cr_expect(failed);                                                                                     \
		cr_expect_eq(errno, EAGAIN, "%s", strerror(errno));                                                    \
		cr_expect_geq(test_now_ms() - begin_, TIMEOUT_MS / 2);                                                 \
		cr_expect_lt(test_now_ms() - begin_ - 4 * witness_ms(), TIMEOUT_MS * 30);                              \
	} while (0)

/* ---- stopped ---- */

Test(away, caches_go_on, .init = start, .fini = end)
{
	enum { N = 1000 };
	static char *block[N];
	char *large;

	for (int round = 0; round < 3; round++) { /* twice to warm up */
		if (round == 2)
			stop();
		for (size_t i = 0; i < N; i++) {
			block[i] = shma_malloc(16 + i % 500);
			cr_assert_not_null(block[i]);
			api_fill(block[i], 16 + i % 500, i);
		}
		large = shma_malloc(400000);
		cr_assert_not_null(large, "one has been kept");
		for (size_t i = 0; i < N; i++) {
			cr_assert(api_filled(block[i], 16 + i % 500, i));
			shma_free(block[i]);
		}
		shma_free(large);
	}
	cont();
	api_expect_empty(heap);
}

Test(away, what_needs_the_daemon_fails_in_time, .init = start, .fini = end)
{
	char *block = shma_malloc(1000), *large = shma_malloc(MIB);

	api_fill(block, 1000, 1);
	cr_assert_eq(shma_root_set(heap, "a", block), 0);
	stop();
	expect_again(shma_malloc(10 * MIB) == NULL);
	expect_again(shma_malloc(77777) == NULL);
	expect_again(shma_calloc(1, 200000) == NULL);
	expect_again(shma_heap_alloc(heap, 100, 0, SHMA_SCOPED) == NULL);
	expect_again(shma_realloc(block, 10 * MIB) == NULL);
	expect_again(shma_root_set(heap, "b", block) == -1);
	expect_again(shma_root_del(heap, "a") == -1);
	shma_free(large);
	expect_again(shma_trim(heap) == -1);
	cr_expect_eq(shma_root_get(heap, "a"), block, "reading needs nobody");
	cr_expect(api_filled(block, 1000, 1));
	cont();
	cr_expect_eq(shma_root_set(heap, "c", block), 0);
	cr_expect_eq(shma_root_get(heap, "c"), block);
	shma_free(block);
	api_expect_empty(heap);
}

/* Who cannot say no to its caller waits once, and then hardly. */
Test(away, a_short_wait_after_one_in_vain, .init = start, .fini = end)
{
	heap->hurry_ms = 1;
	stop();
	expect_again(shma_malloc(10 * MIB) == NULL);
	heap->timeout_ms = 10000;
	long long begin = test_now_ms();

	cr_expect(shma_malloc(10 * MIB) == NULL && errno == EAGAIN);
	cr_expect_lt(test_now_ms() - begin - 4 * witness_ms(), 5000);
	heap->hurry_ms = 0;
	cont();
	cr_expect_not_null(shma_malloc(MIB), "it is back");
}

static void *want_much(void *unused)
{
	child_check(shma_malloc(10 * MIB) == NULL && errno == EAGAIN);
	return unused;
}

/* They wait side by side, though one after the other asks. */
Test(away, many_threads_do_not_add_up_their_waiting, .init = start, .fini = end)
{
	pthread_t thread[20];
	long long begin = test_now_ms();

	stop();
	for (int i = 0; i < 20; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, want_much, NULL), 0);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	long long took = test_now_ms() - begin;

	cr_expect_lt(took - 4 * witness_ms(), TIMEOUT_MS * 10, "%lld ms, but for %lld", took, witness_ms());
	cont();
	api_expect_empty(heap);
}

#define LONG_MS 2000

/* Once the other thread has asked. */
static void *want_a_large_block(void *messages)
{
	while (shmi_load(&heap->proc->messages) == *(uint64_t *)messages)
		(void)poll(NULL, 0, STEP_MS);
	long long began = test_now_ms();

	child_check(shma_malloc(20 * MIB) == NULL && errno == EAGAIN);
	child_check(test_now_ms() - began < LONG_MS * 3 / 2);
	return NULL;
}

/* Nor does a large block wait anew that waited for the cache's lock, which a free has while it waits. */
Test(away, a_free_and_a_large_block_wait_side_by_side, .init = start, .fini = end)
{
	void *block = shma_malloc(10 * MIB);
	pthread_t thread;

	shma_free(shma_malloc(100)); /* a cache: the first free asks for none */
	heap->timeout_ms = LONG_MS;
	uint64_t messages = shmi_load(&heap->proc->messages);

	stop();
	cr_assert_eq(pthread_create(&thread, NULL, want_a_large_block, &messages), 0);
	shma_free(block);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cont();
	api_expect_empty(heap);
}

/* A late reply brings spans, a large block or a thread record: whoever asked has given up. */
Test(away, late_replies_are_not_lost, .init = start, .fini = end)
{
	static const size_t sizes[] = {100, 5000, 77777, 256 * KIB, 300000, 3 * MIB, 20 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		for (unsigned flags = 0; flags < 2; flags++) {
			heap->timeout_ms = 20;
			stop();
			void *block = shma_heap_alloc(heap, sizes[i], 0, flags);

			cr_expect_null(block, "%zu", sizes[i]);
			cr_expect_null(shma_heap_alloc(heap, 2 * MIB, 0, flags));
			cont();
			block = shma_heap_alloc(heap, sizes[i], 0, flags);
			cr_assert_not_null(block, "%zu: %s", sizes[i], strerror(errno));
			api_fill(block, sizes[i], i);
			shma_free(block);
			api_expect_empty(heap);
		}
	}
}

/* Who asks for nothing more need not keep it: a trim waits for the reply. */
Test(away, a_trim_gives_back_what_comes_late, .init = start, .fini = end)
{
	static const size_t sizes[] = {100, 20 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		shma_free(shma_malloc(5000)); /* a cache */
		cr_expect_eq(shma_trim(heap), 0);
		heap->timeout_ms = 20;
		stop();
		cr_expect_null(shma_malloc(sizes[i]));
		cr_expect_eq(shma_trim(heap), -1);
		cr_expect_eq(errno, EAGAIN);
		cont();
		api_expect_empty(heap);
	}
}

/* ---- frees ---- */

Test(away, freed_large_blocks_are_not_forgotten, .init = start, .fini = end)
{
	static void *block[100];
	void *longer[5];

	for (size_t i = 0; i < 100; i++)
		cr_assert_not_null(block[i] = shma_malloc(300000 + i));
	for (size_t i = 0; i < 5; i++)
		cr_assert_not_null(longer[i] = shma_malloc(5 * MIB));
	heap->timeout_ms = 1;
	stop();
	for (size_t i = 0; i < 100; i++)
		shma_free(block[i]);
	for (size_t i = 0; i < 5; i++)
		shma_free(longer[i]);
	cont();
	api_expect_empty(heap);
}

static void *free_all(void *blocks)
{
	for (void **block = blocks; *block; block++)
		shma_free(*block);
	return NULL;
}

/* A thread that has no cache, and cannot get one, frees all the same. */
/* What was to go back with a request that was never sent is kept as before, and serves. */
Test(away, what_could_not_go_back_is_kept, .init = start, .fini = end)
{
	static const size_t sizes[] = {1000000, 1500000, 2000000, 2500000};
	void *block[4];

	for (int i = 0; i < 4; i++)
		cr_assert_not_null(block[i] = shma_malloc(sizes[i]));
	for (int i = 0; i < 3; i++)
		shma_free(block[i]);
	stop();
	expect_again(!shma_malloc(3000000)); /* sent, and with it the first two */
	shma_free(block[3]);
	expect_again(!shma_malloc(3500000)); /* not sent, as the first has had no answer */
	void *again = shma_malloc(sizes[2]);

	cr_expect_eq(again, block[2]);
	cont();
	shma_free(again);
	api_expect_empty(heap);
}

Test(away, a_new_thread_frees, .init = start, .fini = end)
{
	static void *block[300];
	pthread_t thread;

	for (size_t i = 0; i < 298; i++)
		cr_assert_not_null(block[i] = shma_heap_alloc(heap, 10 + i * 3, 0, i % 2 ? SHMA_SCOPED : 0));
	block[298] = shma_malloc(400000);
	heap->timeout_ms = 1;
	stop();
	cr_assert_eq(pthread_create(&thread, NULL, free_all, block), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cont();
	api_expect_empty(heap);
}

/* ---- threads ---- */

static void *try(void *unused)
{
	void *block = shma_malloc(100);

	child_check(block || errno == EAGAIN);
	shma_free(block);
	return unused;
}

Test(away, threads_that_come_in_vain_leave_few_records, .init = start, .fini = end)
{
	pthread_t thread;

	for (int i = 0; i < 20; i++) {
		heap->timeout_ms = 5;
		stop();
		cr_assert_eq(pthread_create(&thread, NULL, try, NULL), 0);
		cr_assert_eq(pthread_join(thread, NULL), 0);
		cont();
		cr_assert_eq(shma_trim(heap), 0); /* the late reply has come */
	}
	cr_expect_leq(api_sums(heap).threads, 2, "%u records", api_sums(heap).threads);
	api_expect_empty(heap);
}

/* What a thread gives back at its end waits for the daemon, and the next trim sends it. */
static void *take_and_give(void *unused)
{
	static void *block[2000];

	(void)unused;
	for (size_t i = 0; i < 2000; i++)
		child_check(block[i] = shma_malloc(16 + i % 700));
	heap->timeout_ms = 1;
	child_check(kill(d.pid, SIGSTOP) == 0);
	for (size_t i = 0; i < 2000; i++)
		shma_free(block[i]);
	return NULL;
}

Test(away, what_an_ended_thread_could_not_give_back, .init = start, .fini = end)
{
	pthread_t thread;
	void *block = shma_malloc(20); /* this thread has a cache of its own */

	cr_assert_eq(pthread_create(&thread, NULL, take_and_give, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cont();
	shma_free(block);
	api_expect_empty(heap);
}

/* ---- leaving ---- */

/* The daemon is stopped. When it goes on nothing is left of who left, and a newcomer is the only client. */
static void detach_in_vain(void)
{
	expect_again(shma_detach(heap) == -1);
	cr_assert_eq(kill(d.pid, SIGCONT), 0);
	heap = api_attach(&d, 10000);
	cr_assert_not_null(heap);
	cr_expect(api_settles(api_live(heap) == 0), "%llu bytes are live", (unsigned long long)api_live(heap));
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1), "%d clients", (int)test_ctl_stat(&d, "clients"));
	heap->timeout_ms = TIMEOUT_MS;
}

/* Who leaves does not wait longer than it said; the daemon hears of it when it is back. */
Test(away, a_detach_in_vain, .init = start)
{
	for (int i = 0; i < 3; i++) {
		void *block = shma_heap_alloc(heap, 1000, 0, SHMA_SCOPED),
		     *large = shma_heap_alloc(heap, MIB, 0, SHMA_SCOPED);

		cr_assert(block && large);
		stop();
		detach_in_vain();
	}
	end();
}

/* The same with a request under way, given up by its caller: small or large, and so answered at once or after many steps. */
Test(away, a_detach_behind_a_request, .init = start)
{
	static const size_t sizes[] = {100, 77777, MIB, 20 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		void *block = shma_heap_alloc(heap, 300 * KIB, 0, SHMA_SCOPED);

		cr_assert(block);
		stop();
		expect_again(shma_heap_alloc(heap, sizes[i], 0, SHMA_SCOPED) == NULL);
		detach_in_vain();
	}
	end();
}

/* ---- at random ---- */

static void random_step(struct test_random *random, void **block)
{
	static const size_t longest[] = {300, 300, 5000, 200000, 2 * MIB, 8 * MIB};
	size_t size = test_random_length(random, (uint32_t)longest[test_random_below(random, 6)]);

	if (!*block)
		*block = shma_heap_alloc(heap, size, 0, test_random_below(random, 4));
	else if (test_random_one_in(random, 4)) {
		void *moved = shma_realloc(*block, size);

		*block = moved ? moved : *block;
	} else {
		shma_free(*block);
		*block = NULL;
	}
	cr_assert(*block || errno == 0 || errno == EAGAIN, "%s", strerror(errno));
	errno = 0;
}

Test(away, comes_and_goes_at_random, .init = start, .fini = end)
{
	enum { N = 300, STEPS = 40000 };
	static void *block[N];
	struct test_random random = test_random_init("away");

	heap->timeout_ms = 1;
	errno = 0;
	for (int i = 0; i < STEPS; i++) {
		if (test_random_one_in(&random, 50))
			stop();
		if (test_random_one_in(&random, 20))
			cr_assert_eq(kill(d.pid, SIGCONT), 0);
		random_step(&random, &block[test_random_below(&random, N)]);
		if (test_random_one_in(&random, 5000))
			(void)shma_trim(heap);
	}
	cont();
	for (int i = 0; i < N; i++)
		shma_free(block[i]);
	api_expect_empty(heap);
}

/* ---- killed, and started again ---- */

static void *allocate_patiently(void *unused)
{
	char *block = shma_malloc(10 * MIB);

	(void)unused;
	child_check(block);
	api_fill(block, 10 * MIB, 4);
	return block;
}

static void start_patiently(void)
{
	start_with(10000);
}

Test(away, the_next_daemon_goes_on, .init = start_patiently, .fini = end)
{
	char *block = shma_malloc(1000), *scoped = shma_heap_alloc(heap, 300000, 0, SHMA_SCOPED);
	void *late = NULL;
	pthread_t thread;

	api_fill(block, 1000, 1);
	api_fill(scoped, 300000, 2);
	cr_assert_eq(shma_root_set(heap, "kept", block), 0);
	for (int round = 0; round < 3; round++) {
		uint32_t client = api_stats(heap).client;

		test_daemon_kill(&d);
		cr_assert_eq(pthread_create(&thread, NULL, allocate_patiently, NULL), 0);
		(void)poll(NULL, 0, 50); /* it waits meanwhile */
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
		cr_assert_eq(pthread_join(thread, &late), 0);
		cr_expect(api_filled(late, 10 * MIB, 4));
		cr_expect(api_filled(block, 1000, 1));
		cr_expect(api_filled(scoped, 300000, 2));
		cr_expect_eq(shma_root_get(heap, "kept"), block);
		cr_expect_eq(api_stats(heap).client, client, "the same client as before");
		cr_expect_eq(test_ctl_check(&d), 0);
		cr_expect_eq(test_ctl_stat(&d, "clients"), 1);
		shma_free(late);
	}
	shma_free(block);
	shma_free(scoped);
	api_expect_empty(heap);
}

Test(away, a_daemon_that_stops_well_keeps_the_heap, .init = start_patiently, .fini = end)
{
	char *block = shma_malloc(1000);

	api_fill(block, 1000, 1);
	cr_assert_eq(test_daemon_stop(&d), 0);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect(api_filled(block, 1000, 1));
	void *more = shma_malloc(MIB);

	cr_expect_not_null(more);
	shma_free(more);
	shma_free(block);
	api_expect_empty(heap);
}

/* Nothing is allocated, but somebody lives who may be about to. */
Test(away, a_daemon_that_stops_well_keeps_the_heap_of_the_living, .init = start_patiently, .fini = end)
{
	cr_assert_eq(shma_trim(heap), 0);
	cr_assert_eq(test_daemon_stop(&d), 0);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	void *block = shma_malloc(MIB);

	cr_expect_not_null(block);
	shma_free(block);
	api_expect_empty(heap);
}

/* A thread works all the while; the daemon is killed again and again. */
static shmi_a32 done;

static void *work(void *arg)
{
	enum { N = 200 };
	void **block = calloc(N, sizeof(*block));
	struct test_random random = {(uint64_t)(uintptr_t)arg};

	child_check(block);
	while (!shmi_load(&done))
		for (int i = 0; i < 100; i++) {
			void **b = &block[test_random_below(&random, N)];

			if (*b)
				shma_free(*b);
			*b = *b ? NULL : shma_malloc(test_random_length(&random, 500000));
		}
	for (int i = 0; i < N; i++)
		shma_free(block[i]);
	free(block);
	return NULL;
}

Test(away, killed_again_and_again_while_threads_work, .init = start_patiently, .fini = end)
{
	struct test_random random = test_random_init("killed again");
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		cr_assert_eq(
		        pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(test_random_next(&random) | 1)), 0);
	for (int i = 0; i < 15; i++) {
		(void)poll(NULL, 0, (int)test_random_below(&random, 20)); /* at any moment of their work */
		test_daemon_kill(&d);
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	}
	cr_expect_eq(test_ctl_check(&d), 0);
	shmi_store(&done, 1);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	api_expect_empty(heap);
}
