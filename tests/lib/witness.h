/* A process that only sleeps: how late it wakes is what the machine does to those who do nothing. A test takes it off the times
 * that it measures, so that a busy machine is not taken for somebody who waits. */
#ifndef TEST_WITNESS_H
#define TEST_WITNESS_H

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/lib/child.h"

#define WITNESS_NS 1000000

static _Atomic int64_t *witness_late; /* nanoseconds, the most since somebody stored 0; shared with children */

static inline int64_t witness_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

static inline int witness_sleeps(void *unused)
{
	struct timespec pause = {.tv_nsec = WITNESS_NS};

	(void)unused;
	for (;;) {
		int64_t before = witness_now();

		nanosleep(&pause, NULL);
		int64_t by = witness_now() - before - WITNESS_NS;

		if (by > *witness_late)
			*witness_late = by;
	}
	return 0;
}

/* In milliseconds. */
static inline long long witness_ms(void)
{
	return (long long)(*witness_late / 1000000);
}

/* To be called before the children are forked that look at it, and before this process attaches: a child would have its lease. */
static inline pid_t witness_start(void)
{
	if (!witness_late)
		witness_late =
		        mmap(NULL, sizeof(*witness_late), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*witness_late = 0;
	return child_start(witness_sleeps, NULL);
}

static inline void witness_end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#endif
