/* The parent of a run: forks its processes, waits for them, and puts together what they report. */
#include "tests/bench/replay/run.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

static unsigned players(const struct run *run)
{
	return run->processes * run->players_each;
}

static size_t stage_bytes(const struct run *run)
{
	return sizeof(struct stage) + players(run) * sizeof(struct outcome);
}

static pid_t fork_process(const struct run *run, unsigned process)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		process_main(run, process);
		_exit(0);
	}
	return pid;
}

/* Reaps process i, which has ended. */
static bool ended_well(const struct trace *trace, pid_t pid, unsigned i)
{
	int status = 0;

	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		fprintf(stderr, "replay: %s: process %u was killed by signal %d (%s)\n", trace->name, i,
		        WTERMSIG(status), strsignal(WTERMSIG(status)));
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Waits for all; the first that fails takes the others with it. */
static bool reap(const struct trace *trace, const pid_t *pids, unsigned n)
{
	struct pollfd *ends = calloc(n, sizeof(*ends));
	bool well = ends != NULL;

	for (unsigned i = 0; i < n && ends; i++)
		ends[i] = (struct pollfd){.fd = (int)syscall(SYS_pidfd_open, pids[i], 0), .events = POLLIN};
	for (unsigned left = ends ? n : 0; left > 0;) {
		poll(ends, n, -1);
		for (unsigned i = 0; i < n; i++) {
			if (ends[i].fd < 0 || !ends[i].revents)
				continue;
			close(ends[i].fd);
			ends[i].fd = -1;
			left--;
			if (ended_well(trace, pids[i], i))
				continue;
			well = false;
			for (unsigned j = 0; j < n; j++)
				if (ends[j].fd >= 0)
					kill(pids[j], SIGKILL);
		}
	}
	free(ends);
	return well;
}

static bool play_once(const struct run *run)
{
	pid_t *pids = calloc(run->processes, sizeof(*pids));
	pthread_barrierattr_t shared;

	if (!pids)
		return false;
	memset(run->stage, 0, stage_bytes(run));
	run->stage->key = (uint64_t)getpid();
	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&run->stage->start, &shared, players(run));
	for (unsigned i = 0; i < run->processes; i++)
		if ((pids[i] = fork_process(run, i)) < 0) {
			perror("replay: fork");
			exit(2); /* the players die with their parent */
		}
	bool well = reap(run->trace, pids, run->processes);

	free(pids);
	return well;
}

/* One run with a daemon of its own, if the options say so. */
static bool play_with_daemon(struct run *run)
{
	const struct options *given = run->options;

	if (run->engine != &engine_shma || !given->daemon)
		return play_once(run);
	struct options private = *given;
	struct test_daemon daemon;
	char size[64];

	snprintf(size, sizeof(size), "--size=%s", given->size);
	const char *args[] = {size, NULL};

	if (test_daemon_start(&daemon, &(struct test_daemon_options){.program = given->daemon, .args = args}) != 0)
		return false;
	private.socket = daemon.socket;
	private.heap = daemon.heap;
	run->options = &private;
	bool well = play_once(run);

	run->options = given;
	if (test_daemon_stop(&daemon) != 0) {
		fputs("replay: the daemon did not end well\n", stderr);
		well = false;
	}
	test_daemon_remove(&daemon);
	return well;
}

static double collect(const struct run *run, struct result *result)
{
	int64_t begin = INT64_MAX, end = 0;
	bool sum = run->engine == &engine_malloc; /* each process has a heap of its own */

	*result = (struct result){.trace = run->trace, .engine = run->engine, .players = players(run)};
	result->events = run->trace->events;
	result->peak_live = run->trace->peak_bytes;
	if (run->options->mode == MODE_PROCS) {
		result->events *= run->processes;
		result->peak_live *= run->processes;
	}
	for (unsigned i = 0; i < players(run); i++) {
		const struct outcome *out = &run->stage->out[i];

		begin = out->begin_ns < begin ? out->begin_ns : begin;
		end = out->end_ns > end ? out->end_ns : end;
		result->errors += out->errors;
		result->failed += out->failed;
		result->freed_at_end += out->freed_at_end;
		result->messages += out->messages;
		result->off_base |= out->off_base;
		if (sum)
			result->peak_memory += out->peak_memory;
		else if (out->peak_memory > result->peak_memory)
			result->peak_memory = out->peak_memory;
	}
	return result->events ? (double)(end - begin) / (double)result->events : 0;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static bool measure(struct run *run, struct result *result)
{
	unsigned repeat = run->options->repeat;
	double *ns = calloc(repeat, sizeof(*ns));
	bool well = ns != NULL;

	for (unsigned i = 0; i < repeat && well; i++) {
		well = play_with_daemon(run);
		ns[i] = collect(run, result);
		well = well && result->errors == 0 && result->failed == 0;
	}
	if (well && !run->options->check) {
		qsort(ns, repeat, sizeof(*ns), by_value);
		result->ns_per_event = ns[repeat / 2];
	}
	free(ns);
	return well;
}

/* A block that is only touched at its first byte is not resident, so malloc's memory takes a run of its own. */
static bool measure_resident(struct run *run, struct result *result)
{
	struct result pages;

	run->care = CARE_PAGES;
	bool well = play_with_daemon(run);

	collect(run, &pages);
	result->peak_memory = pages.peak_memory;
	return well;
}

bool run_trace(
        const struct options *options, const struct trace *trace, const struct engine *engine, struct result *result)
{
	struct run run = {.options = options, .trace = trace, .engine = engine, .processes = 1, .players_each = 1};

	run.care = options->check ? CARE_CHECK : CARE_TOUCH;
	if (options->mode == MODE_PROCS)
		run.processes = options->procs;
	else if (options->mode == MODE_THREADS)
		run.players_each = trace->threads;
	else if (options->mode == MODE_HANDOVER && engine == &engine_malloc)
		run.players_each = 2; /* what malloc gives cannot leave the process */
	else if (options->mode == MODE_HANDOVER)
		run.processes = 2;
	run.stage = mmap(NULL, stage_bytes(&run), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (run.stage == MAP_FAILED) {
		perror("replay: mmap");
		return false;
	}
	bool well = measure(&run, result);

	if (well && engine == &engine_malloc && !options->check)
		well = measure_resident(&run, result);
	munmap(run.stage, stage_bytes(&run));
	return well;
}
