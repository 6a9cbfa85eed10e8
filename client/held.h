/* The spans that this process holds: which thread has them, and in what order they are looked at.
 *
 * One small node per page of the heap, indexed by a span's first page, in private memory that a fork wipes: so a child
 * finds that it holds nothing, however it was forked. The array is as long as the heap, and touched only where spans are.
 *
 * A held span is in one queue: `ready` (it had free slots when last looked at), `full` (it had none; in the order in
 * which the last slot was taken, so that the head has had the longest time to fill again), or the process's pool.
 *
 * Threads: `thread` may be read by any thread, everything else by the holder alone, or under the pool's lock while no thread
 * holds the span.
 *
 * A large span that was freed while the daemon was away waits in a queue of its own, under big_lock, until the daemon is told; it is
 * marked whether it is another process's scoped one.
 */
#ifndef CLIENT_HELD_H
#define CLIENT_HELD_H

#include "shm/image.h"

struct shmi_held {
	shmi_a32 thread; /* thread record + 1 of the holder; 0: no thread of this process */
	uint32_t generation;
	uint32_t next, prev;
	uint16_t sclass;
	uint8_t queue; /* an enum shmi_held_queue */
	uint8_t whole; /* an enum shmi_held_whole */
};

/* Whether a span is counted as wholly free. */
enum shmi_held_whole {
	SHMI_WHOLE_NOT,
	SHMI_WHOLE_NEW, /* nothing was taken from it since it was granted */
	SHMI_WHOLE_AGAIN
};

enum shmi_held_queue {
	SHMI_HELD_NONE,
	SHMI_HELD_READY,
	SHMI_HELD_FULL,
	SHMI_HELD_POOL,
	SHMI_HELD_OWED,
	SHMI_HELD_OWED_OTHERS
};

/* First pages; 0 is none. All zero is empty. */
struct shmi_queue {
	uint32_t head, tail, count;
};

/* Appends, or takes out from anywhere. `which` is what the node is marked with. */
void shmi_queue_append(struct shmi_held *held, struct shmi_queue *queue, uint32_t page, enum shmi_held_queue which);
void shmi_queue_remove(struct shmi_held *held, struct shmi_queue *queue, uint32_t page);

#endif
