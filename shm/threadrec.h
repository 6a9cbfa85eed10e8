/* Thread records: what a thread caches, where a survivor can find it.
 *
 * A slot is in one of three places: free in its bitmap; in one magazine (or in the spill of a put that has begun), below
 * top; or allocated. The functions below are the only ones that move slots between a record and the bitmaps; what a death
 * between any two of their stores leaves is put back by shmi_threadrec_reclaim. Pairs P1 and P6; invariants I10 to I12.
 *
 * Take: intent {span, generation, word, bits}, op = TAKE; and on the word; entries; top; op = NONE.
 *
 * Put: the oldest entries of a magazine are grouped by bitmap word (by the caller, in private memory) and the groups written
 * to the spill; spill_top says how many (the slots are now in both places, which is as good as in one); the magazine is
 * closed up from the front and its top stored (now only in the spill). Then, from the last group to the first: intent = the
 * group, op = PUT; or on the word; spill_top down by one; op = NONE. Closing up moves entries towards the front in ascending
 * order, so at any moment every entry that stays is somewhere below the old top.
 */
#ifndef SHM_THREADREC_H
#define SHM_THREADREC_H

#include "shm/slots.h"
#include "shm/span.h"

/* Takes the slots `bits` of the group's word, which the calling thread holds and has seen set, into `mag`. `base` is
 * the offset of the span's first byte. Lower addresses come to lie on top. Returns how many were taken. */
uint32_t shmi_threadrec_take(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_magazine *mag,
	const struct shmi_group *group);

/* Begins a put: the `count` groups (1 to SHMI_SPILL_MAX) cover exactly the oldest `entries` entries of `mag`. */
void shmi_threadrec_spill(struct shmi_threadrec *rec, struct shmi_magazine *mag, uint32_t entries,
	const struct shmi_group *groups, uint32_t count);

/* Puts the last group of the spill. Returns the bits that were set already, which are double frees; *group says where. */
uint64_t shmi_threadrec_put(const struct shmi_image *img, struct shmi_threadrec *rec, struct shmi_group *group);

/* ---- the daemon: after a thread's death ---- */

struct shmi_reclaim {
	uint32_t thread, client, parts; /* the record, whose it was, which parts are backed */
	uint32_t at;                    /* next span class to look at; SHMI_SPAN_CLASSES when done */
	uint32_t stage;
	uint32_t put, written_off, bad; /* slots put back; slots of unknown fate; entries that made no sense */
	uint32_t big_count;             /* freed large spans found: first pages */
	uint32_t big[SHMI_BIG_MAX];
};

/* Starts the reclaim of a record whose thread is dead. */
void shmi_threadrec_reclaim_init(struct shmi_reclaim *r, uint32_t thread, uint32_t client, uint32_t parts);

/* Goes on for at most about `budget` entries. `copy` is a private snapshot of the record, head and parts, taken after the
 * death (geo.record_bytes long; parts that are not backed are not looked at). Every word is checked against meta before use.
 * Slots of spans go back into the bitmaps of img->ctl; large spans are listed in r->big for the caller. True when done. */
bool shmi_threadrec_reclaim(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy,
	uint32_t budget);

/* Makes a record ready for a thread: head zeroed but for `client`, magazines of `parts` empty. The memory is backed. */
void shmi_threadrec_init(const struct shmi_image *img, uint32_t thread, uint32_t client, uint32_t parts);

#endif
