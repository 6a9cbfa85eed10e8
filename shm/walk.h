/* The runs of a heap in the order of their addresses: spans in use, free runs and runs that are being moved lie side by side
 * from page 1 to the end of the last published arena.
 *
 *	struct shmi_walk walk = shmi_walk_start(img);
 *
 *	while (shmi_walk_next(img, &walk))
 *		... walk.page, walk.pages, walk.word ...
 *
 * A free run is one step, however long. On a damaged heap (shm/check.h reports it) the walk still ends: a record without a
 * legal state or length is passed by page for page, and a run never reaches beyond the published pages.
 */
#ifndef SHM_WALK_H
#define SHM_WALK_H

#include "shm/span.h"

struct shmi_walk {
	shmi_page page; /* the run */
	shmi_npages pages;
	struct shmi_word word;
	uint32_t next, end;
};

/* From the run at `first`, which is 1 or the first page of a run. */
static inline struct shmi_walk shmi_walk_from(const struct shmi_image *img, uint32_t first)
{
	return (struct shmi_walk){.next = first ? first : 1, .end = shmi_image_published(img)};
}

static inline struct shmi_walk shmi_walk_start(const struct shmi_image *img)
{
	return shmi_walk_from(img, 1);
}

/* The next run; false at the end. */
static inline bool shmi_walk_next(const struct shmi_image *img, struct shmi_walk *walk)
{
	for (; walk->next < walk->end; walk->next++) {
		uint32_t pages = shmi_span_at(img, (shmi_page){walk->next})->pages;

		walk->page.i = walk->next;
		walk->word = shmi_span_word(img, walk->page);
		if (walk->word.state == SHMI_SPAN_NONE || walk->word.state > SHMI_SPAN_SEIZED || !pages ||
		        pages > walk->end - walk->next)
			continue;
		walk->pages.n = pages;
		walk->next += pages;
		return true;
	}
	return false;
}

#endif
