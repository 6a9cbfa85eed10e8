#include "shm/slots.h"

void shmi_slots_fill(shmi_a64 *bitmap, const struct shmi_class *class)
{
	for (uint32_t w = 0; w < class->words; w++)
		shmi_store_release(&bitmap[w], shmi_slots_mask(class, w));
	for (uint32_t w = class->words; w % SHMI_SLOTS_LINE; w++)
		shmi_store_release(&bitmap[w], 0);
}

uint32_t shmi_slots_count(shmi_a64 *bitmap, const struct shmi_class *class)
{
	uint32_t count = 0;

	for (uint32_t w = 0; w < class->words; w++)
		count += (uint32_t)__builtin_popcountll(shmi_slots_peek(bitmap, class, w));
	return count;
}
