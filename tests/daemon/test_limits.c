/* Soft limits, guarantees, and what a refusal counts as. */
#include <criterion/criterion.h>

#include "daemon/limits.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

TestSuite(limits, .timeout = 120);

#define PAGES 2048u
#define C64 (4u * SHMI_ATTRS)

static struct shmi_counters *counters(struct test_core *t)
{
	return &t->heap.img.super->counters;
}

static uint64_t used(const struct dialogue *d)
{
	return d->caller.client->account.used;
}

static uint32_t wanted(struct test_core *t, const struct dialogue *d)
{
	return shmi_load(&shmi_owner_at(&t->heap.img, test_core_client(d))->trim_wanted);
}

static struct test_core *with(struct limits limits)
{
	struct test_core *t = test_core_new(PAGES);

	limits_apply(&t->core, &limits);
	return t;
}

/* A block of as many pages; false if it is refused. */
static bool takes(struct test_core *t, struct dialogue *d, uint32_t pages)
{
	return test_core_large(t, d, pages, 0, false) != 0;
}

/* ---- refusals ---- */

static void expect_one(struct test_core *t, shmi_a64 *reason, const struct dialogue *d)
{
	struct shmi_counters *c = counters(t);
	uint64_t all = shmi_load(&c->over_client) + shmi_load(&c->over_user) + shmi_load(&c->over_share) +
	               shmi_load(&c->heap_full) + shmi_load(&c->system_full);

	cr_assert_eq(shmi_load(reason), 1);
	cr_assert_eq(all, 1, "of one reason and no other");
	cr_assert_eq(shmi_load(&c->no_memory), 1);
	cr_assert_eq(d->caller.client->failed, 1);
	cr_assert_eq(d->caller.client->user->failed, 1);
}

Test(limits, over_the_clients)
{
	struct test_core *t = with((struct limits){.client.hard = 100, .user.hard = 500});
	struct dialogue *a = test_core_attach(t, 1000);

	cr_assert_not(takes(t, a, 100));
	cr_assert_eq(t->reply.u.error.code, WIRE_E_LIMIT);
	expect_one(t, &counters(t)->over_client, a);
	test_core_free(t);
}

Test(limits, over_the_users)
{
	struct test_core *t = with((struct limits){.client.hard = 400, .user.hard = 500});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);

	cr_assert(takes(t, a, 300));
	cr_assert_not(takes(t, b, 300));
	cr_assert_eq(t->reply.u.error.code, WIRE_E_LIMIT);
	expect_one(t, &counters(t)->over_user, b);
	test_core_free(t);
}

Test(limits, over_the_users_in_spans)
{
	struct test_core *t = with((struct limits){.user.hard = 60});
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t got = test_core_refill(t, a, C64, 100);

	cr_assert_gt(got, 0);
	cr_assert_leq(used(a), 60);
	cr_assert_eq(shmi_load(&counters(t)->no_memory), 0, "some were granted");
	cr_assert_eq(test_core_refill(t, a, C64, 1), 0);
	expect_one(t, &counters(t)->over_user, a);
	test_core_free(t);
}

Test(limits, a_full_heap_and_a_full_system)
{
	struct test_core *t = with((struct limits){0});
	struct dialogue *a = test_core_attach(t, 1000);

	cr_assert(takes(t, a, PAGES - 20));
	cr_assert_not(takes(t, a, 30));
	expect_one(t, &counters(t)->heap_full, a);
	test_core_free(t);
	t = with((struct limits){0});
	a = test_core_attach(t, 1000);
	t->fail_object = HEAP_DATA;
	t->fail_in = 0;
	cr_assert_not(takes(t, a, 30));
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
	expect_one(t, &counters(t)->system_full, a);
	test_core_free(t);
}

/* ---- soft limits ---- */

Test(limits, told_once_a_second)
{
	struct test_core *t = with((struct limits){.client.soft = 50});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	cr_assert(takes(t, a, 20));
	cr_assert_eq(wanted(t, a), 0);
	cr_assert(takes(t, a, 40));
	cr_assert_eq(wanted(t, a), 1, "it has just crossed it");
	cr_assert(takes(t, a, 10));
	cr_assert_eq(wanted(t, a), 1, "within the second");
	core_tick(&t->core, t->core.now_ms + POLICY_TELL_MS);
	cr_assert(takes(t, a, 10));
	cr_assert_eq(wanted(t, a), 2);
	cr_assert_eq(wanted(t, b), 0);
	cr_assert_eq(shmi_load(&counters(t)->trims), 2);
	test_core_free(t);
}

Test(limits, all_clients_of_the_user)
{
	struct test_core *t = with((struct limits){.user.soft = 50});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000), *c = test_core_attach(t, 1001);

	cr_assert(takes(t, a, 30));
	cr_assert(takes(t, b, 30));
	cr_assert_eq(wanted(t, a), 1);
	cr_assert_eq(wanted(t, b), 1);
	cr_assert_eq(wanted(t, c), 0);
	test_core_free(t);
}

Test(limits, all_clients_of_the_heap)
{
	struct test_core *t = with((struct limits){.heap_soft = 50});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	cr_assert(takes(t, a, 60));
	cr_assert_eq(wanted(t, a), 1);
	cr_assert_eq(wanted(t, b), 1);
	test_core_free(t);
}

/* ---- guarantees ---- */

Test(limits, a_share_is_kept_for_another)
{
	struct test_core *t = with((struct limits){.user.guaranteed = 500});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	cr_assert(takes(t, a, 1400));
	cr_assert_not(takes(t, a, 200), "of 648 pages that are left 496 are b's");
	cr_assert_eq(t->reply.u.error.code, WIRE_E_LIMIT);
	expect_one(t, &counters(t)->over_share, a);
	cr_assert(takes(t, a, 100));
	cr_assert_eq(test_core_refill(t, a, C64, 100) < 100, true);
	cr_assert(takes(t, b, 490), "it can have all of its own");
	test_core_check(t);
	test_core_free(t);
}

/* The sum is that of those who are there. */
Test(limits, who_leaves_needs_no_share)
{
	struct test_core *t = with((struct limits){.client.guaranteed = 600});
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);

	cr_assert_eq(t->core.all.below, 1200 - used(a) - used(b));
	cr_assert_not(takes(t, a, 1600));
	test_core_kill(t, b);
	test_core_run(t);
	cr_assert_eq(t->core.all.below, 600 - used(a));
	cr_assert(takes(t, a, 1600));
	cr_assert_eq(t->core.all.below, 0);
	test_core_kill(t, a);
	test_core_run(t);
	cr_assert_eq(t->core.all.below, 0);
	cr_assert_eq(t->core.all.used, 0);
	test_core_free(t);
}

/* More is promised than there is: served all the same, and said. */
Test(limits, too_much_is_promised)
{
	struct test_core *t = with((struct limits){.client.guaranteed = 1500});
	struct dialogue *a = test_core_attach(t, 1000);

	cr_assert_not(t->core.overpromised);
	struct dialogue *b = test_core_attach(t, 1001);

	cr_assert(t->core.overpromised);
	cr_assert(takes(t, a, 1400));
	cr_assert(takes(t, b, 500));
	cr_assert_not(takes(t, b, 500), "it is not there");
	test_core_free(t);
}

/* What the formula says is what trying it out says: whoever asks for less than its share harms nobody's reserve. */
Test(limits, shares_by_trial)
{
	struct test_random random = test_random_init("limits shares");

	for (uint32_t i = 0; i < 20000; i++) {
		struct account heap = {0}, user[2], client[4];
		struct charge charge[4] = {{0}};
		struct limit lu = {.guaranteed = test_random_below(&random, 60)},
		             lc = {.guaranteed = test_random_below(&random, 40)};
		uint64_t room = test_random_below(&random, 120);

		for (uint32_t u = 0; u < 2; u++)
			account_open(&user[u], &heap, &lu);
		for (uint32_t c = 0; c < 4; c++) {
			account_open(&client[c], &user[c / 2], &lc);
			charge_set(&charge[c], &client[c], test_random_below(&random, 50));
		}
		uint64_t before = account_reserve(&heap), most = 0;

		for (uint64_t n = 1; n <= 150; n++) {
			struct charge more = {0};

			charge_set(&more, &client[0], n);
			uint64_t after = account_reserve(&heap);

			if (before - after >= n || (room >= n && room - n >= after))
				most = n;
			charge_refund(&more);
		}
		uint64_t share = account_share(&client[0], room);

		cr_assert_eq(share < 150 ? share : 150, most, "step %u: %llu and not %llu", i,
		        (unsigned long long)share, (unsigned long long)most);
		for (uint32_t c = 0; c < 4; c++) {
			charge_refund(&charge[c]);
			account_close(&client[c]);
		}
		account_close(&user[0]);
		account_close(&user[1]);
		cr_assert_eq(heap.below, 0);
		cr_assert_eq(heap.used, 0);
	}
}
