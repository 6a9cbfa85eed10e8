#include "daemon/fair.h"

#include <stddef.h>

static struct fair_user *find(struct fair *fair, uint32_t uid)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		if (fair->user[i].connections && fair->user[i].uid == uid)
			return &fair->user[i];
	return NULL;
}

static struct fair_user *find_empty(struct fair *fair)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		if (!fair->user[i].connections)
			return &fair->user[i];
	return NULL;
}

uint32_t fair_connections(const struct fair *fair, uint32_t uid)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		if (fair->user[i].connections && fair->user[i].uid == uid)
			return fair->user[i].connections;
	return 0;
}

struct fair_user *fair_enter(struct fair *fair, uint32_t uid)
{
	struct fair_user *user = find(fair, uid);

	if (fair->connections == POLICY_SESSIONS)
		return NULL;
	if (!user) {
		user = find_empty(fair);
		*user = (struct fair_user){.uid = uid, .turn = fair->turn};
	}
	user->connections++;
	fair->connections++;
	return user;
}

void fair_leave(struct fair *fair, struct fair_user *user)
{
	user->connections--;
	fair->connections--;
}

void fair_turn(struct fair *fair)
{
	fair->turn++;
}

/* What is spent by now: each turn that has passed since has paid a share. */
static uint64_t spent(const struct fair *fair, const struct fair_user *user)
{
	uint64_t turns = fair->turn - user->turn;

	return turns > user->spent_us / POLICY_SHARE_US ? 0 : user->spent_us - turns * POLICY_SHARE_US;
}

bool fair_has_share(const struct fair *fair, const struct fair_user *user)
{
	return spent(fair, user) < POLICY_SHARE_US;
}

void fair_spend(struct fair *fair, struct fair_user *user, uint64_t us)
{
	us += spent(fair, user);
	user->spent_us = us < POLICY_SHARE_DEBT_US ? us : POLICY_SHARE_DEBT_US;
	user->turn = fair->turn;
}
