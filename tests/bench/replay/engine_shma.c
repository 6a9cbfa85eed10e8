/* The daemon's heap. */
#include "tests/bench/replay/replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/shmalloc.h"

#define A_MALLOC(size) shma_malloc(size)
#define A_CALLOC(count, size) shma_calloc(count, size)
#define A_REALLOC(block, size) shma_realloc(block, size)
#define A_ALIGNED(alignment, size) shma_aligned_alloc(alignment, size)
#define A_FREE(block) shma_free(block)
#define A_USABLE(block) shma_usable_size(block)
#define A_REF(block, raw) ((raw) ? (uint64_t)(uintptr_t)(block) : shma_to_off(block))
#define A_BLOCK(ref, raw) ((raw) ? (void *)(uintptr_t)(ref) : shma_from_off(shma_default(), (ref)))

#include "tests/bench/replay/player.inc.h"

/* Takes the place where the heap should be, so that it has to be mapped elsewhere. Left mapped. */
static bool block_base(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};
	shma_heap *heap = shma_attach(NULL);

	if (!heap || shma_stats_get(heap, &stats) != 0 || shma_detach(heap) != 0)
		return false;
	void *place = (void *)(uintptr_t)stats.base;

	return mmap(place, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == place;
}

static bool engine_open(const struct options *options, unsigned process)
{
	if (options->socket)
		setenv("SHMALLOC_SOCKET", options->socket, 1);
	if (options->heap)
		setenv("SHMALLOC_HEAP", options->heap, 1);
	if ((options->elsewhere && process % 2 && !block_base()) || !shma_default()) {
		fprintf(stderr, "replay: cannot attach to the heap: %s\n", strerror(errno));
		return false;
	}
	return true;
}

static void engine_close(struct outcome *out)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	if (shma_stats_get(shma_default(), &stats) != 0)
		return;
	out->messages = stats.messages;
	out->peak_memory = stats.peak_backed;
	out->off_base = !stats.at_base;
}

static uint32_t off_base(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};

	return shma_stats_get(shma_default(), &stats) != 0 || !stats.at_base;
}

static void ring_name(char name[64], uint64_t key)
{
	snprintf(name, 64, "replay.ring.%llu", (unsigned long long)key);
}

static struct ring *ring_make(uint64_t key)
{
	struct ring *ring = shma_aligned_alloc(_Alignof(struct ring), sizeof(struct ring));
	char name[64];

	ring_name(name, key);
	if (!ring || shma_root_set(shma_default(), name, ring) != 0) {
		fprintf(stderr, "replay: cannot make a ring: %s\n", strerror(errno));
		shma_free(ring);
		return NULL;
	}
	ring_init(ring);
	ring->off_base[0] = off_base();
	return ring;
}

static struct ring *ring_find(uint64_t key)
{
	char name[64];

	ring_name(name, key);
	struct ring *ring = shma_root_get(shma_default(), name);

	if (!ring)
		fprintf(stderr, "replay: no ring under the root %s: %s\n", name, strerror(errno));
	else
		ring->off_base[1] = off_base();
	return ring;
}

static void ring_drop(struct ring *ring, uint64_t key)
{
	char name[64];

	ring_name(name, key);
	shma_root_del(shma_default(), name);
	shma_free(ring);
}

const struct engine engine_shma = {.name = "shma",
        .open = engine_open,
        .close = engine_close,
        .play = play,
        .play_list = play_list,
        .free_rest = free_rest,
        .ring_make = ring_make,
        .ring_find = ring_find,
        .ring_drop = ring_drop,
        .produce = produce,
        .produce_end = produce_end,
        .consume = consume};
