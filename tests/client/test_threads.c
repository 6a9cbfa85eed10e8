/* Threads come and go: their records are used again, what they cached comes back, spans pass from one to the next. */
#include "tests/client/api.h"

#include <pthread.h>
#include <unistd.h>

TestSuite(threads, .timeout = 60);

static struct test_daemon d;
static shma_heap *heap;

static void start(void)
{
	api_start(&d, NULL);
	heap = shma_attach(NULL);
	cr_assert_not_null(heap);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

static void run_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, fn, arg), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* ---- records ---- */

static void *use_all_kinds(void *unused)
{
	void *block[400];

	for (unsigned i = 0; i < 400; i++) {
		block[i] = shma_heap_alloc(heap, 16 + i * 13, 0, i % 4);
		child_check(block[i]);
		api_fill(block[i], 16 + i * 13, i);
	}
	for (unsigned i = 0; i < 400; i++) {
		child_check(api_filled(block[i], 16 + i * 13, i));
		shma_free(block[i]);
	}
	return unused;
}

Test(threads, one_after_the_other_use_one_record, .init = start, .fini = end)
{
	for (int i = 0; i < 200; i++)
		run_thread(use_all_kinds, NULL);
	cr_expect_eq(api_sums(heap).threads, 1, "%u records", api_sums(heap).threads);
	cr_expect_eq(api_sums(heap).cached, 0, "nothing stays in an ended thread's magazines");
	cr_expect_eq(api_live(heap), 0);
	api_expect_empty(heap);
}

Test(threads, as_many_records_as_threads_at_a_time, .init = start, .fini = end)
{
	enum { AT_A_TIME = 12 };
	pthread_t thread[AT_A_TIME];

	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < AT_A_TIME; i++)
			cr_assert_eq(pthread_create(&thread[i], NULL, use_all_kinds, NULL), 0);
		for (int i = 0; i < AT_A_TIME; i++)
			cr_assert_eq(pthread_join(thread[i], NULL), 0);
	}
	cr_expect_leq(api_sums(heap).threads, AT_A_TIME, "%u records", api_sums(heap).threads);
	cr_expect_eq(api_sums(heap).cached, 0);
	api_expect_empty(heap);
	cr_expect_leq(api_sums(heap).threads, AT_A_TIME + 1);
}

/* A record says whose it is. */
static void *tid_of_record(void *tid)
{
	void *block = shma_malloc(10);

	child_check(block);
	*(uint32_t *)tid = shmi_tls[heap->index]->rec->tid;
	child_check(*(uint32_t *)tid == (uint32_t)gettid());
	shma_free(block);
	return NULL;
}

Test(threads, a_record_that_is_used_again_names_its_new_thread, .init = start, .fini = end)
{
	uint32_t tid[2];

	run_thread(tid_of_record, &tid[0]);
	run_thread(tid_of_record, &tid[1]);
	cr_expect_neq(tid[0], tid[1]);
}

/* ---- destructors ---- */

static pthread_key_t key_before, key_after, key_stubborn;

static void free_value(void *block)
{
	void *another = shma_malloc(40);

	child_check(another && another != block);
	shma_free(another);
	shma_free(block);
}

/* Comes back for as many rounds as the system makes, but for the last. */
static void free_list(void *list)
{
	void **next = *(void ***)list;

	shma_free(list);
	if (next)
		(void)pthread_setspecific(key_stubborn, next);
}

static void *leave_values(void *unused)
{
	void **first = shma_malloc(32), **second = shma_malloc(300000);

	child_check(first && second);
	*first = second;
	*second = NULL;
	child_check(pthread_setspecific(key_before, shma_malloc(1000)) == 0);
	child_check(pthread_setspecific(key_after, shma_heap_alloc(heap, 2000, 0, SHMA_SCOPED)) == 0);
	child_check(pthread_setspecific(key_stubborn, first) == 0);
	return unused;
}

Test(threads, destructors_that_free)
{
	/* The library makes its key at its first use; the system calls destructors in the order of the keys. */
	cr_assert_eq(pthread_key_create(&key_before, free_value), 0);
	start();
	shma_free(shma_malloc(1));
	cr_assert_eq(pthread_key_create(&key_after, free_value), 0);
	cr_assert_eq(pthread_key_create(&key_stubborn, free_list), 0);
	for (int i = 0; i < 50; i++)
		run_thread(leave_values, NULL);
	cr_expect_leq(api_sums(heap).threads, 2, "%u records", api_sums(heap).threads);
	cr_expect_eq(api_live(heap), 0);
	api_expect_empty(heap);
	end();
}

/* ---- what passes from thread to thread ---- */

enum { MANY = 20000 };
static void *many[MANY];

static void *allocate_many(void *unused)
{
	for (size_t i = 0; i < MANY; i++)
		child_check(many[i] = shma_malloc(48));
	return unused;
}

static void *free_half(void *unused)
{
	for (size_t i = 0; i < MANY; i += 2)
		shma_free(many[i]);
	return unused;
}

static void *allocate_half(void *unused)
{
	for (size_t i = 0; i < MANY; i += 2)
		child_check(many[i] = shma_malloc(48));
	return unused;
}

static void *free_every(void *unused)
{
	for (size_t i = 0; i < MANY; i++)
		shma_free(many[i]);
	return unused;
}

/* An ended thread's spans are used by the next, before the daemon is asked. */
Test(threads, spans_pass_through_the_process, .init = start, .fini = end)
{
	run_thread(allocate_many, NULL);
	uint64_t owned = api_stats(heap).owned;

	for (int i = 0; i < 5; i++) {
		run_thread(free_half, NULL);
		uint64_t before = api_stats(heap).messages;

		run_thread(allocate_half, NULL);
		cr_expect_leq(api_stats(heap).messages - before, 3, "%llu messages",
		        (unsigned long long)(api_stats(heap).messages - before));
		cr_expect_leq(api_stats(heap).owned, owned + owned / 10);
	}
	cr_expect_eq(api_live(heap), MANY * 48);
	run_thread(free_every, NULL);
	cr_expect_eq(api_live(heap), 0);
	api_expect_empty(heap);
}

/* Two threads hand blocks on for ever: what is held stays what is in flight. */
struct pipe_line {
	void *_Atomic slot[64];
	size_t steps;
};

static void *consume(void *arg)
{
	struct pipe_line *line = arg;

	for (size_t i = 0; i < line->steps; i++) {
		void *block;

		while (!(block = atomic_exchange(&line->slot[i % 64], NULL)))
			(void)sched_yield();
		child_check(api_filled(block, 64, i));
		shma_free(block);
	}
	return NULL;
}

Test(threads, blocks_that_are_handed_on_do_not_pile_up, .init = start, .fini = end)
{
	static struct pipe_line line = {.steps = 400000};
	pthread_t consumer;
	uint64_t early = 0;

	cr_assert_eq(pthread_create(&consumer, NULL, consume, &line), 0);
	for (size_t i = 0; i < line.steps; i++) {
		void *block = shma_malloc(64);

		cr_assert_not_null(block);
		api_fill(block, 64, i);
		while (atomic_load(&line.slot[i % 64]))
			(void)sched_yield();
		atomic_store(&line.slot[i % 64], block);
		if (i == line.steps / 10)
			early = api_stats(heap).owned;
	}
	cr_assert_eq(pthread_join(consumer, NULL), 0);
	cr_expect_leq(api_stats(heap).owned, 2 * early + 256 * KIB, "%llu, then %llu", (unsigned long long)early,
	        (unsigned long long)api_stats(heap).owned);
	api_expect_empty(heap);
}

/* ---- trim reaches the other threads ---- */

static pthread_barrier_t turn;

static void *cache_and_wait(void *unused)
{
	use_all_kinds(NULL);
	(void)pthread_barrier_wait(&turn); /* the other one trims */
	(void)pthread_barrier_wait(&turn);
	void *block = shma_malloc(200000); /* the next slow path */

	child_check(block);
	(void)pthread_barrier_wait(&turn);
	(void)pthread_barrier_wait(&turn);
	shma_free(block);
	return unused;
}

Test(threads, a_trim_reaches_the_other_threads, .init = start, .fini = end)
{
	pthread_t thread;

	cr_assert_eq(pthread_barrier_init(&turn, NULL, 2), 0);
	cr_assert_eq(pthread_create(&thread, NULL, cache_and_wait, NULL), 0);
	(void)pthread_barrier_wait(&turn);
	cr_expect_gt(api_sums(heap).cached, 0);
	cr_expect_eq(shma_trim(heap), 0);
	(void)pthread_barrier_wait(&turn);
	(void)pthread_barrier_wait(&turn);
	cr_expect_eq(api_sums(heap).cached, 0, "%llu bytes", (unsigned long long)api_sums(heap).cached);
	cr_expect_leq(api_stats(heap).owned, 2 * MIB, "little more than the one block's span");
	(void)pthread_barrier_wait(&turn);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	api_expect_empty(heap);
}
