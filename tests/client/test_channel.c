/* The control channel, seen from its callers. */
#include "tests/client/api.h"

TestSuite(channel, .timeout = 60);

#define TIMEOUT_MS 300
#define SMALL 40000
#define LARGE 40

/* A program that cleans up while the daemon is away waits for it once, not at every span that is given back. */
Test(channel, frees_wait_once)
{
	static struct test_daemon d;
	static void *small[SMALL], *large[LARGE];
	shma_heap *heap;

	api_start(&d, NULL);
	heap = api_attach(&d, TIMEOUT_MS);
	cr_assert_not_null(heap);
	for (size_t i = 0; i < SMALL; i++)
		cr_assert_not_null(small[i] = shma_heap_alloc(heap, 1000, 0, 0));
	for (size_t i = 0; i < LARGE; i++)
		cr_assert_not_null(large[i] = shma_heap_alloc(heap, (i % 8 + 1) * MIB, 0, 0));
	test_daemon_kill(&d);
	long long began = test_now_ms();

	for (size_t i = 0; i < SMALL; i++)
		shma_free(small[i]);
	for (size_t i = 0; i < LARGE; i++)
		shma_free(large[i]);
	cr_expect_lt(test_now_ms() - began, 5 * TIMEOUT_MS);
	cr_expect_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_eq(shma_trim(heap), 0);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}
