#include "daemon/awake.h"

#include <sched.h>

#include "daemon/policy.h"

static void on_turn(void *ctx)
{
	struct awake *awake = ctx;

	(void)sched_yield();
	if (timer_now_us() < awake->until_us)
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

	if (policy_stays_awake(now - awake->last_us)) {
		awake->until_us = now + POLICY_AWAKE_US;
		timer_start(&awake->timer, 0);
	}
	awake->last_us = now;
}
