/* What a client may still take, and what becomes of a request that cannot be granted.
 *
 *	hard        refused beyond it
 *	soft        beyond it the client, or all clients of the user or heap, are told to trim, at most once a second
 *	guaranteed  up to it nobody else's use of the heap stands in the way: who holds its guarantee or more is refused what would leave
 *	            less room in the heap than what the others have yet of theirs (daemon/account.h)
 *
 * Room is what is free, returned or not yet published; spans that nobody holds are granted without regard to shares, as they take
 * no room. Guarantees hold for clients that are attached and for users that have a client. If they add up to more than the heap
 * they cannot all be kept: then whoever is below its own is served first come, first served. That is said in the log.
 *
 * A request that is refused counts as no_memory and as one of the reasons below, and for its client and user.
 */
#ifndef DAEMON_LIMITS_H
#define DAEMON_LIMITS_H

#include "daemon/core.h"

enum limits_why {
	LIMITS_NONE,
	LIMITS_CLIENT, /* its hard limit */
	LIMITS_USER, /* its user's */
	LIMITS_SHARE, /* the rest is guaranteed to others */
	LIMITS_HEAP, /* the heap is full */
	LIMITS_SYSTEM /* the system has no memory for it */
};

/* New limits, for those who are there as well. What somebody holds already beyond them stays. */
void limits_apply(struct core *core, const struct limits *limits);

/* A client has come: says so, once, if what is guaranteed cannot all be kept. */
void limits_promised(struct core *core);

/* Which hard limit the client is at; only if it is at one. */
enum limits_why limits_which(const struct client *client);

/* Fresh pages that the client may have without harm to what is guaranteed to others. */
uint64_t limits_share(const struct core *core, const struct client *client);

/* Why the heap had no memory just now. */
enum limits_why limits_no_memory(const struct core *core);

/* What the client holds has changed: whoever is over a soft limit is told. */
void limits_watch(struct core *core, struct client *client);

/* Tells all who are over a soft limit. */
void limits_watch_all(struct core *core);

/* A request for `pages` pages is refused: counted, logged, and the reply. */
enum outcome limits_refuse(struct core *core, struct client *client, enum limits_why why, uint32_t pages);

#endif
