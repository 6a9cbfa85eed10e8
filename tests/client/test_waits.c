/* How long refills were waited for, as shma_stats tells it. */
#include "client/waits.h"

#include <criterion/criterion.h>

static struct shma_stats fill(const struct shmi_waits *waits)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	shmi_waits_fill(waits, &stats);
	return stats;
}

Test(waits, nothing_was_waited_for)
{
	struct shmi_waits waits = {.last_us = 0};
	struct shma_stats s = fill(&waits);

	cr_assert_eq(s.refills + s.refill_us_sum + s.refill_us_max + s.refill_us_p50 + s.refill_us_p99, 0);
}

Test(waits, quantiles)
{
	struct shmi_waits waits = {.last_us = 0};

	for (int i = 0; i < 98; i++)
		shmi_waits_add(&waits, 10);
	shmi_waits_add(&waits, 1000);
	shmi_waits_add(&waits, 70000);
	struct shma_stats s = fill(&waits);

	cr_assert_eq(s.refills, 100);
	cr_assert_eq(s.refill_us_sum, 98 * 10 + 1000 + 70000);
	cr_assert_eq(s.refill_us_max, 70000);
	cr_assert_eq(s.refill_us_p50, 16);
	cr_assert_eq(s.refill_us_p99, 1024);
	cr_assert_eq(waits.last_us, 70000);
}

/* A quantile is never more than the longest. */
Test(waits, one_wait)
{
	struct shmi_waits waits = {.last_us = 0};

	shmi_waits_add(&waits, 9);
	struct shma_stats s = fill(&waits);

	cr_assert_eq(s.refill_us_p50, 9);
	cr_assert_eq(s.refill_us_p99, 9);
}

/* What took less than a microsecond was waited for all the same; what took for ever is in the last bucket. */
Test(waits, the_ends)
{
	struct shmi_waits waits = {.last_us = 0};

	shmi_waits_add(&waits, 0);
	cr_assert_eq(waits.last_us, 1);
	cr_assert_eq(shmi_load(&waits.bucket[0]), 1);
	shmi_waits_add(&waits, 1ull << 40);
	cr_assert_eq(waits.last_us, UINT32_MAX);
	cr_assert_eq(shmi_load(&waits.bucket[WIRE_BUCKETS - 1]), 1);
	cr_assert_eq(fill(&waits).refill_us_p99, 1ull << 40);
}
