/* The slot bitmap of a span: a set bit is a free slot.
 *
 * Only the span's holder, one thread, clears bits; anybody sets them. So the holder may read a word and then clear what it
 * saw set: nobody else can have taken it, but for the daemon, which may take all slots of a span from a holder that sleeps
 * (shm/seize.h). All changes are one atomic operation on one word, whose result says what was got; there is nothing to wait for.
 *
 * Bits beyond the last slot are never set by us; a reader masks them (the other side may write anything), and the daemon
 * takes them for a sign of damage (shm/central.h).
 */
#ifndef SHM_SLOTS_H
#define SHM_SLOTS_H

#include "shm/image.h"

#define SHMI_SLOTS_LINE (64u / sizeof(uint64_t)) /* words of a cache line; a span's bitmap has whole ones */

/* The bits of word `word` that stand for slots. */
static inline uint64_t shmi_slots_mask(const struct shmi_class *class, uint32_t word)
{
	uint32_t rest = class->slots - word * 64;

	return rest >= 64 ? ~0ull : (1ull << rest) - 1;
}

/* Free slots in word `word`, as it stands. */
static inline uint64_t shmi_slots_peek(shmi_a64 *bitmap, const struct shmi_class *class, uint32_t word)
{
	return shmi_load_acquire(&bitmap[word]) & shmi_slots_mask(class, word);
}

/* Bits behind the last slot, to the end of the cache line. shmi_slots_fill clears them and nobody who keeps to the rules sets
 * one: whoever finds one looks at a bitmap that was overwritten. */
static inline uint64_t shmi_slots_beyond(shmi_a64 *bitmap, const struct shmi_class *class)
{
	uint64_t beyond = shmi_load_acquire(&bitmap[class->words - 1]) & ~shmi_slots_mask(class, class->words - 1);

	for (uint32_t w = class->words; w % SHMI_SLOTS_LINE; w++)
		beyond |= shmi_load_acquire(&bitmap[w]);
	return beyond;
}

/* Takes `bits`, which the holder has seen set. Returns those that really were set: all, unless the daemon was faster, or somebody
 * wrote wildly. */
static inline uint64_t shmi_slots_take(shmi_a64 *bitmap, uint32_t word, uint64_t bits)
{
	return shmi_fetch_and(&bitmap[word], ~bits) & bits;
}

/* Takes all slots of the word if all are free, and none else; for who is not the holder. */
static inline bool shmi_slots_take_all(shmi_a64 *bitmap, const struct shmi_class *class, uint32_t word)
{
	uint64_t all = shmi_slots_mask(class, word);

	return shmi_exchange_if(&bitmap[word], &all, 0);
}

/* Puts `bits` back. Returns those that were set already: double frees. */
static inline uint64_t shmi_slots_put(shmi_a64 *bitmap, uint32_t word, uint64_t bits)
{
	return shmi_fetch_or(&bitmap[word], bits) & bits;
}

/* Sets every slot of a span that nobody holds yet, and clears what is behind the last one (P6: published by the span's state word or by the grant). */
void shmi_slots_fill(shmi_a64 *bitmap, const struct shmi_class *class);

/* How many slots are free, as they stand. */
uint32_t shmi_slots_count(shmi_a64 *bitmap, const struct shmi_class *class);

#endif
