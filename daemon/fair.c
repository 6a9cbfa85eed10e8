#include "daemon/fair.h"

#include <stddef.h>

static struct fair_user *find(struct fair *fair, uint32_t uid)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		if (fair->user[i].filled_us && fair->user[i].uid == uid)
			return &fair->user[i];
	return NULL;
}

/* One that was never used, or that of the user who has been away for longest. */
static struct fair_user *find_empty(struct fair *fair)
{
	struct fair_user *empty = NULL;

	for (uint32_t i = 0; i < POLICY_SESSIONS; i++) {
		struct fair_user *user = &fair->user[i];

		if (!user->connections && (!empty || user->filled_us < empty->filled_us))
			empty = user;
	}
	return empty;
}

uint32_t fair_connections(const struct fair *fair, uint32_t uid)
{
	for (uint32_t i = 0; i < POLICY_SESSIONS; i++)
		if (fair->user[i].connections && fair->user[i].uid == uid)
			return fair->user[i].connections;
	return 0;
}

struct fair_user *fair_enter(struct fair *fair, uint32_t uid, uint64_t now_us)
{
	struct fair_user *user = find(fair, uid);

	if (fair->connections == POLICY_SESSIONS)
		return NULL;
	if (!user) {
		user = find_empty(fair);
		*user = (struct fair_user){
		        .uid = uid, .turn = fair->turn, .credit_us = POLICY_RATE_BURST_US, .filled_us = now_us};
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

/* Has somebody else asked for something just now? */
static bool has_rivals(const struct fair *fair, const struct fair_user *user, uint64_t now_us)
{
	uint64_t asked_us = fair->last == user ? fair->other_us : fair->last_us;

	return asked_us && now_us - asked_us < POLICY_RATE_ACTIVE_US;
}

/* By whole microseconds: the rest of the time counts when it has become one. */
static void fill(struct fair_user *user, uint64_t now_us)
{
	uint64_t more = (now_us - user->filled_us) * POLICY_RATE_PERCENT / 100;
	int64_t room = POLICY_RATE_BURST_US - user->credit_us;

	if (more >= (uint64_t)room) {
		user->credit_us = POLICY_RATE_BURST_US;
		user->filled_us = now_us;
	} else {
		user->credit_us += (int64_t)more;
		user->filled_us += more * 100 / POLICY_RATE_PERCENT;
	}
}

/* A debt ends: what is done in one go, by many connections perhaps, holds nobody up for longer than it takes to fill the bucket twice. */
static void draw(struct fair_user *user, uint64_t us)
{
	user->credit_us -= us < POLICY_SHARE_DEBT_US ? (int64_t)us : POLICY_SHARE_DEBT_US;
	if (user->credit_us < -POLICY_RATE_BURST_US)
		user->credit_us = -POLICY_RATE_BURST_US;
}

bool fair_within_rate(struct fair *fair, struct fair_user *user, uint64_t now_us)
{
	fill(user, now_us);
	return user->credit_us > 0 || !has_rivals(fair, user, now_us);
}

void fair_spend(struct fair *fair, struct fair_user *user, uint64_t us, uint64_t now_us)
{
	if (fair->last != user)
		fair->other_us = fair->last_us;
	fair->last = user;
	fair->last_us = now_us;
	if (has_rivals(fair, user, now_us))
		draw(user, us);
	us += spent(fair, user);
	user->spent_us = us < POLICY_SHARE_DEBT_US ? us : POLICY_SHARE_DEBT_US;
	user->turn = fair->turn;
}
