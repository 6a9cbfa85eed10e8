#include "shm/freeruns.h"
#include "tests/lib/heapwalk.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(pageheap, .timeout = 60);

static int get_aligned(struct test_image *t, uint32_t pages, uint32_t align, struct shmi_run *run)
{
	return shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){pages}, (shmi_npages){align}, false, 0, run);
}

static int get(struct test_image *t, uint32_t pages, struct shmi_run *run)
{
	return get_aligned(t, pages, 1, run);
}

static int get_lazy(struct test_image *t, uint32_t pages, struct shmi_run *run)
{
	return shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){pages}, (shmi_npages){1}, true, 0, run);
}

static void put(struct test_image *t, uint32_t first, uint32_t pages, bool backed, uint32_t now)
{
	if (!backed)
		test_image_return(t, (shmi_page){first}, (shmi_npages){pages});
	shmi_pageheap_put(&t->img, (struct shmi_run){{first}, {pages}, backed}, now);
}

static uint64_t committed(const struct test_image *t)
{
	return shmi_load(&t->view.super->counters.committed_pages);
}

static uint32_t longest(const struct test_image *t, bool backed)
{
	return shmi_pageheap_longest(&t->view, backed).n;
}

/* A heap that looks like `picture`, from page 1 on, ten pages a letter: B backed and free, R returned and free, X in use.
 * Equal neighbours become one. What the heap has beyond the picture is in use. Letter i begins at page 10 * i + 1. */
static void paint(struct test_image *t, const char *picture)
{
	struct shmi_run run, rest;

	cr_assert_eq(get_lazy(t, t->limit - 1, &run), 0);
	cr_assert_eq(shmi_pageheap_commit(&t->img, &t->floor, run.first, run.pages, run.pages), 0);
	for (; *picture; picture++, run = rest) {
		cr_assert_gt(run.pages.n, 10, "the heap is longer than the picture");
		rest = shmi_pageheap_cut(&t->img, &run, (shmi_npages){10});
		if (*picture != 'X')
			put(t, run.first.i, 10, *picture == 'B', 0);
	}
	t->commits = 0;
	t->again = 0;
}

/* ---- growth ---- */

TEST_ON_IMAGES(pageheap, grows_by_the_arena_up_to_the_limit, 2 * SHMI_ARENA_PAGES + 3)
{
	struct shmi_run a, b, c;

	cr_assert_eq(get(t, SHMI_ARENA_PAGES, &a), 0);
	cr_assert_eq(a.first.i, 1, "page 0 is in no run");
	cr_assert_eq(t->publishes, 2, "one page more than the first arena has");
	cr_assert_eq(get(t, SHMI_ARENA_PAGES + 2, &b), 0);
	cr_assert_eq(t->publishes, 3);
	cr_assert_eq(shmi_image_published(&t->view), t->limit);
	cr_assert_eq(b.first.i + b.pages.n, t->limit, "to the last page");
	cr_assert_eq(get(t, 1, &c), SHMI_E_NOMEM);
	cr_assert_eq(t->publishes, 3);
	put(t, b.first.i, b.pages.n, true, 0);
	cr_assert_eq(get(t, 1, &c), 0, "usable again");
	cr_assert_eq(t->wild, 0);
}

TEST_ON_IMAGES(pageheap, does_not_grow_in_vain, 3 * SHMI_ARENA_PAGES)
{
	struct shmi_run run;

	cr_assert_eq(get(t, 3 * SHMI_ARENA_PAGES, &run), SHMI_E_NOMEM);
	cr_assert_eq(get(t, UINT32_MAX, &run), SHMI_E_NOMEM);
	cr_assert_eq(get(t, 0, &run), SHMI_E_NOMEM);
	cr_assert_eq(get_aligned(t, 1, 1u << 31, &run), SHMI_E_NOMEM);
	cr_assert_eq(get_aligned(t, 1, 1u << 15, &run), SHMI_E_NOMEM, "no page but 0 is so aligned");
	cr_assert_eq(t->publishes, 0);
	cr_assert_eq(longest(t, false), 0);
	cr_assert_eq(longest(t, true), 0);
}

TEST_ON_IMAGES(pageheap, floor_cannot_publish, 3 * SHMI_ARENA_PAGES)
{
	struct shmi_run run;

	t->fail_publish_in = 1;
	cr_assert_eq(get(t, 2 * SHMI_ARENA_PAGES, &run), SHMI_E_NOMEM);
	cr_assert_eq(shmi_image_published(&t->view), SHMI_ARENA_PAGES, "the first one stays");
	cr_assert_eq(get(t, 2 * SHMI_ARENA_PAGES, &run), 0);
	cr_assert_eq(run.first.i, 1);
}

/* ---- backing ---- */

TEST_ON_IMAGES(pageheap, small_runs_are_backed_by_the_granule, 4096)
{
	struct shmi_run run;

	cr_assert_eq(get(t, 3, &run), 0);
	cr_assert(run.backed && test_image_all_backed(t, (shmi_page){1}, (shmi_npages){SHMI_COMMIT_GRANULE}));
	cr_assert(test_image_none_backed(t, (shmi_page){1 + SHMI_COMMIT_GRANULE}, (shmi_npages){1000}));
	cr_assert_eq(longest(t, true), SHMI_COMMIT_GRANULE - 3);
	cr_assert_eq(get(t, SHMI_COMMIT_GRANULE - 3, &run), 0);
	cr_assert_eq(t->commits, 1, "the rest was there");
	cr_assert_eq(get(t, SHMI_COMMIT_GRANULE + 1, &run), 0);
	cr_assert_eq(longest(t, true), 0, "no more than asked for");
	cr_assert_eq(committed(t), 2 * SHMI_COMMIT_GRANULE + 1);
}

TEST_ON_IMAGES(pageheap, no_memory_for_the_granule_but_for_the_request, 4096)
{
	struct shmi_run run;

	t->fail_commit_in = 0;
	cr_assert_eq(get(t, 3, &run), 0);
	cr_assert(run.backed && t->commits == 2);
	cr_assert_eq(longest(t, true), 0);
	cr_assert_eq(committed(t), 3);
}

TEST_ON_IMAGES(pageheap, long_runs_are_left_to_the_caller, 4096)
{
	struct shmi_run run;

	cr_assert_eq(get(t, SHMI_COMMIT_STEP + 1, &run), 0);
	cr_assert(!run.backed && t->commits == 0);
	cr_assert_eq(get(t, SHMI_COMMIT_STEP, &run), 0);
	cr_assert(run.backed && t->commits == 1);
	put(t, run.first.i, run.pages.n, true, 0);
	cr_assert_eq(get_lazy(t, 5, &run), 0);
	cr_assert(!run.backed && t->commits == 1, "lazy ones prefer what is not backed");
	cr_assert_eq(get_lazy(t, longest(t, false), &run), 0);
	cr_assert_eq(get_lazy(t, 7, &run), 0);
	cr_assert(run.backed, "but take what there is");
}

/* A run whose caller could back a part of it only goes back in two pieces. */
TEST_ON_IMAGES(pageheap, half_backed_run_goes_back_in_pieces, 4096)
{
	struct shmi_run run, rest;

	cr_assert_eq(get(t, 1000, &run), 0);
	cr_assert_eq(shmi_pageheap_commit(&t->img, &t->floor, run.first, (shmi_npages){SHMI_COMMIT_STEP},
	                     (shmi_npages){SHMI_COMMIT_STEP}),
	        0);
	t->fail_commit_in = 0;
	cr_assert_eq(shmi_pageheap_commit(&t->img, &t->floor, shmi_page_add(run.first, (shmi_npages){SHMI_COMMIT_STEP}),
	                     (shmi_npages){SHMI_COMMIT_STEP}, (shmi_npages){SHMI_COMMIT_STEP}),
	        SHMI_E_NOMEM);
	rest = shmi_pageheap_cut(&t->img, &run, (shmi_npages){SHMI_COMMIT_STEP});
	cr_assert(run.pages.n == SHMI_COMMIT_STEP && rest.pages.n == 1000 - SHMI_COMMIT_STEP);
	put(t, rest.first.i, rest.pages.n, false, 0);
	put(t, run.first.i, run.pages.n, true, 0);
	cr_assert_eq(longest(t, true), SHMI_COMMIT_STEP);
	cr_assert_eq(longest(t, false), 4095 - SHMI_COMMIT_STEP, "the rest has joined the tail");
	cr_assert_eq(committed(t), SHMI_COMMIT_STEP);
	cr_assert_eq(shmi_load(&t->view.super->pages.moving), 0);
}

/* Meta is compared whole. */
static void expect_refused_unchanged(struct test_image *t, uint32_t pages)
{
	unsigned char *before = malloc(t->meta_len);
	struct shmi_run run;

	cr_assert_not_null(before);
	memcpy(before, t->img.meta, t->meta_len);
	t->fail_commit_in = 0;
	cr_assert_eq(get(t, pages, &run), SHMI_E_NOMEM, "%u pages", pages);
	cr_assert_eq(memcmp(before, t->view.meta, t->meta_len), 0, "%u pages", pages);
	cr_assert_eq(t->fail_commit_in, TEST_NEVER, "no commit was tried for %u pages", pages);
	free(before);
}

TEST_ON_IMAGES(pageheap, failed_commit_changes_nothing, 2048)
{
	struct shmi_run run;

	paint(t, "XBRXBRBRXXRRRRXB");
	expect_refused_unchanged(t, SHMI_COMMIT_GRANULE);
	expect_refused_unchanged(t, 40);
	cr_assert_eq(get_lazy(t, 40, &run), 0);
	expect_refused_unchanged(t, 15); /* of both kinds */
	expect_refused_unchanged(t, 35);
	cr_assert_eq(get(t, 35, &run), 0);
}

/* ---- which run ---- */

TEST_ON_IMAGES(pageheap, backed_before_returned_then_shortest, 411)
{
	struct shmi_run run;

	paint(t, "XXXRRRXXXBBBBXXXRRXXXXBBBBBBXXXXXXXXXXXX");
	cr_assert_eq(get(t, 10, &run), 0);
	cr_assert_eq(run.first.i, 91, "the shorter backed one, from its low end");
	cr_assert_eq(get(t, 31, &run), 0);
	cr_assert_eq(run.first.i, 221, "only 30 are left of that");
	cr_assert_eq(get(t, 30, &run), 0);
	cr_assert_eq(run.first.i, 101, "an exact fit");
	cr_assert_eq(t->commits, 0);
	cr_assert_eq(get(t, 30, &run), 0);
	cr_assert_eq(run.first.i, 31, "29 backed ones are left at most");
	cr_assert_eq(get_lazy(t, 10, &run), 0);
	cr_assert_eq(run.first.i, 161);
}

TEST_ON_IMAGES(pageheap, lowest_of_equal_long_runs, 821)
{
	struct shmi_run run;
	char picture[81];

	memset(picture, 'B', 80);
	picture[80] = 0;
	picture[0] = picture[15] = picture[30] = picture[45] = 'X'; /* 140, 140, 140, 340 */
	paint(t, picture);
	for (uint32_t i = 0; i < 3; i++) {
		cr_assert_eq(get(t, 135, &run), 0);
		cr_assert_eq(run.first.i, 11 + 150 * i);
	}
	cr_assert_eq(get(t, 135, &run), 0);
	cr_assert_eq(run.first.i, 461);
}

TEST_ON_IMAGES(pageheap, aligned_runs_give_head_and_tail_back, 4096)
{
	struct shmi_run run;

	cr_assert_eq(get_aligned(t, 16, 1024, &run), 0);
	cr_assert_eq(run.first.i, 1024);
	cr_assert_eq(longest(t, false), 4096 - 1024 - SHMI_COMMIT_GRANULE);
	cr_assert_eq(get_lazy(t, 1023, &run), 0);
	cr_assert_eq(run.first.i, 1, "the head is one run");
	cr_assert_eq(get(t, 16, &run), 0);
	cr_assert_eq(run.first.i, 1040, "the rest of the granule");
}

/* Of the runs at even letters none has nine pages aligned by four; each has those at odd ones. */
#define BAD_RUNS 70
static void paint_bad_runs(struct test_image *t, const char *begin, const char *end)
{
	char picture[200];
	size_t at = strlen(begin);

	memcpy(picture, begin, at);
	for (uint32_t i = 0; i < BAD_RUNS; i++, at += 2)
		memcpy(picture + at, "BX", 2);
	strcpy(picture + at, end);
	paint(t, picture);
}

TEST_ON_IMAGES(pageheap, aligned_among_many_that_lie_badly, 2048)
{
	struct shmi_run run;

	cr_assert_gt(BAD_RUNS, SHMI_ALIGN_TRIES);
	paint_bad_runs(t, "XBXX", "BB"); /* the first of a length to come is the last on its list */
	cr_assert_eq(get_aligned(t, 9, 4, &run), 0);
	cr_assert_eq(run.first.i, (10 * (4 + 2 * BAD_RUNS) + 1 + 3) / 4 * 4, "a longer one, which is sure to fit");
	cr_assert_eq(get_aligned(t, 9, 4, &run), 0);
	cr_assert_eq(run.first.i, 12, "all are looked at before it is refused");
	cr_assert_eq(get_aligned(t, 9, 4, &run), SHMI_E_NOMEM);
}

/* ---- the last resort ---- */

TEST_ON_IMAGES(pageheap, backed_and_returned_neighbours_together, 1001)
{
	struct shmi_run run;
	uint64_t before;

	paint(t, "XBRXXXBRBRX");
	before = committed(t);
	cr_assert_eq(get(t, 15, &run), 0);
	cr_assert(run.first.i == 11 && run.backed, "from the smallest place that will do");
	cr_assert(committed(t) == before + 5 && t->again == 0 && t->commits == 1,
	        "what is missing is committed, no more");
	cr_assert_eq(get(t, 35, &run), 0);
	cr_assert(run.first.i == 61 && run.backed && test_image_all_backed(t, run.first, run.pages));
	cr_assert(committed(t) == before + 20 && t->commits == 2);
	cr_assert_eq(shmi_load(&t->view.super->pages.returned), 10, "five behind each");
	cr_assert_eq(get(t, 6, &run), SHMI_E_NOMEM);
	cr_assert_eq(get(t, 5, &run), 0);
}

TEST_ON_IMAGES(pageheap, together_in_the_smallest_place, 1001)
{
	struct shmi_run run;

	paint(t, "XBRBRXXRBXXRBRBRBX"); /* the smallest is neither the first nor the last to be looked at */
	cr_assert_eq(get(t, 15, &run), 0);
	cr_assert_eq(run.first.i, 71);
	cr_assert_eq(get(t, 15, &run), 0);
	cr_assert_eq(run.first.i, 11);
}

TEST_ON_IMAGES(pageheap, together_and_aligned, 1001)
{
	struct shmi_run run;

	paint(t, "XXBRBRXX"); /* 21 to 60 */
	cr_assert_eq(get_aligned(t, 28, 32, &run), 0);
	cr_assert(run.first.i == 32 && run.backed && test_image_all_backed(t, run.first, run.pages));
	cr_assert_eq(longest(t, true), 10, "21 to 30");
	cr_assert_eq(longest(t, false), 1, "31, and 60");
	cr_assert_eq(shmi_load(&t->view.super->pages.returned), 2);
}

TEST_ON_IMAGES(pageheap, together_and_long_or_lazy, 1001)
{
	struct shmi_run run;
	char picture[] = "BBBBBBBBBBBBBBBBBBBBRRRRRRRRRRRRRRRRRRRR"; /* 200 and 200 */

	paint(t, picture);
	cr_assert_eq(get(t, SHMI_COMMIT_STEP + 1, &run), 0);
	cr_assert(run.first.i == 1 && !run.backed && t->commits == 0, "the caller backs it");
	shmi_pageheap_put(&t->img, shmi_pageheap_cut(&t->img, &run, (shmi_npages){200}), 0);
	put(t, 1, 200, true, 0);
	cr_assert_eq(get_lazy(t, 210, &run), 0);
	cr_assert(run.first.i == 1 && !run.backed && t->commits == 0);
}

/* The backed end of the last arena and pages that are not published yet. */
TEST_ON_IMAGES(pageheap, together_across_the_end_of_the_arenas, SHMI_ARENA_PAGES + 100)
{
	struct shmi_run run, last;

	cr_assert_eq(get_lazy(t, SHMI_ARENA_PAGES - 1, &run), 0);
	cr_assert_eq(shmi_pageheap_commit(&t->img, &t->floor, run.first, run.pages, run.pages), 0);
	last = shmi_pageheap_cut(&t->img, &run, (shmi_npages){SHMI_ARENA_PAGES - 1 - 50});
	put(t, last.first.i, 50, true, 0);
	cr_assert_eq(get(t, 151, &run), SHMI_E_NOMEM);
	cr_assert_eq(t->publishes, 1);
	cr_assert_eq(get(t, 120, &run), 0);
	cr_assert(run.first.i == SHMI_ARENA_PAGES - 50 && run.backed && t->publishes == 2 && t->again == 0);
	cr_assert_eq(longest(t, false), 30);
}

/* ---- the scavenger ---- */

static bool pick(struct test_image *t, uint32_t now, uint32_t min_age, uint32_t most, struct shmi_run *run)
{
	return shmi_pageheap_pick(&t->img, now, min_age, (shmi_npages){most}, run);
}

TEST_ON_IMAGES(pageheap, picks_the_top_of_the_longest_old_run, 1001)
{
	struct shmi_run run;

	paint(t, "BXBBXBBBXRRRRRRXXX");
	cr_assert_not(pick(t, 5, 6, 100, &run), "all came at 0");
	cr_assert_not(pick(t, 5, 5, 0, &run));
	cr_assert(pick(t, 5, 5, 7, &run));
	cr_assert(run.first.i == 74 && run.pages.n == 7 && run.backed);
	put(t, run.first.i, run.pages.n, false, 5);
	cr_assert_eq(longest(t, true), 23);
	cr_assert(pick(t, 5, 5, 100, &run));
	cr_assert(run.first.i == 51 && run.pages.n == 23, "what is left is as old as it was");
	put(t, run.first.i, run.pages.n, true, 6);
	cr_assert(pick(t, 7, 5, 100, &run));
	cr_assert(run.first.i == 21 && run.pages.n == 20, "the longest is too young now");
	cr_assert(pick(t, 7, 5, 100, &run) && run.first.i == 1);
	cr_assert_not(pick(t, 7, 5, 100, &run));
	cr_assert(pick(t, 7, 0, 100, &run) && run.first.i == 51);
	cr_assert_not(pick(t, 7, 0, 100, &run), "returned runs are returned already");
}

TEST_ON_IMAGES(pageheap, age_is_that_of_the_longest_part, 1001)
{
	struct shmi_run run;

	paint(t, "XBBXXXBBBBBXX");
	put(t, 31, 10, true, 50); /* behind 20 old pages */
	cr_assert(pick(t, 60, 60, 30, &run) && run.first.i == 81, "the longest first");
	cr_assert(pick(t, 60, 60, 100, &run) && run.first.i == 11 && run.pages.n == 30);
	put(t, 81, 30, true, 50); /* behind the 20 old pages that were left */
	cr_assert_not(pick(t, 60, 60, 100, &run));
	put(t, 51, 10, true, 55); /* in front of 50 pages that count as 10 old */
	cr_assert_not(pick(t, 60, 11, 100, &run));
	cr_assert(pick(t, 60, 10, 100, &run));
	cr_assert_eq(run.first.i, 51, "from %u", run.first.i);
	cr_assert_eq(run.pages.n, 60);
}

TEST_ON_IMAGES(pageheap, ticks_wrap, 1001)
{
	struct shmi_run run;

	paint(t, "X");
	put(t, 1, 10, true, UINT32_MAX - 1);
	cr_assert_not(pick(t, 2, 5, 10, &run));
	cr_assert(pick(t, 3, 5, 10, &run));
}

/* ---- random walks ---- */

/* The image is compared with the model, every page, list, tree and count, after each step. */
static struct heapwalk walk_on(struct test_image *t, uint32_t steps, uint32_t fill, uint32_t most, bool faults)
{
	struct test_random random = test_random_init("page heap walk");
	struct heapwalk walk;
	const char *wrong = NULL;

	heapwalk_init(&walk, t, &random);
	walk.fill = fill;
	walk.longest = most;
	walk.faults = faults;
	for (uint32_t i = 0; i < steps; i++) {
		wrong = heapwalk_step(&walk);
		cr_assert_null(wrong, "step %u: %s", i, wrong);
		wrong = pagemodel_compare(walk.model, &t->view);
		cr_assert_null(wrong, "after step %u: %s", i, wrong);
		cr_assert_eq(t->wild, 0);
		cr_assert_eq(committed(t), t->fresh);
	}
	heapwalk_drain(&walk);
	wrong = pagemodel_compare(walk.model, &t->view);
	cr_assert_null(wrong, "after the drain: %s", wrong);
	heapwalk_deinit(&walk);
	return walk;
}

/* Two arenas and a short one. */
TEST_ON_IMAGES(pageheap, random_walk, 2 * SHMI_ARENA_PAGES + 1000)
{
	struct heapwalk walk = walk_on(t, 3000, 80, 500, false);

	cr_assert(walk.aligned && walk.picked, "the walk went nowhere");
}

/* A heap that is nearly always full, under a floor that fails. */
TEST_ON_IMAGES(pageheap, random_walk_at_the_limit_with_faults, 9000)
{
	struct heapwalk walk = walk_on(t, 4000, 98, 1500, true);

	cr_assert(walk.refused && walk.mixed && walk.aligned && walk.failed_commits && walk.picked);
}

/* Many short runs. */
TEST_ON_IMAGES(pageheap, random_walk_of_short_runs, 5000)
{
	struct heapwalk walk = walk_on(t, 6000, 90, 40, true);

	cr_assert(walk.aligned && walk.failed_commits && walk.picked);
}
