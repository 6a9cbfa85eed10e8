/* Spans of blocks: granting, giving back, reporting, and what a hostile client may claim. */
#include "daemon/refill.h"

#include <criterion/criterion.h>
#include <string.h>

#include "daemon/policy.h"
#include "shm/slots.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

#define SHARED64 (4 * SHMI_ATTRS)
#define SCOPED64 (4 * SHMI_ATTRS + SHMI_SCOPED)

static struct shmi_word word(struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static void take(struct test_core *t, uint32_t page, uint64_t bits)
{
	shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0, bits);
}

static void put(struct test_core *t, uint32_t page, uint64_t bits)
{
	shmi_slots_put(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0, bits);
}

static void give_back(struct test_core *t, uint32_t page)
{
	struct wire_refill *refill = &t->req.u.refill;

	if (t->req.kind != WIRE_REFILL)
		t->req = (struct wire_msg){.kind = WIRE_REFILL};
	refill->returns[refill->n_returns++] = (struct wire_span){page, word(t, page).generation};
}

Test(refill, spans_are_whole_and_backed)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	const struct shmi_class *class = &t->heap.img.classes[4];

	cr_assert_eq(test_core_refill(t, d, SHARED64, 7), 7);
	for (int i = 0; i < 7; i++) {
		struct wire_grant g = t->reply.u.refill_ok.grants[i];

		cr_assert_eq(word(t, g.page).state, SHMI_SPAN_OWNED);
		cr_assert_eq(word(t, g.page).owner, test_core_client(d));
		cr_assert_eq(word(t, g.page).generation, g.generation);
		cr_assert_eq(g.sclass, SHARED64);
		cr_assert_eq(shmi_slots_count(shmi_bitmap_at(&t->heap.img, (shmi_page){g.page}), class), class->slots);
	}
	cr_assert(t->reply.u.refill_ok.grants[0].fresh, "just backed");
	cr_assert_not(t->reply.u.refill_ok.grants[1].fresh, "nobody knows any more");
	test_core_check(t);
	test_core_free(t);
}

Test(refill, one_message_several_classes)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_wants = 3;
	t->req.u.refill.wants[0] = (struct wire_want){SHARED64, 2};
	t->req.u.refill.wants[1] = (struct wire_want){(SHMI_CLASS_LARGE - 1) * SHMI_ATTRS, 3};
	t->req.u.refill.wants[2] = (struct wire_want){SCOPED64, 1};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.n_grants, 6);
	cr_assert_eq(t->reply.u.refill_ok.grants[5].sclass, SCOPED64);
	test_core_check(t);
	test_core_free(t);
}

Test(refill, replies_are_bounded)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SHARED64, WIRE_SPANS), POLICY_REPLY_SPANS);
	cr_assert_eq(test_core_refill(t, d, (SHMI_CLASS_LARGE - 1) * SHMI_ATTRS, WIRE_SPANS), POLICY_REPLY_PAGES / 32);
	test_core_check(t);
	test_core_free(t);
}

Test(refill, central_spans_come_first)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, a, SHARED64, 2), 2);
	uint32_t part = t->reply.u.refill_ok.grants[0].page, empty = t->reply.u.refill_ok.grants[1].page;

	take(t, part, 0xff);
	t->req.kind = WIRE_NONE;
	give_back(t, part);
	give_back(t, empty);
	cr_assert_eq(test_core_ask(t, a), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.n_grants, 0, "nothing was wanted");
	cr_assert_eq(word(t, part).state, SHMI_SPAN_CENTRAL);
	cr_assert_eq(word(t, empty).state & ~1u, SHMI_SPAN_NONE, "its pages are free");
	cr_assert_eq(test_core_refill(t, b, SHARED64, 1), 1);
	cr_assert_eq(t->reply.u.refill_ok.grants[0].page, part);
	cr_assert_eq(word(t, part).owner, test_core_client(b));
	test_core_check(t);
	test_core_free(t);
}

/* A full span that nobody holds is looked at again before the heap grows, and when somebody reports it. */
Test(refill, full_spans_are_found_again)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 2), 2);
	uint32_t quiet = t->reply.u.refill_ok.grants[0].page, told = t->reply.u.refill_ok.grants[1].page;

	t->req.kind = WIRE_NONE;
	for (uint32_t w = 0; w < t->heap.img.classes[4].words; w++) {
		shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){quiet}), w, ~0ull);
		shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){told}), w, ~0ull);
	}
	give_back(t, quiet);
	give_back(t, told);
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(shmi_central_at(&t->heap.img, (shmi_sclass){SHARED64})->full.count, 2);
	put(t, told, 1);
	t->req = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_reports = 1, .reports = {told}}};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(shmi_central_at(&t->heap.img, (shmi_sclass){SHARED64})->free.count, 1);
	put(t, quiet, 2);
	cr_assert_eq(test_core_refill(t, d, SHARED64, 2), 2);
	cr_assert_eq(t->reply.u.refill_ok.grants[0].page, told);
	cr_assert_eq(t->reply.u.refill_ok.grants[1].page, quiet, "swept before fresh pages are taken");
	test_core_check(t);
	test_core_free(t);
}

Test(refill, nonsense_is_refused)
{
	static const uint32_t classes[] = {0, 1, 2, 3, SHMI_CLASS_LARGE * SHMI_ATTRS, SHMI_SPAN_CLASSES - 1};
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
		cr_assert_eq(test_core_refill(t, d, classes[i], 1), 0);
		cr_assert_eq(t->reply.u.error.code, WIRE_E_INVALID);
	}
	cr_assert_eq(test_core_refill(t, other, SHARED64, 1), 1);
	uint32_t theirs = t->reply.u.refill_ok.grants[0].page, large = test_core_large(t, d, 4, 0, false);
	const struct wire_span bad[] = {
	        {0, 0},
	        {theirs, word(t, theirs).generation},
	        {large, word(t, large).generation},
	        {theirs + 4000, 1},
	        {8192, 1},
	        {UINT32_MAX, UINT32_MAX},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(test_core_refill(t, d, SHARED64, 1), 1);
		uint32_t own = t->reply.u.refill_ok.grants[0].page;

		t->req.kind = WIRE_NONE;
		give_back(t, own);
		t->req.u.refill.returns[t->req.u.refill.n_returns++] = bad[i];
		cr_assert_eq(test_core_fails(t, d), WIRE_E_INVALID, "%zu", i);
		cr_assert_eq(word(t, own).state, SHMI_SPAN_OWNED, "nothing is taken from such a message");
	}
	/* an old generation, and a span named twice */
	cr_assert_eq(test_core_refill(t, d, SHARED64, 1), 1);
	struct wire_grant g = t->reply.u.refill_ok.grants[0];

	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_returns = 1;
	t->req.u.refill.returns[0] = (struct wire_span){g.page, g.generation - 1};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_INVALID);
	t->req.u.refill.n_returns = 2;
	t->req.u.refill.returns[0] = t->req.u.refill.returns[1] = (struct wire_span){g.page, g.generation};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_INVALID);
	/* reports of anything at all are ignored */
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_reports = 5;
	t->req.u.refill.reports[1] = UINT32_MAX;
	t->req.u.refill.reports[2] = 8192;
	t->req.u.refill.reports[3] = large;
	t->req.u.refill.reports[4] = theirs;
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(word(t, theirs).owner, test_core_client(other));
	test_core_check(t);
	test_core_free(t);
}

/* The blocks of a scoped span end with the client that took them, and with no other. */
Test(refill, scoped_spans_with_blocks_stay)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SCOPED64, 2), 2);
	uint32_t used = t->reply.u.refill_ok.grants[0].page, empty = t->reply.u.refill_ok.grants[1].page;

	take(t, used, 1);
	t->req.kind = WIRE_NONE;
	give_back(t, used);
	give_back(t, empty);
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(word(t, used).owner, test_core_client(d));
	cr_assert_neq(word(t, empty).state, SHMI_SPAN_OWNED);
	test_core_check(t);
	test_core_free(t);
}

Test(refill, full_heap)
{
	struct test_core *t = test_core_new(300);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t got = 0, n;

	while ((n = test_core_refill(t, d, SHARED64, 50)) != 0)
		got += n;
	cr_assert_eq(got, 299, "every page but page 0");
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.no_memory), 1);
	test_core_check(t);
	test_core_free(t);
}

Test(refill, full_system)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 40), 40);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;

	t->fail_in = 0;
	uint32_t more = test_core_refill(t, d, SHARED64, 40);

	cr_assert_lt(more, 40, "what was backed already, and no more");
	cr_assert_eq(test_core_refill(t, d, SHARED64, 40), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
	t->req.kind = WIRE_NONE;
	give_back(t, page);
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(test_core_refill(t, d, SHARED64, 1), 1, "usable again after a free");
	t->fail_in = TEST_CORE_NEVER;
	cr_assert_eq(test_core_refill(t, d, SHARED64, 40), 40);
	test_core_check(t);
	test_core_free(t);
}

/* Memory has run out while whole spans lie empty among those that nobody holds: they are found. */
Test(refill, empty_central_spans_are_found_when_memory_runs_out)
{
	struct test_core *t = test_core_new(200);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);
	uint32_t pages[64];

	cr_assert_eq(test_core_refill(t, a, SHARED64, 64), 64);
	for (int i = 0; i < 64; i++)
		pages[i] = t->reply.u.refill_ok.grants[i].page;
	while (test_core_refill(t, b, SHARED64, 64) != 0)
		;
	t->req.kind = WIRE_NONE;
	for (int i = 0; i < 64; i++) {
		for (uint32_t w = 0; w < t->heap.img.classes[4].words; w++)
			shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){pages[i]}), w, ~0ull);
		give_back(t, pages[i]);
	}
	cr_assert_eq(test_core_ask(t, a), WIRE_REFILL_OK);
	for (int i = 0; i < 64; i++)
		shmi_slots_fill(shmi_bitmap_at(&t->heap.img, (shmi_page){pages[i]}), &t->heap.img.classes[4]);
	cr_assert_eq(test_core_refill(t, b, 9 * SHMI_ATTRS, 10), 10, "of another class");
	test_core_check(t);
	test_core_free(t);
}

/* Several clients at random, with limits and failures; after each step the books agree with the heap. */
Test(refill, random_walk)
{
	struct test_random random = test_random_init("refill");
	struct test_core *t = test_core_new(2000);
	struct dialogue *d[4];

	t->core.limits.client.hard = 700;
	for (int i = 0; i < 4; i++)
		d[i] = test_core_attach(t, 1000 + (uint32_t)i / 2);
	for (int step = 0; step < 3000; step++) {
		struct dialogue *who = d[test_random_below(&random, 4)];
		uint32_t own = shmi_owner_at(&t->heap.img, test_core_client(who))->spans.head;

		t->fail_in = test_random_one_in(&random, 10) ? 0 : TEST_CORE_NEVER;
		t->req = (struct wire_msg){.kind = WIRE_REFILL};
		for (uint32_t n = test_random_below(&random, 12); n && own; n--) {
			if (word(t, own).state == SHMI_SPAN_OWNED)
				give_back(t, own);
			own = shmi_span_at(&t->heap.img, (shmi_page){own})->next;
		}
		for (uint32_t n = test_random_below(&random, 3); n; n--) {
			uint32_t sclass = SHMI_ATTRS + test_random_below(&random, (SHMI_CLASS_LARGE - 1) * SHMI_ATTRS);

			t->req.u.refill.wants[t->req.u.refill.n_wants++] =
			        (struct wire_want){sclass, 1 + test_random_below(&random, 9)};
		}
		enum wire_kind kind = test_core_ask(t, who);

		cr_assert(kind == WIRE_REFILL_OK || t->reply.u.error.code == WIRE_E_NO_MEMORY ||
		          t->reply.u.error.code == WIRE_E_LIMIT);
		for (uint32_t i = 0; kind == WIRE_REFILL_OK && i < t->reply.u.refill_ok.n_grants; i++)
			if (test_random_one_in(&random, 3))
				take(t, t->reply.u.refill_ok.grants[i].page, 1);
		const struct client *client = who->caller.client;

		cr_assert_eq(
		        client->account.used, shmi_owner_at(&t->heap.img, client->id)->pages + client->record_pages);
		cr_assert_leq(client->account.used, 700);
		if (step % 100 == 0)
			test_core_check(t);
	}
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}
