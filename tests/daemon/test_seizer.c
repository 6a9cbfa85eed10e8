/* Wholly free spans are taken from clients that sleep, and given to nobody until they have heard of it. */
#include <criterion/criterion.h>

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "daemon/seizer.h"
#include "shm/check.h"
#include "shm/seize.h"
#include "shm/slots.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

TestSuite(seizer, .timeout = 120);

#define PAGES 4096u
#define SHARED(class) ((class) * SHMI_ATTRS)
#define SCOPED(class) ((class) * SHMI_ATTRS + SHMI_SCOPED)
#define C64 SHARED(4u)
#define ALL UINT64_MAX

static struct shmi_word word(struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static shmi_a64 *bitmap(struct test_core *t, uint32_t page)
{
	return shmi_bitmap_at(&t->heap.img, (shmi_page){page});
}

static struct shmi_owner *owner(struct test_core *t, const struct dialogue *d)
{
	return shmi_owner_at(&t->heap.img, test_core_client(d));
}

/* `spans` spans, all free; the page of the last. */
static uint32_t hold(struct test_core *t, struct dialogue *d, uint32_t sclass, uint32_t spans)
{
	cr_assert_eq(test_core_refill(t, d, sclass, spans), spans);
	return t->reply.u.refill_ok.grants[spans - 1].page;
}

static void sleep_all(struct test_core *t)
{
	core_tick(&t->core, t->core.now_ms + POLICY_SLEEP_MS + 1);
}

static uint64_t counted(struct test_core *t)
{
	return shmi_load(&t->heap.img.super->counters.seized_pages);
}

static enum wire_kind give_back(struct test_core *t, struct dialogue *d, struct wire_span span)
{
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_returns = 1;
	t->req.u.refill.returns[0] = span;
	return test_core_ask(t, d);
}

Test(seizer, from_a_client_that_sleeps)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = hold(t, a, C64, 3), used = hold(t, a, C64, 1), generation = word(t, page).generation;

	shmi_slots_take(bitmap(t, used), 1, 4);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(counted(t), 0, "it does not sleep");
	sleep_all(t);
	uint32_t seizures = shmi_load(&owner(t, a)->seizures);
	uint64_t charged = t->core.client[test_core_client(a)].account.used;

	seizer_start(&t->core, ALL);
	cr_assert(seizer_is_running(&t->core));
	test_core_run(t);
	cr_assert_not(seizer_is_running(&t->core));
	cr_assert_eq(counted(t), 3);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_SEIZED);
	cr_assert_eq(word(t, used).state, SHMI_SPAN_OWNED);
	cr_assert_not(t->backed[page], "the memory is gone");
	cr_assert(t->backed[used]);
	cr_assert_eq(t->core.client[test_core_client(a)].account.used, charged - 3, "nor is it charged");
	cr_assert_neq(shmi_load(&owner(t, a)->seizures), seizures);
	test_core_check(t);

	/* What it touches by mistake is dropped as well, and then it is anybody's. */
	t->backed[page] = 1;
	cr_assert_eq(give_back(t, a, (struct wire_span){page, generation}), WIRE_REFILL_OK);
	test_core_run(t);
	cr_assert_not(t->backed[page]);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_RETURNED);
	cr_assert_eq(owner(t, a)->seized_pages, 2);
	cr_assert_eq(give_back(t, a, (struct wire_span){page, generation}), WIRE_ERROR, "once");
	test_core_check(t);
	test_core_free(t);
}

Test(seizer, another_client_cannot_give_it_back)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page = hold(t, a, C64, 1);

	sleep_all(t);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(give_back(t, b, (struct wire_span){page, word(t, page).generation}), WIRE_ERROR);
	cr_assert_eq(give_back(t, a, (struct wire_span){page, word(t, page).generation - 1}), WIRE_ERROR);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_SEIZED);
	test_core_check(t);
	test_core_free(t);
}

/* The one that holds most comes first; when there is enough the others are left alone. */
Test(seizer, largest_first)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *few = test_core_attach(t, 1000), *many = test_core_attach(t, 1001);

	hold(t, few, C64, 20);
	hold(t, many, C64, 60);
	sleep_all(t);
	seizer_start(&t->core, 30);
	test_core_run(t);
	cr_assert_eq(owner(t, few)->seized_pages, 0);
	cr_assert_geq(owner(t, many)->seized_pages, 30);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(owner(t, few)->seized_pages, 20);
	cr_assert_eq(owner(t, many)->seized_pages, 60);
	test_core_check(t);
	test_core_free(t);
}

/* A step drops about a turn's pages, and looks at a turn's spans. */
Test(seizer, in_steps)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t held = 0, steps = 0;

	for (uint32_t i = 0; i < 5; i++)
		hold(t, a, C64, 190), held += 190;
	sleep_all(t);
	seizer_start(&t->core, ALL);
	for (uint64_t before = 0; core_turn(&t->core); before = counted(t), steps++)
		cr_assert_leq(counted(t) - before, POLICY_TURN_PAGES + 32);
	cr_assert_geq(steps, held / POLICY_TURN_PAGES);
	cr_assert_eq(counted(t), held);
	test_core_free(t);
}

/* One that wakes in the middle keeps the rest, and may give back what the seizer was about to look at. */
Test(seizer, it_wakes)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);

	for (uint32_t i = 0; i < 4; i++)
		hold(t, a, C64, 190);
	sleep_all(t);
	seizer_start(&t->core, ALL);
	core_turn(&t->core);
	cr_assert(seizer_is_running(&t->core));
	uint64_t before = counted(t);
	uint32_t next = t->core.seizer.cursor;

	cr_assert_neq(next, 0);
	cr_assert_eq(give_back(t, a, (struct wire_span){next, word(t, next).generation}), WIRE_REFILL_OK);
	test_core_run(t);
	cr_assert_eq(counted(t), before);
	cr_assert_not(seizer_is_running(&t->core));
	test_core_check(t);
	test_core_free(t);
}

Test(seizer, one_that_is_named_need_not_sleep)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	hold(t, a, C64, 10);
	hold(t, b, C64, 10);
	seizer_client(&t->core, a->caller.client);
	test_core_run(t);
	cr_assert_eq(owner(t, a)->seized_pages, 10);
	cr_assert_eq(owner(t, b)->seized_pages, 0);
	test_core_free(t);
}

/* ---- deaths ---- */

static void client_dies(uint32_t sclass)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = hold(t, a, sclass, 4);

	sleep_all(t);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_SEIZED);
	test_core_kill(t, a);
	test_core_run(t);
	cr_assert_eq(word(t, page).state == SHMI_SPAN_FREE || shmi_state_in_use(word(t, page).state), false);
	cr_assert_eq(shmi_load(&t->heap.img.super->pages.seized), 0);
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.reclaimed_pages), 0, "there was no memory left of it");
	test_core_check(t);
	test_core_free(t);
}

Test(seizer, its_client_dies)
{
	client_dies(C64);
	client_dies(SCOPED(4));
}

/* A thread that died in the middle of a take had nothing of the span, or the daemon would not have got it. */
Test(seizer, its_client_dies_with_a_take_standing)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = hold(t, a, C64, 1), thread;

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
	cr_assert_eq(test_core_ask(t, a), WIRE_THREAD_OK);
	thread = t->reply.u.thread_ok.thread;
	struct shmi_threadrec *rec = shmi_threadrec_at(&t->heap.img, thread);

	rec->intent.group = (struct shmi_group){
	        .bits = 0xff, .span = page, .generation = word(t, page).generation, .word = 0, .sclass = C64};
	shmi_store(&rec->intent.op, SHMI_INTENT_TAKE);
	sleep_all(t);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_SEIZED);
	test_core_kill(t, a);
	test_core_run(t);
	cr_assert_not(shmi_state_in_use(word(t, page).state));
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.bad_words), 0);
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.slots_written_off), 0);
	test_core_check(t);
	test_core_free(t);
}

/* The next daemon drops the pages again, tells the client again, and takes the span back. */
Test(seizer, the_daemon_dies)
{
	struct test_core *t = test_core_new(PAGES);

	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = hold(t, a, C64, 1), id = test_core_client(a);
	uint32_t seizures = shmi_load(&owner(t, a)->seizures);

	cr_assert(shmi_seize(&t->heap.img, (shmi_page){page}, &t->heap.state->seizing));
	t->backed[page] = 1; /* not dropped yet */
	test_core_restart(t);
	cr_assert_neq(shmi_load(&shmi_owner_at(&t->heap.img, id)->seizures), seizures);
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}

/* ---- hostile ---- */

/* What stands in the bitmap of a seized span is believed by nobody: it can be set and cleared at will. */
Test(seizer, bits_that_a_client_sets)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	uint32_t page = hold(t, a, C64, 1), generation = word(t, page).generation;
	struct shmi_violation found;

	sleep_all(t);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	shmi_store(&bitmap(t, page)[0], 0x5555);
	shmi_store(&bitmap(t, page)[7], ~0ull);
	cr_assert_eq(shmi_check(&t->heap.img, NULL, 1, &found, 1), 1);
	cr_assert_eq(found.invariant, 25);
	seizer_start(&t->core, ALL);
	test_core_run(t);
	cr_assert_eq(counted(t), 1);
	cr_assert_eq(give_back(t, a, (struct wire_span){page, generation}), WIRE_REFILL_OK);
	test_core_run(t);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_RETURNED, "and not set aside");
	test_core_check(t);
	test_core_free(t);
}

/* A bitmap of random words: a span is taken only if all of its slots are free, and else it is as it was. */
Test(seizer, bitmaps_at_random)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);
	struct test_random random = test_random_init("seizer bitmaps");
	uint64_t taken = 0;

	for (uint32_t i = 0; i < 300; i++) {
		uint32_t page = hold(t, a, C64, 1), words = t->heap.img.classes[4].words;
		bool whole = test_random_one_in(&random, 2);
		uint64_t was[8];

		for (uint32_t w = 0; w < words && !whole; w++)
			shmi_store(&bitmap(t, page)[w], test_random_one_in(&random, 3)   ? test_random_next(&random)
			                                : test_random_one_in(&random, 2) ? 0
			                                                                 : ~0ull);
		for (uint32_t w = 0; w < words; w++)
			was[w] = shmi_load(&bitmap(t, page)[w]);
		bool all = shmi_slots_count(bitmap(t, page), &t->heap.img.classes[4]) == t->heap.img.classes[4].slots;

		sleep_all(t);
		seizer_start(&t->core, ALL);
		test_core_run(t);
		taken += all;
		cr_assert_eq(word(t, page).state, all ? SHMI_SPAN_SEIZED : SHMI_SPAN_OWNED);
		for (uint32_t w = 0; w < words && !all; w++)
			cr_assert_eq(shmi_load(&bitmap(t, page)[w]), was[w]);
	}
	cr_assert_eq(counted(t), taken);
	cr_assert_null(test_core_wrong_meta(t));
	test_core_free(t);
}
