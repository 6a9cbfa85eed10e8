/* Blocks of more than 256 KiB, and the process's cache of freed ones. */
#include "tests/client/api.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(large, .timeout = 60);

static struct test_daemon d;
static shma_heap *heap;

static void start(void)
{
	static const char *const args[] = {"--size=256MiB", NULL};

	api_start(&d, args);
	heap = shma_attach(NULL);
	cr_assert_not_null(heap);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

static void pairs(size_t size, unsigned flags, int n)
{
	for (int i = 0; i < n; i++) {
		char *block = shma_heap_alloc(heap, size, 0, flags);

		cr_assert_not_null(block);
		block[0] = block[size - 1] = (char)i;
		shma_free(block);
	}
}

Test(large, pairs_send_no_messages, .init = start, .fini = end)
{
	static const size_t sizes[] = {256 * KIB + 1, 300000, MIB, 2500000, 4 * MIB};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		for (unsigned flags = 0; flags < 4; flags++) {
			pairs(sizes[i], flags, 3);
			uint64_t before = api_stats(heap).messages;

			pairs(sizes[i], flags, 500);
			cr_expect_leq(api_stats(heap).messages - before, 1, "%zu bytes: %llu messages", sizes[i],
			        (unsigned long long)(api_stats(heap).messages - before));
		}
	}
	api_expect_empty(heap);
}

/* Sizes that vary by a few percent are served by one span. */
Test(large, pairs_of_nearly_one_size, .init = start, .fini = end)
{
	struct test_random random = test_random_init("large pairs");

	pairs(1100000, 0, 3);
	uint64_t before = api_stats(heap).messages;

	for (int i = 0; i < 500; i++)
		pairs(1020000 + test_random_below(&random, 80000), 0, 1);
	cr_expect_leq(api_stats(heap).messages - before, 1);
	api_expect_empty(heap);
}

Test(large, what_is_kept_is_not_live, .init = start, .fini = end)
{
	void *block = shma_malloc(MIB);

	cr_assert_not_null(block);
	cr_expect_eq(api_live(heap), MIB);
	shma_free(block);
	cr_expect_eq(api_live(heap), 0);
	cr_expect_eq(api_sums(heap).cached, MIB);
	cr_expect_eq(api_stats(heap).owned, MIB, "it is kept");
	cr_expect_eq(api_stats(heap).process_owned, MIB);
	cr_expect_eq(shma_trim(heap), 0);
	cr_expect_eq(api_stats(heap).owned, 0);
	cr_expect_eq(api_sums(heap).cached, 0);
}

/* A kept span serves what it fits: by length, attributes and alignment. */
Test(large, what_is_kept_fits_what_it_is_used_for, .init = start, .fini = end)
{
	void *block = shma_malloc(4 * MIB);

	shma_free(block);
	void *shorter = shma_malloc(MIB), *scoped = shma_heap_alloc(heap, 4 * MIB, 0, SHMA_SCOPED);

	cr_expect_lt(shma_usable_size(shorter), MIB + MIB / 8 + 8192);
	cr_expect_eq(shmi_sclass_attrs(api_sclass(heap, scoped)), SHMA_SCOPED);
	cr_expect_neq(scoped, block);
	shma_free(scoped);
	void *shared = shma_malloc(4 * MIB);

	cr_expect_eq(shmi_sclass_attrs(api_sclass(heap, shared)), 0);
	shma_free(shared);
	shma_free(shorter);
	for (int i = 0; i < 20; i++) {
		void *odd = shma_malloc(MIB), *aligned = shma_aligned_alloc(MIB, MIB);

		cr_expect_eq((uintptr_t)aligned % MIB, 0);
		shma_free(aligned);
		shma_free(odd);
	}
	api_expect_empty(heap);
}

Test(large, a_growing_block_leaves_no_trail, .init = start, .fini = end)
{
	size_t size = 300000, most = 0;
	char *block = shma_malloc(size);

	api_fill(block, size, 1);
	for (; size < 20 * MIB; size += 64 * KIB) {
		block = shma_realloc(block, size + 64 * KIB);
		cr_assert_not_null(block);
		cr_assert(api_filled(block + size - 300000, 300000, 1), "%zu", size);
		api_fill(block, size + 64 * KIB, 1);
		size_t beside = api_stats(heap).owned - shma_usable_size(block);

		most = beside > most ? beside : most;
	}
	cr_expect_leq(most, 6 * MIB, "%zu bytes beside the block", most);
	shma_free(block);
	cr_expect_leq(api_stats(heap).owned, 6 * MIB);
	api_expect_empty(heap);
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Pages that were granted are zeroed, and mapped in pieces of 64 KiB: nobody faults on each of them. */
Test(large, a_fresh_block_is_mapped_in_large_pieces, .init = start, .fini = end)
{
	long before = faults();
	char *block = shma_malloc(4 * MIB), *small = shma_malloc(200000);

	cr_assert(block && small);
	for (size_t at = 0; at < 4 * MIB; at += 4096)
		block[at]++;
	for (size_t at = 0; at < 200000; at += 4096)
		small[at]++;
	long n = faults() - before;

	cr_expect_lt(n, 4 * (long)MIB / 4096 / 4, "%ld faults", n);
	shma_free(block);
	shma_free(small);
	api_expect_empty(heap);
}

/* What is too much goes with the next request for memory: one message for each block that no kept one serves. */
Test(large, what_is_too_much_goes_with_a_request, .init = start, .fini = end)
{
	uint64_t before = api_stats(heap).messages, asked = 0;

	for (int i = 0; i < 50; i++)
		for (size_t size = 300000; size < 2 * MIB; size += size / 4, asked++)
			pairs(size, 0, 1);
	cr_expect_leq(api_stats(heap).messages - before, asked + 2, "%llu messages for %llu blocks",
	        (unsigned long long)(api_stats(heap).messages - before), (unsigned long long)asked);
	void *one = shma_malloc(5 * MIB);

	cr_expect_leq(api_sums(heap).cached, 2 * MIB + MIB, "the newest, and what may be kept beside it");
	shma_free(one);
	for (int i = 0; i < 100; i++) /* no large block is asked for any more */
		cr_assert_not_null(shma_malloc(SHMI_SMALL_MAX));
	cr_expect_eq(api_sums(heap).cached, 0);
}

/* But not however much: others may want it. */
Test(large, not_all_waits_for_a_request, .init = start, .fini = end)
{
	void *block[40];

	for (int i = 0; i < 40; i++)
		cr_assert_not_null(block[i] = shma_malloc(4 * MIB));
	for (int i = 0; i < 40; i++) {
		shma_free(block[i]);
		cr_expect_leq(api_sums(heap).cached, api_stats(heap).owned / 8 + 8 * MIB);
	}
	cr_expect_leq(api_stats(heap).owned, 8 * MIB);
	api_expect_empty(heap);
}

/* A heap that is full but for what we keep is not full. */
Test(large, what_is_kept_goes_before_memory_runs_out, .init = start, .fini = end)
{
	void *block[40], *most;

	for (int i = 0; i < 40; i++)
		cr_assert_not_null(block[i] = shma_malloc(4 * MIB));
	for (int i = 0; i < 40; i++)
		shma_free(block[i]);
	for (int i = 0; i < 40; i++)
		cr_assert_not_null(block[i] = shma_malloc(300000 + (size_t)i * 1000));
	for (int i = 0; i < 40; i++)
		shma_free(block[i]);
	most = shma_malloc(250 * MIB);
	cr_expect_not_null(most, "%s", strerror(errno));
	shma_free(most);
	api_expect_empty(heap);
}

/* ---- other processes ---- */

static int keep_and_end(void *foreign)
{
	shma_heap *mine = shma_default();
	void *own = shma_malloc(MIB), *scoped = shma_heap_alloc(mine, MIB, 0, SHMA_SCOPED);

	child_check(own && scoped && api_filled(foreign, 2 * MIB, 1));
	shma_free(foreign);
	shma_free(own);
	shma_free(scoped);
	child_check(
	        shma_malloc(3 * MIB) && shma_heap_alloc(mine, 3 * MIB, 0, SHMA_SCOPED)); /* the second dies with us */
	return 0;
}

Test(large, what_a_dead_process_kept_comes_back, .init = start, .fini = end)
{
	for (int i = 0; i < 3; i++) {
		void *block = shma_malloc(2 * MIB);

		api_fill(block, 2 * MIB, 1);
		cr_expect_eq(child_run(keep_and_end, block), 0);
		cr_expect(api_settles(api_stats(heap).owned == 0), "%llu", (unsigned long long)api_stats(heap).owned);
		cr_expect_eq(api_live(heap), 3 * MIB * (unsigned)(i + 1), "the child's shared block");
	}
	cr_expect_eq(test_ctl_check(&d), 0);
}

static int free_scoped_of_parent(void *block)
{
	child_check(api_filled(block, 2 * MIB, 7));
	shma_free(block);
	child_check(api_sums(shma_default()).cached == 0); /* it belongs to the parent, and is not kept here */
	return 0;
}

Test(large, another_process_frees_a_scoped_block, .init = start, .fini = end)
{
	void *block = shma_heap_alloc(heap, 2 * MIB, 0, SHMA_SCOPED);

	api_fill(block, 2 * MIB, 7);
	cr_expect_eq(child_run(free_scoped_of_parent, block), 0);
	cr_expect_eq(api_live(heap), 0);
	cr_expect_eq(api_stats(heap).owned, 0);
	block = shma_heap_alloc(heap, 2 * MIB, 0, SHMA_SCOPED);
	cr_expect_not_null(block);
	shma_free(block);
	api_expect_empty(heap);
}

/* ---- threads ---- */

static void *work(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};
	void *block[4] = {NULL};
	size_t len[4] = {0};

	for (unsigned i = 0; i < 600; i++) {
		unsigned at = test_random_below(&random, 4);

		if (block[at]) {
			child_check(api_filled(block[at], len[at], (size_t)arg + at));
			shma_free(block[at]);
			block[at] = NULL;
			continue;
		}
		len[at] = 256 * KIB + 1 + test_random_below(&random, 2 * MIB);
		block[at] = shma_heap_alloc(heap, len[at], 0, test_random_below(&random, 4));
		child_check(block[at]);
		api_fill(block[at], len[at], (size_t)arg + at);
	}
	for (unsigned at = 0; at < 4; at++)
		shma_free(block[at]);
	return NULL;
}

Test(large, threads_share_the_cache, .init = start, .fini = end)
{
	struct test_random random = test_random_init("large threads");
	pthread_t thread[4];

	for (int i = 0; i < 4; i++)
		cr_assert_eq(
		        pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(test_random_next(&random) | 1)), 0);
	for (int i = 0; i < 4; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	api_expect_empty(heap);
}
