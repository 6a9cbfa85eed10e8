#include "shm/arena.h"

#include "shm/pageheap.h"
#include "shm/pagemap.h"

void shmi_arena_publish(struct shmi_image *img, shmi_npages pages, uint32_t now)
{
	struct shmi_super *super = img->super;
	uint32_t published = shmi_load(&super->published_pages);
	uint32_t skip = published == 0; /* page 0 */
	struct shmi_run run = {.first = {published + skip}, .pages = {pages.n - skip}};

	/* A predecessor may have died here: then its record of this very run is still there, and was not counted. */
	shmi_store(&shmi_span_at(img, run.first)->word, 0);
	shmi_span_blank(img, run.first, run.pages);
	shmi_pagemap_ends(img, run.first, run.pages, SHMI_NO_PAGE);
	shmi_bump(&super->pages.unpublished, -(uint64_t)run.pages.n);
	shmi_span_set(img, run.first, (struct shmi_word){.state = SHMI_SPAN_MOVING, .owner = SHMI_NOBODY});
	shmi_pageheap_put(img, run, now);
	shmi_store_release(&super->published_pages, published + pages.n);
}
