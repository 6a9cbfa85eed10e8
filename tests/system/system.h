/* What the system suites share. Each test has a daemon of its own and processes of its own; the test's process itself never
 * attaches. */
#ifndef TEST_SYSTEM_H
#define TEST_SYSTEM_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lib/child.h"
#include "tests/lib/ctl.h"
#include "tests/lib/daemon.h"
#include "tests/lib/traces.h"

/* `make soak`: hours instead of seconds. */
static inline bool system_soaks(void)
{
	return getenv("SHMALLOC_SOAK") != NULL;
}

/* Seconds from one system_start to the next, or to the end of the test. Not Criterion's own limit, which cannot depend on the
 * environment and loses memory when tests with different limits run at once. */
static inline unsigned system_limit(void)
{
	return system_soaks() ? 3600 : 300;
}

static inline void system_start(struct test_daemon *d, const char *const *args)
{
	alarm(system_limit());
	cr_assert_eq(test_daemon_start(d, &(struct test_daemon_options){.args = args}), 0);
	setenv("SHMALLOC_SOCKET", d->socket, 1);
	unsetenv("SHMALLOC_HEAP");
	unsetenv("SHMALLOC_HARDEN");
}

/* When the last process has gone, nothing is live, the heap is clean, and `trim` gives back at least 95 % of what it had at
 * its peak. */
static inline void system_expect_empty(const struct test_daemon *d)
{
	int64_t last;

	cr_expect_eq(test_ctl_settle(d, "clients", 0, 0, &last), 0);
	cr_expect_eq(test_ctl_settle(d, "live_bytes", 0, 0, &last), 0);
	cr_expect_eq(test_ctl_check(d), 0);
	cr_expect_eq(test_ctl_trim(d), 0);
	cr_expect_eq(test_ctl_settle(d, "backed_bytes", 0, test_ctl_stat(d, "peak_backed_bytes") / 20, &last), 0);
	cr_expect_eq(test_ctl_check(d), 0);
}

static inline void system_end(struct test_daemon *d)
{
	cr_expect_eq(test_daemon_end(d), 0);
}

#endif
