#include "tests/lib/heapwalk.h"

#include <criterion/criterion.h>
#include <stdio.h>

TestSuite(pageheap, .timeout = 60);

/* Two arenas and a short one. */
#define WALK_PAGES (2 * SHMI_ARENA_PAGES + 1000)

static void walk_on(struct test_image *t, uint32_t steps, uint32_t fill, uint32_t longest, bool faults)
{
	struct test_random random = test_random_init("page heap walk");
	struct heapwalk walk;

	heapwalk_init(&walk, t, &random);
	walk.fill = fill;
	walk.longest = longest;
	walk.faults = faults;
	for (uint32_t i = 0; i < steps; i++) {
		const char *wrong = heapwalk_step(&walk);

		cr_assert_null(wrong, "step %u: %s", i, wrong);
		wrong = pagemodel_compare(walk.model, &t->view);
		cr_assert_null(wrong, "after step %u: %s", i, wrong);
		cr_assert_eq(t->wild, 0);
		cr_assert_eq(shmi_load(&t->view.super->counters.committed_pages), t->fresh);
	}
	fprintf(stderr, "refused %u mixed %u aligned %u failed %u %u picked %u count %u\n", walk.refused, walk.mixed,
	        walk.aligned, walk.failed_commits, walk.failed_publishes, walk.picked, walk.count);
	heapwalk_drain(&walk);
	const char *wrong = pagemodel_compare(walk.model, &t->view);

	cr_assert_null(wrong, "after the drain: %s", wrong);
	heapwalk_deinit(&walk);
}

TEST_ON_IMAGES(pageheap, random_walk, WALK_PAGES)
{
	walk_on(t, 3000, 80, 500, false);
}

TEST_ON_IMAGES(pageheap, random_walk_full_with_faults, 9000)
{
	walk_on(t, 4000, 98, 1500, true);
}
