/* shmallocd itself is killed at a border of one of its system calls, or some instructions behind it, and started again: while it
 * makes a heap, serves, grows, reclaims a client, takes a heap over, and takes over what a killed start has left. A process works all
 * the time: it sees no failure, its blocks and roots are what it made them, and in the end nothing is left.
 *
 * tests/daemon/test_deaths looks at every single store; here are the real objects, system calls, sockets and the real client.
 * SHMALLOC_SOAK=1: thousands of kills. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "client/shmalloc.h"
#include "tests/lib/random.h"

#define KEPT 400u
#define ROOTS 4u
#define WAIT_MS 30000
#define CHAIN 2u /* starts killed in a row: with three the heap would be set aside */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const char *const arguments[] = {"--size", "1GiB", "--scavenge-delay", "20", NULL};

/* ---- who works ---- */

struct work {
	shma_heap *heap;
	struct test_random random;
	unsigned char *block[KEPT], *root[ROOTS], *lazy;
	size_t size[KEPT];
	int progress;
};

static _Atomic int *stop;

static void pattern(struct work *w, uint32_t i)
{
	memset(w->block[i], (int)(i & 0xff), w->size[i] < 4096 ? w->size[i] : 4096);
	w->block[i][w->size[i] - 1] = (unsigned char)i;
}

static void drop(struct work *w, uint32_t i)
{
	if (!w->block[i])
		return;
	for (size_t at = 0; at < w->size[i] && at < 4096; at++)
		child_check(w->block[i][at] == (i & 0xff));
	child_check(w->block[i][w->size[i] - 1] == (i & 0xff));
	shma_free(w->block[i]);
	w->block[i] = NULL;
}

static void replace(struct work *w)
{
	uint32_t i = test_random_below(&w->random, KEPT);
	bool large = test_random_one_in(&w->random, 12);

	drop(w, i);
	w->size[i] = large ? 300000 + test_random_below(&w->random, 3000000) : test_random_length(&w->random, 60000);
	w->block[i] = shma_heap_alloc(w->heap, w->size[i], 0, test_random_one_in(&w->random, 3) ? SHMA_SCOPED : 0);
	child_check(w->block[i]);
	pattern(w, i);
}

/* A root is set, replaced or deleted, and there is what was set. */
static void name(struct work *w)
{
	uint32_t i = test_random_below(&w->random, ROOTS);
	char text[16];

	snprintf(text, sizeof(text), "root-%u", i);
	if (w->root[i] && test_random_one_in(&w->random, 3)) {
		child_check(shma_root_del(w->heap, text) == 0);
		child_check(shma_root_get(w->heap, text) == NULL && errno == ENOENT);
		shma_free(w->root[i]);
		w->root[i] = NULL;
		return;
	}
	unsigned char *old = w->root[i];

	w->root[i] = shma_heap_alloc(w->heap, 100, 0, 0);
	child_check(w->root[i] && shma_root_set(w->heap, text, w->root[i]) == 0);
	child_check(shma_root_get(w->heap, text) == w->root[i]);
	shma_free(old);
}

/* A process that ends by a signal, with scoped blocks in use and others cached. */
static void victim(struct work *w)
{
	pid_t pid = fork();
	int status;

	child_check(pid >= 0);
	if (!pid) {
		for (uint32_t i = 0; i < 60; i++) {
			size_t size = 16 + i * 97;
			void *shared = shma_heap_alloc(w->heap, size, 0, 0);

			child_check(shared && shma_heap_alloc(w->heap, size, 0, SHMA_SCOPED));
			shma_free(shared);
		}
		raise(SIGKILL);
	}
	child_check(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void work_round(struct work *w, uint32_t n)
{
	for (uint32_t i = 0; i < 30; i++)
		replace(w);
	name(w);
	if (n % 4 == 0)
		child_check(shma_trim(w->heap) == 0);
	if (n % 7 == 0)
		victim(w);
	if (n % 16 == 0) {
		shma_free(w->lazy);
		w->lazy = shma_heap_alloc(w->heap, (40u << 20) + (n % 5 << 22), 0, SHMA_LAZY);
		child_check(w->lazy);
	}
	child_check(write(w->progress, "", 1) == 1 || errno == EAGAIN);
}

static int work(void *arg)
{
	struct work *w = arg;
	const struct shma_options options = {.size = sizeof(options), .timeout_ms = WAIT_MS};

	w->heap = shma_attach(&options);
	child_check(w->heap);
	for (uint32_t n = 0; !*stop; n++)
		work_round(w, n);
	for (uint32_t i = 0; i < KEPT; i++)
		drop(w, i);
	for (uint32_t i = 0; i < ROOTS; i++) {
		char text[16];

		snprintf(text, sizeof(text), "root-%u", i);
		child_check(!w->root[i] || shma_root_del(w->heap, text) == 0);
		shma_free(w->root[i]);
	}
	shma_free(w->lazy);
	child_check(shma_detach(w->heap) == 0);
	return 0;
}

/* Waits until the worker has got through a whole round. */
static void expect_progress(int progress)
{
	char byte[256];
	struct pollfd more = {.fd = progress, .events = POLLIN};

	while (read(progress, byte, sizeof(byte)) > 0)
		;
	for (uint32_t rounds = 0; rounds < 2; rounds++) { /* the first may have been nearly over */
		cr_assert_eq(poll(&more, 1, WAIT_MS), 1, "the client does not get on");
		cr_assert_eq(read(progress, byte, 1), 1, "the client has ended");
	}
}

/* ---- who kills ---- */

static bool next_stop(pid_t pid, enum __ptrace_request how, int *sig)
{
	int status;

	if (ptrace(how, pid, NULL, (void *)(intptr_t)*sig) || waitpid(pid, &status, __WALL) != pid)
		return false;
	cr_assert(WIFSTOPPED(status), "the daemon has ended by itself: status %d", status);
	int stopped_by = WSTOPSIG(status);

	/* What is no border, no step and no stop of ours is a signal for the daemon. */
	*sig = stopped_by == (SIGTRAP | 0x80) || stopped_by == SIGTRAP || status >> 16 ? 0 : stopped_by;
	return true;
}

/* From where it is now: so many borders of system calls on, and then so many instructions. It is killed there. */
static void kill_at(struct test_daemon *d, uint32_t borders, uint32_t steps)
{
	int status, sig = 0;

	cr_assert_eq(
	        ptrace(PTRACE_SEIZE, d->pid, NULL, (void *)(intptr_t)PTRACE_O_TRACESYSGOOD), 0, "%s", strerror(errno));
	cr_assert_eq(ptrace(PTRACE_INTERRUPT, d->pid, NULL, NULL), 0);
	cr_assert_eq(waitpid(d->pid, &status, __WALL), d->pid);
	for (uint32_t i = 0; i < borders; i++)
		cr_assert(next_stop(d->pid, PTRACE_SYSCALL, &sig));
	for (uint32_t i = 0; i < steps; i++)
		cr_assert(next_stop(d->pid, PTRACE_SINGLESTEP, &sig));
	test_daemon_kill(d);
}

static void kill_somewhere(struct test_daemon *d, struct test_random *random, uint32_t borders)
{
	kill_at(d, test_random_below(random, borders),
	        test_random_one_in(random, 2) ? 0 : test_random_length(random, 4000));
}

static bool can_trace(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		pause();
		_exit(0);
	}
	bool can = !SANITIZED && ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;

	kill(pid, SIGKILL);
	waitpid(pid, &status, __WALL);
	if (!can)
		fprintf(stderr, "skipped: the daemon cannot be traced here%s\n", SANITIZED ? " under a sanitizer" : "");
	return can;
}

/* ---- the tests ---- */

Test(daemon_deaths, while_a_heap_is_made)
{
	struct test_random random = test_random_init("while_a_heap_is_made");
	uint32_t kills = system_soaks() ? 400 : 25;
	const struct test_daemon_options options = {.args = arguments};
	struct test_daemon d;

	if (!can_trace())
		return;
	for (uint32_t i = 0; i < kills; i++) {
		alarm(system_limit());
		cr_assert_eq(test_daemon_init(&d, &options), 0);
		for (uint32_t n = 1 + test_random_below(&random, CHAIN); n; n--) {
			cr_assert_eq(test_daemon_spawn(&d, &options), 0);
			kill_somewhere(&d, &random, 350);
		}
		cr_assert_eq(test_daemon_start_again(&d, &options), 0);
		cr_assert_eq(test_ctl_check(&d), 0);
		system_end(&d);
	}
	fprintf(stderr, "daemon killed while it makes a heap: injections %u, violations 0\n", kills);
}

Test(daemon_deaths, while_a_process_works)
{
	struct test_random random = test_random_init("while_a_process_works");
	uint32_t kills = system_soaks() ? 4000 : 60, early = 0;
	const struct test_daemon_options options = {.args = arguments};
	struct work w = {.random = random};
	struct test_daemon d;
	int progress[2];

	if (!can_trace())
		return;
	stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_eq(pipe2(progress, O_CLOEXEC | O_NONBLOCK), 0);
	system_start(&d, arguments);
	w.progress = progress[1];
	pid_t worker = child_start(work, &w);

	for (uint32_t i = 0; i < kills; i++) {
		alarm(system_limit());
		expect_progress(progress[0]);
		kill_somewhere(&d, &random, 300);
		for (uint32_t n = test_random_below(&random, CHAIN + 1); n; n--, early++) {
			cr_assert_eq(test_daemon_spawn(&d, &options), 0);
			kill_somewhere(&d, &random, 350);
		}
		cr_assert_eq(test_daemon_start_again(&d, &options), 0);
		cr_assert_eq(test_ctl_check(&d), 0);
		if (i % 500 == 499)
			fprintf(stderr, "%u of %u\n", i + 1, kills);
	}
	expect_progress(progress[0]);
	*stop = 1;
	cr_assert_eq(child_join(worker), 0);
	system_expect_empty(&d);
	system_end(&d);
	fprintf(stderr, "daemon killed while a process works: injections %u and %u in recovery, violations 0\n", kills,
	        early);
}
