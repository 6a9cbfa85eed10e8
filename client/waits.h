/* How long a process has waited for the daemon's answers to its refills: the slow path of malloc. In memory that a fork wipes.
 *
 * Kept as a histogram with a bucket for each power of two of microseconds, by whoever has the channel's lock; read without.
 */
#ifndef CLIENT_WAITS_H
#define CLIENT_WAITS_H

#include "client/shmalloc.h"
#include "proto/wire.h"
#include "shm/atomic.h"

struct shmi_waits {
	shmi_a64 bucket[WIRE_BUCKETS]; /* as in proto/wire.h */
	shmi_a64 sum_us, max_us;
	uint32_t last_us; /* what the daemon is to be told with the next refill; 0: nothing */
};

void shmi_waits_add(struct shmi_waits *waits, uint64_t us);

/* Fills the fields of shma_stats about refills. */
void shmi_waits_fill(const struct shmi_waits *waits, struct shma_stats *stats);

#endif
