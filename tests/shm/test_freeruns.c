#include "shm/freeruns.h"

#include "tests/lib/image.h"

#include <criterion/criterion.h>

TestSuite(freeruns, .timeout = 60);

/* Around the borders of the bitmap's words and of the tree, in no order. */
static const uint32_t lengths[] = {129, 64, 1, 128, 65, 2, 63, 127, 200, 66, 500};
static const uint32_t sorted[] = {1, 2, 63, 64, 65, 66, 127, 128, 129, 200, 500};
#define RUNS (sizeof(lengths) / sizeof(*lengths))

/* One run of each length, at pages 1, 1001, 2001...; two of each up to 200 if `twice`. */
static void insert_all(struct test_image *t, enum shmi_kind kind, bool twice)
{
	struct shmi_run all, run;

	cr_assert_eq(
	        shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){t->limit - 1}, (shmi_npages){1}, true, 0, &all),
	        0);
	for (uint32_t i = 0; i < RUNS; i++) {
		run = all;
		all = shmi_pageheap_cut(&t->img, &run, (shmi_npages){1000});
		struct shmi_run second = shmi_pageheap_cut(&t->img, &run, (shmi_npages){lengths[i]});

		shmi_freeruns_insert(&t->img, run.first, kind, i);
		if (!twice)
			continue;
		run = shmi_pageheap_cut(&t->img, &second, (shmi_npages){5});
		shmi_pageheap_cut(&t->img, &run, (shmi_npages){lengths[i] < 400 ? lengths[i] : 129});
		shmi_freeruns_insert(&t->img, run.first, kind, i);
	}
}

static uint32_t length(const struct test_image *t, shmi_page run)
{
	return run.i ? shmi_span_at(&t->view, run)->pages : 0;
}

static void both_ways(struct test_image *t, enum shmi_kind kind)
{
	enum shmi_kind other = kind == SHMI_BACKED ? SHMI_RETURNED : SHMI_BACKED;

	insert_all(t, kind, false);
	shmi_page up = shmi_freeruns_first(&t->view, kind, 1), down = shmi_freeruns_last(&t->view, kind);

	for (uint32_t i = 0; i < RUNS; i++) {
		cr_assert_eq(length(t, up), sorted[i], "upwards, at %u: %u", i, length(t, up));
		cr_assert_eq(length(t, down), sorted[RUNS - 1 - i], "downwards, at %u: %u", i, length(t, down));
		up = shmi_freeruns_next(&t->view, kind, up);
		down = shmi_freeruns_prev(&t->view, kind, down);
	}
	cr_assert_eq(up.i, 0);
	cr_assert_eq(down.i, 0);
	cr_assert_eq(shmi_freeruns_first(&t->view, other, 1).i, 0);
	cr_assert_eq(shmi_freeruns_last(&t->view, other).i, 0);
}

TEST_ON_IMAGES(freeruns, in_order_both_ways, 12001)
{
	both_ways(t, SHMI_BACKED);
}

TEST_ON_IMAGES(freeruns, in_order_both_ways_returned, 12001)
{
	both_ways(t, SHMI_RETURNED);
}

TEST_ON_IMAGES(freeruns, first_of_every_length, 12001)
{
	insert_all(t, SHMI_BACKED, false);
	for (uint32_t pages = 1, i = 0; pages <= 600; pages++) {
		while (i < RUNS && sorted[i] < pages)
			i++;
		cr_assert_eq(length(t, shmi_freeruns_first(&t->view, SHMI_BACKED, pages)), i < RUNS ? sorted[i] : 0);
	}
}

/* Runs of one length are all met; taking them out one by one empties every list, tree and bit. */
TEST_ON_IMAGES(freeruns, equals_and_removal, 12001)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(&t->view);
	uint32_t seen = 0, before = 0;

	insert_all(t, SHMI_BACKED, true);
	for (shmi_page at = shmi_freeruns_first(&t->view, SHMI_BACKED, 1); at.i;
	        at = shmi_freeruns_next(&t->view, SHMI_BACKED, at), seen++) {
		cr_assert_leq(before, length(t, at));
		before = length(t, at);
	}
	cr_assert_eq(seen, 2 * RUNS);
	cr_assert_eq(heads->tree_count[SHMI_BACKED], 6);
	for (shmi_page at; (at = shmi_freeruns_last(&t->img, SHMI_BACKED)).i; seen--) {
		shmi_freeruns_remove(&t->img, at);
		cr_assert_eq(shmi_span_word(&t->view, at).state, SHMI_SPAN_MOVING);
	}
	cr_assert_eq(seen, 0);
	cr_assert_eq(heads->tree_count[SHMI_BACKED], 0);
	cr_assert_eq(heads->nonempty[SHMI_BACKED][0] | heads->nonempty[SHMI_BACKED][1], 0);
	cr_assert_eq(shmi_load(&t->view.super->pages.free), 0);
}
