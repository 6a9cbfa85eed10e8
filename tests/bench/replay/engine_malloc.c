/* The C library's malloc, or whatever LD_PRELOAD puts in its place. */
#include "tests/bench/replay/replay.h"

#include <malloc.h>
#include <stdlib.h>

#define A_MALLOC(size) malloc(size)
#define A_CALLOC(count, size) calloc(count, size)
#define A_REALLOC(block, size) realloc(block, size)
#define A_ALIGNED(alignment, size) aligned_alloc(alignment, size)
#define A_FREE(block) free(block)
#define A_USABLE(block) malloc_usable_size(block)
#define A_REF(block, raw) ((void)(raw), (uint64_t)(uintptr_t)(block))
#define A_BLOCK(ref, raw) ((void)(raw), (void *)(uintptr_t)(ref))

#include "tests/bench/replay/player.inc.h"

static struct ring *shared_ring; /* both sides are threads of one process */

static bool engine_open(const struct options *options, unsigned process)
{
	(void)options;
	(void)process;
	resident_begin();
	return true;
}

static void engine_close(struct outcome *out)
{
	out->peak_memory = resident_growth();
}

static struct ring *ring_make(uint64_t key)
{
	(void)key;
	shared_ring = aligned_alloc(_Alignof(struct ring), sizeof(struct ring));
	if (shared_ring)
		ring_init(shared_ring);
	return shared_ring;
}

static struct ring *ring_find(uint64_t key)
{
	(void)key;
	return shared_ring;
}

static void ring_drop(struct ring *ring, uint64_t key)
{
	(void)key;
	free(ring);
}

const struct engine engine_malloc = {.name = "malloc",
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
