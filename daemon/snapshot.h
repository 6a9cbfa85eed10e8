/* All figures of a heap at one moment.
 *
 * Taken in one go, in well under a millisecond: the sums come from the ledger (shm/ledger.h), which is always in step with the
 * spans, and nothing is walked but the tables of clients, users and thread records. So whatever clients do meanwhile, the parts
 * of a snapshot add up: its rows to its sums, its users' to its clients'.
 */
#ifndef DAEMON_SNAPSHOT_H
#define DAEMON_SNAPSHOT_H

#include "proto/report/report.h"

struct core;

/* Users in it at the most: those who are connected, and those of clients that are not. */
#define SNAPSHOT_USERS (POLICY_SESSIONS + ACCOUNT_USERS)

struct snapshot {
	uint32_t id;
	uint32_t uid; /* who asked for it */
	struct wire_stats stats;
	uint32_t n_clients, n_users, n_classes;
	struct wire_client_row *clients; /* by id */
	struct wire_user_row *users; /* by uid */
	struct wire_class_row *classes; /* those in use, by span class */
};

/* NULL without memory. `id` is not 0. */
struct snapshot *snapshot_take(const struct core *core, uint32_t id);
void snapshot_free(struct snapshot *snapshot);

/* The cursor of row `at` of it, and back. */
static inline uint64_t snapshot_cursor(const struct snapshot *snapshot, uint32_t at)
{
	return (uint64_t)snapshot->id << 32 | at;
}

#endif
