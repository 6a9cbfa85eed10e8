/* Large blocks: in steps, undone when memory runs out or the client goes, freed by anybody once. */
#include "daemon/large.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "daemon/scavenger.h"
#include "shm/slots.h"
#include "tests/lib/core.h"

static uint64_t count(const shmi_a64 *pages)
{
	return shmi_load((shmi_a64 *)(uintptr_t)pages);
}

static uint32_t free_span(struct test_core *t, struct dialogue *d, uint32_t page, uint32_t generation)
{
	t->req = (struct wire_msg){.kind = WIRE_FREE};
	t->req.u.free.n_spans = 1;
	t->req.u.free.spans[0] = (struct wire_span){page, generation};
	return test_core_fails(t, d);
}

/* Begins a block that is backed in steps. */
static void begin(struct test_core *t, struct dialogue *d, uint32_t pages)
{
	t->req = (struct wire_msg){.kind = WIRE_LARGE, .serial = ++t->serial};
	t->req.u.large =
	        (struct wire_large){.bytes = (uint64_t)pages << SHMI_PAGE_SHIFT, .pages = pages, .align_pages = 1};
	cr_assert_eq(test_core_send(t, d), WIRE_NONE);
	cr_assert_eq(d->state, SESSION_BUSY);
}

Test(large, in_steps)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);

	begin(t, d, 3000);
	cr_assert_eq(count(&t->heap.img.super->pages.moving), 3000);
	uint32_t steps = test_core_run(t);

	cr_assert_eq(t->reply.kind, WIRE_LARGE_OK);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(steps, (3000 + POLICY_TURN_PAGES - 1) / POLICY_TURN_PAGES);
	cr_assert_leq(t->longest, POLICY_TURN_PAGES);
	cr_assert_eq(d->state, SESSION_ATTACHED);
	cr_assert_eq(d->caller.client->large.charge.pages, 0);
	cr_assert_eq(count(&t->heap.img.super->pages.owned), 3000);
	test_core_check(t);
	/* Again, from backed memory: at once, and not zero. */
	uint32_t page = t->reply.u.large_ok.page;

	cr_assert_eq(free_span(t, d, page, t->reply.u.large_ok.generation), 0);
	t->req = (struct wire_msg){.kind = WIRE_LARGE, .serial = ++t->serial};
	t->req.u.large = (struct wire_large){.bytes = 3000ull << SHMI_PAGE_SHIFT, .pages = 3000, .align_pages = 1};
	cr_assert_eq(test_core_send(t, d), WIRE_LARGE_OK);
	cr_assert_not(t->reply.u.large_ok.zeroed);
	test_core_check(t);
	test_core_free(t);
}

Test(large, alignment)
{
	struct test_core *t = test_core_new(32768);
	struct dialogue *d = test_core_attach(t, 1000);

	for (uint32_t align = 1; align <= SHMI_ARENA_PAGES; align *= 8) {
		t->req = (struct wire_msg){.kind = WIRE_LARGE};
		t->req.u.large = (struct wire_large){.bytes = 9000, .pages = 2, .align_pages = align};
		cr_assert_eq(test_core_ask(t, d), WIRE_LARGE_OK);
		cr_assert_eq(t->reply.u.large_ok.page % align, 0);
	}
	test_core_check(t);
	test_core_free(t);
}

Test(large, nonsense_is_refused)
{
	static const struct wire_large bad[] = {
	        {.bytes = 0, .pages = 1, .align_pages = 1},
	        {.bytes = 1, .pages = 0, .align_pages = 1},
	        {.bytes = 8193, .pages = 1, .align_pages = 1},
	        {.bytes = UINT64_MAX, .pages = UINT32_MAX, .align_pages = 1},
	        {.bytes = 1, .pages = 1, .align_pages = 0},
	        {.bytes = 1, .pages = 1, .align_pages = 3},
	        {.bytes = 1, .pages = 1, .align_pages = 16384},
	        {.bytes = 1, .pages = 1, .align_pages = 1, .attrs = 4},
	        {.bytes = 1, .pages = 8192, .align_pages = 1},
	};
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		t->req = (struct wire_msg){.kind = WIRE_LARGE, .u.large = bad[i]};
		cr_assert_eq(test_core_force(t, d), WIRE_E_INVALID, "%zu", i);
	}
	test_core_check(t);
	test_core_free(t);
}

/* Wherever the system runs out of memory, nothing has happened. */
Test(large, every_step_may_fail)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);

	for (uint32_t good = 0; good < 8; good++) {
		t->fail_in = good;
		cr_assert_eq(test_core_large(t, d, 2000, 0, false), 0);
		cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY, "step %u", good);
		t->fail_in = TEST_CORE_NEVER;
		test_core_run(t);
		cr_assert_eq(count(&t->heap.img.super->pages.moving), 0);
		cr_assert_eq(count(&t->heap.img.super->pages.free), 0);
		cr_assert_eq(d->caller.client->account.used, d->caller.client->record_pages);
		cr_assert_null(memchr(t->backed, 1, 16384), "nothing is left backed");
		test_core_check(t);
	}
	cr_assert_neq(test_core_large(t, d, 2000, 0, false), 0);
	test_core_free(t);
}

/* The system is full, but the heap has idle memory: that is used. */
Test(large, idle_memory_is_returned_for_it)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, d, 600, 0, false);
	uint32_t generation = t->reply.u.large_ok.generation, guard = test_core_large(t, d, 300, 0, false);

	cr_assert(page && guard);
	cr_assert_eq(free_span(t, d, page, generation), 0);
	t->fail_in = 1; /* then everything fails; the release lets a later call succeed in a real system */
	cr_assert_eq(test_core_large(t, d, 700, 0, false), 0);
	cr_assert_lt(count(&t->heap.img.super->pages.free), 600, "it was tried");
	t->fail_in = TEST_CORE_NEVER;
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}

/* ---- a system with so much memory and no more ---- */

static struct heap_floor roomy;
static const struct test_core *small_system;
static uint32_t most_pages;

static int back_if_room(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	uint32_t first = (uint32_t)(off >> SHMI_PAGE_SHIFT), n = (uint32_t)(len >> SHMI_PAGE_SHIFT), backed = 0;

	for (uint32_t i = 0; object == HEAP_DATA && i < 8192; i++)
		backed += small_system->backed[i] || i - first < n;
	return backed > most_pages ? -ENOSPC : roomy.back(ctx, object, off, len);
}

/* That a span has a free slot again is no reason not to return idle memory: other classes cannot use it. */
Test(large, idle_memory_is_returned_whatever_a_sweep_finds)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t idle[8], generation[8];

	for (int i = 0; i < 8; i++) { /* scattered, none of them long enough */
		idle[i] = test_core_large(t, d, 4, 0, false);
		generation[i] = t->reply.u.large_ok.generation;
		cr_assert_neq(test_core_large(t, d, 4, 0, false), 0);
	}
	cr_assert_eq(test_core_refill(t, d, 4 * SHMI_ATTRS, 1), 1);
	const struct wire_grant grant = t->reply.u.refill_ok.grants[0];
	shmi_a64 *bits = shmi_bitmap_at(&t->heap.img, (shmi_page){grant.page});

	for (uint32_t w = 0; w < t->heap.img.classes[4].words; w++)
		shmi_slots_take(bits, w, ~0ull);
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_returns = 1;
	t->req.u.refill.returns[0] = (struct wire_span){grant.page, grant.generation};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	shmi_slots_put(bits, 0, 1);
	while (count(&t->heap.img.super->pages.free))
		cr_assert_neq(test_core_large(t, d, 1, 0, false), 0);
	for (int i = 0; i < 8; i++)
		cr_assert_eq(free_span(t, d, idle[i], generation[i]), 0);
	small_system = t;
	roomy = t->heap.floor;
	t->heap.floor.back = back_if_room;
	most_pages = 0;
	for (uint32_t i = 0; i < 8192; i++)
		most_pages += t->backed[i];
	cr_expect_neq(test_core_large(t, d, 9, 0, false), 0, "%s", t->reply.u.error.text);
	cr_expect_neq(test_core_large(t, d, 6, 0, false), 0, "%s", t->reply.u.error.text);
	t->heap.floor = roomy;
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}

Test(large, death_in_the_middle)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);

	begin(t, d, 3000);
	for (int i = 0; i < 4; i++)
		core_turn(&t->core);
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
	cr_assert_eq(count(&t->heap.img.super->pages.moving), 0);
	cr_assert_null(memchr(t->backed, 1, 16384));
	cr_assert_eq(t->core.client[0].state, CLIENT_FREE);
	test_core_check(t);
	test_core_free(t);
}

/* The connection breaks: the block is made all the same, and the repeat of the request gets it. */
Test(large, resume_in_the_middle_and_after)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d);

	for (uint32_t late = 0; late < 2; late++) {
		begin(t, d, 1000);
		struct wire_msg req = t->req;

		core_turn(&t->core);
		struct dialogue *again = test_core_again(t, d);

		test_core_hang_up(t, d);
		cr_assert_eq(t->core.client[id].state, CLIENT_DETACHED);
		if (late)
			test_core_run(t);
		t->req = (struct wire_msg){.kind = WIRE_ATTACH};
		t->req.u.attach = (struct wire_attach){.heap = "default",
		        .resume = true,
		        .client = id,
		        .nonce = clients_entry(&t->core, &t->core.client[id])->nonce};
		cr_assert_eq(test_core_send(t, again), WIRE_ATTACH_OK);
		t->req = req;
		enum wire_kind kind = test_core_send(t, again);

		if (!late) {
			cr_assert_eq(kind, WIRE_NONE);
			cr_assert_eq(again->state, SESSION_BUSY);
			test_core_run(t);
			cr_assert_eq(t->answered, again);
		}
		cr_assert_eq(t->reply.kind, WIRE_LARGE_OK);
		cr_assert_eq(t->reply.serial, req.serial);
		cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, late + 1);
		d = again;
	}
	test_core_check(t);
	test_core_free(t);
}

/* An answer that comes while a new connection has not asked for it is kept. */
Test(large, an_answer_that_nobody_waits_for)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000), *again;
	uint32_t id = test_core_client(d);

	begin(t, d, 1000);
	struct wire_msg req = t->req;

	again = test_core_again(t, d);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach = (struct wire_attach){.heap = "default",
	        .resume = true,
	        .client = id,
	        .nonce = clients_entry(&t->core, &t->core.client[id])->nonce};
	cr_assert_eq(test_core_send(t, again), WIRE_ATTACH_OK);
	test_core_run(t);
	cr_assert_eq(again->state, SESSION_ATTACHED);
	cr_assert_eq(t->reply.kind, WIRE_ATTACH_OK, "nothing was sent");
	t->req = req;
	cr_assert_eq(test_core_send(t, again), WIRE_LARGE_OK);
	cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, 1);
	test_core_free(t);
}

/* A client that asks for something else has given the block up: it is not left behind. */
Test(large, a_later_request_gives_it_up)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000), *again;
	uint32_t id = test_core_client(d);

	begin(t, d, 1000);
	core_turn(&t->core);
	again = test_core_again(t, d);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach = (struct wire_attach){.heap = "default",
	        .resume = true,
	        .client = id,
	        .nonce = clients_entry(&t->core, &t->core.client[id])->nonce};
	cr_assert_eq(test_core_send(t, again), WIRE_ATTACH_OK);
	cr_assert_neq(test_core_large(t, again, 5, 0, false), 0);
	test_core_run(t);
	cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, 1);
	cr_assert_eq(count(&t->heap.img.super->pages.moving), 0);
	test_core_check(t);
	test_core_free(t);
}

Test(large, lazy)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, d, 3000, 0, true), generation = t->reply.u.large_ok.generation;

	cr_assert_neq(page, 0);
	cr_assert(t->reply.u.large_ok.zeroed);
	cr_assert_eq(count(&t->heap.img.super->pages.lazy), 3000);
	cr_assert_null(memchr(t->backed, 1, 16384));
	memset(t->backed + page, 1, 3000); /* the client touches it */
	cr_assert_eq(free_span(t, d, page, generation), 0);
	test_core_run(t);
	cr_assert_null(memchr(t->backed, 1, 16384), "what was touched is dropped");
	cr_assert_leq(t->longest, POLICY_TURN_PAGES);
	cr_assert_eq(count(&t->heap.img.super->pages.returned), 8191);
	test_core_check(t);
	test_core_free(t);
}

Test(large, frees)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page[3], generation[3];

	for (int i = 0; i < 3; i++) {
		page[i] = test_core_large(t, a, 3, i == 1 ? SHMI_SCOPED : 0, false);
		generation[i] = t->reply.u.large_ok.generation;
	}
	cr_assert_eq(test_core_refill(t, a, SHMI_ATTRS, 1), 1);
	struct wire_grant small = t->reply.u.refill_ok.grants[0];

	cr_assert_eq(free_span(t, b, page[0], generation[0]), 0, "by anybody");
	cr_assert_eq(free_span(t, b, page[0], generation[0]), WIRE_E_BAD_FREE, "twice");
	cr_assert_eq(free_span(t, b, small.page, small.generation), WIRE_E_BAD_FREE, "not large");
	cr_assert_eq(free_span(t, b, page[2], generation[2] + 1), WIRE_E_BAD_FREE, "of another generation");
	cr_assert_eq(free_span(t, b, page[2] + 1, generation[2]), WIRE_E_BAD_FREE, "its middle");
	cr_assert_eq(free_span(t, b, UINT32_MAX, 0), WIRE_E_BAD_FREE);
	cr_assert_eq(free_span(t, b, 0, 0), WIRE_E_BAD_FREE);
	/* One bad one does not cost the others. */
	t->req = (struct wire_msg){.kind = WIRE_FREE};
	t->req.u.free.n_spans = 4;
	t->req.u.free.spans[0] = (struct wire_span){page[1], generation[1]};
	t->req.u.free.spans[1] = (struct wire_span){page[0], generation[0]};
	t->req.u.free.spans[2] = (struct wire_span){16000, 1};
	t->req.u.free.spans[3] = (struct wire_span){page[2], generation[2]};
	cr_assert_eq(test_core_fails(t, a), WIRE_E_BAD_FREE);
	cr_assert_eq(shmi_owner_at(&t->heap.img, test_core_client(a))->spans.count, 1, "only the small span is left");
	cr_assert_eq(a->caller.client->account.used,
	        a->caller.client->record_pages + shmi_owner_at(&t->heap.img, test_core_client(a))->pages);
	test_core_check(t);
	test_core_free(t);
}

/* What a request for memory brings along is freed first: it may be all the memory that there is. */
Test(large, frees_before_it_allocates)
{
	struct test_core *t = test_core_new(4096);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, d, 3000, 0, false);
	struct wire_free freed = {.n_spans = 1, .spans = {{page, t->reply.u.large_ok.generation}}};

	cr_assert_neq(page, 0);
	cr_assert_eq(test_core_large(t, d, 3500, 0, false), 0);
	t->req.u.large.freed = freed;
	cr_assert_eq(test_core_ask(t, d), WIRE_LARGE_OK);
	freed.spans[0] = (struct wire_span){t->reply.u.large_ok.page, t->reply.u.large_ok.generation};
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_wants = 1;
	t->req.u.refill.wants[0] = (struct wire_want){.sclass = SHMI_ATTRS, .spans = 1};
	t->req.u.refill.freed = freed;
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.n_grants, 1);
	cr_assert_eq(shmi_owner_at(&t->heap.img, test_core_client(d))->spans.count, 1);
	/* Named once more it is no large block, and nothing is granted. */
	cr_assert_eq(test_core_fails(t, d), WIRE_E_BAD_FREE);
	t->req = (struct wire_msg){.kind = WIRE_LARGE};
	t->req.u.large = (struct wire_large){.bytes = 1 << 20, .pages = 128, .align_pages = 1, .freed = freed};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_BAD_FREE);
	cr_assert_eq(shmi_owner_at(&t->heap.img, test_core_client(d))->spans.count, 1);
	test_core_check(t);
	test_core_free(t);
}

/* Runs all jobs; no turn may drop more than its share. */
static void run_in_turns(struct test_core *t)
{
	uint64_t before;

	do {
		before = t->dropped;
		cr_assert_leq(t->longest, POLICY_TURN_PAGES);
		if (!core_turn(&t->core))
			return;
		cr_assert_leq(t->dropped - before, POLICY_TURN_PAGES);
	} while (true);
}

static void many_lazy_blocks(struct test_core *t, struct dialogue *d, uint32_t pages, uint32_t attrs, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		cr_assert_neq(test_core_large(t, d, pages, attrs, true), 0);
	t->longest = 0;
}

/* However many are freed at once, and however long they are: the system takes them back a little at a time. */
static void lazy_blocks_are_freed(uint32_t pages)
{
	struct test_core *t = test_core_new(200000);
	struct dialogue *d = test_core_attach(t, 1000);
	static uint32_t page[300], generation[300];
	uint64_t before;

	for (int i = 0; i < 300; i++) {
		page[i] = test_core_large(t, d, pages, 0, true);
		generation[i] = t->reply.u.large_ok.generation;
		cr_assert_neq(page[i], 0);
	}
	t->longest = 0;
	for (uint32_t i = 0; i < 300; i += WIRE_BIGS) {
		before = t->dropped;
		t->req = (struct wire_msg){.kind = WIRE_FREE, .serial = ++t->serial};
		for (; t->req.u.free.n_spans < WIRE_BIGS && i + t->req.u.free.n_spans < 300; t->req.u.free.n_spans++)
			t->req.u.free.spans[t->req.u.free.n_spans] = (struct wire_span){
			        page[i + t->req.u.free.n_spans], generation[i + t->req.u.free.n_spans]};
		cr_assert_eq(test_core_send(t, d), WIRE_OK);
		cr_assert_leq(t->dropped - before, POLICY_TURN_PAGES);
	}
	run_in_turns(t);
	cr_assert_eq(t->dropped, 300u * pages);
	cr_assert_eq(count(&t->heap.img.super->pages.moving), 0);
	test_core_check(t);
	test_core_free(t);
}

Test(large, many_lazy_blocks_are_freed)
{
	lazy_blocks_are_freed(300);
}

Test(large, many_short_lazy_blocks_are_freed)
{
	lazy_blocks_are_freed(40);
}

Test(large, scoped_lazy_blocks_of_the_dead)
{
	struct test_core *t = test_core_new(200000);
	struct dialogue *d = test_core_attach(t, 1000);

	many_lazy_blocks(t, d, 200, SHMI_SCOPED, 300);
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	run_in_turns(t);
	cr_assert_eq(t->dropped, 300 * 200);
	cr_assert_eq(count(&t->heap.img.super->pages.lazy), 0);
	test_core_check(t);
	test_core_free(t);
}

/* ---- the scavenger ---- */

Test(scavenger, idle_memory_goes_back)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, d, 1000, 0, false);

	cr_assert_eq(free_span(t, d, page, t->reply.u.large_ok.generation), 0);
	cr_assert_eq(scavenger_turn(&t->core, 500), 0, "too young");
	core_tick(&t->core, 1600);
	cr_assert_eq(scavenger_turn(&t->core, 500), POLICY_TURN_PAGES, "bounded");
	while (scavenger_turn(&t->core, 500) != 0)
		;
	cr_assert_eq(count(&t->heap.img.super->pages.free), 0);
	cr_assert_null(memchr(t->backed, 1, 16384));
	cr_assert_eq(count(&t->heap.img.super->counters.scavenged_pages), 1000);
	test_core_check(t);
	test_core_free(t);
}

Test(scavenger, trim)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = test_core_large(t, d, 1000, 0, false);

	cr_assert_eq(free_span(t, d, page, t->reply.u.large_ok.generation), 0);
	t->req = (struct wire_msg){.kind = WIRE_TRIM};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_ACCESS, "uid 1000 may not");
	t->core.uid = 5;
	struct dialogue *root = test_core_again(t, test_core_connect(t, 0)),
	                *own = test_core_again(t, test_core_connect(t, 5));

	t->longest = 0;
	t->req = (struct wire_msg){.kind = WIRE_TRIM};
	cr_assert_eq(test_core_ask(t, root), WIRE_TRIM_OK);
	cr_assert_eq(t->reply.u.trim_ok.bytes, 1000u << SHMI_PAGE_SHIFT);
	cr_assert_leq(t->longest, POLICY_TURN_PAGES);
	cr_assert_eq(root->state, SESSION_GREETED);
	cr_assert_eq(test_core_ask(t, own), WIRE_TRIM_OK);
	cr_assert_eq(t->reply.u.trim_ok.bytes, 0);
	/* Whoever asked hangs up in the middle. */
	t->req.serial++;
	cr_assert_eq(test_core_send(t, own), WIRE_NONE);
	test_core_hang_up(t, own);
	cr_assert_eq(test_core_run(t), 0);
	test_core_check(t);
	test_core_free(t);
}
