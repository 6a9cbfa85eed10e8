/* What one user has written no other user reads: a model of the bytes beside the daemon's core. */
#include "daemon/passing.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "daemon/policy.h"
#include "daemon/scavenger.h"
#include "shm/slots.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

#define LIMIT 8192u
#define SHARED64 (4 * SHMI_ATTRS)
#define USERS 3u

/* By page: 0, or whose bytes are there; a client writes all that it gets. */
static uint32_t content[LIMIT];
static int (*real_unback)(void *ctx, enum heap_object object, uint64_t off, uint64_t len);

static int forgetful_unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	if (object == HEAP_DATA)
		memset(content + (off >> SHMI_PAGE_SHIFT), 0, (len >> SHMI_PAGE_SHIFT) * sizeof(content[0]));
	return real_unback(ctx, object, off, len);
}

static struct test_core *new_core(void)
{
	struct test_core *t = test_core_new(LIMIT);

	memset(content, 0, sizeof(content));
	real_unback = t->heap.floor.unback;
	t->heap.floor.unback = forgetful_unback;
	return t;
}

/* How many of the pages have another's bytes; all of them are `uid`'s then. */
static uint32_t foreign_in(const struct test_core *t, uint32_t page, uint32_t uid)
{
	uint32_t n = 0, pages = shmi_span_at(&t->heap.img, (shmi_page){page})->pages;

	for (uint32_t i = page; i < page + pages; i++) {
		n += content[i] && content[i] != uid;
		content[i] = uid;
	}
	return n;
}

static struct shmi_word word(const struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static void give_back(struct test_core *t, struct dialogue *d, uint32_t page)
{
	t->req = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_returns = 1}};
	t->req.u.refill.returns[0] = (struct wire_span){page, word(t, page).generation};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
}

static void free_large(struct test_core *t, struct dialogue *d, uint32_t page)
{
	t->req = (struct wire_msg){
	        .kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {{page, word(t, page).generation}}}};
	cr_assert_eq(test_core_ask(t, d), WIRE_OK);
}

static uint32_t refill(struct test_core *t, struct dialogue *d)
{
	return test_core_refill(t, d, SHARED64, 1) ? t->reply.u.refill_ok.grants[0].page : 0;
}

static void take_one(struct test_core *t, uint32_t page)
{
	shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0, 1);
}

Test(passing, pages_of_the_same_user_are_not_dropped)
{
	struct test_core *t = new_core();
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);

	for (int i = 0; i < 20; i++) {
		uint32_t small = refill(t, i % 2 ? a : b), large = test_core_large(t, i % 2 ? b : a, 40, 0, false);

		give_back(t, i % 2 ? a : b, small);
		free_large(t, a, large);
	}
	cr_assert_eq(t->dropped, 0);
	test_core_check(t);
	test_core_free(t);
}

Test(passing, pages_of_another_are_dropped_and_backed_again)
{
	struct test_core *t = new_core();
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page = refill(t, a);

	give_back(t, a, page);
	cr_assert_eq(refill(t, b), page, "the same pages, or this says nothing");
	cr_assert(t->reply.u.refill_ok.grants[0].fresh);
	cr_assert_eq(t->dropped, shmi_span_at(&t->heap.img, (shmi_page){page})->pages);
	test_core_check(t);
	test_core_free(t);
}

Test(passing, a_large_block_in_steps)
{
	struct test_core *t = new_core();
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page = test_core_large(t, a, 2000, 0, false);

	(void)foreign_in(t, page, 1000);
	free_large(t, a, page);
	t->longest = 0;
	cr_assert_eq(test_core_large(t, b, 2000, 0, false), page);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(foreign_in(t, page, 1001), 0);
	cr_assert_leq(t->longest, POLICY_TURN_PAGES);
	test_core_check(t);
	free_large(t, b, page);
	cr_assert_eq(test_core_large(t, a, 8000, 0, true), page, "a lazy one, with pages that nobody has had");
	cr_assert_eq(foreign_in(t, page, 1000), 0);
	cr_assert(shmi_span_at(&t->heap.img, (shmi_page){page})->flags & SHMI_SPAN_LAZY);
	test_core_check(t);
	test_core_free(t);
}

Test(passing, what_cannot_be_backed_again_is_not_handed_out)
{
	struct test_core *t = new_core();
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page = test_core_large(t, a, 100, 0, false);

	free_large(t, a, page);
	for (uint32_t uid = 0; uid < 2; uid++) { /* no span of blocks, no large block */
		t->fail_in = 0;
		if (uid)
			cr_assert_eq(test_core_large(t, b, 100, 0, false), 0);
		else
			cr_assert_eq(refill(t, b), 0);
		cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
		t->fail_in = TEST_CORE_NEVER;
		test_core_run(t);
		test_core_check(t);
	}
	cr_assert_neq(test_core_large(t, b, 100, 0, false), 0);
	test_core_free(t);
}

/* Blocks of user 1000 that are in use pin a span that nobody holds. */
static uint32_t left_in_use(struct test_core *t, uint32_t uid)
{
	struct dialogue *d = test_core_attach(t, uid);
	uint32_t page = refill(t, d);

	take_one(t, page);
	(void)foreign_in(t, page, uid);
	test_core_kill(t, d);
	test_core_run(t);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_CENTRAL);
	return page;
}

Test(passing, a_span_with_blocks_in_use_goes_to_its_user)
{
	struct test_core *t = new_core();
	uint32_t first = left_in_use(t, 1000), second = left_in_use(t, 1001);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001), *c = test_core_attach(t, 1002);
	uint32_t fresh = refill(t, c);

	cr_assert(fresh != first && fresh != second);
	cr_assert_eq(refill(t, b), second);
	cr_assert_eq(refill(t, a), first);
	test_core_check(t);
	test_core_free(t);
}

Test(passing, to_others_only_when_nothing_is_left)
{
	struct test_core *t = new_core();
	uint32_t page = left_in_use(t, 1000);
	struct dialogue *b = test_core_attach(t, 1001), *a = test_core_attach(t, 1000);
	uint32_t n = 0, last = 0;

	for (uint32_t got; (got = refill(t, b)) != 0; last = got)
		n++;
	cr_assert_gt(n, LIMIT / 2);
	cr_assert_eq(last, page);
	take_one(t, page);
	give_back(t, b, page); /* it is of several users now, so it is for nobody before the others */
	cr_assert_eq(shmi_span_at(&t->heap.img, (shmi_page){page})->last_user, SHMI_SEVERAL_USERS);
	cr_assert_eq(refill(t, a), page);
	test_core_check(t);
	test_core_free(t);
}

/* Also after the daemon was killed: whose span it is stands in its record. */
Test(passing, remembered_by_the_next_daemon)
{
	struct test_core *t = new_core();
	uint32_t first = left_in_use(t, 1000), second = left_in_use(t, 1001);

	test_core_restart(t);
	test_core_run(t);
	cr_assert_eq(refill(t, test_core_attach(t, 1001)), second);
	cr_assert_eq(refill(t, test_core_attach(t, 1000)), first);
	test_core_check(t);
	test_core_free(t);
}

/* What an earlier daemon's clients left, backed again in a granule with what is asked for, and passed over by what drops it. */
Test(passing, stale_pages_that_were_backed_with_others)
{
	struct test_core *t = new_core();
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, a, 300, 0, false), got;

	(void)foreign_in(t, page, 1000);
	free_large(t, a, page);
	test_core_restart(t);
	struct dialogue *b = test_core_attach(t, 1001);

	got = refill(t, b); /* backs more than that */
	cr_assert_eq(foreign_in(t, got, 1001), 0);
	scavenger_drop_stale(&t->core);
	test_core_run(t);
	for (int i = 0; i < 200; i++)
		cr_assert_eq(foreign_in(t, refill(t, b), 1001), 0);
	test_core_check(t);
	test_core_free(t);
}

struct walk {
	struct test_core *t;
	struct test_random random;
	struct dialogue *d[2 * USERS];
	uint32_t held[2 * USERS][32], n[2 * USERS];
};

static void attach(struct walk *w, uint32_t i)
{
	w->d[i] = test_core_attach(w->t, 1000 + i % USERS);
	w->n[i] = 0;
}

static void get(struct walk *w, uint32_t i)
{
	uint32_t kind = test_random_below(&w->random, 3), page;

	if (w->n[i] == 32)
		return;
	if (kind == 0)
		page = test_core_large(
		        w->t, w->d[i], test_random_length(&w->random, 300), 0, test_random_one_in(&w->random, 3));
	else if (test_core_refill(w->t, w->d[i], SHMI_ATTRS * (4 + 20 * (kind - 1)), 1))
		page = w->t->reply.u.refill_ok.grants[0].page;
	else
		page = 0;
	cr_assert_neq(page, 0, "%s", w->t->reply.u.error.text);
	cr_assert_eq(foreign_in(w->t, page, 1000 + i % USERS), 0, "page %u", page);
	if (kind && test_random_one_in(&w->random, 2))
		take_one(w->t, page);
	w->held[i][w->n[i]++] = page;
}

static void put(struct walk *w, uint32_t i)
{
	uint32_t at = test_random_below(&w->random, w->n[i] + 1), page = w->held[i][at];

	if (at == w->n[i])
		return;
	if (word(w->t, page).state == SHMI_SPAN_LARGE)
		free_large(w->t, w->d[i], page);
	else
		give_back(w->t, w->d[i], page);
	w->held[i][at] = w->held[i][--w->n[i]];
}

static void end(struct walk *w, uint32_t i)
{
	test_core_kill(w->t, w->d[i]);
	test_core_hang_up(w->t, w->d[i]);
	test_core_run(w->t);
	attach(w, i);
}

/* What the dead and those before them left in use is freed by somebody. */
static void free_the_left(struct walk *w)
{
	for (uint32_t page = 1; page < shmi_image_published(&w->t->heap.img); page++) {
		struct shmi_word is = word(w->t, page);

		if (is.state == SHMI_SPAN_CENTRAL) {
			(void)shmi_slots_put(shmi_bitmap_at(&w->t->heap.img, (shmi_page){page}), 0, 1);
		} else if (is.state == SHMI_SPAN_LARGE && is.owner == SHMI_NOBODY) {
			free_large(w->t, w->d[0], page);
		}
	}
	scavenger_look(&w->t->core);
	test_core_run(w->t);
}

static void restart(struct walk *w)
{
	for (uint32_t i = 0; i < 2 * USERS; i++) {
		test_core_kill(w->t, w->d[i]);
		test_core_hang_up(w->t, w->d[i]);
	}
	if (test_random_one_in(&w->random, 2))
		test_core_run(w->t);
	test_core_restart(w->t);
	if (test_random_one_in(&w->random, 2))
		scavenger_drop_stale(&w->t->core);
	for (uint32_t i = 0; i < 2 * USERS; i++)
		attach(w, i);
}

Test(passing, at_random)
{
	struct walk *w = calloc(1, sizeof(*w));

	cr_assert(w != NULL);
	w->t = new_core();
	w->random = test_random_init("passing");
	for (uint32_t i = 0; i < 2 * USERS; i++)
		attach(w, i);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i = test_random_below(&w->random, 2 * USERS), what = test_random_below(&w->random, 100);

		if (what < 50)
			get(w, i);
		else if (what < 90)
			put(w, i);
		else if (what < 94)
			end(w, i);
		else if (what < 97)
			free_the_left(w);
		else if (what < 99)
			(void)heap_release(&w->t->heap, 0, 1 + test_random_below(&w->random, 100));
		else
			restart(w);
		if (step % 500 == 0)
			test_core_check(w->t);
	}
	test_core_free(w->t);
	free(w);
}
