/* The pool: spans of the process that no thread holds. */
#include "tests/client/api.h"

#include <pthread.h>

TestSuite(pool, .timeout = 60);

#define MOST 100000
#define OTHERS 20000

static struct test_daemon d;
static shma_heap *heap;
static void *block[MOST], *other[OTHERS];

static void *make(void *unused)
{
	for (size_t i = 0; i < MOST; i++)
		if (!(block[i] = shma_malloc(200)))
			return heap;
	return unused;
}

/* Ended threads leave full spans to their process; that these are empty later on is seen though nobody asks for their class again. */
Test(pool, spans_of_ended_threads_go_back)
{
	pthread_t thread;
	void *failed;

	api_start(&d, NULL);
	heap = shma_attach(NULL);
	cr_assert_not_null(heap);
	cr_assert_eq(pthread_create(&thread, NULL, make, NULL), 0);
	cr_assert_eq(pthread_join(thread, &failed), 0);
	cr_assert_null(failed);
	for (size_t i = 0; i < MOST; i++)
		shma_free(block[i]);
	for (size_t i = 0; i < OTHERS; i++)
		cr_assert_not_null(other[i] = shma_malloc(1000));
	cr_expect_lt(api_stats(heap).owned, OTHERS * 1000 + 10 * MIB, "%zu MiB are held", api_stats(heap).owned / MIB);
	for (size_t i = 0; i < OTHERS; i++)
		shma_free(other[i]);
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}
