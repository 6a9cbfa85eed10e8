/* The daemon is killed after every store of its requests, of growth, scavenging and seizing, and of its own recovery (tests/lib/deaths.h
 * says how, and what must hold); test_deaths_clients has what makes and ends clients. Prints a line of figures for each deed: its
 * stores, kills in it, in the recovery from these, and in the recovery from those.
 *
 * SHMALLOC_SOAK=1: every store of each deed instead of a sample, and of each recovery from it (from 80 of them, where the deed has more
 * stores), and some of the recoveries from those. */
#include "tests/daemon/history.h"

#include "daemon/policy.h"
#include "daemon/seizer.h"

/* ---- refill ---- */

static void fresh_pages(struct deaths *d)
{
	history(d);
	want(refill(d), SHARED(20), 2);
}
DEATHS(refill_from_the_page_heap, .prepare = fresh_pages)

static void scoped_pages(struct deaths *d)
{
	history(d);
	want(refill(d), SCOPED(C64), 2);
}
DEATHS(refill_of_scoped_spans, .prepare = scoped_pages)

static void all_of_it(struct deaths *d)
{
	fresh_pages(d);
	while (heap_release(&d->t->heap, 0, 256))
		;
}
DEATHS(refill_from_returned_pages, .prepare = all_of_it)

static void first_of_all(struct deaths *d)
{
	d->asker = deaths_attach(d, world_living(0));
	d->other = deaths_attach(d, world_living(1000));
	want(refill(d), SHARED(C64), 1);
}
DEATHS(growth_from_nothing, .prepare = first_of_all)

static void second_arena(struct deaths *d)
{
	d->asker = deaths_attach(d, world_living(0));
	d->other = deaths_attach(d, world_living(1000));
	cr_assert_neq(test_core_large(d->t, d->other.dialogue, SHMI_ARENA_PAGES - 4, 0, true), 0);
	want(refill(d), SHARED(30), 3);
}
DEATHS_IN(growth_by_an_arena, SHMI_ARENA_PAGES + 64, .prepare = second_arena)

/* ---- returns and reports ---- */

static void returns(struct deaths *d)
{
	history(d);
	struct wire_refill *r = refill(d);

	r->returns[r->n_returns++] = named(d, own_span);
	r->returns[r->n_returns++] = named(d, own_empty);
}
DEATHS(returns_used_and_empty, .prepare = returns)

static void returns_scoped(struct deaths *d)
{
	history(d);
	uint32_t empty = span(d, &d->asker, SCOPED(C128));
	struct wire_refill *r = refill(d);

	r->returns[r->n_returns++] = named(d, own_scoped); /* stays: a block of it is in use */
	r->returns[r->n_returns++] = named(d, empty);
}
DEATHS(returns_of_scoped_spans, .prepare = returns_scoped)

static void reports(struct deaths *d)
{
	history(d);
	struct wire_refill *r = refill(d);

	shmi_slots_put(shmi_bitmap_at(image(d), (shmi_page){full_span}), 0, 1);
	shmi_slots_put(shmi_bitmap_at(image(d), (shmi_page){central_span}), 0, 7); /* empty now */
	r->reports[r->n_reports++] = full_span;
	r->reports[r->n_reports++] = central_span;
}
DEATHS(reports_of_central_spans, .prepare = reports)

static void everything(struct deaths *d)
{
	returns(d);
	struct wire_refill *r = &d->req.u.refill;

	shmi_slots_put(shmi_bitmap_at(image(d), (shmi_page){central_span}), 0, 7);
	r->reports[r->n_reports++] = central_span;
	want(r, SHARED(25), 1);
	want(r, SCOPED(12), 1);
}
DEATHS(returns_reports_and_wants, .prepare = everything)

/* ---- large blocks ---- */

static void large_small(struct deaths *d)
{
	large(d, 3, false, 0);
}
DEATHS(large_block, .prepare = large_small)

static void large_lazy(struct deaths *d)
{
	large(d, 40, true, SHMI_SCOPED);
}
DEATHS(large_lazy_block, .prepare = large_lazy)

static void frees(struct deaths *d, uint32_t pages, bool lazy)
{
	history(d);
	uint32_t page = test_core_large(d->t, d->other.dialogue, pages, 0, lazy);

	cr_assert_neq(page, 0);
	struct wire_free *f = &request(d, WIRE_FREE)->u.free;

	f->spans[f->n_spans++] = named(d, page);
}

static void free_one(struct deaths *d)
{
	frees(d, 4, false);
}
DEATHS(free_of_a_large_block, .prepare = free_one)

static void free_lazy(struct deaths *d)
{
	frees(d, 600, true); /* dropped in several turns */
}
DEATHS_IN(free_of_a_lazy_block, 1024, .prepare = free_lazy)

/* A block that goes with a request for memory: freed first, and once. */
static void frees_for(struct deaths *d, struct wire_free *f, uint32_t page)
{
	cr_assert_neq(page, 0);
	f->n_spans = 0;
	f->spans[f->n_spans++] = named(d, page);
}

/* A scoped one, which goes with its client: if that dies as well, a shared one may have been allocated or not once the other is free. */
static void large_for_another(struct deaths *d)
{
	large(d, 3, false, SHMI_SCOPED);
	struct wire_msg asked = d->req;
	uint32_t page = test_core_large(d->t, d->other.dialogue, 4, 0, false);

	d->req = asked;
	frees_for(d, &d->req.u.large.freed, page);
}
DEATHS(large_block_for_another, .prepare = large_for_another)

static void refill_for_a_block(struct deaths *d)
{
	history(d);
	uint32_t page = test_core_large(d->t, d->other.dialogue, 4, 0, false);
	struct wire_refill *r = refill(d);

	want(r, SHARED(25), 2);
	frees_for(d, &r->freed, page);
}
DEATHS(refill_for_a_large_block, .prepare = refill_for_a_block)

/* ---- seizures ---- */

static void fall_asleep(struct deaths *d)
{
	core_tick(&d->t->core, d->t->core.now_ms + POLICY_SLEEP_MS + 1);
}

/* Wholly free spans of several words, too. */
static void sleepers(struct deaths *d)
{
	history(d);
	span(d, &d->other, SHARED(30));
	span(d, &d->asker, SHARED(C16));
	fall_asleep(d);
}

/* Both clients' wholly free spans. */
static void seize(struct deaths *d)
{
	seizer_start(&d->t->core, UINT64_MAX);
	while (core_turn(&d->t->core))
		;
}

static void seize_again(struct deaths *d)
{
	fall_asleep(d);
	seize(d);
}
DEATHS(seizure, .prepare = sleepers, .act = seize, .again = seize_again)

static void returns_seized(struct deaths *d)
{
	sleepers(d);
	seize(d);
	struct wire_refill *r = refill(d);

	r->returns[r->n_returns++] = named(d, own_empty);
}
DEATHS(returns_of_a_seized_span, .prepare = returns_seized)

/* ---- roots ---- */

static void root(struct deaths *d, enum wire_kind kind, const char *name, uint32_t page)
{
	struct wire_root *r = &request(d, kind)->u.root;

	strcpy(r->name, name);
	r->off = shmi_page_off((shmi_page){page}).b;
}

static void root_new(struct deaths *d)
{
	history(d);
	root(d, WIRE_ROOT_SET, "a-name-of-some-length-to-be-stored-in-several-words", own_span);
}
DEATHS(root_set, .prepare = root_new)

static void root_other(struct deaths *d)
{
	history(d);
	root(d, WIRE_ROOT_SET, "kept", own_span);
}
DEATHS(root_replaced, .prepare = root_other)

static void root_added(struct deaths *d)
{
	history(d);
	root(d, WIRE_ROOT_SET, "added", own_span);
	d->t->req.u.root.exclusive = true;
}
DEATHS(root_added, .prepare = root_added)

static void root_gone(struct deaths *d)
{
	history(d);
	root(d, WIRE_ROOT_DEL, "kept", 1);
}
DEATHS(root_deleted, .prepare = root_gone)

/* ---- threads, trim, detach, resume ---- */

static void grow_record(struct deaths *d)
{
	history(d);
	uint32_t thread = record(d, &d->asker, 1);

	request(d, WIRE_THREAD)->u.thread = (struct wire_thread){.thread = thread, .parts = 2};
}
DEATHS(record_grown, .prepare = grow_record)

static void trim(struct deaths *d)
{
	history(d);
	shmi_slots_put(shmi_bitmap_at(image(d), (shmi_page){central_span}), 0, 7);
	request(d, WIRE_TRIM);
}
DEATHS(trim, .prepare = trim)

static void scavenge_before(struct deaths *d)
{
	history(d);
}

static void scavenge(struct deaths *d)
{
	heap_release(&d->t->heap, 0, 8);
	heap_release(&d->t->heap, 0, 256);
}
DEATHS(scavenger, .prepare = scavenge_before, .act = scavenge)

static void come_again(struct deaths *d)
{
	struct dialogue *again = test_core_connect_as(d->t, d->asker.peer);

	d->t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	d->t->req.u.attach =
	        (struct wire_attach){.heap = "default", .resume = true, .client = d->asker.id, .nonce = d->asker.nonce};
	cr_assert_eq(test_core_send(d->t, again), WIRE_ATTACH_OK);
	d->asker.dialogue = again;
	d->t->req = d->req;
	cr_assert_eq(test_core_send(d->t, again), d->reply.kind = WIRE_REFILL_OK);
	d->reply = d->t->reply;
}
DEATHS(resume_and_a_request, .prepare = fresh_pages, .act = come_again)

/* ---- recovery ---- */

static void nothing(struct deaths *d)
{
	(void)d;
}
DEATHS(recovery_with_living_clients, .prepare = history, .act = nothing, .recovery = true)
DEATHS_IN(recovery_with_arenas, SHMI_ARENA_PAGES + 64, .prepare = second_arena, .recovery = true)
