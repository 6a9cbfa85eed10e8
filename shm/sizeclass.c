#include "shm/sizeclass.h"

/* The sizes follow from the rule in the header; written out, because readers look for them here. */
static const uint32_t block_size[SHMI_CLASSES] = {0,
        /* every 16 bytes */
        16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 256,
        /* six a doubling */
        288, 320, 352, 400, 448, 512, 576, 640, 704, 800, 896, 1024, 1152, 1280, 1408, 1600, 1792, 2048, 2304, 2560,
        2816, 3200, 3584, 4096, 4608, 5120, 5632, 6400, 7168, 8192, 9216, 10240, 11264, 12800, 14336, 16384, 18432,
        20480, 22528, 25600, 28672, 32768, 36864, 40960, 45056, 51200, 57344, 65536, 73728, 81920, 90112, 102400,
        114688, 131072, 147456, 163840, 180224, 204800, 229376, 262144,
        /* large */
        0};

const uint8_t shmi_sclass_tiny[65] = {4, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 60, 64, 64, 68, 68,
        72, 72, 76, 76, 76, 80, 80, 80, 84, 84, 84, 84, 88, 88, 88, 88, 92, 92, 92, 92, 96, 96, 96, 96, 100, 100, 100,
        100, 100, 100, 104, 104, 104, 104, 104, 104, 108, 108, 108, 108, 108, 108, 108, 108};

const uint8_t shmi_class_sixteenths[16] = {1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 6};

/* How many blocks a span should have at least: enough that a span is worth its record, few enough that a class with
 * little use does not sit on much memory. */
static uint32_t fewest_slots(uint32_t size)
{
	return size <= 1024 ? 8 : size <= 8192 ? 4 : size <= 32768 ? 2 : 1;
}

/* The shortest span of at least `fewest` blocks that loses at most bytes / `part` behind its last one, up to `most` pages. */
static uint32_t shortest_span(uint32_t size, uint32_t fewest, uint32_t part, uint32_t most)
{
	for (uint32_t pages = 1; pages <= most; pages++) {
		uint32_t bytes = pages << SHMI_PAGE_SHIFT, slots = bytes / size;

		if (slots >= fewest && (bytes - slots * size) * part <= bytes)
			return pages;
	}
	return 0;
}

/* At most an eighth may be lost; where 64 KiB are enough to lose no more than a thirty-second, a span is that long. */
static uint32_t span_pages(uint32_t size)
{
	uint32_t pages = shortest_span(size, fewest_slots(size), 32, size <= 32768 ? 8 : 0);

	return pages ? pages : shortest_span(size, fewest_slots(size), 8, 128);
}

/* Room for 128 KiB of blocks: with less, blocks that go from one process to another are moved in too small lots. */
static uint32_t magazine_capacity(uint32_t size)
{
	uint32_t cap = 128 * 1024 / size;

	return cap > SHMI_MAG_MAX ? SHMI_MAG_MAX : cap < 4 ? 4 : cap;
}

/* Not at the start of a page, where the first blocks of spans are: a processor that compares addresses by their low 12 bits would hold
 * back the load of a magazine's `top` behind a store to a block. */
#define MAGAZINES_AT 512u

void shmi_class_table(struct shmi_class table[SHMI_CLASSES])
{
	uint32_t off = MAGAZINES_AT;

	for (uint32_t c = 0; c < SHMI_CLASSES; c++) {
		uint32_t size = block_size[c];

		table[c] = (struct shmi_class){0};
		if (!size)
			continue;
		uint32_t pages = span_pages(size), slots = (pages << SHMI_PAGE_SHIFT) / size;

		table[c] = (struct shmi_class){.size = size,
		        .pages = pages,
		        .slots = slots,
		        .words = (slots + 63) / 64,
		        .reciprocal = (uint32_t)((((uint64_t)1 << 32) + size - 1) / size),
		        .mag_cap = magazine_capacity(size),
		        .mag_off = off};
		off += (8 + table[c].mag_cap * 8 + 63) / 64 * 64;
	}
}

uint32_t shmi_class_part_bytes(const struct shmi_class table[SHMI_CLASSES])
{
	const struct shmi_class *last = &table[SHMI_CLASS_LARGE - 1];

	return (last->mag_off + 8 + last->mag_cap * 8 + 4095) / 4096 * 4096;
}
