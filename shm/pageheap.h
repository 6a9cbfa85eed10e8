/* The page heap: free runs of pages, and who gets which.
 *
 * After TCMalloc's page heap and Go's mheap: runs of 1 to 128 pages are in one list per length, longer ones in a best-fit
 * tree ordered by (length, first page); both twice, for backed runs and for returned ones (no memory behind them). Backed
 * memory is preferred; among fitting runs the shortest; of one length the one that came last from a list (its memory is warm)
 * and the lowest from a tree. A run is used from its low end, so what is left over stays in one piece and at the top.
 * Neighbours of one kind are always coalesced; a backed run and a returned one are not, since that would need a system call.
 * The untouched tail of the last arena is a returned run like any other: being the longest, best fit takes it last.
 *
 * A free run has a record at its first page (state FREE or RETURNED, length, links) and the page map entries of its first
 * and last page name its first page: so a neighbour is found without a search.
 *
 * A run that is on its way is in state MOVING: on no list, not in the page map, known to one caller only, who may cut it
 * with shmi_pageheap_cut and must open a span on it or put it back.
 *
 * At the heap's limit a request may fit in no run of one kind, but in neighbours of both: then those are joined, and what
 * is returned among them is committed. That is the last resort, since it breaks runs up that are better kept whole.
 *
 * All of it is derived: rebuilt by shmi_adopt from the spans in use. Called by the daemon only; one caller at a time.
 * No clock: `now` is a tick of the caller's choice, for the age of free runs; it may wrap. Cost: O(log n) in the number of
 * runs; O(n) for what only an alignment or the last resort can serve, and for the scavenger's choice.
 */
#ifndef SHM_PAGEHEAP_H
#define SHM_PAGEHEAP_H

#include "shm/arena.h"
#include "shm/span.h"

/* Runs up to this length are backed before shmi_pageheap_alloc returns; the caller backs longer ones in steps: 2 MiB. */
#define SHMI_COMMIT_STEP 256u
/* What is backed at a time when a small run is taken from a returned one: 256 KiB; the rest becomes a free backed run. */
#define SHMI_COMMIT_GRANULE 32u
/* Runs that are looked at for an aligned one before a longer run is taken that fits wherever it lies. */
#define SHMI_ALIGN_TRIES 64u

/* The lower layer, which a test can replace. Each returns 0 or non-zero for "no memory". `commit` is all or nothing; pages in
 * the range that are backed already stay as they are, whatever happens. */
struct shmi_floor {
	void *ctx;
	int (*commit)(void *ctx, shmi_page first, shmi_npages pages); /* back pages of data */
	int (*publish)(
	        void *ctx, shmi_page first, shmi_npages pages); /* back the metadata of the arena that holds them */
};

#define SHMI_E_NOMEM 1 /* neither a run nor room for another arena, or the floor had no memory */

/* Takes `pages` pages (at least 1) whose first page is a multiple of `align` pages (a power of two, 1 for any). The run is in
 * state MOVING; if it is longer than SHMI_COMMIT_STEP it may be unbacked (run->backed false), else it is backed. With `lazy`
 * it is never backed here and a returned run is preferred: a run that is backed all the same has run->backed true. Of an
 * unbacked run some pages may be backed nevertheless. Publishes further arenas as needed, up to the heap's limit. Returns 0
 * or SHMI_E_NOMEM, and then nothing has changed, but that arenas may have been published. */
int shmi_pageheap_alloc(struct shmi_image *img, const struct shmi_floor *floor, shmi_npages pages, shmi_npages align,
        bool lazy, uint32_t now, struct shmi_run *run);

/* Gives back a run in state MOVING, coalescing it with its neighbours. What comes of it is as old as its longest part. */
void shmi_pageheap_put(struct shmi_image *img, struct shmi_run run, uint32_t now);

/* Cuts a run in state MOVING: `run` keeps its first `keep` pages (fewer than it has), the rest is a run of its own. For who
 * backs, or returns, a long run piece by piece. */
struct shmi_run shmi_pageheap_cut(struct shmi_image *img, struct shmi_run *run, shmi_npages keep);

/* Backs pages of a run in state MOVING, of which `fresh` were not, and counts them. 0 or SHMI_E_NOMEM. */
int shmi_pageheap_commit(
        struct shmi_image *img, const struct shmi_floor *floor, shmi_page first, shmi_npages pages, shmi_npages fresh);

/* The scavenger's choice: takes (state MOVING) at most `most` pages, from the top, of a backed free run that came at least
 * `min_age` ticks ago, the longest such run. The caller returns them to the system, puts them back with backed = false and
 * counts them as scavenged. False when there is none. */
bool shmi_pageheap_pick(struct shmi_image *img, uint32_t now, uint32_t min_age, shmi_npages most, struct shmi_run *run);

/* The longest run, for messages and tests. */
shmi_npages shmi_pageheap_longest(const struct shmi_image *img, bool backed);

#endif
