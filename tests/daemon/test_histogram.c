#include "daemon/histogram.h"

#include <criterion/criterion.h>

/* The bucket of one time. */
static uint32_t bucket(uint64_t us)
{
	struct histogram h = {.sum_us = 0};

	histogram_add(&h, us);
	cr_assert_eq(h.sum_us, us);
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		if (h.bucket[b])
			return b;
	return WIRE_BUCKETS;
}

Test(histogram, a_bucket_ends_at_its_power_of_two)
{
	cr_expect_eq(bucket(0), 0);
	cr_expect_eq(bucket(1), 0);
	for (uint32_t b = 1; b < WIRE_BUCKETS - 1; b++) {
		cr_expect_eq(bucket((1ull << (b - 1)) + 1), b, "%u", b);
		cr_expect_eq(bucket(1ull << b), b, "%u", b);
	}
	cr_expect_eq(bucket((1ull << (WIRE_BUCKETS - 2)) + 1), WIRE_BUCKETS - 1);
	cr_expect_eq(bucket(UINT64_MAX), WIRE_BUCKETS - 1);
}

Test(histogram, counts_and_sums)
{
	struct histogram h = {.sum_us = 0};

	for (uint64_t i = 0; i < 10; i++)
		histogram_add(&h, 100);
	histogram_add(&h, 3);
	cr_expect_eq(h.bucket[7], 10);
	cr_expect_eq(h.bucket[2], 1);
	cr_expect_eq(h.sum_us, 1003);
}
