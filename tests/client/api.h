/* What the suites of the public API share. A test has a daemon of its own and is itself a client of it; what the heap says
 * about itself is read from the client's own mapping of it. */
#ifndef TEST_API_H
#define TEST_API_H

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/heap.h"
#include "shm/stats.h"
#include "tests/lib/child.h"
#include "tests/lib/ctl.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define SETTLE_MS 10000
#define STEP_MS 2 /* nothing tells a client that statistics have changed */

/* Starts a daemon, which becomes the default one. */
static inline void api_start(struct test_daemon *d, const char *const *args)
{
	unsetenv("SHMALLOC_HEAP");
	unsetenv("SHMALLOC_HARDEN");
	unsetenv("SHMALLOC_DEBUG");
	cr_assert_eq(test_daemon_start(d, &(struct test_daemon_options){.args = args}), 0);
	setenv("SHMALLOC_SOCKET", d->socket, 1);
}

/* The heap is clean and the daemon ends well. */
static inline void api_end(struct test_daemon *d)
{
	cr_expect_eq(test_ctl_check(d), 0);
	cr_expect_eq(test_daemon_end(d), 0);
}

static inline shma_heap *api_attach(const struct test_daemon *d, int timeout_ms)
{
	struct shma_options options = {.size = sizeof(options), .socket = d->socket, .timeout_ms = timeout_ms};

	return shma_attach(&options);
}

/* Functions that may be called in a child or a thread as well say what is wrong with child_check. */

static inline struct shma_stats api_stats(shma_heap *heap)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	child_check(shma_stats_get(heap, &stats) == 0);
	return stats;
}

static inline struct shmi_heap_stats api_sums(const shma_heap *heap)
{
	struct shmi_heap_stats sums;

	shmi_stats_heap(&heap->env.img, &sums);
	return sums;
}

static inline uint64_t api_live(const shma_heap *heap)
{
	return api_sums(heap).live;
}

static inline shmi_sclass api_sclass(const shma_heap *heap, const void *block)
{
	shmi_off off = {(uint64_t)(uintptr_t)block - heap->env.base};

	return (shmi_sclass){shmi_load(shmi_page_class_at(&heap->env.img, shmi_off_page(off)))};
}

/* A pattern that differs from block to block, so that two that overlap are seen. */
static inline void api_fill(void *block, size_t len, size_t seed)
{
	memset(block, (int)((seed * 37 + 11) & 0xff), len);
}

static inline bool api_filled(const void *block, size_t len, size_t seed)
{
	const unsigned char *at = block;
	unsigned char want = (unsigned char)((seed * 37 + 11) & 0xff);

	return !len || (at[0] == want && memcmp(at, at + 1, len - 1) == 0);
}

static inline bool api_zero(const void *block, size_t len)
{
	const unsigned char *at = block;

	return !len || (at[0] == 0 && memcmp(at, at + 1, len - 1) == 0);
}

/* Waits until `met` is so; what it reads is changed by other processes. */
#define api_settles(met)                                                                                               \
	({                                                                                                             \
		long long deadline_ = test_now_ms() + SETTLE_MS;                                                       \
		while (!(met) && test_now_ms() < deadline_)                                                            \
			(void)poll(NULL, 0, STEP_MS);                                                                  \
		(met);                                                                                                 \
	})

/* Nothing is live, and after a trim no client holds anything, once the daemon has heard of the end of those that have ended. */
static inline void api_expect_empty(shma_heap *heap)
{
	cr_expect_eq(shma_trim(heap), 0);
	cr_expect_eq(api_stats(heap).process_owned, 0, "%llu bytes are held here",
	        (unsigned long long)api_stats(heap).process_owned);
	cr_expect(api_settles(api_stats(heap).owned == 0), "%llu bytes are held",
	        (unsigned long long)api_stats(heap).owned);
	cr_expect_eq(api_live(heap), 0, "%llu bytes are live", (unsigned long long)api_live(heap));
}

#endif
