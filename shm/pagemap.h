/* The page map: from a page to what it is part of. Two arrays of meta, indexed by page:
 *
 *	page_class   the span class; all that free() must look up. Every page of a span of blocks; the first page of a large
 *	             span; 0 everywhere else, so that a stray pointer is seen to be one.
 *	page_span    the first page of the run. Every page of a span of blocks; the first and the last page of a large span
 *	             and of a free run, so that a neighbour is found without a search; 0 everywhere else (MOVING runs too).
 *
 * Both follow from the records and nothing else, so they can be checked and rebuilt word by word.
 * Writers: span.c, pageheap.c, adopt.c in the daemon. Readers: anybody; a client that holds a block of a span reads what was
 * stored before the span's state word (P5).
 */
#ifndef SHM_PAGEMAP_H
#define SHM_PAGEMAP_H

#include "shm/span.h"

/* What lies at `page`, by the map: first page of the run, or SHMI_NO_PAGE inside of large spans, free and MOVING runs. */
static inline shmi_page shmi_pagemap_get(const struct shmi_image *img, shmi_page page)
{
	return (shmi_page){shmi_load(shmi_page_span_at(img, page))};
}

/* A span of blocks comes (sclass, first) or goes (0, SHMI_NO_PAGE): all its pages. */
static inline void shmi_pagemap_all(
        struct shmi_image *img, shmi_page first, shmi_npages pages, shmi_sclass sclass, shmi_page value)
{
	for (uint32_t i = first.i; i < first.i + pages.n; i++) {
		shmi_store(shmi_page_span_at(img, (shmi_page){i}), value.i);
		shmi_store(shmi_page_class_at(img, (shmi_page){i}), sclass.c);
	}
}

/* A large span or a free run comes (value = first) or goes (SHMI_NO_PAGE): its two ends. */
static inline void shmi_pagemap_ends(struct shmi_image *img, shmi_page first, shmi_npages pages, shmi_page value)
{
	shmi_store(shmi_page_span_at(img, first), value.i);
	shmi_store(shmi_page_span_at(img, (shmi_page){first.i + pages.n - 1}), value.i);
}

#endif
