/* What a program has to do with the daemon: its start, its messages, and what they cost on the other side. */
#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- from the start of a process to its first block ---- */

#define STARTS 11

void first_block(void)
{
	int64_t at;

	touch(heap_alloc(64));
	at = now_ns();
	if (write(STDOUT_FILENO, &at, sizeof(at)) != sizeof(at))
		_exit(1);
}

/* The child's word of when it had its block. */
static int64_t start_one(void)
{
	int pipe_fd[2];
	int64_t at = 0;

	if (pipe(pipe_fd) != 0)
		give_up("no pipe");
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		dup2(pipe_fd[1], STDOUT_FILENO);
		close(pipe_fd[0]);
		close(pipe_fd[1]);
		execl("/proc/self/exe", "micro", "first-block", (char *)NULL);
		_exit(127);
	}
	close(pipe_fd[1]);
	if (read(pipe_fd[0], &at, sizeof(at)) != sizeof(at))
		give_up("a process that was started failed");
	close(pipe_fd[0]);
	waitpid(pid, NULL, 0);
	return at;
}

void row_start(void)
{
	double ms[STARTS];

	for (int i = 0; i < STARTS; i++) {
		int64_t begin = now_ns();

		ms[i] = (double)(start_one() - begin) / 1e6;
	}
	say("start", median(ms, STARTS), "ms");
}

/* ---- messages ---- */

#define WARM_OPS 2000000

void row_messages(void)
{
	struct set set;

	if (heap_messages() == UINT64_MAX)
		return;
	set_open(&set, 100000, 1);
	set_replace(&set, WARM_OPS);
	uint64_t before = heap_messages();

	set_replace(&set, WARM_OPS);
	say("messages_warm", (double)(heap_messages() - before), "messages");
}

#ifdef HEAP_SHMA

/* ---- what the daemon does with them ---- */

#define REQUESTS 5000
#define GRANT (256u * MIB)

static void requests(void *arg, long n)
{
	for (long i = 0; i < n; i++)
		if (shma_root_set(shma_default(), "bench", arg) != 0)
			give_up("a request failed");
}

static void request_rate(void)
{
	void *block = shma_malloc(64);
	uint64_t cpu = heap_daemon_ns();
	int64_t begin = now_ns();

	requests(block, REQUESTS);
	say("requests", REQUESTS * 1e9 / (double)(now_ns() - begin), "requests/s");
	say("request_cpu", (double)(heap_daemon_ns() - cpu) / REQUESTS / 1e3, "us");
}

/* Memory is asked for until the heap has given so much: by blocks of `size` bytes, each touched. */
static void granted(const char *name, size_t size)
{
	struct shma_stats before = {.size = sizeof(before)}, after = {.size = sizeof(after)};
	uint64_t cpu = heap_daemon_ns(), messages = heap_messages();

	shma_stats_get(shma_default(), &before);
	for (size_t got = 0; got < GRANT; got += size)
		touch(heap_alloc(size));
	shma_stats_get(shma_default(), &after);
	double mib = (double)(after.process_owned - before.process_owned) / MIB;
	char line[64];

	snprintf(line, sizeof(line), "grant_cpu_%s", name);
	say(line, (double)(heap_daemon_ns() - cpu) / 1e3 / mib, "us/MiB");
	snprintf(line, sizeof(line), "grant_messages_%s", name);
	say(line, (double)(heap_messages() - messages) / mib, "messages/MiB");
}

void row_requests(void)
{
	request_rate();
	granted("64", 64);
	granted("8K", 8 * KIB);
	granted("2M", 2 * MIB);
}

#else

void row_requests(void)
{
	give_up("there is no daemon");
}

#endif
