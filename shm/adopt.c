#include "shm/adopt.h"

#include "shm/pagemap.h"
#include "shm/slots.h"

#include <string.h>

/* ---- looking ---- */

static bool state_ok(uint32_t state, bool large, bool nobody)
{
	switch (state) {
	case SHMI_SPAN_QUARANTINE:
		return nobody;
	case SHMI_SPAN_SEIZED:
		return !large && !nobody;
	default:
		return state == (large ? SHMI_SPAN_LARGE : nobody ? SHMI_SPAN_CENTRAL : SHMI_SPAN_OWNED);
	}
}

/* State, class, owner and length of a span go together. */
static bool record_ok(const struct shmi_image *img, const struct shmi_span *span, struct shmi_word word)
{
	bool nobody = word.owner == SHMI_NOBODY, large = shmi_sclass_is_large(word.sclass);

	if (!word.generation || (!nobody && word.owner >= SHMI_MAX_CLIENTS))
		return false;
	if (!large && !shmi_sclass_is_small(word.sclass))
		return false;
	if (!state_ok(word.state, large, nobody))
		return false;
	if (large)
		return span->pages && span->slots == 1 && !(span->flags & ~SHMI_SPAN_LAZY) && !span->written_off &&
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

		if (i != first.i && shmi_span_word(img, page).state != SHMI_SPAN_NONE)
			return false;
		if (shmi_load(shmi_page_class_at(img, page)) != (large && i != first.i ? 0 : sclass.c))
			return false;
		if (shmi_pagemap_get(img, page).i != (!large || edge ? first.i : 0))
			return false;
	}
	return true;
}

/* Thread records are given to clients that there can be, and have parts that there can be. */
static bool threads_ok(const struct shmi_image *img)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);

		if ((slot->client != SHMI_NOBODY && slot->client >= SHMI_MAX_CLIENTS) || slot->head > 1 ||
		        slot->parts >> SHMI_ATTRS)
			return false;
	}
	return true;
}

/* Roots in use have names, each its own, and lead into the heap. */
static bool roots_ok(const struct shmi_image *img)
{
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		const struct shmi_root *root = shmi_root_at(img, r);
		uint64_t off = shmi_load(&root->off);

		if (!off)
			continue;
		if (!root->name[0] || root->name[SHMI_ROOT_NAME_MAX] || shmi_load(&root->seq) % 2 ||
		        !shmi_image_page_ok(img, shmi_off_page((shmi_off){off})))
			return false;
		for (uint32_t other = 0; other < r; other++)
			if (shmi_load(&shmi_root_at(img, other)->off) &&
			        memcmp(shmi_root_at(img, other)->name, root->name, sizeof(root->name)) == 0)
				return false;
	}
	return true;
}

/* Nothing ever lies in page 0. */
static bool page_0_ok(const struct shmi_image *img)
{
	return !shmi_image_published(img) ||
	       (!shmi_load(&shmi_span_at(img, SHMI_NO_PAGE)->word) &&
	               !shmi_load(shmi_page_class_at(img, SHMI_NO_PAGE)) && !shmi_pagemap_get(img, SHMI_NO_PAGE).i);
}

static bool spans_ok(const struct shmi_image *img, shmi_page *where)
{
	uint32_t published = shmi_image_published(img), pages;

	*where = (shmi_page){published};
	if (published > img->geo.limit_pages || (published % SHMI_ARENA_PAGES && published != img->geo.limit_pages))
		return false;
	for (*where = (shmi_page){1}; where->i < published; where->i += pages) {
		struct shmi_word word = shmi_span_word(img, *where);

		pages = 1;
		if (word.state > SHMI_SPAN_SEIZED)
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

static bool heap_ok(const struct shmi_image *img, shmi_page *where)
{
	if (!spans_ok(img, where))
		return false;
	*where = SHMI_NO_PAGE;
	return page_0_ok(img) && threads_ok(img) && roots_ok(img);
}

/* ---- rebuilding ---- */

static void lift(shmi_a64 *counter, uint64_t to)
{
	if (shmi_load(counter) < to)
		shmi_store(counter, to);
}

/* Figures for people: no reason to refuse a heap, but they are made to agree with each other and with what is there. */
static void mend_counters(struct shmi_image *img)
{
	struct shmi_counters *counters = &img->super->counters;
	uint64_t held = 0, large = 0, written_off = 0, quarantined = 0;
	uint32_t pages = 1;

	for (shmi_a64 *c = &counters->refills; c <= &counters->pressures; c++)
		if (shmi_load(c) >> 62) /* nobody has counted so far */
			shmi_store(c, 0);
	for (uint32_t i = 1; i < shmi_image_published(img); i += pages) {
		const struct shmi_span *span = shmi_span_at(img, (shmi_page){i});
		struct shmi_word word = shmi_span_word(img, (shmi_page){i});

		pages = shmi_state_in_use(word.state) ? span->pages : 1;
		held += word.state == SHMI_SPAN_OWNED || word.state == SHMI_SPAN_SEIZED;
		large += word.state == SHMI_SPAN_LARGE;
		quarantined += word.state == SHMI_SPAN_QUARANTINE ? pages : 0;
		written_off += shmi_state_in_use(word.state) ? span->written_off : 0;
	}
	lift(&counters->spans_granted, shmi_load(&counters->spans_returned) + held);
	lift(&counters->large_granted, shmi_load(&counters->large_freed) + large);
	lift(&counters->slots_written_off, written_off);
	lift(&counters->quarantined_pages, quarantined);
	if (shmi_load(&counters->peak_backed_pages) > img->geo.limit_pages)
		shmi_store(&counters->peak_backed_pages, img->geo.limit_pages);
}

/* The daemon died between two stores to a slot that it was giving out or taking back: it is nobody's. */
static void mend_threads(struct shmi_image *img)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);

		if (slot->client == SHMI_NOBODY ? slot->head || slot->parts : !slot->head)
			*slot = (struct shmi_thread_slot){.client = SHMI_NOBODY};
	}
}

static void forget_derived(struct shmi_image *img)
{
	uint32_t published = shmi_image_published(img);
	struct shmi_page_counts *pages = &img->super->pages;

	memset(shmi_pageheap_at(img), 0, sizeof(struct shmi_pageheap_heads));
	memset(shmi_central_at(img, (shmi_sclass){0}), 0, SHMI_SPAN_CLASSES * sizeof(struct shmi_central_lists));
	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++) {
		shmi_owner_at(img, c)->spans = (struct shmi_list){0};
		shmi_owner_at(img, c)->pages = shmi_owner_at(img, c)->seized_pages = 0;
	}
	shmi_store(&pages->owned, 0);
	shmi_store(&pages->central, 0);
	shmi_store(&pages->free, 0);
	shmi_store(&pages->returned, 0);
	shmi_store(&pages->lazy, 0);
	shmi_store(&pages->moving, 0);
	shmi_store(&pages->seized, 0);
	shmi_store(&pages->unpublished, img->geo.limit_pages - published + (published ? 1 : 0));
}

/* Which slots were written off last is a help, which can be spared: a death between two of its stores leaves it half done. */
static void mend_written_off(const struct shmi_image *img, struct shmi_span *span, struct shmi_word word)
{
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word.sclass)];
	uint64_t bits = span->written_off_bits;

	if (bits && (shmi_sclass_is_large(word.sclass) || span->written_off_word >= class->words ||
	                    bits & ~shmi_slots_mask(class, span->written_off_word) ||
	                    (uint32_t)__builtin_popcountll(bits) > span->written_off))
		span->written_off_bits = 0;
}

static void adopt_span(struct shmi_image *img, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_word word = shmi_span_word(img, page);

	/* No generation may be given out a second time. */
	if ((int32_t)(word.generation - shmi_load(&img->super->generations)) > 0)
		shmi_store(&img->super->generations, word.generation);
	mend_written_off(img, span, word);
	shmi_span_relink(img, page);
	if (word.state == SHMI_SPAN_SEIZED) /* the daemon may have died before it said so */
		shmi_bump(&shmi_owner_at(img, word.owner)->seizures, 1);
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
	mend_threads(img);
	mend_counters(img);
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
