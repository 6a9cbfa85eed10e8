#include "tests/lib/heapwalk.h"

#include <stdio.h>
#include <stdlib.h>

#define WRONG(walk, ...) (snprintf((walk)->wrong, sizeof((walk)->wrong), __VA_ARGS__), (walk)->wrong)

void heapwalk_init(struct heapwalk *walk, struct test_image *t, struct test_random *random)
{
	*walk = (struct heapwalk){.t = t, .random = random, .fill = 70, .longest = 1000, .now = UINT32_MAX - 100};
	walk->model = pagemodel_new(t->limit);
	walk->runs = calloc(t->limit, sizeof(*walk->runs));
	if (!walk->runs)
		abort();
}

void heapwalk_deinit(struct heapwalk *walk)
{
	pagemodel_free(walk->model);
	free(walk->runs);
}

static uint32_t below(struct heapwalk *walk, uint32_t bound)
{
	return test_random_below(walk->random, bound);
}

static bool one_in(struct heapwalk *walk, uint32_t times)
{
	return test_random_one_in(walk->random, times);
}

/* ---- taking ---- */

struct request {
	uint32_t pages, align;
	bool lazy;
};

/* What the model says about a request before it is made. */
struct forecast {
	bool possible, growth;
	uint32_t best[2], lowest[2], candidates[2]; /* 0 backed, 1 returned */
};

static struct forecast foresee(struct heapwalk *walk, struct request request)
{
	struct forecast f = {.possible = pagemodel_possible(walk->model, request.pages, request.align),
	        .growth = pagemodel_growth_possible(walk->model, request.pages, request.align)};

	for (uint32_t k = 0; k < 2; k++)
		f.best[k] = pagemodel_fit(walk->model, k ? MODEL_RETURNED : MODEL_BACKED, request.pages, request.align,
		        &f.lowest[k], &f.candidates[k]);
	return f;
}

/* The run that holds `page` in the model. */
static uint32_t begin_of(const struct pagemodel *model, uint32_t page)
{
	while (page > 1 && model->page[page - 1].kind == model->page[page].kind)
		page--;
	return page;
}

/* The run that was chosen is the best one of the better kind. */
static const char *judge_fit(struct heapwalk *walk, struct request request, struct forecast f, struct shmi_run run)
{
	uint32_t better = request.lazy, kind = f.best[better] ? better : !better;
	uint32_t begin = begin_of(walk->model, run.first.i), length = pagemodel_end(walk->model, begin) - begin;

	if (!f.best[kind]) /* growth, or the last resort */
		return NULL;
	if (request.align > 1 && f.candidates[0] + f.candidates[1] > SHMI_ALIGN_TRIES)
		return NULL;
	if (walk->model->page[begin].kind != (kind ? MODEL_RETURNED : MODEL_BACKED) || length != f.best[kind])
		return WRONG(walk, "%u pages of %u by %u from a run of %u, kind %u, instead of %u, kind %u",
		        request.pages, walk->t->limit, request.align, length, walk->model->page[begin].kind,
		        f.best[kind], kind);
	if (length > SHMI_EXACT_PAGES && request.align == 1 && begin != f.lowest[kind])
		return WRONG(walk, "%u pages at %u instead of %u", request.pages, begin, f.lowest[kind]);
	return NULL;
}

/* The floor backed what it should, and nothing else; the model learns what it did. */
static const char *judge_backing(struct heapwalk *walk, struct request request, struct forecast f, struct shmi_run run)
{
	struct test_image *t = walk->t;
	bool single = f.best[0] || f.best[1] || f.growth, promised = !request.lazy && request.pages <= SHMI_COMMIT_STEP;

	if (promised && !run.backed)
		return WRONG(walk, "%u pages that are not backed", run.pages.n);
	if (run.backed && !test_image_all_backed(t, run.first, run.pages))
		return WRONG(walk, "run %u is said to be backed and is not", run.first.i);
	if (!run.backed && single && !test_image_none_backed(t, run.first, run.pages))
		return WRONG(walk, "run %u is said not to be backed and is", run.first.i);
	if (single && t->again)
		return WRONG(walk, "%u pages were committed twice", t->again);
	pagemodel_set(walk->model, run, MODEL_MOVING);
	for (uint32_t i = run.first.i + run.pages.n; i < walk->model->published; i++) {
		if (walk->model->page[i].kind != MODEL_RETURNED || !t->backed[i])
			continue;
		if (!promised || i >= run.first.i + SHMI_COMMIT_GRANULE)
			return WRONG(walk, "page %u was committed with run %u", i, run.first.i);
		walk->model->page[i].kind = MODEL_BACKED;
	}
	return NULL;
}

static struct request make_request(struct heapwalk *walk)
{
	struct request request = {.pages = test_random_length(walk->random, walk->longest), .align = 1};

	if (one_in(walk, 4))
		request.align = 1u << below(walk, 10);
	request.lazy = one_in(walk, 8);
	return request;
}

/* What to do with a run that was taken: leave it MOVING, or open a span. */
static void use(struct heapwalk *walk, struct shmi_run run, bool lazy)
{
	struct shmi_image *img = &walk->t->img;
	uint32_t owner = one_in(walk, 3) ? SHMI_NOBODY : below(walk, PAGEMODEL_OWNERS), attrs = below(walk, SHMI_ATTRS);
	uint32_t class = 1 + below(walk, SHMI_CLASS_LARGE - 1);

	walk->runs[walk->count++] = run;
	if (one_in(walk, 8))
		return;
	/* A class whose spans are as long as this run, if chance finds one. */
	for (uint32_t tries = 20; tries && img->classes[class].pages != run.pages.n; tries--)
		class = 1 + below(walk, SHMI_CLASS_LARGE - 1);
	if (!lazy && img->classes[class].pages == run.pages.n)
		shmi_span_open(img, run, shmi_sclass_make(class, attrs), owner);
	else
		shmi_span_open_large(img, run, attrs, owner, shmi_npages_bytes(run.pages) - below(walk, 8192), lazy);
	pagemodel_use(walk->model, run, shmi_span_word(img, run.first), lazy && !run.backed);
}

static const char *refused(struct heapwalk *walk, struct request request, struct forecast f, bool faulty)
{
	walk->refused++;
	pagemodel_publish(walk->model, shmi_image_published(&walk->t->img));
	if (f.possible && !faulty)
		return WRONG(walk, "%u pages by %u were refused", request.pages, request.align);
	return NULL;
}

static const char *take(struct heapwalk *walk)
{
	struct test_image *t = walk->t;
	struct request request = make_request(walk);
	struct forecast f = foresee(walk, request);
	struct shmi_run run;
	bool armed = walk->faults && one_in(walk, 3);

	t->again = 0;
	t->fail_commit_in = armed && one_in(walk, 2) ? below(walk, 2) : TEST_NEVER;
	t->fail_publish_in = armed && one_in(walk, 2) ? below(walk, 2) : TEST_NEVER;
	bool commit_armed = t->fail_commit_in != TEST_NEVER, publish_armed = t->fail_publish_in != TEST_NEVER;
	int error = shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){request.pages}, (shmi_npages){request.align},
	        request.lazy, walk->now, &run);
	bool commit_failed = commit_armed && t->fail_commit_in == TEST_NEVER;
	bool publish_failed = publish_armed && t->fail_publish_in == TEST_NEVER;

	walk->failed_commits += commit_failed;
	walk->failed_publishes += publish_failed;
	t->fail_commit_in = t->fail_publish_in = TEST_NEVER;
	if (error)
		return refused(walk, request, f, commit_failed || publish_failed);
	walk->mixed += !f.best[0] && !f.best[1] && !f.growth;
	walk->aligned += request.align > 1;
	if (!f.possible || run.pages.n != request.pages || run.first.i % request.align)
		return WRONG(walk, "run %u + %u for %u by %u", run.first.i, run.pages.n, request.pages, request.align);
	pagemodel_publish(walk->model, shmi_image_published(&t->img));
	for (uint32_t i = run.first.i; i < run.first.i + run.pages.n; i++)
		if (walk->model->page[i].kind != MODEL_BACKED && walk->model->page[i].kind != MODEL_RETURNED)
			return WRONG(walk, "run %u + %u: page %u is not free", run.first.i, run.pages.n, i);
	const char *wrong = judge_fit(walk, request, f, run);

	if (!wrong)
		wrong = judge_backing(walk, request, f, run);
	if (wrong)
		return wrong;
	if (!run.backed && !request.lazy) {
		uint32_t fresh = 0;

		for (uint32_t i = 0; i < run.pages.n; i++)
			fresh += !t->backed[run.first.i + i];
		shmi_pageheap_commit(&t->img, &t->floor, run.first, run.pages, (shmi_npages){fresh});
		run.backed = true;
	}
	use(walk, run, request.lazy);
	return NULL;
}

/* ---- giving back ---- */

static void put(struct heapwalk *walk, struct shmi_run run)
{
	if (!run.backed)
		test_image_return(walk->t, run.first, run.pages);
	pagemodel_set(walk->model, run, run.backed ? MODEL_BACKED : MODEL_RETURNED);
	shmi_pageheap_put(&walk->t->img, run, walk->now);
}

/* A span may be on a central list, if an adoption filed it there. */
static void unfile(struct heapwalk *walk, shmi_page page)
{
	struct shmi_image *img = &walk->t->img;
	struct shmi_span *span = shmi_span_at(img, page);
	struct shmi_central_lists *lists = shmi_central_at(img, shmi_span_word(img, page).sclass);

	if (span->list)
		shmi_list_remove(img, span->list == 1 ? &lists->free : &lists->full, page);
	span->list = 0;
}

static void give_back(struct heapwalk *walk, uint32_t index)
{
	struct shmi_image *img = &walk->t->img;
	struct shmi_run run = walk->runs[index];

	walk->runs[index] = walk->runs[--walk->count];
	if (walk->model->page[run.first.i].kind == MODEL_USED) {
		unfile(walk, run.first);
		run = shmi_span_close(img, run.first);
		pagemodel_set(walk->model, run, MODEL_MOVING);
	}
	if (run.pages.n > 1 && one_in(walk, 4)) {
		struct shmi_run rest = shmi_pageheap_cut(img, &run, (shmi_npages){1 + below(walk, run.pages.n - 1)});

		rest.backed = run.backed && !one_in(walk, 2);
		put(walk, rest);
	}
	put(walk, run);
}

void heapwalk_drain(struct heapwalk *walk)
{
	while (walk->count)
		give_back(walk, below(walk, walk->count));
}

/* A span changes hands, but for runs that are no spans. */
static void hand_over(struct heapwalk *walk, uint32_t index)
{
	struct shmi_run run = walk->runs[index];

	if (walk->model->page[run.first.i].kind != MODEL_USED)
		return;
	unfile(walk, run.first);
	shmi_span_set_owner(&walk->t->img, run.first, one_in(walk, 3) ? SHMI_NOBODY : below(walk, PAGEMODEL_OWNERS));
	pagemodel_use(walk->model, run, shmi_span_word(&walk->t->img, run.first), walk->model->page[run.first.i].lazy);
}

static const char *scavenge(struct heapwalk *walk)
{
	uint32_t most = test_random_length(walk->random, 300), lowest, candidates;
	uint32_t longest = shmi_pageheap_longest(&walk->t->img, true).n;
	struct shmi_run run;

	if (!shmi_pageheap_pick(&walk->t->img, walk->now, 0, (shmi_npages){most}, &run))
		return longest ? WRONG(walk, "nothing to scavenge though a run of %u is there", longest) : NULL;
	walk->picked++;
	if (pagemodel_fit(walk->model, MODEL_BACKED, longest, 1, &lowest, &candidates) != longest)
		return WRONG(walk, "%u is not the longest backed run", longest);
	if (!run.backed || run.pages.n != (most < longest ? most : longest))
		return WRONG(walk, "%u pages to scavenge, of at most %u and %u", run.pages.n, most, longest);
	uint32_t begin = begin_of(walk->model, run.first.i), end = pagemodel_end(walk->model, run.first.i);

	if (walk->model->page[run.first.i].kind != MODEL_BACKED || end - begin != longest ||
	        run.first.i + run.pages.n != end)
		return WRONG(walk, "run %u + %u is not the top of the longest backed run", run.first.i, run.pages.n);
	run.backed = one_in(walk, 8);
	put(walk, run);
	return NULL;
}

const char *heapwalk_step(struct heapwalk *walk)
{
	const struct shmi_page_counts *pages = &walk->t->img.super->pages;
	uint64_t used = shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->lazy);
	bool full = used * 100 > (uint64_t)walk->t->limit * walk->fill;

	walk->now += below(walk, 3);
	if (walk->count && one_in(walk, 12)) {
		hand_over(walk, below(walk, walk->count));
		return NULL;
	}
	if (one_in(walk, 10))
		return scavenge(walk);
	if (walk->count && one_in(walk, full ? 2 : 4)) {
		give_back(walk, below(walk, walk->count));
		return NULL;
	}
	return take(walk);
}
