/* Fair turns: how much of each turn of the loop every user has had.
 *
 * The loop takes one packet of each connection in a turn. So a user with many connections, or with requests that are costly, would have
 * most of it. Instead each user has a share of every turn, in time: once that is spent, what its connections have sent stays in their
 * sockets until the next turn, in which it has a share again. A request of somebody else waits for one share of each other user
 * who wants anything, whatever these do, and nobody is held back while the others want nothing: then the turns are short.
 * (Deficit round robin, Shreedhar and Varghese 1995, with time for bytes; a request that is longer than what is left of a share is
 * carried over as a debt, so that nobody gains by long ones.)
 *
 * Beside that each user has a rate (policy.h: POLICY_RATE_...), of time and not of turns: a token bucket that is filled while it runs and
 * emptied by what is done for the user while others want something as well. Whoever has emptied it waits for a moment. Alone on the
 * daemon nobody does.
 *
 * A user counts its connections, and is remembered for its rate when it has none, as long as there is room. No clock: times are given.
 */
#ifndef DAEMON_FAIR_H
#define DAEMON_FAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/policy.h"

struct fair_user {
	uint32_t uid;
	uint32_t connections; /* 0: entry not in use */
	uint64_t turn; /* to which `spent_us` belongs */
	uint64_t spent_us; /* of that turn's share, and what is owed from before */
	int64_t credit_us; /* in the bucket ... */
	uint64_t filled_us; /* ... as of then; 0: this entry was never used */
	uint64_t figures_us; /* until when the gathering of figures is paid for: all who wait share one */
};

struct fair {
	uint64_t turn;
	uint32_t connections; /* of all users */
	const struct fair_user *last; /* who asked last */
	uint64_t last_us, other_us; /* when; and when somebody else did last */
	struct fair_user user[POLICY_SESSIONS]; /* never more users than connections */
};

/* How many connections the user has. */
uint32_t fair_connections(const struct fair *fair, uint32_t uid);

/* One more. NULL when there are POLICY_SESSIONS. The entry stays where it is until fair_leave was called as often. */
struct fair_user *fair_enter(struct fair *fair, uint32_t uid, uint64_t now_us);
void fair_leave(struct fair *fair, struct fair_user *user);

/* The next turn begins. */
void fair_turn(struct fair *fair);

/* Whether the user has something left of this turn. */
bool fair_has_share(const struct fair *fair, const struct fair_user *user);

/* Whether it is within its rate, or alone. */
bool fair_within_rate(struct fair *fair, struct fair_user *user, uint64_t now_us);

/* It has had so much of the loop's time, until now. */
void fair_spend(struct fair *fair, struct fair_user *user, uint64_t us, uint64_t now_us);

#endif
