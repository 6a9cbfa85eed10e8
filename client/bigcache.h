/* The process's cache of freed blocks that are spans of their own.
 *
 * It is the `big` magazine of the process's own thread record: in shared memory, so that the daemon knows after our
 * death what was free. Entries are in the order in which they were freed. An entry bears the span's generation: the daemon is
 * told first and the entry removed afterwards, and one that is still there after a death in between is void.
 *
 * What the daemon is to be told and has not answered yet, because it is away, stands as notes before those that may be used again
 * (proc->big_noted of them): so what the process had freed is free even if it dies before the daemon is back. A note of what the
 * daemon has freed is void. There is room for SHMI_BIG_MAX entries in all; of further frees without a daemon the process alone
 * knows, and if it dies before the daemon is back, those blocks stay allocated.
 *
 * How much is kept follows what is reused (ghost entries, as in ARC): the sizes of spans that were given back lately are
 * remembered, and a request that one of them would have served raises the bound by its size; each span that is given back
 * lowers it a little. So a program that frees and allocates the same frames keeps them all, and a buffer that grows by
 * realloc does not leave a trail of shorter ones. The newest span is always kept.
 *
 * Whoever calls holds big_lock.
 */
#ifndef CLIENT_BIGCACHE_H
#define CLIENT_BIGCACHE_H

#include "client/heap.h"

/* How many entries may be used again, or told to the daemon. */
uint32_t shmi_big_kept(const struct shma_heap *heap);

/* How many bytes are kept in any case, and how many until the next request for memory. */
uint64_t shmi_big_bound(const struct shma_heap *heap);
uint64_t shmi_big_bound_of_waiting(const struct shma_heap *heap);

/* How many of the oldest entries must go so that what is kept is within `most`, the newest aside: that is one of `bytes` to be kept
 * as well, unless it is 0. */
uint32_t shmi_big_too_many(const struct shma_heap *heap, uint64_t bytes, uint64_t most);

/* Adds an entry of so many bytes if there is room for it. */
bool shmi_big_keep(struct shma_heap *heap, uint64_t entry, uint64_t bytes);

/* Takes the shortest kept span of this kind that is long enough and not much too long, or 0. */
uint64_t shmi_big_take(struct shma_heap *heap, uint32_t pages, uint32_t align_pages, uint32_t attrs);

/* Whether the entry is there, kept or as a note. */
bool shmi_big_has(const struct shma_heap *heap, uint64_t entry);

/* ---- what the daemon is told: with the channel's lock held as well ---- */

/* Puts the entry in front of those that may be used again. Whoever reads it meanwhile finds some entries twice, and none missing. */
void shmi_big_note(struct shma_heap *heap, uint64_t entry);

/* Once the daemon has been told of all that it had to be, and has answered, the notes are void. */
void shmi_big_forget_notes(struct shma_heap *heap);

/* Names the oldest `n` entries in a request: they are notes from here on. Until the answer has been dealt with the channel's lock must be
 * held. */
void shmi_big_name(struct shma_heap *heap, uint32_t n, struct wire_free *body);

/* After the request: what was named is free, or, if it was not sent, kept as before. */
void shmi_big_named(struct shma_heap *heap, bool sent, int error);

#endif
