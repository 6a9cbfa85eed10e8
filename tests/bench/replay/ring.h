/* The queue of mode handover. It lies in a block of the heap, which the consumer finds by a named root.
 *
 * One producer, one consumer. The producer plays the trace and makes every allocation; each free and each realloc of a
 * live object goes into the ring, and the consumer checks the block and does it. So what one side allocates the other side
 * frees. Blocks that the consumer has reallocated are known to the consumer alone: the producer's later entries for that
 * object bear no reference (0), which means "the one that you have". As the ring keeps the order, ids may be reused at once
 * and nobody ever waits for an answer.
 *
 * A reference is the raw pointer if both sides have the heap at its base address, else an offset.
 *
 *	[W producer; R consumer]  tail, entry[]: filled, then tail is advanced (release)
 *	[W consumer; R producer]  head, bytes_done: bytes_done is stored, then head is advanced (release), now and then only
 *
 * The producer stops when the ring is full or when blocks of more than RING_BYTES are under way: without that, peak memory
 * would depend on who is scheduled first.
 */
#ifndef REPLAY_RING_H
#define REPLAY_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/replay/turn.h"

#define RING_ENTRIES 4096u
#define RING_BYTES (4u << 20)
#define RING_BATCH 64u /* entries after which the consumer says how far it is */
#define RING_BATCH_BYTES (1u << 20)

/* Entries that are no event. */
#define RING_REST UINT32_MAX /* free this object, which the trace leaves alive */
#define RING_MARK (UINT32_MAX - 1) /* the trace ends here: stop the clock */
#define RING_STOP (UINT32_MAX - 2)

struct ring_entry {
	uint64_t ref;
	uint64_t size;
	uint32_t event;
	uint32_t id;
	uint32_t generation;
	uint32_t unused;
};

struct ring {
	_Alignas(64) turn_word tail;
	uint32_t head_seen; /* producer's own copy of head */
	uint64_t bytes; /* producer: sizes of all entries so far */
	_Alignas(64) turn_word head;
	uint32_t taken; /* consumer: entries taken; head lags behind */
	uint64_t bytes_taken;
	uint64_t bytes_said;
	_Atomic uint64_t bytes_done;
	_Alignas(64) uint32_t off_base[2]; /* by side; both are written before either is read */
	struct ring_entry entry[RING_ENTRIES];
};

static inline bool ring_raw(const struct ring *ring)
{
	return !ring->off_base[0] && !ring->off_base[1];
}

void ring_init(struct ring *ring);
void ring_push(struct ring *ring, const struct ring_entry *entry);

/* Waits for an entry. */
struct ring_entry ring_pop(struct ring *ring);

#endif
