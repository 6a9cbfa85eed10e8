#include "tests/lib/pagemodel.h"

#include "shm/pageheap.h"
#include "shm/spantree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pagemodel *pagemodel_new(uint32_t limit)
{
	struct pagemodel *model = calloc(1, sizeof(*model));

	if (!model)
		abort();
	model->limit = limit;
	model->page = calloc(limit + 1, sizeof(*model->page)); /* the one beyond stays OUT */
	model->seen = calloc(limit + 1, 1);
	if (!model->page || !model->seen)
		abort();
	return model;
}

void pagemodel_free(struct pagemodel *model)
{
	free(model->page);
	free(model->seen);
	free(model);
}

void pagemodel_publish(struct pagemodel *model, uint32_t published)
{
	for (uint32_t i = model->published; i < published; i++)
		model->page[i].kind = i ? MODEL_RETURNED : MODEL_OUT;
	model->published = published;
}

void pagemodel_set(struct pagemodel *model, struct shmi_run run, enum pagemodel_kind kind)
{
	for (uint32_t i = 0; i < run.pages.n; i++)
		model->page[run.first.i + i] = (struct pagemodel_page){.kind = kind, .first = run.first.i};
}

void pagemodel_use(struct pagemodel *model, struct shmi_run run, struct shmi_word word, bool lazy)
{
	for (uint32_t i = 0; i < run.pages.n; i++)
		model->page[run.first.i + i] = (struct pagemodel_page){MODEL_USED, run.first.i, word, lazy};
}

static bool is_free(const struct pagemodel *model, uint32_t page)
{
	return model->page[page].kind == MODEL_BACKED || model->page[page].kind == MODEL_RETURNED;
}

uint32_t pagemodel_end(const struct pagemodel *model, uint32_t page)
{
	const struct pagemodel_page *first = &model->page[page];
	uint32_t end = page + 1;

	while (end < model->published && model->page[end].kind == first->kind &&
	        (is_free(model, page) || model->page[end].first == first->first))
		end++;
	return end;
}

static bool place(uint32_t from, uint32_t to, uint32_t pages, uint32_t align)
{
	return (uint64_t)(from + align - 1) / align * align + pages <= to;
}

uint32_t pagemodel_fit(const struct pagemodel *model, enum pagemodel_kind kind, uint32_t pages, uint32_t align,
        uint32_t *lowest, uint32_t *candidates)
{
	uint32_t best = 0;

	*candidates = 0;
	for (uint32_t at = 1, end; at < model->published; at = end) {
		end = pagemodel_end(model, at);
		if (model->page[at].kind != kind || end - at < pages)
			continue;
		++*candidates;
		if (place(at, end, pages, align) && (!best || end - at < best)) {
			best = end - at;
			*lowest = at;
		}
	}
	return best;
}

bool pagemodel_possible(const struct pagemodel *model, uint32_t pages, uint32_t align)
{
	for (uint32_t at = 1, end; at < model->limit; at = end + 1) {
		for (end = at; end < model->limit && (end >= model->published || is_free(model, end)); end++)
			continue;
		if (place(at, end, pages, align))
			return true;
	}
	return false;
}

bool pagemodel_growth_possible(const struct pagemodel *model, uint32_t pages, uint32_t align)
{
	uint32_t tail = model->published ? model->published : 1;

	while (tail > 1 && model->page[tail - 1].kind == MODEL_RETURNED)
		tail--;
	return place(tail, model->limit, pages, align);
}

/* ---- comparison ---- */

static char why[200];

#define WRONG(...) (snprintf(why, sizeof(why), __VA_ARGS__), why)

static uint32_t record_state(enum pagemodel_kind kind, struct shmi_word word)
{
	return kind == MODEL_BACKED     ? SHMI_SPAN_FREE
	       : kind == MODEL_RETURNED ? SHMI_SPAN_RETURNED
	       : kind == MODEL_MOVING   ? SHMI_SPAN_MOVING
	                                : word.state;
}

static const char *compare_record(
        const struct pagemodel_page *page, const struct shmi_image *img, uint32_t at, uint32_t end)
{
	const struct shmi_span *span = shmi_span_at(img, (shmi_page){at});
	struct shmi_word word = shmi_span_word(img, (shmi_page){at});

	if (word.state != record_state(page->kind, page->word))
		return WRONG("page %u: state %u instead of %u", at, word.state, record_state(page->kind, page->word));
	if (span->pages != end - at)
		return WRONG("page %u: length %u instead of %u", at, span->pages, end - at);
	if (page->kind == MODEL_USED && shmi_word_pack(word) != shmi_word_pack(page->word))
		return WRONG("page %u: another class, owner or generation", at);
	if (page->kind != MODEL_USED && (word.owner != SHMI_NOBODY || word.sclass.c || word.generation || span->slots))
		return WRONG("page %u: a free run with the word of a span", at);
	if (span->flags != (page->lazy ? SHMI_SPAN_LAZY : 0))
		return WRONG("page %u: flags %u", at, span->flags);
	return NULL;
}

/* The page map, the page classes and the words of one run. */
static const char *compare_pages(
        const struct pagemodel_page *page, const struct shmi_image *img, uint32_t at, uint32_t end)
{
	bool used = page->kind == MODEL_USED, blocks = used && shmi_sclass_is_small(page->word.sclass);

	for (uint32_t i = at; i < end; i++) {
		bool edge = i == at || i == end - 1;
		uint32_t map = blocks || (edge && page->kind != MODEL_MOVING) ? at : 0;
		uint32_t class = blocks || (used && i == at) ? page->word.sclass.c : 0;

		if (shmi_load(shmi_page_span_at(img, (shmi_page){i})) != map)
			return WRONG("page %u: map says %u instead of %u", i,
			        shmi_load(shmi_page_span_at(img, (shmi_page){i})), map);
		if (shmi_load(shmi_page_class_at(img, (shmi_page){i})) != class)
			return WRONG("page %u: class %u instead of %u", i,
			        shmi_load(shmi_page_class_at(img, (shmi_page){i})), class);
		if (i != at && shmi_load(&shmi_span_at(img, (shmi_page){i})->word))
			return WRONG("page %u: a record inside of run %u", i, at);
	}
	return NULL;
}

/* One list holds `want` in state and, if not 0, `pages` in length, and its links agree with each other. */
static const char *compare_list(struct pagemodel *model, const struct shmi_image *img, const struct shmi_list *list,
        uint32_t state, uint32_t pages, uint32_t owner)
{
	uint32_t before = 0, count = 0;

	for (uint32_t at = list->head; at; at = shmi_span_at(img, (shmi_page){at})->next) {
		const struct shmi_span *span = shmi_span_at(img, (shmi_page){at});
		struct shmi_word word = shmi_span_word(img, (shmi_page){at});

		if (at >= model->published || model->seen[at]++)
			return WRONG("page %u: listed twice, or out of the heap", at);
		if (state && (word.state != state || span->pages != pages))
			return WRONG("page %u: state %u, %u pages on the list of state %u, %u pages", at, word.state,
			        span->pages, state, pages);
		if (!state && (!shmi_state_in_use(word.state) || word.owner != owner))
			return WRONG("page %u: on the list of client %u", at, owner);
		if (span->prev != before)
			return WRONG("page %u: prev is %u instead of %u", at, span->prev, before);
		before = at;
		count++;
	}
	return count == list->count ? NULL : WRONG("%u records on a list that says %u", count, list->count);
}

static const char *compare_tree(
        struct pagemodel *model, const struct shmi_image *img, uint32_t root, uint32_t want, uint32_t state)
{
	uint32_t count = 0, depth = 0, last_pages = 0, last = 0;

	if (root && shmi_span_at(img, (shmi_page){root})->parent)
		return WRONG("the root %u has a parent", root);
	for (shmi_page at = shmi_spantree_best(img, root, (shmi_npages){1}); at.i; at = shmi_spantree_next(img, at)) {
		const struct shmi_span *span = shmi_span_at(img, at);

		if (at.i >= model->published || model->seen[at.i]++)
			return WRONG("page %u: in the tree twice, or out of the heap", at.i);
		if (shmi_span_word(img, at).state != state || span->pages <= SHMI_EXACT_PAGES)
			return WRONG("page %u: state %u, %u pages in the tree of %u", at.i,
			        shmi_span_word(img, at).state, span->pages, state);
		if (span->pages < last_pages || (span->pages == last_pages && at.i <= last))
			return WRONG("page %u: out of order", at.i);
		if ((span->next && shmi_span_at(img, (shmi_page){span->next})->parent != at.i) ||
		        (span->prev && shmi_span_at(img, (shmi_page){span->prev})->parent != at.i))
			return WRONG("page %u: a child that does not know its parent", at.i);
		last_pages = span->pages;
		last = at.i;
		count++;
	}
	for (uint32_t at = last; at && depth < 100; at = shmi_span_at(img, (shmi_page){at})->parent)
		depth++;
	if (depth == 100)
		return WRONG("the tree is as deep as a well");
	return count == want ? NULL : WRONG("%u runs in a tree that says %u", count, want);
}

static const char *compare_lists(struct pagemodel *model, const struct shmi_image *img)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(img);
	const char *wrong = NULL;

	memset(model->seen, 0, model->limit + 1);
	for (uint32_t kind = 0; kind < 2 && !wrong; kind++) {
		uint32_t state = kind ? SHMI_SPAN_RETURNED : SHMI_SPAN_FREE;

		for (uint32_t n = 1; n <= SHMI_EXACT_PAGES && !wrong; n++) {
			bool bit = heads->nonempty[kind][(n - 1) / 64] >> (n - 1) % 64 & 1;

			wrong = compare_list(model, img, &heads->exact[kind][n], state, n, 0);
			if (bit != (heads->exact[kind][n].head != 0))
				wrong = WRONG("the bit of list %u, %u is wrong", kind, n);
		}
		if (!wrong)
			wrong = compare_tree(model, img, heads->root[kind], heads->tree_count[kind], state);
	}
	for (uint32_t c = 0; c < PAGEMODEL_OWNERS && !wrong; c++)
		wrong = compare_list(model, img, &shmi_owner_at(img, c)->spans, 0, 0, c);
	return wrong;
}

/* Every run that ought to be on a list was met there, and the counts are right. */
static const char *compare_counts(const struct pagemodel *model, const struct shmi_image *img)
{
	const struct shmi_page_counts *have = &img->super->pages;
	uint64_t owned = 0, central = 0, lazy = 0, moving = 0, backed = 0, returned = 0;
	uint32_t owners[PAGEMODEL_OWNERS] = {0};

	for (uint32_t at = 1, end; at < model->published; at = end) {
		const struct pagemodel_page *page = &model->page[at];
		bool mine = page->kind == MODEL_USED && page->word.owner < PAGEMODEL_OWNERS;
		uint32_t pages = (end = pagemodel_end(model, at)) - at;

		if (model->seen[at] != (mine || is_free(model, at)))
			return WRONG("page %u: on %u lists", at, model->seen[at]);
		if (mine)
			owners[page->word.owner] += pages;
		*(page->kind == MODEL_BACKED              ? &backed
		        : page->kind == MODEL_RETURNED    ? &returned
		        : page->kind == MODEL_MOVING      ? &moving
		        : page->lazy                      ? &lazy
		        : page->word.owner == SHMI_NOBODY ? &central
		                                          : &owned) += pages;
	}
	if (shmi_load(&have->owned) != owned || shmi_load(&have->central) != central || shmi_load(&have->lazy) != lazy)
		return WRONG("owned %lu, central %lu, lazy %lu are wrong", shmi_load(&have->owned),
		        shmi_load(&have->central), shmi_load(&have->lazy));
	if (shmi_load(&have->free) != backed || shmi_load(&have->returned) != returned ||
	        shmi_load(&have->moving) != moving)
		return WRONG("free %lu, returned %lu, moving %lu are wrong", shmi_load(&have->free),
		        shmi_load(&have->returned), shmi_load(&have->moving));
	if (shmi_load(&have->unpublished) != model->limit - (model->published ? model->published - 1 : 0))
		return WRONG("unpublished %lu is wrong", shmi_load(&have->unpublished));
	if (shmi_load(&img->super->counters.peak_backed_pages) < owned + central + backed)
		return WRONG("the peak is too low");
	for (uint32_t c = 0; c < PAGEMODEL_OWNERS; c++)
		if (shmi_owner_at(img, c)->pages != owners[c])
			return WRONG("client %u: %u pages instead of %u", c, shmi_owner_at(img, c)->pages, owners[c]);
	return NULL;
}

const char *pagemodel_compare(struct pagemodel *model, const struct shmi_image *img)
{
	const char *wrong = NULL;

	pagemodel_publish(model, shmi_image_published(img));
	for (uint32_t at = 1, end; at < model->published && !wrong; at = end) {
		end = pagemodel_end(model, at);
		wrong = compare_record(&model->page[at], img, at, end);
		if (!wrong)
			wrong = compare_pages(&model->page[at], img, at, end);
	}
	if (!wrong)
		wrong = compare_lists(model, img);
	return wrong ? wrong : compare_counts(model, img);
}
