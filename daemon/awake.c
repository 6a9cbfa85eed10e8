#include "daemon/awake.h"

#include <sched.h>

#include "daemon/policy.h"

static void on_turn(void *ctx)
{
	struct awake *awake = ctx;

	uint64_t began = timer_now_us();

	(void)sched_yield();
	uint64_t now = timer_now_us();

	if (now - began > POLICY_AWAKE_TAKEN_US)
		awake->busy_us = now + POLICY_AWAKE_BUSY_US;
	else if (now < awake->until_us)
		timer_start(&awake->timer, 0);
}

int awake_init(struct awake *awake, struct event_base *base)
{
	*awake = (struct awake){0};
	return timer_init(&awake->timer, base, on_turn, awake);
}

void awake_deinit(struct awake *awake)
{
	timer_deinit(&awake->timer);
}

void awake_for_more(struct awake *awake)
{
	uint64_t now = timer_now_us();

	if (now >= awake->busy_us && policy_stays_awake(now - awake->last_us)) {
		awake->until_us = now + POLICY_AWAKE_US;
		timer_start(&awake->timer, 0);
	}
	awake->last_us = now;
}
