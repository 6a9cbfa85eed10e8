/* Producers and consumers: blocks go round a ring of threads, each of which allocates some, passes on what it gets a few times,
 * sometimes resizes it, and frees what has been round. Threads are replaced all the while, so that their spans change hands too;
 * in the end nothing is held. A plain program, so that ThreadSanitizer can watch it. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/shmalloc.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

#define STATIONS 4u
#define QUEUE 256u /* a power of two: the indices wrap around */
#define HOPS 3u

struct block {
	struct block *self;
	uint32_t hops;
	uint32_t len; /* of body */
	unsigned char body[];
};

/* One writer, one reader; the station after the writer reads. */
struct queue {
	_Alignas(64) atomic_uint head;
	_Alignas(64) atomic_uint tail;
	struct block *slot[QUEUE];
};

static struct queue queue[STATIONS];
static uint32_t steps = 60000, generations = 3;
static struct test_random seeds;

static void must(int met, const char *what)
{
	if (met)
		return;
	perror(what);
	abort();
}

static struct block *get(struct queue *q)
{
	unsigned head = atomic_load_explicit(&q->head, memory_order_relaxed);

	if (head == atomic_load_explicit(&q->tail, memory_order_acquire))
		return NULL;
	struct block *block = q->slot[head % QUEUE];

	atomic_store_explicit(&q->head, head + 1, memory_order_release);
	return block;
}

static int put(struct queue *q, struct block *block)
{
	unsigned tail = atomic_load_explicit(&q->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&q->head, memory_order_acquire) == QUEUE)
		return 0;
	q->slot[tail % QUEUE] = block;
	atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
	return 1;
}

static void fill(struct block *block, uint32_t len)
{
	block->self = block;
	block->len = len;
	memset(block->body, (int)(len & 0xff), len);
}

static struct block *make(struct test_random *random)
{
	uint32_t len = test_random_length(random, test_random_one_in(random, 1000) ? 500000 : 400);
	struct block *block = shma_heap_alloc(
	        shma_default(), sizeof(*block) + len, 0, test_random_one_in(random, 3) ? SHMA_SCOPED : 0);

	must(block != NULL, "shma_heap_alloc");
	fill(block, len);
	block->hops = 0;
	return block;
}

/* Looks at a block that has come, and frees it or gives it back with one hop more. */
static struct block *handle(struct test_random *random, struct block *block)
{
	must(block->self == block, "a block is not where it says");
	for (uint32_t i = 0; i < block->len; i++)
		must(block->body[i] == (block->len & 0xff), "a block is damaged");
	if (++block->hops > HOPS) {
		shma_free(block);
		return NULL;
	}
	if (!test_random_one_in(random, 10))
		return block;
	uint32_t len = test_random_length(random, 1000);

	block = shma_realloc(block, sizeof(*block) + len);
	must(block != NULL, "shma_realloc");
	fill(block, len);
	return block;
}

/* What finds no room in the queue has been round. */
static void pass_on(struct queue *to, struct block *block)
{
	if (block && !put(to, block))
		shma_free(block);
}

struct station {
	uint32_t number;
	uint64_t seed;
};

static void *run_station(void *arg)
{
	struct station *s = arg;
	struct test_random random = {s->seed};
	struct queue *from = &queue[s->number], *to = &queue[(s->number + 1) % STATIONS];
	uint32_t burst = 0;

	for (uint32_t made = 0; made < steps;) {
		struct block *block = get(from);

		if (block) {
			pass_on(to, handle(&random, block));
			continue;
		}
		for (burst = 1 + test_random_below(&random, 50); burst && made < steps; burst--, made++)
			pass_on(to, make(&random));
		(void)sched_yield();
	}
	return NULL;
}

/* A generation of threads; each takes up the queues where the last one left them. */
static void run_generation(void)
{
	pthread_t thread[STATIONS];
	struct station station[STATIONS];

	for (uint32_t i = 0; i < STATIONS; i++) {
		station[i] = (struct station){i, test_random_next(&seeds) | 1};
		must(pthread_create(&thread[i], NULL, run_station, &station[i]) == 0, "pthread_create");
	}
	for (uint32_t i = 0; i < STATIONS; i++)
		(void)pthread_join(thread[i], NULL);
}

static int empty_ring(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	for (uint32_t i = 0; i < STATIONS; i++)
		for (struct block *block; (block = get(&queue[i])) != NULL;)
			shma_free(block);
	must(shma_trim(shma_default()) == 0 && shma_stats_get(shma_default(), &stats) == 0, "shma_trim");
	if (stats.owned)
		fprintf(stderr, "%llu bytes are held though nothing is live\n", (unsigned long long)stats.owned);
	return stats.owned != 0;
}

int main(void)
{
	struct test_daemon d;

	if (getenv("SHMALLOC_SOAK"))
		generations = 300;
	seeds = test_random_init("ring");
	if (test_daemon_start(&d, NULL) != 0 || setenv("SHMALLOC_SOCKET", d.socket, 1) != 0)
		return 1;
	for (uint32_t i = 0; i < generations; i++)
		run_generation();
	int bad = empty_ring();

	return test_daemon_end(&d) != 0 || bad;
}
