#include "daemon/boots.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define BUSY_MS 1000 /* of computing without a turn of the loop: long for a loop whose steps take less than one */

/* Of SIGBUS the guard tells us. */
static const int crashes[] = {SIGSEGV, SIGABRT, SIGILL, SIGFPE};

#define CRASHES (sizeof(crashes) / sizeof(crashes[0]))

static struct shmi_state *volatile counting; /* whose count a crash is to restore */
static volatile uint32_t count; /* with this start in it */
static struct sigaction former[CRASHES];
static volatile uint64_t turned; /* computing time of this process when the loop turned last */

void boots_crashed(void)
{
	struct shmi_state *state = counting;

	if (state)
		shmi_store(&state->boots, count);
}

static uint64_t computed_ms(void)
{
	struct timespec t = {0};

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A fault, an abort of our own, or the watchdog's SIGABRT in a loop that does not end. On a machine that did not let us run, or after
 * a SIGSTOP, the watchdog is not the heap's fault. */
static bool is_own(const siginfo_t *info)
{
	return info->si_code > 0 || info->si_pid == getpid() || computed_ms() - turned > BUSY_MS;
}

/* Puts back what was there before, which then sees the same signal: a fault happens again, what was sent is sent again. */
static void on_crash(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (is_own(info))
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

void boots_turned(void)
{
	turned = computed_ms();
}

void boots_ready(void)
{
	boots_turned();
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
