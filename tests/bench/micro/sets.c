/* Many live blocks of mixed sizes, freed and made at random. */
#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <sys/mman.h>

#define WORKING_SET 100000u
#define BESIDE 100

static inline uint32_t size_of(uint64_t random)
{
	return sizes[random >> 52];
}

void set_open(struct set *set, uint64_t count, uint64_t seed)
{
	*set = (struct set){.block = pages_new(count * sizeof(*set->block)), .count = count, .random = seed};
	for (uint64_t i = 0; i < count; i++) {
		set->block[i] = heap_alloc(size_of(next_random(&set->random)));
		touch(set->block[i]);
	}
}

void set_replace(void *arg, long n)
{
	struct set *set = arg;
	uint64_t random = set->random, count = set->count;
	void **block = set->block;

	for (long i = 0; i < n; i++) {
		uint64_t r = next_random(&random), at = ((r & UINT32_MAX) * count) >> 32;

		heap_free(block[at]);
		block[at] = heap_alloc(size_of(r));
		touch(block[at]);
	}
	set->random = random;
}

void set_close(struct set *set)
{
	for (uint64_t i = 0; i < set->count; i++)
		heap_free(set->block[i]);
	munmap(set->block, set->count * sizeof(*set->block));
}

void row_set(void)
{
	struct set set;

	set_open(&set, WORKING_SET, 1);
	say("set100k", ns_per_op(set_replace, &set, 40), "ns");
	/* the set ends with the process: some peers would need seconds to free it */
}

/* ---- how the cost grows with what is alive ---- */

/* A batch of blocks comes and goes, the others stay. */
static void beside(void *arg, long n)
{
	struct set *set = arg;
	void *block[BESIDE];

	for (long i = 0; i < n; i++) {
		for (int j = 0; j < BESIDE; j++) {
			block[j] = heap_alloc(size_of(next_random(&set->random)));
			touch(block[j]);
		}
		for (int j = 0; j < BESIDE; j++)
			heap_free(block[j]);
	}
}

void row_live(void)
{
	char name[48];

	for (uint64_t count = 10000; count <= 10000000; count *= 10) {
		struct set set;

		set_open(&set, count, 1);
		snprintf(name, sizeof(name), "live_beside_%llu", (unsigned long long)count);
		say(name, ns_per_op(beside, &set, 10) / BESIDE, "ns");
		snprintf(name, sizeof(name), "live_replace_%llu", (unsigned long long)count);
		say(name, ns_per_op(set_replace, &set, 50), "ns");
		set_close(&set);
	}
}
