#include "shm/pageheap.h"

#include "shm/freeruns.h"
#include "shm/pagemap.h"

static uint32_t length(const struct shmi_image *img, shmi_page run)
{
	return shmi_span_at(img, run)->pages;
}

static uint32_t end_of(const struct shmi_image *img, shmi_page run)
{
	return run.i + length(img, run);
}

static bool is_returned(const struct shmi_image *img, shmi_page run)
{
	return shmi_span_word(img, run).state == SHMI_SPAN_RETURNED;
}

static uint32_t align_up(uint32_t page, uint32_t align)
{
	return (page + align - 1) & ~(align - 1);
}

/* ---- neighbours ---- */

/* The free run that ends just before `page`, or SHMI_NO_PAGE. */
static shmi_page run_before(const struct shmi_image *img, uint32_t page)
{
	if (page <= 1)
		return SHMI_NO_PAGE;
	shmi_page run = shmi_pagemap_get(img, (shmi_page){page - 1});
	uint32_t state = run.i ? shmi_span_word(img, run).state : SHMI_SPAN_NONE;

	return state == SHMI_SPAN_FREE || state == SHMI_SPAN_RETURNED ? run : SHMI_NO_PAGE;
}

/* The free run that begins at `page`, or SHMI_NO_PAGE. */
static shmi_page run_at(const struct shmi_image *img, uint32_t page)
{
	if (!shmi_image_page_ok(img, (shmi_page){page}))
		return SHMI_NO_PAGE;
	uint32_t state = shmi_span_word(img, (shmi_page){page}).state;

	return (shmi_page){state == SHMI_SPAN_FREE || state == SHMI_SPAN_RETURNED ? page : 0};
}

/* Two MOVING runs, side by side, become one. No count changes. */
static void join(struct shmi_image *img, shmi_page low, shmi_page high)
{
	struct shmi_span *span = shmi_span_at(img, low);

	span->pages += length(img, high);
	span->last_user = shmi_users_join(span->last_user, shmi_span_at(img, high)->last_user);
	shmi_store(&shmi_span_at(img, high)->word, 0);
}

struct shmi_run shmi_pageheap_cut(struct shmi_image *img, struct shmi_run *run, shmi_npages keep)
{
	struct shmi_run rest = {
	        .first = shmi_page_add(run->first, keep), .pages = {run->pages.n - keep.n}, .backed = run->backed};
	struct shmi_word word = {.state = SHMI_SPAN_MOVING, .owner = SHMI_NOBODY};

	shmi_span_blank(img, rest.first, rest.pages);
	shmi_span_at(img, rest.first)->last_user = shmi_span_at(img, run->first)->last_user;
	shmi_store(&shmi_span_at(img, rest.first)->word, shmi_word_pack(word));
	shmi_span_at(img, run->first)->pages = keep.n;
	run->pages = keep;
	return rest;
}

void shmi_pageheap_put(struct shmi_image *img, struct shmi_run run, uint32_t now)
{
	shmi_page low = run_before(img, run.first.i), high = run_at(img, run.first.i + run.pages.n), merged = run.first;
	uint32_t stamp = now, longest = run.pages.n;

	if (high.i && is_returned(img, high) != run.backed) {
		if (length(img, high) > longest) {
			longest = length(img, high);
			stamp = shmi_span_at(img, high)->stamp;
		}
		shmi_freeruns_remove(img, high);
		join(img, merged, high);
	}
	if (low.i && is_returned(img, low) != run.backed) {
		if (length(img, low) > longest)
			stamp = shmi_span_at(img, low)->stamp;
		shmi_freeruns_remove(img, low);
		join(img, low, merged);
		merged = low;
	}
	shmi_freeruns_insert(img, merged, run.backed ? SHMI_BACKED : SHMI_RETURNED, stamp);
}

/* ---- where a request goes ---- */

/* Pages [start, start + n) for a request, all free; `run` is the free run that holds `start`. */
struct place {
	shmi_page run;
	uint32_t start;
};

static bool fits(const struct shmi_image *img, shmi_page run, uint32_t pages, uint32_t align, struct place *place)
{
	*place = (struct place){.run = run, .start = align_up(run.i, align)};
	return (uint64_t)place->start + pages <= end_of(img, run);
}

/* The best fit of one kind. After `tries` runs that are long enough but lie badly, one that fits wherever it lies. */
static bool find_fit(const struct shmi_image *img, enum shmi_kind kind, uint32_t pages, uint32_t align, uint32_t tries,
        struct place *place)
{
	shmi_page run = shmi_freeruns_first(img, kind, pages);

	for (; run.i && !fits(img, run, pages, align, place); run = shmi_freeruns_next(img, kind, run))
		if (!tries--) {
			run = shmi_freeruns_first(img, kind, pages + align - 1);
			return run.i && fits(img, run, pages, align, place);
		}
	return run.i != 0;
}

/* Publishes arenas until a run of `pages` pages fits behind the free pages that end where the arenas do, the first of which
 * is `tail`. */
static bool grow(struct shmi_image *img, const struct shmi_floor *floor, uint32_t tail, uint32_t pages, uint32_t align,
        uint32_t now)
{
	uint64_t end = (uint64_t)align_up(tail, align) + pages;

	if (end > img->geo.limit_pages)
		return false;
	while (shmi_image_published(img) < end) {
		shmi_npages arena = shmi_arena_next(img);

		if (floor->publish(floor->ctx, (shmi_page){shmi_image_published(img)}, arena))
			return false;
		shmi_arena_publish(img, arena, now);
	}
	return true;
}

/* Where the arenas end, and with them the last run; page 0 apart. */
static uint32_t arenas_end(const struct shmi_image *img)
{
	uint32_t published = shmi_image_published(img);

	return published ? published : 1;
}

static bool find_in_growth(struct shmi_image *img, const struct shmi_floor *floor, uint32_t pages, uint32_t align,
        uint32_t now, struct place *place)
{
	uint32_t end = arenas_end(img);
	shmi_page last = run_before(img, end);
	uint32_t tail = last.i && is_returned(img, last) ? last.i : end;

	return grow(img, floor, tail, pages, align, now) && fits(img, (shmi_page){tail}, pages, align, place);
}

/* ---- the last resort: backed and returned neighbours together ---- */

/* The place of a request in the free pages from `begin` on, which may be several runs. Returns the end of those pages. */
static uint32_t place_in_group(const struct shmi_image *img, shmi_page begin, uint32_t align, struct place *place)
{
	uint32_t end = begin.i;

	place->start = align_up(begin.i, align);
	for (shmi_page run = begin; run.i; run = run_at(img, end)) {
		end = end_of(img, run);
		if (run.i <= place->start)
			place->run = run;
	}
	return end;
}

/* The first page of the free pages around and before `run`; none for none. */
static shmi_page group_begin(const struct shmi_image *img, shmi_page run)
{
	for (shmi_page low = run; low.i; low = run_before(img, low.i))
		run = low;
	return run;
}

/* True of one returned run in each group: its first. Of two neighbours one is backed and one is returned. */
static bool leads_group(const struct shmi_image *img, shmi_page run)
{
	shmi_page low = run_before(img, run.i);

	return !low.i || !run_before(img, low.i).i;
}

static bool find_mixed(struct shmi_image *img, const struct shmi_floor *floor, uint32_t pages, uint32_t align,
        uint32_t now, struct place *place)
{
	uint32_t best = UINT32_MAX;

	for (shmi_page run = shmi_freeruns_first(img, SHMI_RETURNED, 1); run.i;
	        run = shmi_freeruns_next(img, SHMI_RETURNED, run)) {
		if (!leads_group(img, run))
			continue;
		shmi_page begin = group_begin(img, run);
		struct place here;
		uint32_t end = place_in_group(img, begin, align, &here);

		if ((uint64_t)here.start + pages <= end && end - begin.i < best) {
			best = end - begin.i;
			*place = here;
		}
	}
	if (best != UINT32_MAX)
		return true;
	shmi_page last = run_before(img, arenas_end(img)), begin = group_begin(img, last);

	/* Returned pages alone before the end: find_in_growth has tried that. */
	if (!last.i || (begin.i == last.i && is_returned(img, last)))
		return false;
	return grow(img, floor, begin.i, pages, align, now) && place_in_group(img, begin, align, place);
}

static bool find_place(struct shmi_image *img, const struct shmi_floor *floor, uint32_t pages, uint32_t align,
        bool lazy, uint32_t now, struct place *place)
{
	enum shmi_kind first = lazy ? SHMI_RETURNED : SHMI_BACKED, second = lazy ? SHMI_BACKED : SHMI_RETURNED;

	if (!pages || pages > img->geo.limit_pages || align > img->geo.limit_pages)
		return false;
	if (find_fit(img, first, pages, align, SHMI_ALIGN_TRIES, place) ||
	        find_fit(img, second, pages, align, SHMI_ALIGN_TRIES, place) ||
	        find_in_growth(img, floor, pages, align, now, place))
		return true;
	const struct shmi_page_counts *counts = &img->super->pages;

	/* A full heap is asked often, so that it should say no at once. */
	if (shmi_load(&counts->free) + shmi_load(&counts->returned) + shmi_load(&counts->unpublished) < pages)
		return false;
	return find_fit(img, first, pages, align, UINT32_MAX, place) ||
	       find_fit(img, second, pages, align, UINT32_MAX, place) ||
	       find_mixed(img, floor, pages, align, now, place);
}

/* ---- taking it ---- */

/* The pages of [start, start + n) that are not backed: how many, and the range that they are in. */
static uint32_t unbacked(const struct shmi_image *img, struct place place, uint32_t pages, uint32_t *from, uint32_t *to)
{
	uint32_t count = 0, end = place.start + pages;

	for (shmi_page run = place.run; run.i && run.i < end; run = run_at(img, end_of(img, run))) {
		if (!is_returned(img, run))
			continue;
		uint32_t low = run.i > place.start ? run.i : place.start, high = end_of(img, run);

		high = high < end ? high : end;
		if (!count)
			*from = low;
		*to = high;
		count += high - low;
	}
	return count;
}

int shmi_pageheap_commit(
        struct shmi_image *img, const struct shmi_floor *floor, shmi_page first, shmi_npages pages, shmi_npages fresh)
{
	if (floor->commit(floor->ctx, first, pages))
		return SHMI_E_NOMEM;
	shmi_bump(&img->super->counters.committed_pages, fresh.n);
	return 0;
}

/* Backs what is not backed of a place, and more than that for a small request, as far as the run goes. Returns the
 * pages that are to be taken, at least `pages`, or 0 when there is no memory. */
static uint32_t commit_place(struct shmi_image *img, const struct shmi_floor *floor, struct place place, uint32_t pages)
{
	uint32_t from = 0, to = 0, fresh = unbacked(img, place, pages, &from, &to), room = end_of(img, place.run);

	if (!fresh)
		return pages;
	room = room > place.start ? room - place.start : 0;
	room = room < SHMI_COMMIT_GRANULE ? room : SHMI_COMMIT_GRANULE;
	if (is_returned(img, place.run) && room > pages &&
	        !shmi_pageheap_commit(img, floor, (shmi_page){place.start}, (shmi_npages){room}, (shmi_npages){room}))
		return room;
	return shmi_pageheap_commit(img, floor, (shmi_page){from}, (shmi_npages){to - from}, (shmi_npages){fresh})
	               ? 0
	               : pages;
}

/* Takes the pages of a place out of the runs that they are in; what those have besides, in front and behind, is put back. */
static struct shmi_run extract(struct shmi_image *img, struct place place, uint32_t pages)
{
	uint32_t end = place.start + pages, at = place.run.i;

	while (at < end) {
		struct shmi_run part = {.first = {at}, .pages = {length(img, (shmi_page){at})}};
		uint32_t stamp = shmi_span_at(img, part.first)->stamp;
		enum shmi_kind kind = is_returned(img, part.first) ? SHMI_RETURNED : SHMI_BACKED;

		shmi_freeruns_remove(img, part.first);
		if (at < place.start) {
			struct shmi_run head = part;

			part = shmi_pageheap_cut(img, &head, (shmi_npages){place.start - at});
			shmi_freeruns_insert(img, head.first, kind, stamp);
		}
		at = part.first.i + part.pages.n;
		if (at > end) {
			struct shmi_run rest = shmi_pageheap_cut(img, &part, (shmi_npages){end - part.first.i});

			shmi_freeruns_insert(img, rest.first, kind, stamp);
		}
		if (part.first.i != place.start)
			join(img, (shmi_page){place.start}, part.first);
	}
	return (struct shmi_run){.first = {place.start}, .pages = {pages}};
}

int shmi_pageheap_alloc(struct shmi_image *img, const struct shmi_floor *floor, shmi_npages pages, shmi_npages align,
        bool lazy, uint32_t now, struct shmi_run *run)
{
	struct place place;
	uint32_t take = pages.n, from, to;

	if (!find_place(img, floor, pages.n, align.n, lazy, now, &place))
		return SHMI_E_NOMEM;
	bool commit = !lazy && pages.n <= SHMI_COMMIT_STEP;

	if (commit)
		take = commit_place(img, floor, place, pages.n);
	if (!take)
		return SHMI_E_NOMEM;
	bool backed = commit || !unbacked(img, place, pages.n, &from, &to);

	*run = extract(img, place, take);
	run->backed = backed;
	if (take > pages.n)
		shmi_pageheap_put(img, shmi_pageheap_cut(img, run, pages), now);
	return 0;
}

bool shmi_pageheap_pick(struct shmi_image *img, uint32_t now, uint32_t min_age, shmi_npages most, struct shmi_run *run)
{
	shmi_page from = shmi_freeruns_last(img, SHMI_BACKED);

	while (from.i && now - shmi_span_at(img, from)->stamp < min_age)
		from = shmi_freeruns_prev(img, SHMI_BACKED, from);
	if (!from.i || !most.n)
		return false;
	uint32_t pages = length(img, from), take = pages < most.n ? pages : most.n;

	*run = extract(img, (struct place){.run = from, .start = end_of(img, from) - take}, take);
	run->backed = true;
	return true;
}

shmi_npages shmi_pageheap_longest(const struct shmi_image *img, bool backed)
{
	shmi_page run = shmi_freeruns_last(img, backed ? SHMI_BACKED : SHMI_RETURNED);

	return (shmi_npages){run.i ? length(img, run) : 0};
}
