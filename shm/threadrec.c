#include "shm/threadrec.h"

#include <string.h>

uint32_t shmi_threadrec_take(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_magazine *mag,
        const struct shmi_group *group)
{
	uint32_t size = img->classes[group->sclass / SHMI_ATTRS].size, top = shmi_load(&mag->top), n = 0;
	uint64_t first = ((uint64_t)group->span << SHMI_PAGE_SHIFT) + (uint64_t)group->word * 64 * size;

	shmi_then(); /* not before the last intent's end */
	rec->intent.group = *group;
	shmi_store_release(&rec->intent.op, SHMI_INTENT_TAKE);
	uint64_t bits = shmi_slots_take(shmi_bitmap_at(img, (shmi_page){group->span}), group->word, group->bits);

	for (; bits; n++) { /* from the highest slot down: the lowest comes to lie on top */
		uint32_t bit = 63u - (uint32_t)__builtin_clzll(bits);

		bits &= ~(1ull << bit);
		shmi_store(&mag->entry[top + n], first + (uint64_t)bit * size);
	}
	shmi_store_release(&mag->top, top + n);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	return n;
}

void shmi_threadrec_spill(struct shmi_threadrec *rec, struct shmi_magazine *mag, uint32_t entries,
        const struct shmi_group *groups, uint32_t count)
{
	uint32_t top = shmi_load(&mag->top);

	shmi_then(); /* not before the end of the last put */
	memcpy(rec->spill, groups, count * sizeof(*groups));
	shmi_store_release(&rec->spill_top, count); /* the slots are in the spill as well from here on ... */
	for (uint32_t i = entries; i < top; i++)
		shmi_store_release(&mag->entry[i - entries], shmi_load(&mag->entry[i]));
	shmi_store_release(&mag->top, top - entries); /* ... and only there from here on */
}

uint64_t shmi_threadrec_put(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_group *group)
{
	uint32_t last = shmi_load(&rec->spill_top) - 1;

	*group = rec->spill[last];
	shmi_then(); /* not before the last intent's end */
	rec->intent.group = *group;
	shmi_store_release(&rec->intent.op, SHMI_INTENT_PUT);
	uint64_t twice = shmi_slots_put(shmi_bitmap_at(img, (shmi_page){group->span}), group->word, group->bits);

	shmi_store_release(&rec->spill_top, last);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	return twice;
}

void shmi_threadrec_init_parts(const struct shmi_image *img, uint32_t thread, uint32_t parts)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);

	for (uint32_t c = SHMI_CLASS_NONE + 1; c < SHMI_CLASS_LARGE; c++)
		for (uint32_t a = 0; a < SHMI_ATTRS; a++)
			if (parts & 1u << a)
				shmi_store(&shmi_magazine_at(img, rec, shmi_sclass_make(c, a))->top, 0);
}

void shmi_threadrec_init(const struct shmi_image *img, uint32_t thread, uint32_t client, uint32_t parts)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);

	memset(rec, 0, sizeof(*rec));
	rec->client = client;
	shmi_threadrec_init_parts(img, thread, parts);
}
