/* This heap, of a daemon of its own that is as new as the process, like the heaps of the others. BENCH_SIZE is the heap's size,
 * BENCH_CLIENTS says how many clients there are, this one included: the others hold some blocks and sleep. With SHMALLOC_SOCKET set the
 * daemon is one that runs already. */
#define HEAP_SHMA
#include "tests/bench/micro/micro.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

#define HELD 1000u /* blocks of each client that sleeps */

static struct test_daemon own;

static bool start_daemon(void)
{
	const char *size = getenv("BENCH_SIZE");
	const char *args[] = {"--size", size ? size : "8GiB", NULL};

	if (test_daemon_start(&own, &(struct test_daemon_options){.args = args}) != 0)
		return false;
	setenv("SHMALLOC_SOCKET", own.socket, 1);
	setenv("SHMALLOC_HEAP", own.heap, 1);
	return true;
}

/* One of the others: says when it is there. */
static void sleep_attached(int ready)
{
	struct set set;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	set_open(&set, HELD, 1);
	if (write(ready, "", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static bool start_others(long others)
{
	int ready[2];
	char byte;

	if (others <= 0)
		return true;
	if (pipe(ready) != 0)
		return false;
	for (long i = 0; i < others; i++)
		if (fork() == 0)
			sleep_attached(ready[1]);
	for (long i = 0; i < others; i++)
		if (read(ready[0], &byte, 1) != 1)
			return false;
	return true;
}

bool heap_open(void)
{
	const char *clients = getenv("BENCH_CLIENTS");

	if (!getenv("SHMALLOC_SOCKET") && !start_daemon())
		return false;
	return start_others(clients ? strtol(clients, NULL, 10) - 1 : 0);
}

void heap_close(void)
{
	if (own.pid <= 0)
		return;
	test_daemon_kill(&own);
	test_daemon_remove(&own);
}

bool heap_is_shared(void)
{
	return true;
}

/* Who only frees must be attached, too. */
void heap_join(void)
{
	if (!shma_default())
		exit(1);
}

uint64_t heap_messages(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	return shma_stats_get(shma_default(), &stats) == 0 ? stats.messages : UINT64_MAX;
}

/* By the scheduler's account, in nanoseconds; times() would count ticks. */
uint64_t heap_daemon_ns(void)
{
	char path[64];
	unsigned long long ns = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)own.pid);
	if (!(file = fopen(path, "re")))
		return 0;
	if (fscanf(file, "%llu", &ns) != 1)
		ns = 0;
	fclose(file);
	return ns;
}
