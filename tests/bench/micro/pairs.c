/* One block, or a few: the fast path, where everything is in the processor's first cache. */
#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <sys/mman.h>

#define BATCH 200

static void pairs(void *arg, long n)
{
	size_t size = *(const size_t *)arg;

	for (long i = 0; i < n; i++) {
		void *block = heap_alloc(size);

		touch(block);
		heap_free(block);
	}
}

static const size_t pair_sizes[] = {16, 64, 256, 1024, 8 * KIB, 32 * KIB, 256 * KIB};

#define PAIR_SIZES (sizeof(pair_sizes) / sizeof(pair_sizes[0]))

void row_pair(void)
{
	char name[32];

	for (size_t i = 0; i < PAIR_SIZES; i++) {
		size_t size = pair_sizes[i];

		snprintf(name, sizeof(name), "pair%zu", size);
		say(name, ns_per_op(pairs, &size, 10), "ns");
	}
}

/* More than a cache of a few blocks holds, freed in the order in which they were made. */
static void batches(void *arg, long n)
{
	void *block[BATCH];
	size_t size = *(const size_t *)arg;

	for (long i = 0; i < n; i++) {
		for (int j = 0; j < BATCH; j++) {
			block[j] = heap_alloc(size);
			touch(block[j]);
		}
		for (int j = 0; j < BATCH; j++)
			heap_free(block[j]);
	}
}

void row_batch(void)
{
	size_t size = 64;

	say("batch64", ns_per_op(batches, &size, 10) / BATCH, "ns");
}

/* ---- large blocks, and fresh memory ---- */

static void touch_all(char *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 4 * KIB)
		((volatile char *)at)[i] = 1;
}

static void large_all(void *arg, long n)
{
	size_t size = *(const size_t *)arg;

	for (long i = 0; i < n; i++) {
		void *block = heap_alloc(size);

		touch_all(heap_at(block), size);
		heap_free(block);
	}
}

void row_large(void)
{
	size_t size = 2 * MIB;

	say("large2M_all", ns_per_op(large_all, &size, 30) / 1e3, "us");
	say("large2M_one", ns_per_op(pairs, &size, 10) / 1e3, "us");
}

/* Memory that is new to this process and to the heap: in blocks of a page, and in blocks of 2 MiB; and for comparison a mapping of
 * one's own, page by page, as an allocator's would be on a machine without huge pages. */
#define FRESH (64u * MIB)

static double fresh(size_t size)
{
	int64_t begin = now_ns();

	for (size_t got = 0; got < FRESH; got += size)
		touch_all(heap_at(heap_alloc(size)), size);
	return (double)(now_ns() - begin) / (FRESH / (4.0 * KIB));
}

static double fresh_anonymous(void)
{
	char *pages = mmap(NULL, FRESH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED || madvise(pages, FRESH, MADV_NOHUGEPAGE) != 0)
		give_up("no fresh memory");
	int64_t begin = now_ns();

	touch_all(pages, FRESH);
	return (double)(now_ns() - begin) / (FRESH / (4.0 * KIB));
}

void row_touch(void)
{
	say("touch_anonymous", fresh_anonymous(), "ns");
	say("touch_4K", fresh(4 * KIB), "ns");
	say("touch_2M", fresh(2 * MIB), "ns");
}

void row_instructions(void)
{
	static const size_t counted[] = {16, 64, 1024, 8 * KIB, 256 * KIB};
	char name[32];

	for (size_t i = 0; i < sizeof(counted) / sizeof(counted[0]); i++) {
		size_t size = counted[i];

		snprintf(name, sizeof(name), "instructions%zu", size);
		count_instructions(name, pairs, &size);
	}
}
