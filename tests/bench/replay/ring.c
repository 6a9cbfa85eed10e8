#include "tests/bench/replay/ring.h"

#include <string.h>

/* Counts of entries wrap at 31 bits, as turn words do. */
#define COUNT(n) ((n) & ~TURN_SLEEPER)

void ring_init(struct ring *ring)
{
	memset(ring, 0, sizeof(*ring));
}

static uint64_t bytes_under_way(struct ring *ring)
{
	return ring->bytes - atomic_load_explicit(&ring->bytes_done, memory_order_relaxed);
}

void ring_push(struct ring *ring, const struct ring_entry *entry)
{
	uint32_t tail = turn_get(&ring->tail);

	while (COUNT(tail - ring->head_seen) == RING_ENTRIES ||
	        (tail != ring->head_seen && bytes_under_way(ring) > RING_BYTES))
		ring->head_seen = turn_wait_past(&ring->head, ring->head_seen);
	ring->entry[tail % RING_ENTRIES] = *entry;
	ring->bytes += entry->size;
	turn_set(&ring->tail, COUNT(tail + 1));
}

static void say_head(struct ring *ring)
{
	ring->bytes_said = ring->bytes_taken;
	atomic_store_explicit(&ring->bytes_done, ring->bytes_taken, memory_order_relaxed);
	turn_set(&ring->head, ring->taken);
}

/* An entry counts as done when the next one is popped: until then its block is still there. */
struct ring_entry ring_pop(struct ring *ring)
{
	uint32_t said = turn_get(&ring->head);

	if (COUNT(ring->taken - said) >= RING_BATCH || ring->bytes_taken - ring->bytes_said > RING_BATCH_BYTES)
		say_head(ring);
	if (turn_get(&ring->tail) == ring->taken) {
		if (ring->taken != said)
			say_head(ring);
		turn_wait_past(&ring->tail, ring->taken);
	}
	struct ring_entry entry = ring->entry[ring->taken % RING_ENTRIES];

	ring->taken = COUNT(ring->taken + 1);
	ring->bytes_taken += entry.size;
	return entry;
}
