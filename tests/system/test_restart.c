/* The daemon is killed over a large heap and started again: how long nobody is served.
 *
 * The heap has at least 1 GiB in use and a million live blocks, whose owner lives. An outage begins with the start of the next
 * daemon (the machine needs that moment for any process) and ends when a request that was waiting has been answered: exec, adoption,
 * the check of the rebuilt heap, finding the clients, the client's connecting and resuming are all in it. */
#include "tests/system/system.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/shmalloc.h"

#define BLOCKS 1100000u
#define LIMIT_MS 100.0
#define GIB (1ull << 30)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
#define SLOW true
#else
#define SLOW false
#endif

static const char *const arguments[] = {"--size", "3GiB", NULL};
static unsigned char **block;

static size_t size_of(uint32_t i)
{
	return 700 + i * 7919u % 600; /* five classes */
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Blocks of both lifetimes; each knows its number at both ends. Returns the bytes asked for. */
static uint64_t fill(void)
{
	uint64_t bytes = 0;

	block = calloc(BLOCKS, sizeof(*block));
	cr_assert(block != NULL);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		size_t size = size_of(i);

		block[i] = shma_heap_alloc(shma_default(), size, 0, i % 3 ? 0 : SHMA_SCOPED);
		cr_assert(block[i] != NULL);
		memcpy(block[i], &i, sizeof(i));
		memcpy(block[i] + size - sizeof(i), &i, sizeof(i));
		bytes += size;
	}
	return bytes;
}

static uint32_t damaged(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < BLOCKS; i++)
		n += memcmp(block[i], &i, sizeof(i)) != 0 ||
		     memcmp(block[i] + size_of(i) - sizeof(i), &i, sizeof(i)) != 0;
	return n;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Kills it and starts the next one. Milliseconds from there to the first answer. */
static double restart(struct test_daemon *d, uint32_t run)
{
	test_daemon_kill(d);
	double begun = now_ms();

	cr_assert_eq(test_daemon_spawn(d, &(struct test_daemon_options){.args = arguments}), 0);
	cr_assert_eq(shma_root_set(shma_default(), "restarted", block[run]), 0);
	return now_ms() - begun;
}

/* As much memory again, in use a moment ago: its pages are free and backed when the daemon dies. */
static void use_and_free(uint64_t bytes)
{
	enum { EACH = 8 << 20, MOST = 256 };
	void *large[MOST];
	uint32_t n = (uint32_t)(bytes / EACH);

	for (uint32_t i = 0; i < n; i++)
		cr_assert((large[i] = shma_malloc(EACH)) != NULL);
	for (uint32_t i = 0; i < n; i++)
		shma_free(large[i]);
	cr_assert_eq(shma_trim(shma_default()), 0);
}

/* A series of restarts. Returns the median of what they took, in milliseconds. */
static double series(struct test_daemon *d, const char *what, bool idle, uint64_t bytes)
{
	uint32_t runs = system_soaks() ? 100 : 11;
	double ms[100];

	for (uint32_t i = 0; i < runs; i++) {
		if (idle)
			use_and_free(GIB);
		ms[i] = restart(d, i);
	}
	qsort(ms, runs, sizeof(ms[0]), by_value);
	fprintf(stderr,
	        "restart, %s: %u kills, %llu MiB in %u live blocks; served again after p50 %.1f ms, p90 %.1f, max "
	        "%.1f\n",
	        what, runs, (unsigned long long)(bytes >> 20), BLOCKS, ms[runs / 2], ms[runs * 9 / 10], ms[runs - 1]);
	return ms[runs / 2];
}

/* Restarts over and over, and what was there is there. `idle`: with a gibibyte that has just been freed. A machine that has
 * much else to do may hold up any process, so one series of three must hold; all are told. */
static void restarts(const char *what, bool idle)
{
	struct test_daemon d;
	bool soon = false;

	system_start(&d, arguments);
	uint64_t bytes = fill();

	cr_assert_gt(bytes, GIB);
	cr_assert_geq(test_ctl_stat(&d, "live_blocks"), BLOCKS);
	for (uint32_t n = 0; n < 3 && !soon; n++)
		soon = series(&d, what, idle, bytes) < LIMIT_MS || SLOW;
	cr_expect(soon);
	cr_expect_eq(damaged(), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_expect_geq(test_ctl_stat(&d, "live_blocks"), BLOCKS);
	for (uint32_t i = 0; i < BLOCKS; i++)
		shma_free(block[i]);
	cr_expect_eq(shma_root_del(shma_default(), "restarted"), 0);
	cr_expect_eq(shma_detach(shma_default()), 0);
	system_end(&d);
}

Test(restart, a_gibibyte_with_a_million_blocks)
{
	restarts("all in use", false);
}

/* What is free and backed is not dropped before the next daemon serves. */
Test(restart, with_a_gibibyte_just_freed)
{
	restarts("as much just freed", true);
}
