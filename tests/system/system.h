/* What the system suites share. Each test has a daemon of its own and processes of its own; the test's process itself never
 * attaches. */
#ifndef TEST_SYSTEM_H
#define TEST_SYSTEM_H

#include <criterion/criterion.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "client/shmalloc.h"
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

/* A /dev/shm of its own for this process and its children. False, and said so, if that cannot be had. */
static inline bool system_private_shm(const char *options)
{
	if (geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	        mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) == 0)
		return true;
	fprintf(stderr, "skipped: a private /dev/shm needs root\n");
	return false;
}

/* For children: leaves a block that holds the text `arg` under that name, or finds it there. */
static inline int system_leave_root(void *arg)
{
	char *block = shma_malloc(100);

	child_check(block != NULL);
	strcpy(block, arg);
	child_check(shma_root_set(shma_default(), arg, block) == 0);
	return 0;
}

static inline int system_find_root(void *arg)
{
	const char *block = shma_root_get(shma_default(), arg);

	child_check(block && strcmp(block, arg) == 0);
	return 0;
}

#endif
