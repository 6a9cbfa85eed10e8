/* Shares of the loop's turns. */
#include "daemon/fair.h"

#include <criterion/criterion.h>

TestSuite(fair, .timeout = 60);

static struct fair fair;

/* The loop with requests of `cost` us: `users` of them each have `connections` that always want something. How long user 0, who has one
 * connection, waited for its turn at the most. */
static uint64_t longest_wait(uint32_t users, uint32_t connections, uint64_t cost, uint64_t turns)
{
	struct fair_user *user[64], *quiet = fair_enter(&fair, 0);
	uint64_t longest = 0;

	for (uint32_t u = 0; u < users; u++)
		for (uint32_t c = 0; c < connections; c++)
			cr_assert_not_null(user[u] = fair_enter(&fair, 1 + u));
	for (uint64_t t = 0; t < turns; t++) {
		uint64_t wait = 0;

		fair_turn(&fair);
		for (uint32_t u = 0; u < users; u++)
			for (uint32_t c = 0; c < connections && fair_has_share(&fair, user[u]); c++) {
				fair_spend(&fair, user[u], cost);
				wait += cost;
			}
		cr_assert(fair_has_share(&fair, quiet));
		fair_spend(&fair, quiet, cost);
		longest = wait > longest ? wait : longest;
	}
	return longest;
}

Test(fair, many_connections_of_one_user_cost_others_one_share)
{
	cr_expect_eq(longest_wait(1, 500, 20, 100), POLICY_SHARE_US);
}

Test(fair, each_other_user_costs_a_share)
{
	cr_expect_eq(longest_wait(3, 400, 20, 100), 3 * POLICY_SHARE_US);
}

Test(fair, few_requests_are_not_held_back)
{
	cr_expect_eq(longest_wait(1, 4, 20, 100), 80);
}

Test(fair, what_is_too_long_is_paid_for_later)
{
	struct fair_user *user = fair_enter(&fair, 7);

	fair_turn(&fair);
	fair_spend(&fair, user, 3 * POLICY_SHARE_US + 1);
	for (int turn = 0; turn < 2; turn++) {
		fair_turn(&fair);
		cr_expect_not(fair_has_share(&fair, user));
	}
	fair_turn(&fair);
	cr_expect(fair_has_share(&fair, user));
	fair_spend(&fair, user, POLICY_SHARE_US - 1);
	cr_expect_not(fair_has_share(&fair, user), "1 us was still owed");
}

Test(fair, debts_end)
{
	struct fair_user *user = fair_enter(&fair, 7);
	uint32_t turns = 0;

	fair_spend(&fair, user, UINT64_MAX / 2);
	while (!fair_has_share(&fair, user)) {
		fair_turn(&fair);
		cr_assert(++turns <= POLICY_SHARE_DEBT_US / POLICY_SHARE_US);
	}
	fair.turn += 1000000;
	cr_expect(fair_has_share(&fair, user), "what was not used is not saved up, nor owed");
	fair_spend(&fair, user, POLICY_SHARE_US);
	cr_expect_not(fair_has_share(&fair, user));
}

Test(fair, connections_are_counted)
{
	struct fair_user *a = fair_enter(&fair, 10), *b = fair_enter(&fair, 11);

	cr_assert_eq(fair_enter(&fair, 10), a);
	cr_expect_eq(fair_connections(&fair, 10), 2);
	cr_expect_eq(fair_connections(&fair, 11), 1);
	cr_expect_eq(fair_connections(&fair, 12), 0);
	fair_leave(&fair, b);
	cr_expect_eq(fair_connections(&fair, 11), 0);
	cr_expect_eq(fair.connections, 2);
	fair_leave(&fair, a);
	cr_expect_eq(fair_connections(&fair, 10), 1, "one is left");
	fair_leave(&fair, a);
}

Test(fair, no_more_than_there_may_be)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		cr_assert_not_null(fair_enter(&fair, i));
	cr_expect_null(fair_enter(&fair, 0));
	cr_expect_null(fair_enter(&fair, POLICY_SESSIONS));
}

Test(fair, a_debt_goes_with_the_last_connection_only)
{
	struct fair_user *user = fair_enter(&fair, 5);

	cr_assert_eq(fair_enter(&fair, 5), user);
	fair_spend(&fair, user, POLICY_SHARE_US);
	fair_leave(&fair, user);
	cr_expect_not(
	        fair_has_share(&fair, user), "a new connection for each request gains nothing while another stands");
}
