#include "daemon/boots.h"

#include <signal.h>
#include <stddef.h>

/* Of SIGBUS the guard tells us. */
static const int crashes[] = {SIGSEGV, SIGABRT, SIGILL, SIGFPE};

#define CRASHES (sizeof(crashes) / sizeof(crashes[0]))

static struct shmi_state *volatile counting; /* whose count a crash is to restore */
static volatile uint32_t count; /* with this start in it */
static struct sigaction former[CRASHES];

void boots_crashed(void)
{
	struct shmi_state *state = counting;

	if (state)
		shmi_store(&state->boots, count);
}

/* Puts back what was there before, which then sees the same signal: a fault happens again, what was sent is sent again. */
static void on_crash(int signo, siginfo_t *info, void *context)
{
	(void)context;
	boots_crashed();
	for (size_t i = 0; i < CRASHES; i++)
		if (crashes[i] == signo)
			(void)sigaction(signo, &former[i], NULL);
	if (info->si_code <= 0)
		(void)raise(signo);
}

static void forget(void)
{
	if (!counting)
		return;
	counting = NULL;
	for (size_t i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &former[i], NULL);
}

bool boots_exhausted(const struct shmi_state *state)
{
	return shmi_load(&state->boots) >= BOOTS_MOST;
}

void boots_begin(struct shmi_state *state)
{
	struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO};

	forget();
	sigemptyset(&action.sa_mask);
	count = shmi_load(&state->boots) + 1;
	shmi_store(&state->boots, count);
	for (size_t i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &action, &former[i]);
	counting = state;
}

void boots_ready(void)
{
	if (counting)
		shmi_store(&counting->boots, 0);
}

void boots_good(void)
{
	boots_ready();
	forget();
}

void boots_refused(void)
{
	if (counting)
		shmi_store(&counting->boots, count - 1);
	forget();
}
