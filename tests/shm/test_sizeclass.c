#include "shm/sizeclass.h"

#include <criterion/criterion.h>

static struct shmi_class table[SHMI_CLASSES];

static void make_table(void)
{
	shmi_class_table(table);
}

TestSuite(sizeclass, .init = make_table, .timeout = 60);

Test(sizeclass, every_size_has_the_smallest_class_that_holds_it)
{
	uint32_t before = 1, reached = 0;

	cr_assert_eq(shmi_class_of(0), 1, "0 gets the smallest block");
	for (uint32_t size = 1; size <= SHMI_SMALL_MAX; size++) {
		uint32_t class = shmi_class_of(size);

		cr_assert(class >= before && class < SHMI_CLASS_LARGE, "%u bytes: class %u", size, class);
		cr_assert_geq(table[class].size, size);
		cr_assert_lt(table[class - 1].size, size, "%u bytes: class %u is too large", size, class);
		reached += class != before;
		before = class;
	}
	cr_assert_eq(reached + 1, SHMI_CLASS_LARGE - 1, "every class is reached");
}

Test(sizeclass, rounding_loses_an_eighth_at_most)
{
	for (uint32_t size = 129; size <= SHMI_SMALL_MAX; size++) {
		uint32_t block = table[shmi_class_of(size)].size;

		cr_assert_leq((block - size) * 8, block, "%u bytes in %u", size, block);
	}
}

Test(sizeclass, blocks_are_aligned)
{
	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++)
		cr_assert_eq(table[c].size % 16, 0);
	/* A power of two has a class of its own, so that an aligned request can be served by one: 16 to 256 KiB. */
	for (uint32_t size = 16; size <= SHMI_SMALL_MAX; size *= 2)
		cr_assert_eq(table[shmi_class_of(size)].size, size);
}

Test(sizeclass, boundaries)
{
	static const struct {
		uint32_t size, class, block;
	} want[] = {{1, 1, 16}, {16, 1, 16}, {17, 2, 32}, {128, 8, 128}, {129, 9, 144}, {224, 14, 224}, {225, 15, 256},
	        {256, 15, 256}, {257, 16, 288}, {1024, 27, 1024}, {1025, 28, 1152}, {1152, 28, 1152}, {1153, 29, 1280},
	        {1408, 30, 1408}, {1409, 31, 1600}, {2048, 33, 2048}, {2049, 34, 2304}, {131072, 69, 131072},
	        {131073, 70, 147456}, {229377, 75, 262144}, {262144, 75, 262144}};

	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
		cr_expect_eq(shmi_class_of(want[i].size), want[i].class, "%u: class %u", want[i].size,
		        shmi_class_of(want[i].size));
		cr_expect_eq(table[want[i].class].size, want[i].block);
	}
}

Test(sizeclass, spans)
{
	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++) {
		const struct shmi_class *class = &table[c];
		uint32_t bytes = class->pages << SHMI_PAGE_SHIFT;

		cr_assert(class->pages && class->slots == bytes / class->size, "class %u: %u slots", c, class->slots);
		cr_assert_leq((bytes - class->slots * class->size) * 8, bytes, "class %u loses its tail", c);
		cr_assert_leq(bytes, 1u << 20, "shmi_slot_of is good for less than 2^20");
		cr_assert_eq(class->words, (class->slots + 63) / 64);
		cr_assert_leq(class->words * 8, class->pages * 64, "the bitmap has room");
	}
	cr_assert_eq(table[SHMI_CLASS_NONE].size, 0);
	cr_assert_eq(table[SHMI_CLASS_NONE].pages, 0);
	cr_assert_eq(table[SHMI_CLASS_LARGE].size, 0);
	cr_assert_eq(table[SHMI_CLASS_LARGE].pages, 0);
}

Test(sizeclass, slot_of_finds_every_start_and_nothing_else)
{
	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++) {
		const struct shmi_class *class = &table[c];

		for (uint32_t delta = 0; delta < class->pages << SHMI_PAGE_SHIFT; delta++) {
			uint32_t slot = shmi_slot_of(class, delta);
			bool start = delta % class->size == 0;

			cr_assert_eq((uint64_t)slot * class->size == delta, start, "class %u, byte %u: slot %u", c,
			        delta, slot);
		}
	}
}

Test(sizeclass, magazines_lie_side_by_side)
{
	uint32_t end = 512; /* where no `top` is that has the low address bits of a block at a page's start */

	for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++) {
		const struct shmi_class *class = &table[c];

		cr_assert_neq(class->mag_off % 4096, 0, "class %u", c);
		cr_assert_eq(class->mag_off, end, "class %u", c);
		cr_assert_eq(class->mag_off % 64, 0, "class %u shares a cache line", c);
		cr_assert(class->mag_cap >= 4 && class->mag_cap <= SHMI_MAG_MAX);
		end = (class->mag_off + 8 + class->mag_cap * 8 + 63) / 64 * 64;
	}
	cr_assert_geq(shmi_class_part_bytes(table), end);
	cr_assert_lt(shmi_class_part_bytes(table), end + 4096);
	cr_assert_eq(shmi_class_part_bytes(table) % 4096, 0);
}

Test(sizeclass, span_class_is_size_class_and_attributes)
{
	for (uint32_t c = 0; c < SHMI_CLASSES; c++)
		for (uint32_t a = 0; a < SHMI_ATTRS; a++) {
			shmi_sclass sclass = shmi_sclass_make(c, a);

			cr_assert_lt(sclass.c, SHMI_SPAN_CLASSES);
			cr_assert_eq(shmi_sclass_size_class(sclass), c);
			cr_assert_eq(shmi_sclass_attrs(sclass), a);
			cr_assert_eq(shmi_sclass_scoped(sclass), (a & SHMI_SCOPED) != 0);
			cr_assert_eq(shmi_sclass_is_small(sclass), c != 0 && c != SHMI_CLASS_LARGE);
			cr_assert_eq(shmi_sclass_is_large(sclass), c == SHMI_CLASS_LARGE);
		}
	cr_assert_not(shmi_sclass_is_small((shmi_sclass){SHMI_SPAN_CLASSES}));
	cr_assert_not(shmi_sclass_is_large((shmi_sclass){SHMI_SPAN_CLASSES}));
}
