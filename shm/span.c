#include "shm/span.h"

#include "shm/ledger.h"
#include "shm/pagemap.h"
#include "shm/slots.h"

#include <string.h>

/* ---- counts ---- */

/* Where the pages of a record with this word and these flags are counted; NULL for no run at all. */
static shmi_a64 *count_of(struct shmi_image *img, struct shmi_word word, uint32_t flags)
{
	struct shmi_page_counts *pages = &img->super->pages;

	switch (word.state) {
	case SHMI_SPAN_FREE:
		return &pages->free;
	case SHMI_SPAN_RETURNED:
		return &pages->returned;
	case SHMI_SPAN_MOVING:
		return &pages->moving;
	case SHMI_SPAN_SEIZED:
		return &pages->seized;
	case SHMI_SPAN_CENTRAL:
	case SHMI_SPAN_OWNED:
	case SHMI_SPAN_LARGE:
	case SHMI_SPAN_QUARANTINE:
		if (flags & SHMI_SPAN_LAZY)
			return &pages->lazy;
		return word.owner == SHMI_NOBODY ? &pages->central : &pages->owned;
	default:
		return NULL;
	}
}

static void note_peak(struct shmi_image *img)
{
	const struct shmi_page_counts *pages = &img->super->pages;
	uint64_t backed = shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->free);

	if (backed > shmi_load(&img->super->counters.peak_backed_pages))
		shmi_store(&img->super->counters.peak_backed_pages, backed);
}

void shmi_span_set(struct shmi_image *img, shmi_page page, struct shmi_word word)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_word before = shmi_word_unpack(shmi_load(&span->word));
	shmi_a64 *from = count_of(img, before, span->flags);
	shmi_a64 *to = count_of(img, word, span->flags);

	shmi_store_release(&span->word, shmi_word_pack(word));
	if (img->ledger)
		shmi_ledger_change(img, page, before, word);
	if (from)
		shmi_bump(from, -(uint64_t)span->pages);
	if (to)
		shmi_bump(to, span->pages);
	note_peak(img);
}

void shmi_span_blank(struct shmi_image *img, shmi_page page, shmi_npages pages)
{
	struct shmi_span *span = shmi_span_at(img, page);

	memset((unsigned char *)span + sizeof(span->word), 0, sizeof(*span) - sizeof(span->word));
	span->pages = pages.n;
}

/* ---- lists ---- */

void shmi_list_push(struct shmi_image *img, struct shmi_list *list, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);

	span->prev = 0;
	span->next = list->head;
	if (list->head)
		shmi_span_at(img, (shmi_page){list->head})->prev = page.i;
	list->head = page.i;
	list->count++;
}

void shmi_list_remove(struct shmi_image *img, struct shmi_list *list, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);

	if (span->prev)
		shmi_span_at(img, (shmi_page){span->prev})->next = span->next;
	else
		list->head = span->next;
	if (span->next)
		shmi_span_at(img, (shmi_page){span->next})->prev = span->prev;
	span->next = span->prev = 0;
	list->count--;
}

/* Where the owner's pages are counted that are in spans of this state. */
static uint32_t *owner_pages(struct shmi_owner *owner, uint32_t state)
{
	return state == SHMI_SPAN_SEIZED ? &owner->seized_pages : &owner->pages;
}

static void join_owner(struct shmi_image *img, shmi_page page, struct shmi_word word)
{
	if (word.owner == SHMI_NOBODY)
		return;
	struct shmi_owner *owner = shmi_owner_at(img, word.owner);

	shmi_list_push(img, &owner->spans, page);
	*owner_pages(owner, word.state) += shmi_span_at(img, page)->pages;
}

static void leave_owner(struct shmi_image *img, shmi_page page, struct shmi_word word)
{
	if (word.owner == SHMI_NOBODY)
		return;
	struct shmi_owner *owner = shmi_owner_at(img, word.owner);

	shmi_list_remove(img, &owner->spans, page);
	*owner_pages(owner, word.state) -= shmi_span_at(img, page)->pages;
}

/* ---- open and close ---- */

static uint32_t next_generation(struct shmi_image *img)
{
	uint32_t generation = shmi_load(&img->super->generations) + 1;

	if (!generation) /* 0 is never a span's: a zeroed intent is void */
		generation = 1;
	shmi_store(&img->super->generations, generation);
	return generation;
}

/* The run is MOVING, whose count does not depend on the flags: so they may be stored before the word. */
static void fill_record(struct shmi_image *img, struct shmi_run run, uint32_t slots, uint64_t bytes, uint32_t flags)
{
	struct shmi_span *span = shmi_span_at(img, run.first);

	shmi_span_blank(img, run.first, run.pages);
	span->slots = slots;
	span->flags = flags;
	span->bytes = bytes;
}

uint32_t shmi_span_open(struct shmi_image *img, struct shmi_run run, shmi_sclass sclass, uint32_t owner)
{
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];
	uint32_t generation = next_generation(img);

	fill_record(img, run, class->slots, 0, 0);
	shmi_pagemap_all(img, run.first, run.pages, sclass, run.first);
	shmi_slots_fill(shmi_bitmap_at(img, run.first), class);
	shmi_store(shmi_holder_at(img, run.first), SHMI_NO_THREAD);
	shmi_span_set(img, run.first,
	        (struct shmi_word){.state = owner == SHMI_NOBODY ? SHMI_SPAN_CENTRAL : SHMI_SPAN_OWNED,
	                .sclass = sclass,
	                .owner = owner,
	                .generation = generation});
	join_owner(img, run.first, shmi_span_word(img, run.first));
	return generation;
}

uint32_t shmi_span_open_large(
        struct shmi_image *img, struct shmi_run run, uint32_t attrs, uint32_t owner, uint64_t bytes, bool lazy)
{
	shmi_sclass sclass = shmi_sclass_make(SHMI_CLASS_LARGE, attrs);
	uint32_t generation = next_generation(img);

	fill_record(img, run, 1, bytes, lazy && !run.backed ? SHMI_SPAN_LAZY : 0);
	shmi_pagemap_ends(img, run.first, run.pages, run.first);
	shmi_store(shmi_page_class_at(img, run.first), sclass.c);
	shmi_span_set(img, run.first,
	        (struct shmi_word){
	                .state = SHMI_SPAN_LARGE, .sclass = sclass, .owner = owner, .generation = generation});
	join_owner(img, run.first, shmi_span_word(img, run.first));
	return generation;
}

struct shmi_run shmi_span_close(struct shmi_image *img, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_word word = shmi_span_word(img, page);
	struct shmi_run run = {.first = page, .pages = {span->pages}, .backed = shmi_span_is_backed(img, page)};

	leave_owner(img, page, word);
	shmi_span_set(img, page, (struct shmi_word){.state = SHMI_SPAN_MOVING, .owner = SHMI_NOBODY});
	shmi_then(); /* a span in use is described in full, whenever we die */
	uint32_t user = span->last_user;

	shmi_span_blank(img, page, run.pages);
	span->last_user = user ? user : SHMI_SEVERAL_USERS;
	if (shmi_sclass_is_large(word.sclass)) {
		shmi_store(shmi_page_class_at(img, page), 0);
		shmi_pagemap_ends(img, page, run.pages, SHMI_NO_PAGE);
	} else {
		shmi_pagemap_all(img, page, run.pages, (shmi_sclass){SHMI_CLASS_NONE}, SHMI_NO_PAGE);
	}
	return run;
}

void shmi_span_set_owner(struct shmi_image *img, shmi_page page, uint32_t owner)
{
	struct shmi_word word = shmi_span_word(img, page);

	leave_owner(img, page, word);
	word.owner = owner;
	if (word.state != SHMI_SPAN_LARGE)
		word.state = owner == SHMI_NOBODY ? SHMI_SPAN_CENTRAL : SHMI_SPAN_OWNED;
	shmi_span_set(img, page, word);
	join_owner(img, page, word);
}

void shmi_span_seize(struct shmi_image *img, shmi_page page)
{
	struct shmi_word word = shmi_span_word(img, page);

	leave_owner(img, page, word);
	word.state = SHMI_SPAN_SEIZED;
	shmi_span_set(img, page, word);
	join_owner(img, page, word);
}

void shmi_span_relink(struct shmi_image *img, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_word word = shmi_span_word(img, page);

	span->next = span->prev = span->parent = span->stamp = 0;
	span->list = 0;
	shmi_bump(count_of(img, word, span->flags), span->pages);
	note_peak(img);
	join_owner(img, page, word);
}

void shmi_span_quarantine(struct shmi_image *img, shmi_page page)
{
	struct shmi_word word = shmi_span_word(img, page);

	leave_owner(img, page, word);
	word.owner = SHMI_NOBODY;
	word.state = SHMI_SPAN_QUARANTINE;
	shmi_span_set(img, page, word);
	shmi_bump(&img->super->counters.quarantined_pages, shmi_span_at(img, page)->pages);
}
