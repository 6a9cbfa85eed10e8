#include "shm/slots.h"

void shmi_slots_fill(shmi_a64 *bitmap, const struct shmi_class *class)
{
	for (uint32_t w = 0; w < class->words; w++)
		shmi_store_release(&bitmap[w], shmi_slots_mask(class, w));
	for (uint32_t w = class->words; w % SHMI_SLOTS_LINE; w++)
		shmi_store_release(&bitmap[w], 0);
}

/* Most words that are counted are full or empty; and the instruction that counts is not on every x86-64. */
static uint32_t bits_of(uint64_t word)
{
	return word == 0 ? 0 : word == ~0ull ? 64 : (uint32_t)__builtin_popcountll(word);
}

uint32_t shmi_slots_count(shmi_a64 *bitmap, const struct shmi_class *class)
{
	uint32_t count = 0, w = 0;

	for (; w + 1 < class->words; w++)
		count += bits_of(shmi_load_acquire(&bitmap[w]));
	return w < class->words ? count + bits_of(shmi_slots_peek(bitmap, class, w)) : count;
}
