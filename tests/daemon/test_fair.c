/* Shares of the loop's turns. */
#include "daemon/fair.h"

#include <criterion/criterion.h>

TestSuite(fair, .timeout = 60);

#define NOW 1000000u

static struct fair fair;

/* The loop with requests of `cost` us: `users` of them each have `connections` that always want something. How long user 0, who has one
 * connection, waited for its turn at the most. */
static uint64_t longest_wait(uint32_t users, uint32_t connections, uint64_t cost, uint64_t turns)
{
	struct fair_user *user[64], *quiet = fair_enter(&fair, 0, NOW);
	uint64_t longest = 0;

	for (uint32_t u = 0; u < users; u++)
		for (uint32_t c = 0; c < connections; c++)
			cr_assert_not_null(user[u] = fair_enter(&fair, 1 + u, NOW));
	for (uint64_t t = 0; t < turns; t++) {
		uint64_t wait = 0;

		fair_turn(&fair);
		for (uint32_t u = 0; u < users; u++)
			for (uint32_t c = 0; c < connections && fair_has_share(&fair, user[u]); c++) {
				fair_spend(&fair, user[u], cost, NOW);
				wait += cost;
			}
		cr_assert(fair_has_share(&fair, quiet));
		fair_spend(&fair, quiet, cost, NOW);
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
	struct fair_user *user = fair_enter(&fair, 7, NOW);

	fair_turn(&fair);
	fair_spend(&fair, user, 3 * POLICY_SHARE_US + 1, NOW);
	for (int turn = 0; turn < 2; turn++) {
		fair_turn(&fair);
		cr_expect_not(fair_has_share(&fair, user));
	}
	fair_turn(&fair);
	cr_expect(fair_has_share(&fair, user));
	fair_spend(&fair, user, POLICY_SHARE_US - 1, NOW);
	cr_expect_not(fair_has_share(&fair, user), "1 us was still owed");
}

Test(fair, debts_end)
{
	struct fair_user *user = fair_enter(&fair, 7, NOW);
	uint32_t turns = 0;

	fair_spend(&fair, user, UINT64_MAX / 2, NOW);
	while (!fair_has_share(&fair, user)) {
		fair_turn(&fair);
		cr_assert(++turns <= POLICY_SHARE_DEBT_US / POLICY_SHARE_US);
	}
	fair.turn += 1000000;
	cr_expect(fair_has_share(&fair, user), "what was not used is not saved up, nor owed");
	fair_spend(&fair, user, POLICY_SHARE_US, NOW);
	cr_expect_not(fair_has_share(&fair, user));
}

Test(fair, connections_are_counted)
{
	struct fair_user *a = fair_enter(&fair, 10, NOW), *b = fair_enter(&fair, 11, NOW);

	cr_assert_eq(fair_enter(&fair, 10, NOW), a);
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
		cr_assert_not_null(fair_enter(&fair, i, NOW));
	cr_expect_null(fair_enter(&fair, 0, NOW));
	cr_expect_null(fair_enter(&fair, POLICY_SESSIONS, NOW));
}

Test(fair, a_debt_goes_with_the_last_connection_only)
{
	struct fair_user *user = fair_enter(&fair, 5, NOW);

	cr_assert_eq(fair_enter(&fair, 5, NOW), user);
	fair_spend(&fair, user, POLICY_SHARE_US, NOW);
	fair_leave(&fair, user);
	cr_expect_not(
	        fair_has_share(&fair, user), "a new connection for each request gains nothing while another stands");
}

/* ---- rates ---- */

/* One user asks without end from `from_us` for `ms` milliseconds, each request taking 20 us; another every `rival_ms`, if not 0. How
 * much of the time the first one got, in percent. */
static uint64_t got(struct fair_user *user, struct fair_user *rival, uint64_t from_us, uint64_t ms, uint64_t rival_ms)
{
	uint64_t spent = 0, next = from_us;

	for (uint64_t now = from_us; now < from_us + ms * 1000; now += 20) {
		if (rival_ms && now >= next) {
			cr_assert(fair_within_rate(&fair, rival, now), "who asks little is never held back");
			fair_spend(&fair, rival, 20, now);
			next = now + rival_ms * 1000;
		}
		if (!fair_within_rate(&fair, user, now))
			continue;
		fair_spend(&fair, user, 20, now);
		spent += 20;
	}
	return spent * 100 / (ms * 1000);
}

Test(fair, who_is_alone_may_have_all)
{
	cr_expect_eq(got(fair_enter(&fair, 1, NOW), NULL, NOW, 5000, 0), 100);
}

Test(fair, beside_others_it_is_a_burst_and_then_a_rate)
{
	struct fair_user *user = fair_enter(&fair, 1, NOW), *rival = fair_enter(&fair, 2, NOW);

	cr_expect_geq(got(user, rival, NOW, POLICY_RATE_BURST_US / 1000, 5), 99, "at first it may have all");
	got(user, rival, NOW + POLICY_RATE_BURST_US, 1000, 5);
	uint64_t percent = got(user, rival, NOW + 2 * POLICY_RATE_BURST_US + 1000000, 5000, 5);

	cr_expect(percent >= POLICY_RATE_PERCENT - 1 && percent <= POLICY_RATE_PERCENT + 1, "%llu %%",
	        (unsigned long long)percent);
	cr_expect_eq(got(user, rival, NOW + 10000000, 1000, 0), 100, "alone again");
}

Test(fair, to_come_anew_fills_no_bucket)
{
	struct fair_user *user = fair_enter(&fair, 1, NOW), *rival = fair_enter(&fair, 2, NOW);

	got(user, rival, NOW, 3000, 5);
	fair_leave(&fair, user);
	cr_assert_eq(fair_enter(&fair, 1, NOW + 3000000), user);
	cr_expect_leq(got(user, rival, NOW + 3000000, 1000, 5), POLICY_RATE_PERCENT + 1);
}

/* Looked at every few microseconds, as a flood is. */
Test(fair, the_rate_holds_however_often_it_is_looked_at)
{
	struct fair_user *user = fair_enter(&fair, 1, NOW), *rival = fair_enter(&fair, 2, NOW);
	uint64_t spent = 0, end = NOW + 4000000;

	user->credit_us = 0;
	for (uint64_t now = NOW; now < end; now += 7) {
		if ((now - NOW) % 7000 == 0)
			fair_spend(&fair, rival, 1, now);
		if (!fair_within_rate(&fair, user, now))
			continue;
		fair_spend(&fair, user, 20, now);
		spent += 20;
	}
	uint64_t permille = spent * 1000 / (end - NOW);

	cr_expect(permille >= 10 * POLICY_RATE_PERCENT - 3 && permille <= 10 * POLICY_RATE_PERCENT + 3, "%llu",
	        (unsigned long long)permille);
}

Test(fair, a_debt_to_the_rate_ends)
{
	struct fair_user *user = fair_enter(&fair, 1, NOW), *rival = fair_enter(&fair, 2, NOW);

	fair_spend(&fair, rival, 1, NOW);
	for (int i = 0; i < 2000; i++)
		fair_spend(&fair, user, 5000, NOW + 1);
	uint64_t paid = NOW + 1 + 100ull * POLICY_RATE_BURST_US / POLICY_RATE_PERCENT + 1000;

	cr_expect_not(fair_within_rate(&fair, user, NOW + 2));
	fair_spend(&fair, rival, 1, paid);
	cr_expect(fair_within_rate(&fair, user, paid));
}
