/* Accounts: who pays for which pages.
 *
 * A charge is a struct embedded in what it pays for (a client, a large block that is being backed). It knows the account
 * that it was taken from, so that refunding it needs no further knowledge, and cannot be forgotten with a part of the sum.
 * Accounts have parents: a client's account lies under its user's. A limit is looked at on every level; 0 is none.
 *
 * Guarantees: up to its guarantee an account's pages are reserved for it, as far as it does not hold them yet. What an account
 * reserves is that or what the accounts under it do, whichever is more; so each charge changes one number on each level, and the
 * topmost account, the heap's, knows at any time how much of what is free is spoken for.
 *
 * How much a client holds is not counted here: the image knows it (struct shmi_owner). charge_set takes over that figure,
 * so the account follows from the heap and cannot drift from it.
 */
#ifndef DAEMON_ACCOUNT_H
#define DAEMON_ACCOUNT_H

#include <stdint.h>

#include "daemon/jobs.h"

struct account {
	struct account *parent;
	uint64_t used; /* pages */
	uint64_t limit; /* pages; 0: none */
	uint64_t soft; /* likewise */
	uint64_t guaranteed; /* pages */
	uint64_t below; /* reserved by the accounts under this one, together */
	uint64_t told_ms; /* when its clients were last told to trim; 0: never */
};

/* What somebody may hold, in pages; 0: no such bound. */
struct limit {
	uint64_t hard; /* beyond it requests are refused */
	uint64_t soft; /* beyond it clients are told to trim */
	uint64_t guaranteed; /* up to it nobody else's use of the heap stands in the way */
};

/* Of a heap. Those of clients and users hold for each of them. */
struct limits {
	struct limit client, user;
	uint64_t heap_soft;
};

struct charge {
	struct account *account; /* NULL: nothing charged */
	uint64_t pages;
};

#define ACCOUNT_E_LIMIT 1 /* an account on the way up would be over its limit */

/* Enters an account under `parent`, with nothing charged; takes it out again. A change of its limits. */
void account_open(struct account *account, struct account *parent, const struct limit *limit);
void account_close(struct account *account);

/* Nothing is kept for it any more: whoever it is of takes nothing in future. */
void account_waive(struct account *account);
void account_change(struct account *account, const struct limit *limit);

/* Pages that are kept for this account and those under it. */
uint64_t account_reserve(const struct account *account);

/* Of `room` free pages: how many an account of the lowest of three levels (client, user, heap) may have, so that what is reserved for
 * others stays, or out of what is reserved for itself. */
uint64_t account_share(const struct account *account, uint64_t room);

/* The pages that can still be charged: the least over all levels, UINT64_MAX without a limit. */
uint64_t account_room(const struct account *account);

/* Charges `pages`. Returns 0, or ACCOUNT_E_LIMIT and nothing is charged. The charge must be empty. */
int charge_take(struct charge *charge, struct account *account, uint64_t pages);

/* Makes the charge what the heap says it is; limits are not looked at, for it has happened. */
void charge_set(struct charge *charge, struct account *account, uint64_t pages);

/* Gives everything back. Harmless on an empty charge. */
void charge_refund(struct charge *charge);

/* ---- users ---- */

#define ACCOUNT_USERS 1024u /* one client each at the least */

struct user {
	uint32_t uid;
	uint32_t refs; /* clients; 0: entry not in use */
	uint64_t requests, failed; /* of its clients, since it has one */
	struct account account;
	struct payer payer; /* of what is done for its clients in steps */
};

struct users {
	struct limit limit; /* of each user */
	struct account *heap; /* above all of them; may be NULL */
	struct user user[ACCOUNT_USERS];
};

/* The user's entry, made when missing; NULL when all are taken. Each get needs a put. */
struct user *users_get(struct users *users, uint32_t uid);
void users_put(struct user *user);

#endif
