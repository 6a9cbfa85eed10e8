/* Eight processes of four threads each allocate, grow, free and trade blocks at random; each byte of each block is checked
 * by whoever gets it.
 *
 * The market is a block of the heap: places, each of which names a block or is empty. A thread that trades swaps a block of
 * its own for what is in a place, whoever put it there. A block's first bytes say how long it is and what it is filled with. */
#include "tests/system/system.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "client/shmalloc.h"
#include "tests/lib/random.h"

#define PROCESSES 8
#define THREADS 4
#define STEPS 40000 /* of each thread */
#define SOAK_ROUNDS 500
#define HELD 64 /* blocks that a thread holds */
#define PLACES 512

struct record {
	uint32_t bytes;
	uint32_t seed;
};

struct market {
	_Atomic uint64_t place[PLACES];
};

struct trader {
	struct test_random random;
	struct market *market;
	struct record *held[HELD];
};

static unsigned char pattern(uint32_t seed, uint32_t at)
{
	return (unsigned char)(seed + at * 31);
}

static void write_bytes(struct record *r, uint32_t from)
{
	unsigned char *byte = (unsigned char *)r;

	for (uint32_t at = from; at < r->bytes; at++)
		byte[at] = pattern(r->seed, at);
}

static void check_bytes(const struct record *r)
{
	const unsigned char *byte = (const unsigned char *)r;

	child_check(r->bytes >= sizeof(*r) && shma_usable_size(r) >= r->bytes);
	for (uint32_t at = sizeof(*r); at < r->bytes; at++)
		child_check(byte[at] == pattern(r->seed, at));
}

/* Mostly small, a few large. */
static uint32_t some_size(struct trader *t)
{
	uint32_t kind = test_random_below(&t->random, 100);
	uint32_t most = kind < 80 ? 256 : kind < 97 ? 8192 : kind < 99 ? 65536 : 600000;

	return (uint32_t)sizeof(struct record) + test_random_below(&t->random, most);
}

static struct record *some_block(struct trader *t)
{
	static const size_t alignments[] = {16, 64, 4096};
	uint32_t bytes = some_size(t), kind = test_random_below(&t->random, 10);
	struct record *r;

	if (kind == 0) {
		size_t alignment = alignments[test_random_below(&t->random, 3)];

		r = shma_aligned_alloc(alignment, bytes);
		child_check((uintptr_t)r % alignment == 0);
	} else if (kind == 1) {
		r = shma_calloc(1, bytes);
		for (uint32_t at = 0; r && at < bytes; at++)
			child_check(((const unsigned char *)r)[at] == 0);
	} else {
		r = shma_malloc(bytes);
	}
	child_check(r);
	*r = (struct record){.bytes = bytes, .seed = (uint32_t)test_random_next(&t->random)};
	write_bytes(r, sizeof(*r));
	return r;
}

static struct record *regrow(struct trader *t, struct record *r)
{
	uint32_t old = r->bytes, bytes = some_size(t);

	check_bytes(r);
	r = shma_realloc(r, bytes);
	child_check(r && (old < bytes || r->bytes == old));
	r->bytes = bytes;
	if (bytes > old)
		write_bytes(r, old);
	check_bytes(r);
	return r;
}

static struct record *trade(struct trader *t, struct record *r)
{
	_Atomic uint64_t *place = &t->market->place[test_random_below(&t->random, PLACES)];
	shma_off got = atomic_exchange_explicit(place, shma_to_off(r), memory_order_acq_rel);

	return shma_from_off(shma_default(), got);
}

static void step(struct trader *t)
{
	struct record **held = &t->held[test_random_below(&t->random, HELD)];

	switch (test_random_below(&t->random, 4)) {
	case 0:
		if (*held)
			*held = regrow(t, *held);
		break;
	case 1:
		*held = trade(t, *held);
		break;
	default:
		if (*held)
			check_bytes(*held);
		shma_free(*held);
		*held = some_block(t);
	}
}

static void *trader_main(void *arg)
{
	struct trader *t = arg;

	for (int i = 0; i < STEPS; i++)
		step(t);
	for (int i = 0; i < HELD; i++) {
		if (t->held[i])
			check_bytes(t->held[i]);
		shma_free(t->held[i]);
	}
	return NULL;
}

static int process_main(void *arg)
{
	struct test_random *random = arg;
	pthread_t thread[THREADS];
	struct trader trader[THREADS];
	struct market *market = shma_root_get(shma_default(), "market");

	child_check(market);
	memset(trader, 0, sizeof(trader));
	for (unsigned i = 0; i < THREADS; i++) {
		trader[i].random.state = test_random_next(random);
		trader[i].market = market;
		child_check(pthread_create(&thread[i], NULL, trader_main, &trader[i]) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	return 0;
}

static int open_market(void *arg)
{
	struct market *market = shma_calloc(1, sizeof(*market));

	(void)arg;
	child_check(market && shma_root_set(shma_default(), "market", market) == 0);
	return 0;
}

/* A process that made none of the blocks frees those that are left. */
static int close_market(void *arg)
{
	struct market *market = shma_root_get(shma_default(), "market");

	(void)arg;
	child_check(market);
	for (int i = 0; i < PLACES; i++) {
		struct record *r = shma_from_off(shma_default(), market->place[i]);

		if (r)
			check_bytes(r);
		shma_free(r);
	}
	child_check(shma_root_del(shma_default(), "market") == 0);
	shma_free(market);
	return 0;
}

static void run_market(struct test_random *random)
{
	struct test_daemon d;
	pid_t pid[PROCESSES];
	int fds;

	system_start(&d, NULL);
	cr_assert_eq(child_run(open_market, NULL), 0);
	fds = test_daemon_fds(&d);
	for (unsigned i = 0; i < PROCESSES; i++) {
		pid[i] = child_start(process_main, random);
		test_random_next(random);
	}
	for (int i = 0; i < 3; i++)
		cr_expect_eq(test_ctl_check(&d), 0, "during the run");
	for (unsigned i = 0; i < PROCESSES; i++)
		cr_expect_eq(child_join(pid[i]), 0);
	cr_expect_eq(test_ctl_check(&d), 0, "after the run");
	cr_expect_eq(child_run(close_market, NULL), 0);
	system_expect_empty(&d);
	cr_expect_eq(test_daemon_settle_fds(&d, fds), 0, "the daemon keeps descriptors of clients that are gone");
	system_end(&d);
}

Test(mix, eight_processes_of_four_threads)
{
	for (int round = 0; round < (system_soaks() ? SOAK_ROUNDS : 1); round++) {
		struct test_random random = test_random_init("mix");

		run_market(&random);
	}
}
