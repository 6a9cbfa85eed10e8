/* Two heaps at once, of two daemons. Threads come and go on both, allocate, hand blocks to each other across threads and free
 * those of either heap through one function; between the rounds the heaps are left and attached to again, while some threads
 * live on. A plain program, so that ThreadSanitizer can watch it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/shmalloc.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

#define BOXES 128u
#define SHORT 3u /* threads of one round */
#define LONG 2u /* threads of all rounds */

static struct test_daemon d[2];
static shma_heap *heap[2];
static _Atomic(uint32_t *) box[BOXES];
static uint32_t steps = 8000, rounds = 6;
static struct test_random seeds;
static pthread_barrier_t turn; /* LONG threads and main */

static void must(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	abort();
}

/* A block: its length in words, and that number in all of them. */
static uint32_t *make(struct test_random *random)
{
	uint32_t words = 1 + test_random_length(random, test_random_one_in(random, 300) ? 150000 : 500);
	uint32_t *block = shma_heap_alloc(heap[test_random_below(random, 2)], words * sizeof(*block), 0,
	        test_random_below(random, 4)); /* scoped or not, with references or without */

	must(block != NULL, "shma_heap_alloc");
	for (uint32_t i = 0; i < words; i++)
		block[i] = words;
	return block;
}

static void verify_and_free(uint32_t *block)
{
	for (uint32_t i = 0, words = block[0]; i < words; i++)
		must(block[i] == words, "a block is damaged");
	shma_free(block);
}

static void work(struct test_random *random)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	for (uint32_t i = 0; i < steps; i++) {
		uint32_t *block = test_random_one_in(random, 8) ? NULL : make(random);

		block = atomic_exchange(&box[test_random_below(random, BOXES)], block);
		if (block)
			verify_and_free(block);
		if (test_random_one_in(random, 4000))
			must(shma_trim(heap[i % 2]) == 0, "shma_trim");
		if (test_random_one_in(random, 1000))
			must(shma_stats_get(heap[i % 2], &stats) == 0, "shma_stats_get");
		if (test_random_one_in(random, 2000)) { /* the handle is counted */
			struct shma_options options = {.size = sizeof(options), .socket = d[i % 2].socket};

			must(shma_attach(&options) == heap[i % 2], "shma_attach");
			must(shma_detach(heap[i % 2]) == 0, "shma_detach");
		}
	}
}

static void *short_life(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};

	work(&random);
	return NULL;
}

/* Works in every round, and sleeps while the heaps change. */
static void *long_life(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};

	for (uint32_t i = 0; i < rounds; i++) {
		(void)pthread_barrier_wait(&turn);
		work(&random);
		(void)pthread_barrier_wait(&turn);
	}
	return NULL;
}

static void start_thread(pthread_t *thread, void *(*fn)(void *))
{
	must(pthread_create(thread, NULL, fn, (void *)(uintptr_t)(test_random_next(&seeds) | 1)) == 0,
	        "pthread_create");
}

static void attach_both(void)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct shma_options options = {.size = sizeof(options), .socket = d[i].socket};

		heap[i] = shma_attach(&options);
		must(heap[i] != NULL, "shma_attach");
	}
}

static void detach_both(void)
{
	for (uint32_t i = 0; i < 2; i++)
		must(shma_detach(heap[i]) == 0, "shma_detach");
}

static int in_use(uint32_t i)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	must(shma_stats_get(heap[i], &stats) == 0, "shma_stats_get");
	if (stats.owned + stats.central)
		fprintf(stderr, "heap %u: %llu bytes are in use though nothing is live\n", i,
		        (unsigned long long)(stats.owned + stats.central));
	return stats.owned + stats.central != 0;
}

/* Frees everything and leaves both heaps; what is in use then is so for ever. */
static int leave_both(void)
{
	for (uint32_t i = 0; i < BOXES; i++) {
		uint32_t *block = atomic_exchange(&box[i], NULL);

		if (block)
			verify_and_free(block);
	}
	detach_both();
	attach_both();
	int bad = in_use(0) | in_use(1);

	detach_both();
	return bad;
}

static int one_round(void)
{
	pthread_t thread[SHORT];

	attach_both();
	(void)pthread_barrier_wait(&turn);
	for (uint32_t again = 0; again < 2; again++) {
		for (uint32_t i = 0; i < SHORT; i++)
			start_thread(&thread[i], short_life);
		for (uint32_t i = 0; i < SHORT; i++)
			(void)pthread_join(thread[i], NULL);
	}
	(void)pthread_barrier_wait(&turn);
	return leave_both();
}

int main(void)
{
	pthread_t thread[LONG];
	int bad = 0;

	if (getenv("SHMALLOC_SOAK"))
		rounds = 500;
	seeds = test_random_init("heaps");
	if (test_daemon_start(&d[0], NULL) != 0 || test_daemon_start(&d[1], NULL) != 0)
		return 1;
	must(pthread_barrier_init(&turn, NULL, LONG + 1) == 0, "pthread_barrier_init");
	for (uint32_t i = 0; i < LONG; i++)
		start_thread(&thread[i], long_life);
	for (uint32_t i = 0; i < rounds; i++)
		bad |= one_round();
	for (uint32_t i = 0; i < LONG; i++)
		(void)pthread_join(thread[i], NULL);
	return test_daemon_end(&d[0]) != 0 || test_daemon_end(&d[1]) != 0 || bad;
}
