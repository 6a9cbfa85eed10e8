/* Fork storms: a process with busy threads forks children that fork children, all of which allocate, free what their ancestors
 * made, end at once or are killed at any moment. When all are gone nothing is held but what the killed ones had as shared blocks,
 * and those of the ancestor are as they were. ThreadSanitizer does not follow a fork of a process with threads: skipped there. */
#include <pthread.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/shmalloc.h"
#include "tests/lib/child.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

#define KEPT 400u /* scoped blocks of the ancestor, which every child looks at */
#define THREADS 2u
#define AT_ONCE 6u
#define SKIPPED 77

static unsigned char *kept[KEPT];
static atomic_bool done;
static uint32_t storms = 25;

static uint32_t length(uint32_t i)
{
	return i % 100 == 3 ? 300000 + i : 1 + i * 13 % 2000;
}

static void check_kept(void)
{
	for (uint32_t i = 0; i < KEPT; i++)
		for (uint32_t at = 0; at < length(i); at++)
			child_check(kept[i][at] == (i & 0xff));
}

/* Only scoped blocks, so that a death leaves nothing. */
static void allocate(struct test_random *random, uint32_t steps)
{
	unsigned char *own[40] = {NULL};
	uint32_t len[40];

	for (uint32_t i = 0; i < steps; i++) {
		uint32_t at = test_random_below(random, 40);

		if (own[at]) {
			child_check(own[at][0] == (at & 0xff) && own[at][len[at] - 1] == (at & 0xff));
			shma_free(own[at]);
			own[at] = NULL;
			continue;
		}
		len[at] = test_random_length(random, test_random_one_in(random, 100) ? 500000 : 2000);
		own[at] = shma_heap_alloc(shma_default(), len[at], 0, SHMA_SCOPED);
		child_check(own[at]);
		memset(own[at], (int)(at & 0xff), len[at]);
	}
	for (uint32_t at = 0; at < 40; at++)
		shma_free(own[at]);
}

static void *churn(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};

	while (!atomic_load(&done))
		allocate(&random, 2000);
	return NULL;
}

/* A process of the storm: perhaps with children of its own. `scratch` are its parent's blocks, which it frees. */
static void storm(struct test_random random, int depth, unsigned char *const *scratch)
{
	unsigned char *own[8];
	pid_t child[2];
	int children = depth ? 2 : 0;

	check_kept();
	allocate(&random, test_random_below(&random, 3000));
	for (uint32_t i = 0; i < 8; i++) {
		own[i] = shma_heap_alloc(shma_default(), 100 + i * 60000, 0, SHMA_SCOPED);
		child_check(own[i]);
	}
	for (int i = 0; i < children; i++) {
		child[i] = fork();
		child_check(child[i] >= 0);
		if (child[i] == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			random.state ^= (uint64_t)getpid() << 32 | 1;
			storm(random, depth - 1, i ? NULL : own);
			_exit(0);
		}
	}
	for (uint32_t i = 0; scratch && i < 8; i++)
		shma_free(scratch[i]);
	allocate(&random, test_random_below(&random, 2000));
	for (int i = 0; i < children; i++)
		child_check(child_join(child[i]) == 0);
	for (uint32_t i = 0; !children && i < 8; i++) /* else the first child has freed them */
		shma_free(own[i]);
}

static pid_t start_storm(struct test_random *random)
{
	struct test_random own = {test_random_next(random) | 1};
	pid_t pid = fork();

	child_check(pid >= 0);
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		storm(own, 2, NULL);
		_exit(0);
	}
	return pid;
}

/* Every other one is killed at some moment, its children with it. */
static void many_storms(struct test_random *random)
{
	for (uint32_t round = 0; round < storms; round++) {
		pid_t child[AT_ONCE];

		for (uint32_t i = 0; i < AT_ONCE; i++)
			child[i] = start_storm(random);
		(void)poll(NULL, 0, (int)test_random_below(random, 40));
		for (uint32_t i = 0; i < AT_ONCE; i++) {
			int status;

			if (i % 2)
				(void)kill(child[i], SIGKILL);
			child_check(waitpid(child[i], &status, 0) == child[i]);
			child_check(i % 2 || status == 0);
		}
	}
}

static uint64_t owned(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	child_check(shma_stats_get(shma_default(), &stats) == 0);
	return stats.owned + stats.central;
}

/* The daemon hears of deaths a moment later. */
static int held_in_the_end(void)
{
	long long deadline = test_now_ms() + 20000;

	child_check(shma_trim(shma_default()) == 0);
	while (owned() && test_now_ms() < deadline)
		(void)poll(NULL, 0, 5);
	if (owned())
		fprintf(stderr, "%llu bytes are held though nothing is live\n", (unsigned long long)owned());
	return owned() != 0;
}

int main(void)
{
	struct test_random random = test_random_init("forks");
	struct test_daemon d;
	pthread_t thread[THREADS];

#ifdef __SANITIZE_THREAD__
	return SKIPPED;
#endif
	if (getenv("SHMALLOC_SOAK"))
		storms = 3000;
	if (test_daemon_start(&d, NULL) != 0 || setenv("SHMALLOC_SOCKET", d.socket, 1) != 0)
		return 1;
	for (uint32_t i = 0; i < KEPT; i++) {
		kept[i] = shma_heap_alloc(shma_default(), length(i), 0, SHMA_SCOPED);
		child_check(kept[i]);
		memset(kept[i], (int)(i & 0xff), length(i));
	}
	for (uint32_t i = 0; i < THREADS; i++)
		child_check(pthread_create(
		                    &thread[i], NULL, churn, (void *)(uintptr_t)(test_random_next(&random) | 1)) == 0);
	many_storms(&random);
	atomic_store(&done, true);
	for (uint32_t i = 0; i < THREADS; i++)
		(void)pthread_join(thread[i], NULL);
	check_kept();
	for (uint32_t i = 0; i < KEPT; i++)
		shma_free(kept[i]);
	int bad = held_in_the_end();

	return test_daemon_end(&d) != 0 || bad;
}
