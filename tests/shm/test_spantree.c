#include "shm/spantree.h"

#include "tests/lib/image.h"
#include "tests/lib/random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

TestSuite(spantree, .timeout = 60);

/* The model: all (length, page) pairs in one sorted array. */
struct item {
	uint32_t pages, page;
};

struct model {
	struct item item[2000];
	uint32_t count;
};

static int compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->pages != y->pages ? (x->pages < y->pages ? -1 : 1) : (x->page > y->page) - (x->page < y->page);
}

static void insert(struct test_image *t, uint32_t *root, struct model *m, uint32_t page, uint32_t pages)
{
	shmi_span_at(&t->img, (shmi_page){page})->pages = pages;
	shmi_spantree_insert(&t->img, root, (shmi_page){page});
	m->item[m->count++] = (struct item){pages, page};
	qsort(m->item, m->count, sizeof(*m->item), compare);
}

static void take_out(struct test_image *t, uint32_t *root, struct model *m, uint32_t index)
{
	shmi_spantree_remove(&t->img, root, (shmi_page){m->item[index].page});
	cr_assert_eq(shmi_span_at(&t->view, (shmi_page){m->item[index].page})->parent, 0);
	m->item[index] = m->item[--m->count];
	qsort(m->item, m->count, sizeof(*m->item), compare);
}

/* Both walks and every answer of best, against the array. */
static void expect_same(const struct test_image *t, uint32_t root, const struct model *m)
{
	shmi_page at = shmi_spantree_best(&t->view, root, (shmi_npages){0});

	for (uint32_t i = 0; i < m->count; i++, at = shmi_spantree_next(&t->view, at))
		cr_assert_eq(at.i, m->item[i].page, "forwards, at %u: %u instead of %u", i, at.i, m->item[i].page);
	cr_assert_eq(at.i, 0);
	at = shmi_spantree_last(&t->view, root);
	for (uint32_t i = m->count; i-- > 0; at = shmi_spantree_prev(&t->view, at))
		cr_assert_eq(at.i, m->item[i].page, "backwards, at %u: %u instead of %u", i, at.i, m->item[i].page);
	cr_assert_eq(at.i, 0);
}

static void expect_best(const struct test_image *t, uint32_t root, const struct model *m, uint32_t pages)
{
	uint32_t want = 0;

	for (uint32_t i = 0; i < m->count && !want; i++)
		if (m->item[i].pages >= pages)
			want = m->item[i].page;
	cr_assert_eq(shmi_spantree_best(&t->view, root, (shmi_npages){pages}).i, want, "best of %u", pages);
}

TEST_ON_IMAGES(spantree, against_a_sorted_array, 4096)
{
	struct test_random random = test_random_init("span tree");
	static struct model m;
	uint32_t root = 0;

	m.count = 0;
	expect_same(t, root, &m);
	expect_best(t, root, &m, 1);
	for (uint32_t step = 0; step < 6000; step++) {
		uint32_t page = 1 + test_random_below(&random, 4095), index = 0;

		while (index < m.count && m.item[index].page != page)
			index++;
		if (index < m.count)
			take_out(t, &root, &m, index);
		else if (m.count < 600)
			insert(t, &root, &m, page,
			        129 + test_random_below(&random, test_random_one_in(&random, 2) ? 8 : 5000));
		expect_best(t, root, &m, 120 + test_random_below(&random, 30));
		expect_best(t, root, &m, test_random_below(&random, 5500));
		if (step % 16 == 0)
			expect_same(t, root, &m);
	}
	while (m.count)
		take_out(t, &root, &m, m.count / 2);
	cr_assert_eq(root, 0);
}

static uint32_t depth(const struct test_image *t, uint32_t node)
{
	uint32_t up = 0;

	for (; node; node = shmi_span_at(&t->view, (shmi_page){node})->parent)
		up++;
	return up;
}

/* In order of address, which a list would be made of by a plain search tree. The bound is far above what is usual, about 30. */
TEST_ON_IMAGES(spantree, stays_shallow, 16384)
{
	uint32_t root = 0, deepest = 0;

	for (uint32_t page = 1; page < 16384; page++) {
		shmi_span_at(&t->img, (shmi_page){page})->pages = 200 + page / 5000;
		shmi_spantree_insert(&t->img, &root, (shmi_page){page});
	}
	for (uint32_t page = 1; page < 16384; page++)
		deepest = depth(t, page) > deepest ? depth(t, page) : deepest;
	cr_assert_lt(deepest, 50, "%u deep", deepest);
	for (uint32_t page = 1; page < 16384; page += 2)
		shmi_spantree_remove(&t->img, &root, (shmi_page){page});
	deepest = 0;
	for (uint32_t page = 2; page < 16384; page += 2)
		deepest = depth(t, page) > deepest ? depth(t, page) : deepest;
	cr_assert_lt(deepest, 50, "%u deep after removals", deepest);
}

/* The shape follows from the set, not from the order in which it came. */
TEST_ON_IMAGES(spantree, shape_follows_from_the_set, 512)
{
	uint32_t up = 0, down = 0, parents[512];

	for (uint32_t page = 1; page < 512; page++) {
		shmi_span_at(&t->img, (shmi_page){page})->pages = 130 + page % 7;
		shmi_spantree_insert(&t->img, &up, (shmi_page){page});
	}
	for (uint32_t page = 1; page < 512; page++)
		parents[page] = shmi_span_at(&t->view, (shmi_page){page})->parent;
	for (uint32_t page = 511; page > 0; page--)
		shmi_spantree_insert(&t->img, &down, (shmi_page){page});
	for (uint32_t page = 3; page < 512; page += 3)
		shmi_spantree_remove(&t->img, &down, (shmi_page){page});
	for (uint32_t page = 3; page < 512; page += 3)
		shmi_spantree_insert(&t->img, &down, (shmi_page){page});
	cr_assert_eq(down, up);
	for (uint32_t page = 1; page < 512; page++)
		cr_assert_eq(shmi_span_at(&t->view, (shmi_page){page})->parent, parents[page]);
}
