/* Size classes and span classes.
 *
 * A request is rounded up to the block size of a size class; all slots of a span have one block size. Up to 128 bytes
 * there is a class every 16 bytes; from 128 to 256 every 16 bytes but for 240; above that six a doubling, at 18, 20, 22,
 * 25, 28 and 32 sixteenths of a power of two: never more than 12.5 % of a block is lost to rounding above 128 bytes, and
 * every size is a multiple of 16. (Four a doubling would lose 20 %, eight would only make more half-empty spans.)
 *
 * A span class is a size class and two attributes, after the Go runtime's spanClass: bit 0 `scoped`, bit 1 `noscan`.
 * Size class 0 is none and SHMI_CLASS_LARGE is a block that is a span of its own, so that the class of a page answers
 * every question that free() has.
 *
 * Threads: all functions are pure.
 */
#ifndef SHM_SIZECLASS_H
#define SHM_SIZECLASS_H

#include "shm/units.h"

#define SHMI_CLASS_NONE 0u
#define SHMI_CLASS_LARGE 76u
#define SHMI_CLASSES 77u /* none, 75 sizes, large */
#define SHMI_ATTRS 4u
#define SHMI_SCOPED 1u
#define SHMI_NOSCAN 2u
#define SHMI_SPAN_CLASSES (SHMI_CLASSES * SHMI_ATTRS)
#define SHMI_SMALL_MAX (256 * 1024u) /* bytes: the largest block that shares a span class */
#define SHMI_MAG_MAX 2048u /* entries of the largest magazine */

struct shmi_class {
	uint32_t size; /* bytes of a block */
	uint32_t pages; /* pages of a span: at most an eighth of it is lost behind the last slot */
	uint32_t slots; /* blocks of a span */
	uint32_t words; /* 64-bit bitmap words in use */
	uint32_t reciprocal; /* ceil(2^32 / size): see shmi_slot_of */
	uint32_t mag_cap; /* entries for which a thread record has room */
	uint32_t mag_off; /* offset of the magazine in its part of the thread record */
	uint32_t unused;
};

/* Indexed by size class; [0] and [SHMI_CLASS_LARGE] are all zero but for `pages` = 0. Filled by shmi_class_table. */
void shmi_class_table(struct shmi_class table[SHMI_CLASSES]);

/* Bytes of one part of a thread record: the magazines of one attribute combination. A multiple of 4 KiB. */
uint32_t shmi_class_part_bytes(const struct shmi_class table[SHMI_CLASSES]);

#define SHMI_TINY_MAX 1024u /* bytes: up to here the class is looked up, above it is computed */

extern const uint8_t shmi_sclass_tiny[65]; /* span class without attributes by (size + 15) / 16 */
extern const uint8_t shmi_class_sixteenths[16]; /* step within a doubling by the sixteenth that holds size - 1 */

static inline shmi_sclass shmi_sclass_make(uint32_t size_class, uint32_t attrs)
{
	return (shmi_sclass){(uint16_t)(size_class * SHMI_ATTRS + attrs)};
}

/* The span class of a block of any size, without attributes. A size of 0 gets the smallest block. */
static inline shmi_sclass shmi_sclass_of(uint64_t size)
{
	if (__builtin_expect(size <= SHMI_TINY_MAX, 1))
		return (shmi_sclass){shmi_sclass_tiny[(size + 15) >> 4]};
	if (__builtin_expect(size > SHMI_SMALL_MAX, 0))
		return shmi_sclass_make(SHMI_CLASS_LARGE, 0);
	uint32_t lg = 63u ^ (uint32_t)__builtin_clzll(size - 1);

	return shmi_sclass_make(15u + 6 * (lg - 8) + shmi_class_sixteenths[((size - 1) >> (lg - 4)) & 15], 0);
}

/* The size class of a block. */
static inline uint32_t shmi_class_of(uint64_t size)
{
	return shmi_sclass_of(size).c / SHMI_ATTRS;
}

static inline uint32_t shmi_sclass_size_class(shmi_sclass sclass)
{
	return sclass.c / SHMI_ATTRS;
}

static inline uint32_t shmi_sclass_attrs(shmi_sclass sclass)
{
	return sclass.c % SHMI_ATTRS;
}

static inline bool shmi_sclass_scoped(shmi_sclass sclass)
{
	return sclass.c & SHMI_SCOPED;
}

/* A span class of blocks that share spans: neither none nor large nor out of range. */
static inline bool shmi_sclass_is_small(shmi_sclass sclass)
{
	uint32_t c = shmi_sclass_size_class(sclass);

	return c != SHMI_CLASS_NONE && c < SHMI_CLASS_LARGE;
}

static inline bool shmi_sclass_is_large(shmi_sclass sclass)
{
	return shmi_sclass_size_class(sclass) == SHMI_CLASS_LARGE;
}

/* The slot that begins at byte `delta` of a span (delta < 2^20: no span of blocks is larger). Where none begins there the
 * answer is some slot that begins elsewhere: callers compare slot * size with delta. */
static inline uint32_t shmi_slot_of(const struct shmi_class *class, uint32_t delta)
{
	return (uint32_t)(((uint64_t)delta * class->reciprocal) >> 32);
}

#endif
