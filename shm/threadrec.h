/* Thread records: what a thread caches, where a survivor can find it.
 *
 * A slot is in one of three places: free in its bitmap; in one magazine (or in the spill of a put that has begun), below
 * top; or allocated. The functions below are the only ones that move slots between a record and the bitmaps; what a death
 * between any two of their stores leaves is put back by shm/reclaim.h. Pairs P1 and P6; invariants I10 to I14.
 *
 * Take: intent {span, generation, word, bits}, op = TAKE; and on the word; entries; top; op = NONE.
 *
 * Put: the oldest entries of a magazine are grouped by bitmap word (by the caller, in private memory) and the groups written
 * to the spill; spill_top says how many (the slots are now in both places, which is as good as in one); the magazine is
 * closed up from the front and its top stored (now only in the spill). Then, from the last group to the first: intent = the
 * group, op = PUT; or on the word; spill_top down by one; op = NONE. A word may have more than one group, of other slots; only two next
 * to each other in the spill must differ in their words, by which a reclaim tells whose intent stands. Closing up moves entries towards the front in ascending
 * order, so at any moment every entry that stays is somewhere below the old top.
 */
#ifndef SHM_THREADREC_H
#define SHM_THREADREC_H

#include <string.h>

#include "shm/slots.h"
#include "shm/span.h"

/* A group as it stands in a record, each word read once. */
static inline struct shmi_group shmi_group_read(const struct shmi_group *group)
{
	const shmi_a64 *words = (const shmi_a64 *)(const void *)group;
	uint64_t copy[sizeof(*group) / sizeof(uint64_t)] = {0};
	struct shmi_group g;

	for (size_t w = 0; w < sizeof(copy) / sizeof(copy[0]); w++)
		copy[w] = shmi_load_acquire(&words[w]);
	memcpy(&g, copy, sizeof(g));
	return g;
}

/* Takes the slots `bits` of the group's word, which the calling thread holds and has seen set, into `mag`. `base` is
 * the offset of the span's first byte. Lower addresses come to lie on top. Returns how many were taken. */
uint32_t shmi_threadrec_take(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_magazine *mag,
        const struct shmi_group *group);

/* Begins a put: the `count` groups (1 to SHMI_SPILL_MAX) cover exactly the oldest `entries` entries of `mag`. */
void shmi_threadrec_spill(struct shmi_threadrec *rec, struct shmi_magazine *mag, uint32_t entries,
        const struct shmi_group *groups, uint32_t count);

/* Puts the last group of the spill. Returns the bits that were set already, which are double frees; *group says where. */
uint64_t shmi_threadrec_put(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_group *group);

#endif
