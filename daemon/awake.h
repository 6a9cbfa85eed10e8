/* Staying awake for the next request.
 *
 * A client that is growing sends a request every hundred microseconds or so, and waits for each answer. To put a processor to
 * sleep and to wake it takes longer than the answer does, above all in a virtual machine: after a request that came soon after
 * another one the loop goes on looking for a while before it sleeps (as the kernel's halt polling and busy polling do). It offers
 * the processor to whoever wants it meanwhile; if somebody takes it, the machine has better things to do for a while, and the loop
 * sleeps as others do. What it can waste is POLICY_AWAKE_US of an idle processor for a request.
 */
#ifndef DAEMON_AWAKE_H
#define DAEMON_AWAKE_H

#include "daemon/timer.h"

struct awake {
	struct timer timer; /* fires in every turn of the loop until then */
	uint64_t last_us; /* when the last request came */
	uint64_t until_us; /* when the loop may sleep */
	uint64_t busy_us; /* until when it sleeps at once: somebody else has wanted the processor */
};

/* Returns 0 or -ENOMEM. */
int awake_init(struct awake *awake, struct event_base *base);
void awake_deinit(struct awake *awake);

/* A request has been dealt with. */
void awake_for_more(struct awake *awake);

#endif
