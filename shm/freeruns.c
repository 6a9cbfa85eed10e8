#include "shm/freeruns.h"

#include "shm/pagemap.h"
#include "shm/spantree.h"

static void set_word(struct shmi_image *img, shmi_page page, uint32_t state)
{
	shmi_span_set(img, page, (struct shmi_word){.state = state, .owner = SHMI_NOBODY});
}

void shmi_freeruns_insert(struct shmi_image *img, shmi_page run, enum shmi_kind kind, uint32_t stamp)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(img);
	struct shmi_span *span = shmi_span_at(img, run);

	span->stamp = stamp;
	shmi_pagemap_ends(img, run, (shmi_npages){span->pages}, run);
	if (span->pages <= SHMI_EXACT_PAGES) {
		shmi_list_push(img, &heads->exact[kind][span->pages], run);
		heads->nonempty[kind][(span->pages - 1) / 64] |= 1ull << (span->pages - 1) % 64;
	} else {
		shmi_spantree_insert(img, &heads->root[kind], run);
		heads->tree_count[kind]++;
	}
	set_word(img, run, kind == SHMI_BACKED ? SHMI_SPAN_FREE : SHMI_SPAN_RETURNED);
}

void shmi_freeruns_remove(struct shmi_image *img, shmi_page run)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(img);
	uint32_t pages = shmi_span_at(img, run)->pages;
	enum shmi_kind kind = shmi_span_word(img, run).state == SHMI_SPAN_RETURNED ? SHMI_RETURNED : SHMI_BACKED;

	set_word(img, run, SHMI_SPAN_MOVING);
	if (pages <= SHMI_EXACT_PAGES) {
		shmi_list_remove(img, &heads->exact[kind][pages], run);
		if (!heads->exact[kind][pages].head)
			heads->nonempty[kind][(pages - 1) / 64] &= ~(1ull << (pages - 1) % 64);
	} else {
		shmi_spantree_remove(img, &heads->root[kind], run);
		heads->tree_count[kind]--;
	}
	shmi_pagemap_ends(img, run, (shmi_npages){pages}, SHMI_NO_PAGE);
}

shmi_page shmi_freeruns_first(const struct shmi_image *img, enum shmi_kind kind, uint32_t pages)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(img);

	for (uint32_t bit = pages - 1; bit < SHMI_EXACT_PAGES; bit = (bit / 64 + 1) * 64) {
		uint64_t rest = heads->nonempty[kind][bit / 64] >> bit % 64;

		if (rest)
			return (shmi_page){heads->exact[kind][bit + (uint32_t)__builtin_ctzll(rest) + 1].head};
	}
	return shmi_spantree_best(img, heads->root[kind], (shmi_npages){pages});
}

shmi_page shmi_freeruns_next(const struct shmi_image *img, enum shmi_kind kind, shmi_page run)
{
	const struct shmi_span *span = shmi_span_at(img, run);

	if (span->pages > SHMI_EXACT_PAGES)
		return shmi_spantree_next(img, run);
	if (span->next)
		return (shmi_page){span->next};
	return shmi_freeruns_first(img, kind, span->pages + 1);
}

/* The last list of length `pages` or less. */
static shmi_page last_in_lists(const struct shmi_image *img, enum shmi_kind kind, uint32_t pages)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(img);

	for (uint32_t n = pages; n; n = (n - 1) / 64 * 64) {
		uint64_t rest = heads->nonempty[kind][(n - 1) / 64] << (63 - (n - 1) % 64);

		if (rest)
			return (shmi_page){heads->exact[kind][n - (uint32_t)__builtin_clzll(rest)].head};
	}
	return SHMI_NO_PAGE;
}

shmi_page shmi_freeruns_last(const struct shmi_image *img, enum shmi_kind kind)
{
	shmi_page last = shmi_spantree_last(img, shmi_pageheap_at(img)->root[kind]);

	return last.i ? last : last_in_lists(img, kind, SHMI_EXACT_PAGES);
}

shmi_page shmi_freeruns_prev(const struct shmi_image *img, enum shmi_kind kind, shmi_page run)
{
	const struct shmi_span *span = shmi_span_at(img, run);
	shmi_page prev = {span->next};

	if (span->pages > SHMI_EXACT_PAGES) {
		prev = shmi_spantree_prev(img, run);
		return prev.i ? prev : last_in_lists(img, kind, SHMI_EXACT_PAGES);
	}
	return prev.i ? prev : last_in_lists(img, kind, span->pages - 1);
}
