/* Span records: the state word, and the changes of state that a span goes through.
 *
 *	free run --open--> OWNED or CENTRAL or LARGE --set_owner--> OWNED <-> CENTRAL --close--> free run
 *	OWNED --seize--> SEIZED --close--> free run
 *	(LARGE keeps its state and changes its owner; QUARANTINE is the end)
 *
 * The state word of a span in use is the only truth about its pages. shmi_span_open fills the record, the page classes, the
 * page map and the bitmap, and stores the word last with release (P5): whoever dies between two of these stores has left a
 * free run. shmi_span_close stores the word first, then clears the page classes.
 *
 * All pages of a span of blocks bear its class and its first page in the page map. Of a large span only the first page bears
 * the class, so that a pointer into its middle is seen to be none; the page map knows its first and its last page.
 *
 * Page counts by state (super->pages) are kept by shmi_span_set, through which every state word goes. A span in use counts
 * as owned if it has an owner, else as central (large ones of nobody and quarantined ones included), but for lazy ones and
 * seized ones, which are counted apart. Written-off slots do not change the count: their span does not move. Only the pages of new arenas come
 * in elsewhere (shm/arena.c), and a MOVING run may be cut or joined with another without a change of any count.
 *
 * A record is linked into one list at most: its owner's (OWNED, LARGE, SEIZED), a central list (CENTRAL, by whoever made it so), or
 * one of the page heap (FREE, RETURNED).
 *
 * Called by the daemon only, but for the readers at the top. Invariants: I1 to I5 of README.md.
 */
#ifndef SHM_SPAN_H
#define SHM_SPAN_H

#include "shm/image.h"

struct shmi_word {
	uint32_t state;
	shmi_sclass sclass;
	uint32_t owner; /* client id or SHMI_NOBODY */
	uint32_t generation;
};

static inline uint64_t shmi_word_pack(struct shmi_word w)
{
	return (uint64_t)(w.state & 15) | (uint64_t)(w.sclass.c & 4095) << 4 | (uint64_t)(w.owner & 0xffff) << 16 |
	       (uint64_t)w.generation << 32;
}

static inline struct shmi_word shmi_word_unpack(uint64_t word)
{
	return (struct shmi_word){.state = (uint32_t)(word & 15),
	        .sclass = {(uint16_t)(word >> 4 & 4095)},
	        .owner = (uint32_t)(word >> 16 & 0xffff),
	        .generation = (uint32_t)(word >> 32)};
}

/* The state of whatever begins at `page`; `page` is shmi_image_page_ok or 0. */
static inline struct shmi_word shmi_span_word(const struct shmi_image *img, shmi_page page)
{
	return shmi_word_unpack(shmi_load_acquire(&shmi_span_at(img, page)->word));
}

static inline bool shmi_state_in_use(uint32_t state)
{
	return state >= SHMI_SPAN_CENTRAL && state <= SHMI_SPAN_SEIZED;
}

/* There may be blocks in it, or room for some: all but those that were seized. */
static inline bool shmi_state_has_blocks(uint32_t state)
{
	return shmi_state_in_use(state) && state != SHMI_SPAN_SEIZED;
}

/* Whether the run that begins at `page` has memory behind all of its pages. */
static inline bool shmi_span_is_backed(const struct shmi_image *img, shmi_page page)
{
	uint32_t state = shmi_span_word(img, page).state;

	return state == SHMI_SPAN_FREE ||
	       (shmi_state_has_blocks(state) && !(shmi_span_at(img, page)->flags & SHMI_SPAN_LAZY));
}

/* A run of pages off the page heap's lists. */
struct shmi_run {
	shmi_page first;
	shmi_npages pages;
	bool backed;
};

/* ---- writers: the daemon ---- */

/* Stores a state word and keeps super->pages right. `pages` of the record must be set. */
void shmi_span_set(struct shmi_image *img, shmi_page page, struct shmi_word word);

/* Notes that these users' bytes come together: who may have written what is in the pages of both. */
static inline uint32_t shmi_users_join(uint32_t a, uint32_t b)
{
	return !a || a == b ? b : !b ? a : SHMI_SEVERAL_USERS;
}

/* Zeroes a record but for its word, and sets its length. For a run that has just come to be. */
void shmi_span_blank(struct shmi_image *img, shmi_page page, shmi_npages pages);

/* Makes a span of blocks from a backed run of exactly classes[].pages pages that is in state MOVING. Every slot is free.
 * `owner` is a client, whose list it joins, or SHMI_NOBODY: then the caller files it in a central list. Returns the
 * generation. */
uint32_t shmi_span_open(struct shmi_image *img, struct shmi_run run, shmi_sclass sclass, uint32_t owner);

/* Makes one large block of `bytes` from a run in state MOVING; `lazy`: it is backed on touch, unless the run is backed already.
 * Returns the generation. */
uint32_t shmi_span_open_large(
        struct shmi_image *img, struct shmi_run run, uint32_t attrs, uint32_t owner, uint64_t bytes, bool lazy);

/* Ends a span in use: its pages are one run in state MOVING, for shmi_pageheap_put. It must be in no central list. The run of
 * a lazy or seized span is said to be unbacked; some of its pages may have been touched, so the caller punches it out first. The run's
 * record says whose bytes may be in it; of a span of which that was not noted, that they are of several users. */
struct shmi_run shmi_span_close(struct shmi_image *img, shmi_page page);

/* Moves a span to another owner or to nobody, with state OWNED, CENTRAL or, for a large block, LARGE. It must be in no
 * central list. */
void shmi_span_set_owner(struct shmi_image *img, shmi_page page, uint32_t owner);

/* All slots of a span of blocks that a client owns are the daemon's: it is SEIZED, and its pages are not the owner's any more. */
void shmi_span_seize(struct shmi_image *img, shmi_page page);

/* Enters a span in use that is there already, and that no count and no list knows of: in its count and its owner's list.
 * Its word and all that describes its blocks stay as they are. For shmi_adopt. */
void shmi_span_relink(struct shmi_image *img, shmi_page page);

/* Sets a span aside for good, because what is known about it cannot be trusted: nobody owns it, its blocks stay where they
 * are, its pages are never used again. It must be in no central list. */
void shmi_span_quarantine(struct shmi_image *img, shmi_page page);

/* Lists through `next` and `prev` of the records; push puts in front, remove takes out from anywhere. */
void shmi_list_push(struct shmi_image *img, struct shmi_list *list, shmi_page page);
void shmi_list_remove(struct shmi_image *img, struct shmi_list *list, shmi_page page);

#endif
