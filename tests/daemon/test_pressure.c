/* What is done when memory is short, and for a request that would fail. */
#include <criterion/criterion.h>

#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/scavenger.h"
#include "daemon/seizer.h"
#include "tests/lib/core.h"

TestSuite(pressure, .timeout = 120);

#define PAGES 4096u
#define C64 (4u * SHMI_ATTRS)
#define NEVER 3600000u /* milliseconds until idle pages go back by themselves */

static uint64_t counter(const shmi_a64 *which)
{
	return shmi_load(which);
}

static uint32_t wanted(struct test_core *t, const struct dialogue *d)
{
	return shmi_load(&shmi_owner_at(&t->heap.img, test_core_client(d))->trim_wanted);
}

static void later(struct test_core *t, uint64_t ms)
{
	core_tick(&t->core, t->core.now_ms + ms);
}

/* Leaves `pages` idle ones. */
static void idle(struct test_core *t, struct dialogue *d, uint32_t pages)
{
	struct wire_span span = {.page = test_core_large(t, d, pages, 0, false)};

	cr_assert_neq(span.page, 0);
	span.generation = shmi_span_word(&t->heap.img, (shmi_page){span.page}).generation;
	t->req = (struct wire_msg){.kind = WIRE_FREE};
	t->req.u.free.spans[t->req.u.free.n_spans++] = span;
	cr_assert_eq(test_core_ask(t, d), WIRE_OK);
	cr_assert_geq(counter(&t->heap.img.super->pages.free), pages);
}

Test(pressure, levels)
{
	cr_assert_eq(policy_pressure(0, 1000, 1000), 0);
	cr_assert_eq(policy_pressure(0, 63, 1000), 0);
	cr_assert_eq(policy_pressure(0, 61, 1000), 1);
	cr_assert_eq(policy_pressure(1, 70, 1000), 1, "a little better is not well");
	cr_assert_eq(policy_pressure(1, 80, 1000), 0);
	cr_assert_eq(policy_pressure(1, 14, 1000), 2);
	cr_assert_eq(policy_pressure(2, 25, 1000), 2);
	cr_assert_eq(policy_pressure(2, 40, 1000), 1);
}

Test(pressure, of_the_system)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	idle(t, a, 600);
	cr_assert_eq(test_core_refill(t, a, C64, 30), 30);
	later(t, POLICY_SLEEP_MS + 1);
	cr_assert_eq(scavenger_turn(&t->core, NEVER), 0);
	pressure_system(&t->core);
	cr_assert_eq(t->core.pressure.level, 2);
	cr_assert_eq(counter(&t->heap.img.super->counters.pressures), 1);
	cr_assert_eq(wanted(t, a), 1);
	cr_assert_eq(wanted(t, b), 1);
	test_core_run(t);
	cr_assert_eq(counter(&t->heap.img.super->counters.seized_pages), 30);
	for (uint32_t i = 0; scavenger_turn(&t->core, NEVER); i++)
		cr_assert_lt(i, 20);
	cr_assert_eq(counter(&t->heap.img.super->pages.free), 0, "however young");
	cr_assert_eq(wanted(t, a), 1, "once a second");
	later(t, POLICY_TELL_MS);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(wanted(t, a), 2);
	later(t, POLICY_PRESSED_MS);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 0, "it has said nothing for a while");
	test_core_check(t);
	test_core_free(t);
}

Test(pressure, of_the_tmpfs)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);

	idle(t, a, 300);
	t->space_all = 1 << 20;
	t->space_free = 1 << 19;
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 0);
	t->space_free = 1 << 15;
	later(t, POLICY_TMPFS_MS);
	cr_assert_gt(scavenger_turn(&t->core, NEVER), 0);
	cr_assert_eq(t->core.pressure.level, 1);
	cr_assert_eq(wanted(t, a), 0, "it is over no soft limit");
	t->space_free = 1 << 10;
	later(t, POLICY_TMPFS_MS);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 2);
	cr_assert_eq(wanted(t, a), 1);
	t->space_free = t->space_all;
	later(t, POLICY_TMPFS_MS);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 0);
	cr_assert_eq(counter(&t->heap.img.super->counters.pressures), 1);
	test_core_free(t);
}

Test(pressure, of_the_heap)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);

	cr_assert_neq(test_core_large(t, a, PAGES - 100, 0, false), 0);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 1);
	cr_assert_neq(test_core_large(t, a, 70, 0, false), 0);
	scavenger_turn(&t->core, NEVER);
	cr_assert_eq(t->core.pressure.level, 2);
	cr_assert_eq(wanted(t, a), 1);
	test_core_free(t);
}

/* The statistics say so. */
Test(pressure, is_told)
{
	struct test_core *t = test_core_new(PAGES);
	struct dialogue *a = test_core_attach(t, 1000);

	pressure_system(&t->core);
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(test_core_ask(t, a), WIRE_STATS);
	cr_assert_eq(t->reply.u.stats.pressure, 2);
	test_core_free(t);
}

/* ---- requests that would fail ---- */

/* A floor of so many pages of data, in all. */
static uint64_t room;
static int (*real_back)(void *ctx, enum heap_object object, uint64_t off, uint64_t len);

static int back_within(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	const struct test_core *t = ctx;
	uint64_t first = off >> SHMI_PAGE_SHIFT, pages = len >> SHMI_PAGE_SHIFT, have = 0, more = 0;

	if (object == HEAP_DATA) {
		for (uint32_t p = 0; p < PAGES; p++)
			have += t->backed[p] != 0;
		for (uint64_t p = first; p < first + pages; p++)
			more += t->backed[p] == 0;
		if (have + more > room)
			return -28;
	}
	return real_back(ctx, object, off, len);
}

static struct test_core *small_system(uint64_t pages)
{
	struct test_core *t = test_core_new(PAGES);

	room = pages;
	real_back = t->heap.floor.back;
	t->heap.floor.back = back_within;
	return t;
}

/* All that the system has is in free spans of one that sleeps. */
static struct dialogue *sleeper(struct test_core *t, uint32_t spans)
{
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t held = 0, got;

	while (held < spans && (got = test_core_refill(t, d, C64, spans - held < 128 ? spans - held : 128)) != 0)
		held += got;
	cr_assert_eq(held, spans);
	later(t, POLICY_SLEEP_MS + 1);
	return d;
}

Test(pressure, a_refill_gets_what_a_sleeper_does_not_use)
{
	struct test_core *t = small_system(300);
	struct dialogue *a = sleeper(t, 280), *b = test_core_attach(t, 1001);

	cr_assert_gt(test_core_refill(t, b, 40 * SHMI_ATTRS, 20), 0);
	cr_assert_gt(test_core_refill(t, b, C64, 20), 0);
	cr_assert_gt(counter(&t->heap.img.super->counters.seized_pages), 0);
	cr_assert_eq(counter(&t->heap.img.super->counters.no_memory), 0);
	cr_assert_geq(wanted(t, a), 1);
	test_core_check(t);
	test_core_free(t);
}

Test(pressure, a_large_block_waits_for_it)
{
	struct test_core *t = small_system(1300);
	struct dialogue *b;

	sleeper(t, 1200);
	b = test_core_attach(t, 1001);
	cr_assert_neq(test_core_large(t, b, 1000, 0, false), 0);
	cr_assert_geq(counter(&t->heap.img.super->counters.seized_pages), 900);
	cr_assert_eq(counter(&t->heap.img.super->counters.no_memory), 0);
	test_core_check(t);
	test_core_free(t);
}

/* Not for ever: when nothing comes of it, it fails, and all that it had is free again. */
Test(pressure, a_large_block_waits_in_vain)
{
	struct test_core *t = small_system(1300);
	struct dialogue *b;

	sleeper(t, 500);
	b = test_core_attach(t, 1001);
	cr_assert_eq(test_core_large(t, b, 1350, 0, false), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_MEMORY);
	cr_assert_eq(counter(&t->heap.img.super->counters.system_full), 1);
	cr_assert_eq(b->caller.client->account.used, b->caller.client->record_pages);
	test_core_run(t);
	cr_assert_neq(test_core_large(t, b, 1000, 0, false), 0);
	test_core_check(t);
	test_core_free(t);
}

/* Its client dies, or gives it up, while it waits. */
Test(pressure, who_waits_dies)
{
	struct test_core *t = small_system(1300);
	struct dialogue *b;

	sleeper(t, 1200);
	b = test_core_attach(t, 1001);
	t->req = (struct wire_msg){.kind = WIRE_LARGE, .serial = ++t->serial};
	t->req.u.large = (struct wire_large){.bytes = 1000 * SHMI_PAGE_SIZE, .pages = 1000, .align_pages = 1};
	cr_assert_eq(test_core_send(t, b), WIRE_NONE);
	core_turn(&t->core);
	test_core_kill(t, b);
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}
