/* Kills of the daemon. An outage lasts from the kill to the first request that the next daemon has served: the auditor's probe, which
 * it begins when the killed one has been reaped. */
#include "tests/stress/kills/nemesis.h"

#define SERVE_NS 120000000000ll
#define EARLY_ONE_IN 5u /* of the daemons is killed again while it starts */
#define EARLY_NS 8000000u

static const char *const arguments[] = {"--size", "2GiB", NULL};
static uint32_t probe;
static int64_t killed_ns;

static void spawn(struct test_daemon *d)
{
	if (test_daemon_spawn(d, &(struct test_daemon_options){.args = arguments}) != 0)
		violation("the daemon cannot be started");
}

void daemon_restart(struct test_daemon *d, struct test_random *random, enum phase phase)
{
	campaign.board->trim = true;
	killed_ns = now_ns();
	test_daemon_kill(d);
	tally[phase].daemon_kills++;
	spawn(d);
	if (test_random_one_in(random, EARLY_ONE_IN)) {
		sleep_ns(test_random_below(random, EARLY_NS));
		test_daemon_kill(d);
		tally[phase].daemon_kills++;
		spawn(d);
	}
	probe = auditor_ask(DO_PROBE);
}

bool probe_pending(void)
{
	return probe && !auditor_wait(probe, 0);
}

bool probe_collect(struct test_daemon *d, enum phase phase)
{
	struct tally *t = &tally[phase];

	if (!probe)
		return true;
	bool served = auditor_wait(probe, now_ns() + SERVE_NS);

	probe = 0;
	if (!served)
		violation("the daemon (pid %d) does not serve", (int)d->pid);
	else if (t->outages < OUTAGES)
		t->outage_ns[t->outages++] = campaign.board->probed_ns - killed_ns;
	return served;
}
