#include "daemon/account.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/lib/random.h"

Test(account, charges_add_up_on_every_level)
{
	struct account user = {0}, client = {.parent = &user}, other = {.parent = &user};
	struct charge a = {0}, b = {0};

	cr_assert_eq(charge_take(&a, &client, 10), 0);
	cr_assert_eq(charge_take(&b, &other, 5), 0);
	cr_assert_eq(client.used, 10);
	cr_assert_eq(user.used, 15);
	charge_refund(&a);
	cr_assert_eq(client.used, 0);
	cr_assert_eq(user.used, 5);
	charge_refund(&a); /* harmless */
	cr_assert_eq(user.used, 5);
	charge_set(&b, &other, 7);
	cr_assert_eq(other.used, 7);
	cr_assert_eq(user.used, 7);
}

Test(account, the_tightest_level_counts)
{
	struct account user = {.limit = 100}, client = {.parent = &user, .limit = 60}, other = {.parent = &user};
	struct charge a = {0}, b = {0};

	cr_assert_eq(account_room(&client), 60);
	cr_assert_eq(account_room(&other), 100);
	cr_assert_eq(charge_take(&a, &client, 61), ACCOUNT_E_LIMIT);
	cr_assert_eq(user.used, 0);
	cr_assert_eq(charge_take(&a, &client, 60), 0);
	cr_assert_eq(charge_take(&b, &other, 41), ACCOUNT_E_LIMIT);
	cr_assert_eq(charge_take(&b, &other, 40), 0);
	cr_assert_eq(account_room(&client), 0);
	/* What has happened is booked even beyond a limit; there is no room then, and not a wrapped number. */
	charge_set(&b, &other, 50);
	cr_assert_eq(user.used, 110);
	cr_assert_eq(account_room(&other), 0);
}

Test(account, no_limit)
{
	struct account account = {0};

	cr_assert_eq(account_room(&account), UINT64_MAX);
}

Test(account, users)
{
	static struct users users;
	struct user *a = users_get(&users, 1000), *b = users_get(&users, 1001);

	users.limit.hard = 9;
	cr_assert_neq(a, b);
	cr_assert_eq(users_get(&users, 1000), a);
	users_put(a);
	users_put(a);
	struct user *c = users_get(&users, 1002);

	cr_assert_eq(c, a, "the entry of a user without clients is used again");
	cr_assert_eq(c->uid, 1002);
	cr_assert_eq(c->account.limit, 9);
	cr_assert_eq(b->uid, 1001);
}

Test(account, users_are_bounded)
{
	static struct users users;

	for (uint32_t i = 0; i < ACCOUNT_USERS; i++)
		cr_assert(users_get(&users, i) != NULL);
	cr_assert_null(users_get(&users, ACCOUNT_USERS));
	cr_assert(users_get(&users, 5) != NULL);
}

Test(account, random_walk)
{
	struct test_random random = test_random_init("account");
	struct account user[3] = {{.limit = 500}, {.limit = 0}, {.limit = 90}}, client[9];
	struct charge charge[64] = {{0}};

	for (int i = 0; i < 9; i++)
		client[i] = (struct account){.parent = &user[i % 3], .limit = i % 2 ? 100 : 0};
	for (int step = 0; step < 20000; step++) {
		struct charge *c = &charge[test_random_below(&random, 64)];
		uint64_t sum[3] = {0};

		if (c->account)
			charge_refund(c);
		else
			(void)charge_take(c, &client[test_random_below(&random, 9)], test_random_below(&random, 80));
		for (int i = 0; i < 64; i++)
			if (charge[i].account)
				sum[charge[i].account->parent - user] += charge[i].pages;
		for (int i = 0; i < 3; i++) {
			cr_assert_eq(user[i].used, sum[i]);
			cr_assert(!user[i].limit || user[i].used <= user[i].limit);
		}
	}
}
