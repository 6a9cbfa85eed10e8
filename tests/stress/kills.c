/* Kills under load. Eight clients of two threads, half of them on recorded traces and half on a random mix, are killed at random
 * moments and replaced at once; the daemon is killed under them and started again; both at once. See tests/stress/kills/kills.h.
 *
 * SHMALLOC_SOAK=1: 100,000 kills of clients and 2,000 of the daemon, with all traces that are there. SEED= repeats the choices,
 * though not their moments. KILLS=N, DAEMON_KILLS=N: as many in all. */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/ctl.h"
#include "tests/lib/traces.h"
#include "tests/stress/kills/nemesis.h"

#define TRACE_EVENTS 1000000u /* of each trace, from its start */
#define KILLS_PER_AUDIT 100u
#define RESTARTS_PER_AUDIT 5u
#define MEAN_NS 14000000u /* between two kills of clients */
#define PARK_NS 150000000000ll /* over TIMEOUT_MS */
#define WITNESS_NS 1000000
#define LONGEST_NS 2000000000ull /* a call of a survivor while only clients are killed; the machine is busy */
#define HOPS 4u /* to the daemon and back, and the same for the thread before us */
#define SKIPPED 77

#if defined(__SANITIZE_ADDRESS__)
#define SLOWER 5u /* so many times fewer kills */
#else
#define SLOWER 1u
#endif

struct campaign campaign;
struct tally tally[PHASES];

static struct test_daemon d;
static struct test_random random_;
static pid_t pid[CLIENTS], auditor, witness;
static uint32_t newest; /* the client that was started last */
static uint32_t since_audit;
static int64_t longest_reap_ns; /* kernel work alone: it says how busy the machine is */

/* ---- waiting ---- */

void futex_wait_ns(_Atomic uint32_t *word, uint32_t value, int64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	(void)syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word)
{
	(void)syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void sleep_ns(int64_t ns)
{
	struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

	(void)nanosleep(&t, NULL);
}

int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

/* Sleeps and looks how late it wakes: what the machine does to those who do nothing. */
static int witness_main(uint64_t unused)
{
	(void)unused;
	for (;;) {
		int64_t before = now_ns();

		sleep_ns(WITNESS_NS);
		int64_t late = now_ns() - before - WITNESS_NS;

		if (late > campaign.board->late_ns)
			campaign.board->late_ns = late;
	}
	return 0;
}

/* ---- what all share ---- */

static void *shared_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return p;
}

/* The events go to shared memory, which a fork does not copy page by page. */
static void load_trace(const char *name)
{
	struct trace *t = &campaign.trace[campaign.traces];
	const char *path = test_trace_path(name);

	if (!path || !trace_load(t, path))
		return;
	uint64_t events = t->events < TRACE_EVENTS ? t->events : TRACE_EVENTS;
	struct event *copy = shared_map(events * sizeof(*copy));

	memcpy(copy, t->event, events * sizeof(*copy));
	trace_free(t);
	*t = (struct trace){.events = events, .event = copy};
	campaign.traces++;
}

/* ---- processes ---- */

static pid_t start(int (*fn)(uint64_t), uint32_t client, uint64_t seed)
{
	fflush(NULL);
	pid_t child = fork();

	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(fn ? fn(seed) : client_main(client, seed));
	}
	if (child < 0)
		violation("fork: %s", strerror(errno));
	return child;
}

static void start_client(uint32_t client)
{
	pid[client] = start(NULL, client, test_random_next(&random_));
	newest = client;
}

/* Whoever ended otherwise than by a kill has found a bug. */
static void bury(uint32_t client, int status)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		violation("client %u ended with status %#x", client, status);
	atomic_store(&campaign.board->client_id[client], 0);
	journal_bury(client * 2);
	journal_bury(client * 2 + 1);
}

static void reap(uint32_t client)
{
	int64_t before = now_ns();
	int status = 0;

	while (waitpid(pid[client], &status, 0) < 0 && errno == EINTR)
		;
	if (now_ns() - before > longest_reap_ns)
		longest_reap_ns = now_ns() - before;
	bury(client, status);
}

/* Sleeps; meanwhile it is as good as dead to the others. */
static void stop_for_a_while(uint32_t client, enum phase phase)
{
	atomic_fetch_add(&campaign.board->stops[client], 1);
	kill(pid[client], SIGSTOP);
	sleep_ns(test_random_below(&random_, 30000000));
	atomic_fetch_add(&campaign.board->stops[client], 1);
	kill(pid[client], SIGCONT);
	tally[phase].stops++;
}

static void kill_clients(enum phase phase, uint32_t n)
{
	bool dead[CLIENTS] = {false};
	uint32_t which = test_random_one_in(&random_, 10) ? newest : test_random_below(&random_, CLIENTS);

	for (uint32_t i = 0; i < n; i++, which = test_random_below(&random_, CLIENTS)) {
		if (dead[which])
			continue;
		kill(pid[which], SIGKILL);
		dead[which] = true;
		tally[phase].client_kills++;
		since_audit++;
	}
	for (uint32_t c = 0; c < CLIENTS; c++)
		if (dead[c]) {
			reap(c);
			start_client(c);
		}
}

/* Nobody ends by itself, but for the hasty one while it attaches. */
static void look_for_ends(void)
{
	struct pollfd end = {.fd = d.pidfd, .events = POLLIN};
	int status;

	if (poll(&end, 1, 0) > 0) {
		violation("the daemon has ended by itself");
		exit(1);
	}
	for (uint32_t c = 0; c < CLIENTS; c++)
		if (waitpid(pid[c], &status, WNOHANG) == pid[c]) {
			if (c != HASTY)
				violation("client %u has ended by itself with status %#x", c, status);
			bury(c, status);
			start_client(c);
		}
	if (waitpid(auditor, &status, WNOHANG) == auditor) {
		violation("the auditor has ended with status %#x", status);
		exit(1);
	}
}

/* ---- audits ---- */

static bool all_parked(void)
{
	for (uint32_t s = 0; s < THREADS; s++)
		if (!atomic_load(&campaign.board->slot[s].parked))
			return false;
	return true;
}

static void wait_parked(void)
{
	int64_t deadline = now_ns() + PARK_NS;

	while (!all_parked() && now_ns() < deadline) {
		sleep_ns(200000);
		look_for_ends();
	}
	if (!all_parked())
		violation("not all come to a stop");
}

static void check_heap(const char *when)
{
	if (test_ctl_check(&d) != 0)
		violation("the heap check %s", when);
}

/* All are to park, and for longer than the hasty one waits the daemon does not answer: it comes to the audit with a request for a block
 * that it gave up. */
static void let_the_hasty_give_up(void)
{
	kill(d.pid, SIGSTOP);
	atomic_store(&campaign.board->pause, 1);
	sleep_ns(5 * HASTY_MS * 1000000ll);
	kill(d.pid, SIGCONT);
}

static void audit_now(enum phase phase)
{
	struct board *b = campaign.board;

	if (!probe_collect(&d, phase))
		exit(1);
	check_heap("under load");
	let_the_hasty_give_up();
	wait_parked();
	if (!auditor_wait(auditor_ask(DO_AUDIT), now_ns() + PARK_NS))
		violation("the audit does not end");
	check_heap("at rest");
	b->trim = false;
	since_audit = 0;
	atomic_store(&b->pause, 0);
	futex_wake(&b->pause);
}

/* ---- phases ---- */

static void progress(enum phase phase, double seconds, bool last)
{
	static int64_t next;

	if (!last && now_ns() < next)
		return;
	next = now_ns() + 30000000000ll;
	printf("%6.0f s  phase %d: %u clients, %u daemons killed, %u stopped; %u violations\n", seconds, (int)phase,
	        tally[phase].client_kills, tally[phase].daemon_kills, tally[phase].stops,
	        atomic_load(&campaign.board->violations));
	fflush(stdout);
}

static void one_step(enum phase phase, uint32_t clients, uint32_t daemons)
{
	struct tally *t = &tally[phase];
	bool restart = (uint64_t)t->daemon_kills * (clients ? clients : 1) <
	               (uint64_t)daemons * (clients ? t->client_kills : 1);

	sleep_ns(test_random_below(&random_, 2 * MEAN_NS));
	if (restart && probe_collect(&d, phase)) {
		if (clients && test_random_one_in(&random_, 2)) {
			kill_clients(phase, 1 + test_random_below(&random_, 3));
			sleep_ns(test_random_below(&random_, 2000000));
		}
		daemon_restart(&d, &random_, phase);
		if (clients) {
			sleep_ns(test_random_below(&random_, 2000000));
			kill_clients(phase, 1);
		}
	} else if (clients) {
		kill_clients(phase, test_random_one_in(&random_, 20) ? 1 + test_random_below(&random_, CLIENTS) : 1);
	}
	if (!probe_pending() && test_random_one_in(&random_, 50))
		stop_for_a_while(test_random_below(&random_, CLIENTS), phase);
}

static void run_phase(enum phase phase, uint32_t clients, uint32_t daemons, int64_t begin)
{
	struct tally *t = &tally[phase];
	uint32_t restarts = 0;

	atomic_store(&campaign.board->phase, phase);
	while ((t->client_kills < clients || t->daemon_kills < daemons) && !atomic_load(&campaign.board->violations)) {
		one_step(phase, clients, daemons);
		look_for_ends();
		if (since_audit >= KILLS_PER_AUDIT || t->daemon_kills >= restarts + RESTARTS_PER_AUDIT) {
			audit_now(phase);
			restarts = t->daemon_kills;
		}
		progress(phase, (double)(now_ns() - begin) / 1e9, false);
	}
	audit_now(phase);
	progress(phase, (double)(now_ns() - begin) / 1e9, true);
}

/* ---- the end ---- */

/* All clients die; what they leave is audited and freed, and nothing is left. */
static void finish(void)
{
	int status = 0;
	int64_t last;

	for (uint32_t c = 0; c < CLIENTS; c++)
		kill(pid[c], SIGKILL);
	for (uint32_t c = 0; c < CLIENTS; c++)
		reap(c);
	campaign.board->trim = true;
	if (!auditor_wait(auditor_ask(DO_CLOSE), now_ns() + PARK_NS))
		violation("the last audit does not end");
	kill(witness, SIGKILL);
	waitpid(auditor, &status, 0);
	if (status)
		violation("the auditor ended with status %#x", status);
	if (test_ctl_settle(&d, "clients", 0, 0, &last) != 0 || test_ctl_settle(&d, "live_bytes", 0, 0, &last) != 0)
		violation("%lld bytes are live, or clients there, in the end", (long long)last);
	check_heap("in the end");
	if (atomic_load(&campaign.board->violations) && getenv("KILLS_LOG")) { /* keeps the daemon's log */
		unlink(getenv("KILLS_LOG"));
		(void)!link(d.log, getenv("KILLS_LOG"));
	}
	if (test_daemon_end(&d) != 0)
		violation("the daemon did not end well");
}

/* A survivor's call may take LONGEST_NS, and at each hop as long as the machine kept somebody waiting who has nothing to do with
 * the heap. */
static void judge_calls(void)
{
	int64_t late = campaign.board->late_ns, busy = late > longest_reap_ns ? late : longest_reap_ns;
	uint64_t bound = LONGEST_NS + HOPS * (uint64_t)busy;

	printf("the machine: a process that only sleeps woke %.1f ms late at most; a killed one needed %.1f ms to "
	       "end\n",
	        (double)late / 1e6, (double)longest_reap_ns / 1e6);
	for (uint32_t s = 0; s < SLOTS; s++)
		if (campaign.board->slot[s].longest_ns[PHASE_CLIENTS] > bound)
			violation("slot %u: a call took %.1f ms while only clients were killed", s,
			        (double)campaign.board->slot[s].longest_ns[PHASE_CLIENTS] / 1e6);
}

static uint32_t number(const char *name, uint32_t otherwise)
{
	const char *given = getenv(name);

	return given ? (uint32_t)strtoul(given, NULL, 0) : otherwise / SLOWER;
}

static void start_all(void)
{
	const char *const args[] = {"--size", "2GiB", NULL};
	const char *const *names = getenv("SHMALLOC_SOAK") ? test_traces_all : test_traces_own;

	setvbuf(stdout, NULL, _IOLBF, 0);
	random_ = test_random_init("kills");
	campaign.board = shared_map(sizeof(*campaign.board));
	for (; *names; names++)
		load_trace(*names);
	if (!campaign.traces || test_daemon_start(&d, &(struct test_daemon_options){.args = args}) != 0)
		exit(1);
	campaign.socket = d.socket;
	setenv("SHMALLOC_SOCKET", d.socket, 1);
	witness = start(witness_main, 0, 0);
	auditor = start(auditor_main, 0, test_random_next(&random_));
	for (uint32_t c = 0; c < CLIENTS; c++)
		start_client(c);
}

int main(void)
{
	bool soak = getenv("SHMALLOC_SOAK") != NULL;
	uint32_t kills = number("KILLS", soak ? 100000 : 3000), restarts = number("DAEMON_KILLS", soak ? 2000 : 100);

#if defined(__SANITIZE_THREAD__)
	fprintf(stderr, "skipped: ThreadSanitizer does not follow forks\n");
	return SKIPPED;
#endif
	start_all();
	int64_t begin = now_ns();

	run_phase(PHASE_CLIENTS, kills / 2, 0, begin);
	run_phase(PHASE_DAEMON, 0, restarts * 2 / 5, begin);
	run_phase(PHASE_BOTH, kills - kills / 2, restarts - restarts * 2 / 5, begin);
	finish();
	judge_calls();
	report((double)(now_ns() - begin) / 1e9);
	return atomic_load(&campaign.board->violations) != 0;
}
