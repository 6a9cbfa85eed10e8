#include "daemon/awake.h"

#include <criterion/criterion.h>
#include <event2/event.h>

#include "daemon/policy.h"

TestSuite(awake, .timeout = 60);

/* Microseconds that a loop with nothing else to do stays awake. */
static uint64_t time_awake(struct event_base *base)
{
	uint64_t before = timer_now_us();

	cr_assert_geq(event_base_dispatch(base), 0);
	return timer_now_us() - before;
}

Test(awake, sleeps_after_a_request_of_its_own)
{
	struct event_base *base = event_base_new();
	struct awake awake;

	cr_assert_eq(awake_init(&awake, base), 0);
	awake_for_more(&awake);
	cr_assert_not(event_pending(awake.timer.event, EV_TIMEOUT, NULL), "a request an hour is no reason");
	awake_deinit(&awake);
	event_base_free(base);
}

Test(awake, is_awake_for_a_while_among_others_and_then_sleeps)
{
	struct event_base *base = event_base_new();
	struct awake awake;

	cr_assert_eq(awake_init(&awake, base), 0);
	awake_for_more(&awake);
	while (!event_pending(awake.timer.event, EV_TIMEOUT, NULL)) /* at once, on a machine that goes on */
		awake_for_more(&awake);
	uint64_t last = awake.last_us, spent = time_awake(base);

	cr_assert_geq(last + spent, awake.until_us - POLICY_AWAKE_US);
	cr_assert_geq(timer_now_us(), last + POLICY_AWAKE_US);
	cr_assert_not(event_pending(awake.timer.event, EV_TIMEOUT, NULL), "the loop ended, as nothing was left");
	awake_deinit(&awake);
	event_base_free(base);
}
