#include "shm/threadrec.h"

#include <string.h>

/* One field after the other, as they were written just now: whoever reads two of them at once waits until both have left the store
 * buffer, which takes longer than all this. The fences are for the compiler, which would. */
static void write_group(struct shmi_group *to, const struct shmi_group *from)
{
	to->bits = from->bits;
	shmi_then();
	to->span = from->span;
	shmi_then();
	to->generation = from->generation;
	shmi_then();
	to->word = from->word;
	shmi_then();
	to->sclass = from->sclass;
}

uint32_t shmi_threadrec_take(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_magazine *mag,
        const struct shmi_group *group)
{
	uint32_t size = img->classes[group->sclass / SHMI_ATTRS].size, top = shmi_load(&mag->top), n = 0;
	uint64_t first = ((uint64_t)group->span << SHMI_PAGE_SHIFT) + (uint64_t)group->word * 64 * size;
	shmi_a64 *entry = &mag->entry[top];

	shmi_then(); /* not before the last intent's end */
	write_group(&rec->intent.group, group);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_TAKE);
	uint64_t bits = shmi_slots_take(shmi_bitmap_at(img, (shmi_page){group->span}), group->word, group->bits);

	while (bits) { /* from the highest slot down, one run after the other: the lowest comes to lie on top */
		uint32_t high = (uint32_t)__builtin_clzll(bits), run = (uint32_t)__builtin_clzll(~(bits << high) | 1);
		uint64_t off = first + (uint64_t)(63 - high) * size;

		for (uint32_t end = n + run; n < end; n++, off -= size)
			shmi_store(&entry[n], off);
		bits &= ~0ull >> high >> run;
	}
	shmi_store_release(&mag->top, top + n);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	return n;
}

/* Moves `n` entries to the front, over `by` others: in ascending order, and four at a time, since of those that stay none has to be
 * read that has been written over. */
static void close_up(shmi_a64 *entry, uint32_t by, uint32_t n)
{
	uint32_t i = 0;

	for (; i + 4 <= n; i += 4) {
		uint64_t a = shmi_load(&entry[by + i]), b = shmi_load(&entry[by + i + 1]);
		uint64_t c = shmi_load(&entry[by + i + 2]), d = shmi_load(&entry[by + i + 3]);

		shmi_store_release(&entry[i], a);
		shmi_store_release(&entry[i + 1], b);
		shmi_store_release(&entry[i + 2], c);
		shmi_store_release(&entry[i + 3], d);
	}
	for (; i < n; i++)
		shmi_store_release(&entry[i], shmi_load(&entry[by + i]));
}

void shmi_threadrec_spill(struct shmi_threadrec *rec, struct shmi_magazine *mag, uint32_t entries,
        const struct shmi_group *groups, uint32_t count)
{
	uint32_t top = shmi_load(&mag->top);

	shmi_then(); /* not before the end of the last put */
	memcpy(rec->spill, groups, count * sizeof(*groups));
	shmi_store_release(&rec->spill_top, count); /* the slots are in the spill as well from here on ... */
	close_up(mag->entry, entries, top - entries);
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
