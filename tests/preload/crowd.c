/* More threads than the daemon has room for: the C library serves the rest, which asks again only now and then, and frees blocks of the
 * heap all the same. */
#include <malloc.h>
#include <pthread.h>
#include <time.h>

#include "client/shmalloc.h"
#include "tests/preload/program.h"

#define MOST 1500
#define AGAIN_NS 200000000ll
#define PAIRS 3000

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int arrived, served, leave; /* under the lock */

static int64_t now_ns(void)
{
	struct timespec t;

	expect(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t messages(void)
{
	shma_heap *(*standard)(void);
	int (*get)(shma_heap *, struct shma_stats *);
	struct shma_stats stats = {.size = sizeof(stats)};

	*(void **)&standard = dlsym(RTLD_DEFAULT, "shma_default");
	*(void **)&get = dlsym(RTLD_DEFAULT, "shma_stats_get");
	expect(standard && get && get(standard(), &stats) == 0);
	return stats.messages;
}

/* By a thread that nobody serves. */
static void ask_often(char *block)
{
	uint64_t before = messages();
	int64_t begin = now_ns();

	for (int i = 0; i < PAIRS; i++) {
		void *volatile small = malloc(100);

		expect(small && !in_heap(small));
		free(small);
	}
	expect(messages() - before <= (uint64_t)((now_ns() - begin) / AGAIN_NS) + 2);
	free(block);
}

static void *come(void *block)
{
	int ours = in_heap(block), mine;
	char *made = malloc(100);

	mine = in_heap(made);
	free(made);
	if (ours && !mine)
		ask_often(block);
	else
		free(block);
	(void)pthread_mutex_lock(&lock);
	arrived++;
	served += mine;
	(void)pthread_cond_broadcast(&changed);
	while (!leave)
		(void)pthread_cond_wait(&changed, &lock);
	(void)pthread_mutex_unlock(&lock);
	return NULL;
}

/* One more, once the one before has what it gets. Whether it was served. */
static int add(pthread_t *thread, const pthread_attr_t *small)
{
	int n, before;

	(void)pthread_mutex_lock(&lock);
	n = arrived;
	before = served;
	if (pthread_create(thread, small, come, malloc(5000)) != 0)
		_exit(77); /* the system has no room either */
	while (arrived == n)
		(void)pthread_cond_wait(&changed, &lock);
	before = served - before;
	(void)pthread_mutex_unlock(&lock);
	return before;
}

int main(void)
{
	static pthread_t thread[MOST];
	pthread_attr_t small;
	int n = 0;

	expect(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 64 * 1024) == 0);
	while (n < MOST && add(&thread[n++], &small))
		;
	expect(n > 10 && n < MOST);
	(void)pthread_mutex_lock(&lock);
	leave = 1;
	(void)pthread_cond_broadcast(&changed);
	(void)pthread_mutex_unlock(&lock);
	for (int i = 0; i < n; i++)
		expect(pthread_join(thread[i], NULL) == 0);
	return 0;
}
