/* What the nemesis counts. */
#ifndef STRESS_NEMESIS_H
#define STRESS_NEMESIS_H

#include "tests/lib/daemon.h"
#include "tests/stress/kills/kills.h"

#define OUTAGES 4096u

struct tally {
	uint32_t client_kills, daemon_kills, stops;
	uint32_t outages;
	int64_t outage_ns[OUTAGES];
};

extern struct tally tally[PHASES];

/* ---- restarts.c ---- */

/* Kills the daemon, waits for its end and starts the next one, which may be killed as well before it serves. Waits for
 * nothing else: probe_collect does. */
void daemon_restart(struct test_daemon *d, struct test_random *random, enum phase phase);
bool probe_pending(void); /* has it not yet been seen to serve? */
/* Waits until the daemon has served. False, and a violation, if it does not. */
bool probe_collect(struct test_daemon *d, enum phase phase);

#endif
