#include "daemon/awake.h"

#include <criterion/criterion.h>
#include <event2/event.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* Two requests that come soon after each other. */
static void two_requests(struct awake *awake)
{
	awake_for_more(awake);
	while (!event_pending(awake->timer.event, EV_TIMEOUT, NULL)) /* at once, on a machine that goes on */
		awake_for_more(awake);
}

Test(awake, is_awake_for_a_while_among_others_and_then_sleeps)
{
	struct event_base *base = event_base_new();
	struct awake awake;

	cr_assert_eq(awake_init(&awake, base), 0);
	do { /* again, if another program wanted the processor */
		awake.busy_us = 0;
		two_requests(&awake);
		uint64_t last = awake.last_us, spent = time_awake(base);

		cr_assert_geq(last + spent, awake.until_us - POLICY_AWAKE_US);
		cr_assert(awake.busy_us || timer_now_us() >= last + POLICY_AWAKE_US);
	} while (awake.busy_us);
	cr_assert_not(event_pending(awake.timer.event, EV_TIMEOUT, NULL), "the loop ended, as nothing was left");
	awake_deinit(&awake);
	event_base_free(base);
}

static pid_t start_busy(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			;
	}
	return pid;
}

/* Somebody else on the same processor: who gets it when we yield keeps it for longer than we would have looked. */
Test(awake, sleeps_at_once_where_others_want_the_processor)
{
	struct event_base *base = event_base_new();
	struct awake awake;
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((size_t)sched_getcpu(), &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	cr_assert_eq(awake_init(&awake, base), 0);
	pid_t busy = start_busy();

	while (!awake.busy_us) { /* it may not have begun */
		two_requests(&awake);
		(void)time_awake(base);
	}
	uint64_t until = awake.busy_us;

	do
		awake_for_more(&awake);
	while (awake.last_us < until && !event_pending(awake.timer.event, EV_TIMEOUT, NULL));
	cr_assert_geq(awake.last_us, until, "it does not look as long as the machine is taken to be busy");
	cr_assert_eq(kill(busy, SIGKILL), 0);
	cr_assert_eq(waitpid(busy, NULL, 0), busy);
	awake_deinit(&awake);
	event_base_free(base);
}
