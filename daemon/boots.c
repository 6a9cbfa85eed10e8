#include "daemon/boots.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

#define BUSY_MS 1000 /* of computing without a turn of the loop: long for a loop whose steps take less than one */

/* Of SIGBUS the guard tells us. */
static const int crashes[] = {SIGSEGV, SIGABRT, SIGILL, SIGFPE};

#define CRASHES (sizeof(crashes) / sizeof(crashes[0]))

/* A heap whose count a crash is to restore. */
struct boot {
	struct shmi_state *volatile state; /* NULL: not in use */
	volatile uint32_t count; /* with this start in it */
};

static struct boot boots[BOOTS_HEAPS];
static const struct shmi_state *volatile working_on;
static bool watching; /* `former` is what was there before */
static struct sigaction former[CRASHES];
static volatile uint64_t turned; /* computing time of this process when the loop turned last */

void boots_crashed(void)
{
	const struct shmi_state *known = working_on;

	for (unsigned i = 0; i < BOOTS_HEAPS; i++) {
		struct shmi_state *state = boots[i].state;

		if (state && (!known || state == known))
			shmi_store(&state->boots, boots[i].count);
	}
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

static struct boot *boot_of(const struct shmi_state *state)
{
	for (unsigned i = 0; i < BOOTS_HEAPS; i++)
		if (boots[i].state == state)
			return &boots[i];
	return NULL;
}

static void watch(void)
{
	struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO};

	if (watching)
		return;
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &action, &former[i]);
	watching = true;
}

bool boots_exhausted(const struct shmi_state *state)
{
	return shmi_load(&state->boots) >= BOOTS_MOST;
}

void boots_begin(struct shmi_state *state)
{
	struct boot *boot = boot_of(state);
	uint32_t count = shmi_load(&state->boots) + 1;

	if (!boot)
		boot = boot_of(NULL);
	working_on = state;
	shmi_store(&state->boots, count);
	if (!boot)
		return; /* more heaps than a daemon can have */
	boot->count = count;
	boot->state = state;
	watch();
}

void boots_opened(const struct shmi_state *state)
{
	struct boot *boot = boot_of(state);

	if (state && boot)
		shmi_store(&boot->state->boots, 0);
	boots_turned();
}

void boots_working_on(const struct shmi_state *state)
{
	working_on = state;
}

void boots_turned(void)
{
	turned = computed_ms();
}

void boots_ready(void)
{
	for (unsigned i = 0; i < BOOTS_HEAPS; i++)
		boots_opened(boots[i].state);
	working_on = NULL;
}

void boots_good(void)
{
	boots_ready();
	for (unsigned i = 0; i < BOOTS_HEAPS; i++)
		boots[i].state = NULL;
	if (!watching)
		return;
	for (size_t i = 0; i < CRASHES; i++)
		(void)sigaction(crashes[i], &former[i], NULL);
	watching = false;
}

void boots_refused(const struct shmi_state *state)
{
	struct boot *boot = state ? boot_of(state) : NULL;

	working_on = NULL;
	if (!boot)
		return;
	shmi_store(&boot->state->boots, boot->count - 1);
	boot->state = NULL;
}
