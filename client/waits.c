#include "client/waits.h"

static void bump(shmi_a64 *word, uint64_t by)
{
	shmi_store(word, shmi_load(word) + by);
}

void shmi_waits_add(struct shmi_waits *waits, uint64_t us)
{
	us += !us; /* less than one is one: 0 says that nothing was waited for */
	uint32_t b = us > 1 ? 64 - (uint32_t)__builtin_clzll(us - 1) : 0;

	bump(&waits->bucket[b < WIRE_BUCKETS ? b : WIRE_BUCKETS - 1], 1);
	bump(&waits->sum_us, us);
	if (us > shmi_load(&waits->max_us))
		shmi_store(&waits->max_us, us);
	waits->last_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* The bound of the bucket in which the `part`-th of a hundred lies. */
static uint64_t quantile(const struct shmi_waits *waits, uint64_t count, uint64_t part)
{
	uint64_t before = 0, max = shmi_load(&waits->max_us);

	for (uint32_t b = 0; b < WIRE_BUCKETS - 1; b++) {
		before += shmi_load(&waits->bucket[b]);
		if (before * 100 >= count * part)
			return 1ull << b < max ? 1ull << b : max;
	}
	return max;
}

void shmi_waits_fill(const struct shmi_waits *waits, struct shma_stats *stats)
{
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		stats->refills += shmi_load(&waits->bucket[b]);
	if (!stats->refills)
		return;
	stats->refill_us_sum = shmi_load(&waits->sum_us);
	stats->refill_us_max = shmi_load(&waits->max_us);
	stats->refill_us_p50 = quantile(waits, stats->refills, 50);
	stats->refill_us_p99 = quantile(waits, stats->refills, 99);
}
