#include "daemon/account.h"

#include <stddef.h>

static uint64_t unused(const struct account *account)
{
	return account->guaranteed > account->used ? account->guaranteed - account->used : 0;
}

uint64_t account_reserve(const struct account *account)
{
	return unused(account) > account->below ? unused(account) : account->below;
}

/* More is charged to this account, and more is reserved under it; less, if the numbers wrap. */
static void add(struct account *account, uint64_t pages, uint64_t below)
{
	for (; account; account = account->parent) {
		uint64_t before = account_reserve(account);

		account->used += pages;
		account->below += below;
		below = account_reserve(account) - before;
	}
}

void account_open(struct account *account, struct account *parent, const struct limit *limit)
{
	*account = (struct account){.parent = parent};
	account_change(account, limit);
}

void account_close(struct account *account)
{
	account_change(account, &(struct limit){0});
}

void account_change(struct account *account, const struct limit *limit)
{
	uint64_t before = account_reserve(account);

	account->limit = limit->hard;
	account->soft = limit->soft;
	account->guaranteed = limit->guaranteed;
	add(account->parent, 0, account_reserve(account) - before);
}

void account_waive(struct account *account)
{
	account_change(account, &(struct limit){.hard = account->limit, .soft = account->soft});
}

uint64_t account_share(const struct account *account, uint64_t room)
{
	const struct account *user = account->parent, *heap = user->parent;
	uint64_t own = unused(account); /* without harm to other clients of the same user */

	if (unused(user) > user->below)
		own += unused(user) - user->below;
	return own + (room > heap->below ? room - heap->below : 0);
}

uint64_t account_room(const struct account *account)
{
	uint64_t room = UINT64_MAX;

	for (; account; account = account->parent) {
		if (!account->limit)
			continue;
		uint64_t here = account->used < account->limit ? account->limit - account->used : 0;

		if (here < room)
			room = here;
	}
	return room;
}

int charge_take(struct charge *charge, struct account *account, uint64_t pages)
{
	if (pages > account_room(account))
		return ACCOUNT_E_LIMIT;
	charge_set(charge, account, pages);
	return 0;
}

void charge_set(struct charge *charge, struct account *account, uint64_t pages)
{
	charge_refund(charge);
	*charge = (struct charge){.account = account, .pages = pages};
	add(account, pages, 0);
}

void charge_refund(struct charge *charge)
{
	add(charge->account, -charge->pages, 0);
	*charge = (struct charge){0};
}

struct user *users_get(struct users *users, uint32_t uid)
{
	struct user *empty = NULL;

	for (unsigned i = 0; i < ACCOUNT_USERS; i++) {
		struct user *user = &users->user[i];

		if (user->refs && user->uid == uid) {
			user->refs++;
			return user;
		}
		if (!user->refs && !empty)
			empty = user;
	}
	if (!empty)
		return NULL;
	*empty = (struct user){.uid = uid, .refs = 1};
	account_open(&empty->account, users->heap, &users->limit);
	return empty;
}

void users_put(struct user *user)
{
	if (user && !--user->refs)
		account_close(&user->account);
}
