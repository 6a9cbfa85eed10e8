/* Idle memory goes back to the system.
 *
 * The scavenger has a turn every POLICY_SCAVENGE_MS and returns at most 2 MiB of free runs that have been idle for the delay
 * that the configuration says; more, and younger ones, while memory is short (daemon/pressure.h). A trim (daemon/trim.h) does the same
 * without regard to age, in one job.
 *
 * Before that a trim, and after each death a job of its own, looks at all central spans: those that have become empty
 * without a report (the reporter died, or never looked again) go to the page heap.
 */
#ifndef DAEMON_SCAVENGER_H
#define DAEMON_SCAVENGER_H

#include "daemon/core.h"

/* One turn; how many pages were returned. */
uint32_t scavenger_turn(struct core *core, uint32_t delay_ms);

/* Starts a walk over all central spans, or has the one that is under way start over. */
void scavenger_look(struct core *core);

/* Looks at the central spans among the next POLICY_TURN_SPANS runs from *at on. True at the end of the heap. */
bool scavenger_look_on(struct core *core, uint32_t *at);

/* After a restart: drops what is stale, as a job. */
void scavenger_drop_stale(struct core *core);

#endif
