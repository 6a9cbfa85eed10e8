/* Threads that come and go, allocate, hand blocks to each other through mailboxes, free and resize each other's blocks.
 * Every block says in its first and last bytes what it should hold. A plain program, so that ThreadSanitizer can watch it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/shmalloc.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

#define BOXES 256u
#define THREADS 4u

static _Atomic(unsigned char *) box[BOXES];
static uint32_t steps = 40000, rounds = 3;
static struct test_random seeds;

/* A block: four bytes of length, then a pattern of the length. */
static void fill(unsigned char *block, uint32_t len)
{
	memcpy(block, &len, 4);
	memset(block + 4, (int)(len * 7 & 255), len - 4);
}

static void verify(const unsigned char *block)
{
	uint32_t len;

	memcpy(&len, block, 4);
	for (uint32_t i = 4; i < len; i++)
		if (block[i] != (unsigned char)(len * 7 & 255)) {
			fprintf(stderr, "block %p of %u bytes is damaged at %u\n", (const void *)block, len, i);
			abort();
		}
}

static unsigned char *make(struct test_random *random)
{
	uint32_t len = 4 + test_random_length(random, test_random_one_in(random, 500) ? 600000 : 3000);
	unsigned flags = test_random_one_in(random, 4) ? SHMA_SCOPED : 0;
	unsigned char *block = shma_heap_alloc(shma_default(), len, test_random_one_in(random, 8) ? 64 : 0, flags);

	if (!block) {
		perror("shma_heap_alloc");
		abort();
	}
	fill(block, len);
	return block;
}

static unsigned char *resize(struct test_random *random, unsigned char *block)
{
	uint32_t len = 4 + test_random_length(random, 5000);
	unsigned char *moved = shma_realloc(block, len);

	if (!moved)
		abort();
	fill(moved, len);
	return moved;
}

static void *work(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};

	for (uint32_t i = 0; i < steps; i++) {
		unsigned char *block = test_random_one_in(&random, 16) ? NULL : make(&random);

		block = atomic_exchange(&box[test_random_below(&random, BOXES)], block);
		if (!block)
			continue;
		verify(block);
		if (test_random_one_in(&random, 10)) {
			block = resize(&random, block);
			verify(block);
		}
		shma_free(block);
		if (test_random_one_in(&random, 20000))
			(void)shma_trim(shma_default());
	}
	return NULL;
}

static void round_of_threads(void)
{
	pthread_t thread[THREADS];

	for (uint32_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(test_random_next(&seeds) | 1)) != 0)
			abort();
	for (uint32_t i = 0; i < THREADS; i++)
		(void)pthread_join(thread[i], NULL);
}

static int empty_heap(void)
{
	for (uint32_t i = 0; i < BOXES; i++)
		if (box[i]) {
			verify(box[i]);
			shma_free(box[i]);
		}
	if (shma_trim(shma_default()) != 0)
		return 1;
	struct shma_stats stats = {.size = sizeof(stats)};

	if (shma_stats_get(shma_default(), &stats) != 0)
		return 1;
	if (stats.owned)
		fprintf(stderr, "%llu bytes are held though nothing is live\n", (unsigned long long)stats.owned);
	return stats.owned != 0;
}

int main(void)
{
	struct test_daemon d;

	if (getenv("SHMALLOC_SOAK"))
		rounds = 300;
	seeds = test_random_init("threads");
	if (test_daemon_start(&d, NULL) != 0 || setenv("SHMALLOC_SOCKET", d.socket, 1) != 0)
		return 1;
	for (uint32_t i = 0; i < rounds; i++)
		round_of_threads();
	int bad = empty_heap();

	return test_daemon_end(&d) != 0 || bad;
}
