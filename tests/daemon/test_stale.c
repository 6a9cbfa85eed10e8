/* Free pages that an earlier daemon left backed: dropped step by step, and not clean until then. */
#include "daemon/stale.h"

#include <criterion/criterion.h>

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "daemon/scavenger.h"
#include "tests/lib/core.h"

#define LIMIT 8192u

static uint32_t backed(const struct test_core *t, uint32_t from, uint32_t pages)
{
	uint32_t n = 0;

	for (uint32_t i = from; i < from + pages; i++)
		n += t->backed[i] != 0;
	return n;
}

static void free_large(struct test_core *t, uint32_t page)
{
	core_free_large(&t->core, (shmi_page){page});
}

/* A kept block of 10 pages, and 2,000 free backed pages behind it. */
static struct test_core *left_behind(uint32_t *kept, uint32_t *gone)
{
	struct test_core *t = test_core_new(LIMIT);
	struct dialogue *d = test_core_attach(t, 1000);

	*kept = test_core_large(t, d, 10, 0, false);
	*gone = test_core_large(t, d, 2000, 0, false);
	free_large(t, *gone);
	cr_assert_eq(backed(t, *gone, 2000), 2000);
	test_core_restart(t);
	return t;
}

Test(stale, nothing_is_dropped_before_the_heap_serves)
{
	uint32_t kept, gone;
	struct test_core *t = left_behind(&kept, &gone);
	const struct shmi_run all = {.first = {gone}, .pages = {2000}};

	cr_assert_eq(backed(t, gone, 2000), 2000);
	cr_assert(stale_in(&t->heap, &all));
	test_core_free(t);
}

Test(stale, dropped_step_by_step)
{
	uint32_t kept, gone, steps = 0;
	struct test_core *t = left_behind(&kept, &gone);
	const struct shmi_run all = {.first = {1}, .pages = {LIMIT - 1}};

	t->longest = 0;
	for (bool more = true; more; steps++) {
		more = stale_step(&t->heap, POLICY_TURN_PAGES);
		cr_assert_lt(steps, 100);
	}
	cr_assert_geq(steps, 2000 / POLICY_TURN_PAGES);
	cr_assert_leq(t->longest, POLICY_TURN_PAGES);
	cr_assert_eq(backed(t, gone, 2000), 0);
	cr_assert_eq(backed(t, kept, 10), 10);
	cr_assert_not(stale_in(&t->heap, &all));
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}

/* Runs are taken, given back and joined between two steps: all that stays free is dropped all the same, and nothing else. */
Test(stale, while_the_heap_is_in_use)
{
	uint32_t kept, gone, block[64], n = 0;
	struct test_core *t = left_behind(&kept, &gone);
	struct dialogue *d = test_core_attach(t, 1000);

	test_core_run(t);
	for (bool more = true; more;) {
		more = stale_step(&t->heap, 40);
		if (n < 60) {
			block[n] = test_core_large(t, d, 3 + n * 7 % 50, 0, n % 5 == 0);
			cr_assert_neq(block[n++], 0);
		}
		if (n % 3 == 2)
			free_large(t, block[--n]);
		test_core_check(t);
	}
	for (uint32_t i = 0; i < n; i++)
		free_large(t, block[i]);
	test_core_run(t);
	while (heap_release(&t->heap, 0, POLICY_TURN_PAGES))
		;
	cr_assert_eq(backed(t, 1, LIMIT - 1), 10, "all but the kept block");
	test_core_check(t);
	test_core_free(t);
}

/* They may be anybody's: whoever gets some finds zeros there. */
Test(stale, dropped_before_they_are_handed_out)
{
	uint32_t kept, gone, page;
	struct test_core *t = left_behind(&kept, &gone);
	struct dialogue *d = test_core_attach(t, 1000);

	t->dropped = 0;
	cr_assert_neq(test_core_large(t, d, 500, 0, false), 0); /* in several turns */
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(t->dropped, 500);
	cr_assert_neq(test_core_large(t, d, 20, 0, false), 0);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(t->dropped, 520);
	cr_assert_neq(page = test_core_large(t, d, 20, 0, true), 0);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(backed(t, page, 20), 0);
	cr_assert_eq(t->dropped, 540);
	cr_assert_eq(test_core_refill(t, d, 4 * SHMI_ATTRS, 1), 1);
	cr_assert(t->reply.u.refill_ok.grants[0].fresh);
	cr_assert_gt(t->dropped, 540);
	test_core_check(t);
	scavenger_drop_stale(&t->core);
	test_core_run(t);
	cr_assert_neq(test_core_large(t, d, 500, 0, false), 0);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_neq(test_core_large(t, d, 20, 0, true), 0);
	cr_assert(t->reply.u.large_ok.zeroed);
	test_core_check(t);
	test_core_free(t);
}

Test(stale, given_up_at_once_when_there_is_no_memory)
{
	uint32_t kept, gone;
	struct test_core *t = left_behind(&kept, &gone);
	struct dialogue *d = test_core_attach(t, 1000);

	t->fail_in = 0;
	cr_assert_eq(test_core_large(t, d, 500, 0, false), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
	test_core_run(t);
	cr_assert_eq(backed(t, gone, 2000), 0);
	cr_assert_eq(backed(t, kept, 10), 10);
	test_core_check(t);
	test_core_free(t);
}
