#include "daemon/account.h"

#include <stddef.h>

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
	for (; account; account = account->parent)
		account->used += pages;
}

void charge_refund(struct charge *charge)
{
	for (struct account *account = charge->account; account; account = account->parent)
		account->used -= charge->pages;
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
	if (empty)
		*empty = (struct user){.uid = uid, .refs = 1, .account = {.limit = users->limit}};
	return empty;
}

void users_put(struct user *user)
{
	if (user)
		user->refs--;
}
