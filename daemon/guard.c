#include "daemon/guard.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/boots.h"

static struct {
	uintptr_t start;
	size_t len;
} ranges[GUARD_RANGES];

static sigjmp_buf *volatile current; /* where the innermost guarded function returns to */

static bool watched(uintptr_t address)
{
	for (unsigned i = 0; i < GUARD_RANGES; i++)
		if (address - ranges[i].start < ranges[i].len)
			return true;
	return false;
}

static void on_bus(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (current && watched((uintptr_t)info->si_addr))
		siglongjmp(*current, 1);
	/* Not ours: the instruction faults again, this time with the default action. */
	boots_crashed();
	signal(signo, SIG_DFL);
}

void guard_install(void)
{
	/* SA_NODEFER: the handler is left by a jump, and saving the signal mask for that would cost a system call. */
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_NODEFER};

	sigemptyset(&action.sa_mask);
	sigaction(SIGBUS, &action, NULL);
}

int guard_watch(const void *start, size_t len)
{
	for (unsigned i = 0; i < GUARD_RANGES; i++)
		if (!ranges[i].len) {
			ranges[i].start = (uintptr_t)start;
			ranges[i].len = len;
			return 0;
		}
	return -ENOSPC;
}

void guard_unwatch(const void *start)
{
	for (unsigned i = 0; i < GUARD_RANGES; i++)
		if (ranges[i].start == (uintptr_t)start)
			ranges[i].start = ranges[i].len = 0;
}

int guard_run(int (*fn)(void *ctx), void *ctx)
{
	sigjmp_buf here, *outer = current;
	int result;

	if (sigsetjmp(here, 0)) {
		current = outer;
		return GUARD_E_BUS;
	}
	current = &here;
	result = fn(ctx);
	current = outer;
	return result;
}
