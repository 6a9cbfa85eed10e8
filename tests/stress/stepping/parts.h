/* What both halves of the oracle ask of a heap. */
#ifndef STRESS_STEPPING_PARTS_H
#define STRESS_STEPPING_PARTS_H

#include "shm/walk.h"
#include "tests/stress/stepping/oracle.h"

static inline const struct shmi_class *class_of(const struct oracle *o, shmi_sclass sclass)
{
	return &o->w->heap.img.classes[shmi_sclass_size_class(sclass)];
}

static inline uint64_t slot_off(const struct oracle *o, shmi_page page, shmi_sclass sclass, uint32_t slot)
{
	return shmi_page_off(page).b + (uint64_t)slot * class_of(o, sclass)->size;
}

static inline uint64_t taken(const struct oracle *o, shmi_page page, shmi_sclass sclass, uint32_t word)
{
	const struct shmi_class *class = class_of(o, sclass);

	return ~shmi_slots_peek(shmi_bitmap_at(&o->w->heap.img, page), class, word) & shmi_slots_mask(class, word);
}

static inline bool is_blocks(struct shmi_word word)
{
	return word.state == SHMI_SPAN_OWNED || word.state == SHMI_SPAN_CENTRAL;
}

/* Whether `old` lies in the span or large block that began at `page`, with this word. */
static inline bool has_old(const struct oracle *o, shmi_page page, struct shmi_word word)
{
	uint32_t pages = word.state == SHMI_SPAN_LARGE ? 1 : class_of(o, word.sclass)->pages;

	return o->old && word.generation == o->old_generation && shmi_off_page((shmi_off){o->old}).i - page.i < pages;
}

#endif
