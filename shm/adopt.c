#include "shm/adopt.h"

#include "shm/pagemap.h"
#include "shm/slots.h"

#include <string.h>

/* ---- looking ---- */

/* State, class, owner and length of a span go together. */
static bool record_ok(const struct shmi_image *img, const struct shmi_span *span, struct shmi_word word)
{
	bool nobody = word.owner == SHMI_NOBODY, large = shmi_sclass_is_large(word.sclass);

	if (!nobody && word.owner >= SHMI_MAX_CLIENTS)
		return false;
	if (!large && !shmi_sclass_is_small(word.sclass))
		return false;
	if (word.state == SHMI_SPAN_QUARANTINE ? !nobody
	                                       : word.state != (large           ? SHMI_SPAN_LARGE
	                                                               : nobody ? SHMI_SPAN_CENTRAL
	                                                                        : SHMI_SPAN_OWNED))
		return false;
	if (large)
		return span->pages && span->slots == 1 && !(span->flags & ~SHMI_SPAN_LAZY) &&
		       span->bytes <= shmi_npages_bytes((shmi_npages){span->pages});
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word.sclass)];

	return span->pages == class->pages && span->slots == class->slots && !span->flags &&
	       span->written_off <= class->slots;
}

/* The pages of a span say what its record says, and no other span begins inside of it. */
static bool pages_ok(const struct shmi_image *img, shmi_page first, uint32_t pages, shmi_sclass sclass)
{
	bool large = shmi_sclass_is_large(sclass);

	for (uint32_t i = first.i; i < first.i + pages; i++) {
		bool edge = i == first.i || i == first.i + pages - 1;
		shmi_page page = {i};

		if (i != first.i && shmi_state_in_use(shmi_span_word(img, page).state))
			return false;
		if (shmi_load(shmi_page_class_at(img, page)) != (large && i != first.i ? 0 : sclass.c))
			return false;
		if ((!large || edge) && shmi_pagemap_get(img, page).i != first.i)
			return false;
	}
	return true;
}

static bool heap_ok(const struct shmi_image *img, shmi_page *where)
{
	uint32_t published = shmi_image_published(img), pages;

	*where = (shmi_page){published};
	if (published > img->geo.limit_pages || (published % SHMI_ARENA_PAGES && published != img->geo.limit_pages))
		return false;
	for (*where = (shmi_page){1}; where->i < published; where->i += pages) {
		struct shmi_word word = shmi_span_word(img, *where);

		pages = 1;
		if (word.state > SHMI_SPAN_QUARANTINE)
			return false;
		if (!shmi_state_in_use(word.state))
			continue;
		pages = shmi_span_at(img, *where)->pages;
		if (!record_ok(img, shmi_span_at(img, *where), word) || pages > published - where->i ||
		        !pages_ok(img, *where, pages, word.sclass))
			return false;
	}
	return true;
}

/* ---- rebuilding ---- */

static void forget_derived(struct shmi_image *img)
{
	uint32_t published = shmi_image_published(img);
	struct shmi_page_counts *pages = &img->super->pages;

	memset(shmi_pageheap_at(img), 0, sizeof(struct shmi_pageheap_heads));
	memset(shmi_central_at(img, (shmi_sclass){0}), 0, SHMI_SPAN_CLASSES * sizeof(struct shmi_central_lists));
	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++) {
		shmi_owner_at(img, c)->spans = (struct shmi_list){0};
		shmi_owner_at(img, c)->pages = 0;
	}
	shmi_store(&pages->owned, 0);
	shmi_store(&pages->central, 0);
	shmi_store(&pages->free, 0);
	shmi_store(&pages->returned, 0);
	shmi_store(&pages->lazy, 0);
	shmi_store(&pages->moving, 0);
	shmi_store(&pages->unpublished, img->geo.limit_pages - published + (published ? 1 : 0));
}

static void adopt_span(struct shmi_image *img, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_word word = shmi_span_word(img, page);

	shmi_span_relink(img, page);
	if (word.state != SHMI_SPAN_CENTRAL)
		return;
	struct shmi_central_lists *lists = shmi_central_at(img, word.sclass);
	bool full = img->ctl &&
	            !shmi_slots_count(shmi_bitmap_at(img, page), &img->classes[shmi_sclass_size_class(word.sclass)]);

	span->list = full ? SHMI_LIST_FULL : SHMI_LIST_FREE;
	shmi_list_push(img, full ? &lists->full : &lists->free, page);
}

/* Wipes what says anything about the page. Only what is not 0 is written: most of a large heap's metadata is clean. */
static void wipe_page(struct shmi_image *img, shmi_page page)
{
	if (shmi_load(&shmi_span_at(img, page)->word))
		shmi_store(&shmi_span_at(img, page)->word, 0);
	if (shmi_load(shmi_page_class_at(img, page)))
		shmi_store(shmi_page_class_at(img, page), 0);
	if (shmi_pagemap_get(img, page).i)
		shmi_store(shmi_page_span_at(img, page), 0);
}

/* The pages from `page` to the next span in use become one returned run, which is in state MOVING yet. */
static struct shmi_run free_pages(struct shmi_image *img, shmi_page page, uint32_t published)
{
	struct shmi_run run = {.first = page};

	for (; page.i < published && !shmi_state_in_use(shmi_span_word(img, page).state); page.i++)
		wipe_page(img, page);
	run.pages.n = page.i - run.first.i;
	shmi_span_blank(img, run.first, run.pages);
	shmi_span_set(img, run.first, (struct shmi_word){.state = SHMI_SPAN_MOVING, .owner = SHMI_NOBODY});
	return run;
}

int shmi_adopt(struct shmi_image *img, uint32_t now, void (*returned)(void *ctx, struct shmi_run run), void *ctx,
        shmi_page *where)
{
	uint32_t published = shmi_image_published(img);
	shmi_page page = {1};

	if (!heap_ok(img, where))
		return SHMI_E_ADOPT_DAMAGED;
	forget_derived(img);
	while (page.i < published) {
		if (shmi_state_in_use(shmi_span_word(img, page).state)) {
			adopt_span(img, page);
			page.i += shmi_span_at(img, page)->pages;
			continue;
		}
		struct shmi_run run = free_pages(img, page, published);

		if (returned)
			returned(ctx, run);
		shmi_pageheap_put(img, run, now);
		page.i += run.pages.n;
	}
	shmi_bump(&img->super->generation, 1);
	return 0;
}
