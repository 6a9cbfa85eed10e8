#include "shm/slots.h"

#include <criterion/criterion.h>

#include "tests/lib/random.h"

TestSuite(slots, .timeout = 20);

static struct shmi_class table[SHMI_CLASSES];

Test(slots, fill_sets_each_slot_and_nothing_else)
{
	shmi_class_table(table);
	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++) {
		shmi_a64 bitmap[9] = {0};
		uint32_t bits = 0;

		shmi_slots_fill(bitmap, &table[c]);
		cr_assert_eq(shmi_slots_count(bitmap, &table[c]), table[c].slots);
		for (uint32_t w = 0; w < 9; w++)
			bits += (uint32_t)__builtin_popcountll(bitmap[w]);
		cr_assert_eq(bits, table[c].slots, "class %u sets %u bits", c, bits);
		cr_assert(table[c].words <= 8, "a span's bitmap is one cache line");
	}
}

Test(slots, bits_beyond_the_last_slot_are_not_seen)
{
	shmi_class_table(table);
	const struct shmi_class *class = &table[shmi_class_of(48)]; /* 170 slots: 42 in the last word */
	shmi_a64 bitmap[8] = {~0ull, ~0ull, ~0ull, ~0ull};

	cr_assert_eq(shmi_slots_count(bitmap, class), 170);
	cr_assert_eq(shmi_slots_peek(bitmap, class, 2), (1ull << 42) - 1);
}

Test(slots, put_tells_what_was_free_already)
{
	shmi_a64 word = 0x0f;

	cr_assert_eq(shmi_slots_put(&word, 0, 0xf0), 0);
	cr_assert_eq(shmi_slots_put(&word, 0, 0x110), 0x10);
	cr_assert_eq(word, 0x1ff);
}

Test(slots, take_gives_only_what_was_there)
{
	shmi_a64 word = 0x0f;

	cr_assert_eq(shmi_slots_take(&word, 0, 0x3c), 0x0c);
	cr_assert_eq(word, 0x03);
}
