/* The page heap: free runs of pages, and who gets which.
 *
 * After TCMalloc's page heap and Go's mheap: runs of 1 to 128 pages are in one list per length, longer ones in a best-fit
 * tree ordered by (length, first page); both twice, for backed runs and for returned ones (no memory behind them). Backed
 * memory is preferred; among fitting runs the shortest, then the lowest. Neighbours of one kind are always coalesced; a backed
 * run and a returned one are not, since that would need a system call. The untouched tail of the last arena is a returned
 * run like any other: being the longest, best fit takes it last.
 *
 * A free run has a record at its first page (state FREE or RETURNED, length, links) and the page map entry of its first
 * and last page names its first page: so a neighbour is found without a search.
 *
 * All of it is derived: rebuilt by shmi_adopt from the spans in use. Called by the daemon only; one caller at a time.
 * No clock: `now` is a tick of the caller's choice, for the age of free runs. Cost: O(log n) in the number of runs.
 */
#ifndef SHM_PAGEHEAP_H
#define SHM_PAGEHEAP_H

#include "shm/span.h"

/* Runs up to this length are backed before shmi_pageheap_alloc returns; the caller backs longer ones in steps: 2 MiB. */
#define SHMI_COMMIT_STEP 256u
/* What is backed at a time when a small run is taken from a returned one: 256 KiB; the rest becomes a free backed run. */
#define SHMI_COMMIT_GRANULE 32u

/* The lower layer, which a test can replace. Each returns 0 or non-zero for "no memory". */
struct shmi_floor {
	void *ctx;
	int (*commit)(void *ctx, shmi_page first, shmi_npages pages);  /* back pages of data; all or nothing */
	int (*publish)(void *ctx, shmi_page first, shmi_npages pages); /* back the metadata of the arena that holds them */
};

#define SHMI_E_NOMEM 1 /* neither a run nor room for another arena, or the floor had no memory */

/* Takes `pages` pages whose first page is a multiple of `align` pages (a power of two, 1 for any). The run is in state
 * MOVING; if it is longer than SHMI_COMMIT_STEP it may be unbacked (run->backed false), else it is backed. With `lazy` it is
 * never backed here and a returned run is preferred: a run that is backed all the same has run->backed true. Publishes further
 * arenas as needed, up to the heap's limit. Returns 0 or SHMI_E_NOMEM, and then nothing has changed, but that arenas may
 * have been published. */
int shmi_pageheap_alloc(struct shmi_image *img, const struct shmi_floor *floor, shmi_npages pages, shmi_npages align,
	bool lazy, uint32_t now, struct shmi_run *run);

/* Gives back a run in state MOVING, coalescing it with its neighbours. */
void shmi_pageheap_put(struct shmi_image *img, struct shmi_run run, uint32_t now);

/* The scavenger's choice: takes (state MOVING) at most `most` pages of a backed free run that came at least `min_age` ticks
 * ago, of longer runs first. The caller returns them to the system and puts them back with backed = false.
 * False when there is none. */
bool shmi_pageheap_pick(struct shmi_image *img, uint32_t now, uint32_t min_age, shmi_npages most, struct shmi_run *run);

/* Enters the pages [published, published + arena) as one returned run; the metadata is backed already. Publishing (P3) is the
 * last store. For shmi_pageheap_alloc and for shmi_adopt. */
void shmi_arena_publish(struct shmi_image *img, shmi_npages pages, uint32_t now);

/* The longest run, for messages and tests. */
shmi_npages shmi_pageheap_longest(const struct shmi_image *img, bool backed);

#endif
