#include "shm/central.h"

#include "shm/slots.h"

static const struct shmi_class *class_of(const struct shmi_image *img, shmi_sclass sclass)
{
	return &img->classes[shmi_sclass_size_class(sclass)];
}

static void unfile(struct shmi_image *img, shmi_page page)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_central_lists *lists = shmi_central_at(img, shmi_span_word(img, page).sclass);

	if (lists->cursor == page.i)
		lists->cursor = span->next;
	if (span->list)
		shmi_list_remove(img, span->list == SHMI_LIST_FREE ? &lists->free : &lists->full, page);
	span->list = 0;
}

static void file(struct shmi_image *img, shmi_page page, uint16_t which)
{
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_central_lists *lists = shmi_central_at(img, shmi_span_word(img, page).sclass);

	if (span->list == which)
		return;
	unfile(img, page);
	span->list = which;
	shmi_list_push(img, which == SHMI_LIST_FREE ? &lists->free : &lists->full, page);
}

/* A written-off slot that is free again was put by somebody who had it: it leads a normal life. The others may, too, but for those of a
 * word that a killed daemon had in hand (shm/seize.h) that does not follow. */
static void resolve_written_off(struct shmi_image *img, struct shmi_span *span, shmi_page page)
{
	uint64_t free = shmi_load_acquire(&shmi_bitmap_at(img, page)[span->written_off_word]) & span->written_off_bits;
	uint32_t n = (uint32_t)__builtin_popcountll(free);

	if (!free)
		return;
	span->written_off_bits &= ~free;
	shmi_then(); /* the count last: whoever finds what our death left must not count them down again */
	span->written_off = (uint16_t)(span->written_off - n);
}

/* True if the span's bitmap has been overwritten, and the span set aside for that. */
static bool set_aside(struct shmi_image *img, shmi_page page)
{
	const struct shmi_class *class = class_of(img, shmi_span_word(img, page).sclass);

	if (!shmi_slots_beyond(shmi_bitmap_at(img, page), class))
		return false;
	unfile(img, page);
	shmi_span_quarantine(img, page);
	return true;
}

/* Puts a central span where it belongs by what its bitmap says now. True if it was empty and its pages are free. */
static bool settle(struct shmi_image *img, shmi_page page, uint32_t now)
{
	struct shmi_span *span = shmi_span_at(img, page);

	if (set_aside(img, page))
		return false;
	uint32_t count = shmi_slots_count(shmi_bitmap_at(img, page), class_of(img, shmi_span_word(img, page).sclass));

	if (span->written_off_bits)
		resolve_written_off(img, span, page);
	if (count == span->slots) {
		unfile(img, page);
		shmi_pageheap_put(img, shmi_span_close(img, page), now);
		return true;
	}
	file(img, page, count ? SHMI_LIST_FREE : SHMI_LIST_FULL);
	return false;
}

shmi_page shmi_central_find(struct shmi_image *img, shmi_sclass sclass)
{
	const struct shmi_list *list = &shmi_central_at(img, sclass)->free;

	for (uint32_t looks = 0; list->head && looks < SHMI_GRANT_LOOKS; looks++) {
		shmi_page page = {list->head};

		if (set_aside(img, page))
			continue;
		if (!shmi_slots_count(shmi_bitmap_at(img, page), class_of(img, sclass))) {
			file(img, page, SHMI_LIST_FULL);
			continue;
		}
		return page;
	}
	return SHMI_NO_PAGE;
}

shmi_page shmi_central_find_of(struct shmi_image *img, shmi_sclass sclass, uint32_t user)
{
	struct shmi_list *list = &shmi_central_at(img, sclass)->free;
	shmi_page page = {list->head};

	for (uint32_t looks = 0; page.i && shmi_span_at(img, page)->last_user != user;) {
		page.i = ++looks < SHMI_GRANT_LOOKS ? shmi_span_at(img, page)->next : 0;
	}
	if (!page.i)
		return SHMI_NO_PAGE;
	shmi_list_remove(img, list, page);
	shmi_list_push(img, list, page); /* in front, where it is looked at */
	page = shmi_central_find(img, sclass);
	return page.i && shmi_span_at(img, page)->last_user == user ? page : SHMI_NO_PAGE;
}

void shmi_central_give(struct shmi_image *img, shmi_page page, uint32_t owner)
{
	unfile(img, page);
	shmi_span_set_owner(img, page, owner);
}

shmi_page shmi_central_grant(struct shmi_image *img, shmi_sclass sclass, uint32_t owner)
{
	shmi_page page = shmi_central_find(img, sclass);

	if (page.i)
		shmi_central_give(img, page, owner);
	return page;
}

bool shmi_central_accept(struct shmi_image *img, shmi_page page, uint32_t now)
{
	shmi_span_set_owner(img, page, SHMI_NOBODY);
	/* P2: from here on a put sees that nobody holds the span and reports it; what was put before, we see. */
	shmi_fence();
	return settle(img, page, now);
}

bool shmi_central_report(struct shmi_image *img, shmi_page page, uint32_t now)
{
	if (!shmi_image_page_ok(img, page) || shmi_span_word(img, page).state != SHMI_SPAN_CENTRAL)
		return false;
	return settle(img, page, now);
}

uint32_t shmi_central_sweep(struct shmi_image *img, shmi_sclass sclass, uint32_t most, uint32_t now)
{
	struct shmi_central_lists *lists = shmi_central_at(img, sclass);
	uint32_t found = 0;

	if (most > lists->full.count)
		most = lists->full.count;
	while (most--) {
		shmi_page page = {lists->cursor ? lists->cursor : lists->full.head};

		lists->cursor = shmi_span_at(img, page)->next;
		found += settle(img, page, now) || shmi_span_at(img, page)->list == SHMI_LIST_FREE;
	}
	return found;
}
