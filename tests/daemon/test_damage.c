/* What clients do to ctl and data: cut short, punched, their bitmaps and heads overwritten. */
#include "daemon/damage.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/scavenger.h"
#include "shm/slots.h"
#include "shm/walk.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

#define SHARED64 (4 * SHMI_ATTRS)
#define NEVER_MS 1000000000u /* no run is idle for so long */

static int log_fd = -1;

static const char *said(void)
{
	static char text[8192];
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static struct test_core *begin(void)
{
	struct test_core *t = test_core_new(8192);

	log_fd = memfd_create("log", MFD_CLOEXEC);
	log_set_fd(log_fd);
	return t;
}

static void end(struct test_core *t)
{
	test_core_free(t);
	close(log_fd);
}

static void look(struct test_core *t)
{
	cr_assert_eq(scavenger_turn(&t->core, NEVER_MS), 0);
}

static uint64_t counter(shmi_a64 *counter)
{
	return shmi_load(counter);
}

#define COUNTER(name) counter(&t->heap.img.super->counters.name)

/* ---- cut short ---- */

/* Nobody asks for anything: it is noticed all the same. */
static void cut_under_an_idle_heap(enum heap_object object)
{
	struct test_core *t = begin();

	look(t);
	cr_assert_not(t->heap.fenced);
	t->cut[object] = 1;
	look(t);
	cr_assert(t->heap.fenced);
	cr_assert(strstr(said(), "cut one of its objects short"), "%s", said());
	look(t);
	end(t);
}

/* Whoever asks how the heap is, is told, and not that he may not ask. */
Test(damage, statistics_are_the_first_to_know)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000);

	t->cut[HEAP_CTL] = 1;
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(test_core_ask(t, d), WIRE_STATS);
	cr_assert(t->reply.u.stats.damaged);
	end(t);
}

Test(damage, ctl_cut_under_an_idle_heap)
{
	cut_under_an_idle_heap(HEAP_CTL);
}

Test(damage, data_cut_under_an_idle_heap)
{
	cut_under_an_idle_heap(HEAP_DATA);
}

/* Nothing is granted after a cut, whoever asks first; what needs no heap is answered. */
static void nothing_is_granted(enum heap_object object)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000), *late = test_core_connect(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 2), 2);
	t->cut[object] = SHMI_PAGE_SIZE;
	cr_assert_eq(test_core_refill(t, d, SHARED64, 1), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_DAMAGED);
	cr_assert_eq(test_core_large(t, d, 200, 0, false), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_DAMAGED);
	t->req = (struct wire_msg){.kind = WIRE_HELLO};
	t->req.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	cr_assert_eq(test_core_send(t, late), WIRE_HELLO_OK);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_send(t, late), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_DAMAGED);
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(test_core_ask(t, late), WIRE_STATS);
	cr_assert(t->reply.u.stats.damaged);
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
	end(t);
}

Test(damage, nothing_is_granted_from_a_cut_ctl)
{
	nothing_is_granted(HEAP_CTL);
}

Test(damage, nothing_is_granted_from_cut_data)
{
	nothing_is_granted(HEAP_DATA);
}

/* ---- punched ---- */

static bool all_backed(struct test_core *t)
{
	struct shmi_walk walk = shmi_walk_start(&t->heap.img);

	while (shmi_walk_next(&t->heap.img, &walk)) {
		bool due = shmi_span_is_backed(&t->heap.img, walk.page);

		for (uint32_t i = 0; i < walk.pages.n; i++)
			if ((t->backed[walk.page.i + i] != 0) != due)
				return false;
	}
	return true;
}

/* Holes anywhere in data, of any length: afterwards exactly those pages are backed that must be, and no step took long. */
Test(damage, punched_data_is_backed_again, .timeout = 60)
{
	struct test_core *t = begin();
	struct test_random random = test_random_init("punched data");
	struct dialogue *d = test_core_attach(t, 1000);
	uint64_t mended = 0;

	for (int i = 0; i < 40; i++) {
		test_core_refill(
		        t, d, SHARED64 + 4 * (test_random_below(&random, 60)), 1 + test_random_below(&random, 8));
		if (i % 4 == 0)
			cr_assert(test_core_large(t, d, test_random_length(&random, 500), 0, i % 8 == 0) ||
			          t->reply.u.error.code == WIRE_E_NO_MEMORY);
	}
	cr_assert(all_backed(t));
	look(t);
	cr_assert_eq(test_core_run(t), 0, "nothing is missing");
	for (int round = 0; round < 200; round++) {
		uint32_t n = test_random_length(&random, 8000), from = 1 + test_random_below(&random, 8192 - n),
		         lost = 0;

		for (uint32_t p = from; p < from + n; p++)
			lost += t->backed[p];
		memset(t->backed + from, 0, n);
		t->longest = 0;
		look(t);
		cr_assert_eq(t->core.damage.job.queued, lost != 0);
		uint32_t steps = test_core_run(t);

		cr_assert_leq(steps, 200);
		cr_assert_leq(t->longest, POLICY_TURN_PAGES);
		cr_assert(all_backed(t), "round %d", round);
		mended += lost * 2;
		cr_assert_eq(COUNTER(mended_pages), mended);
	}
	cr_assert(strstr(said(), "punched holes"), "%s", said());
	cr_assert_not(t->heap.fenced);
	test_core_check(t);
	end(t);
}

/* The heap changes while the holes are being filled. */
Test(damage, mending_in_between, .timeout = 60)
{
	struct test_core *t = begin();
	struct test_random random = test_random_init("mending in between");
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t large[8] = {0};

	for (int round = 0; round < 300; round++) {
		uint32_t i = test_random_below(&random, 8);

		memset(t->backed + 1, 0, 8191);
		look(t);
		core_turn(&t->core);
		if (large[i]) {
			t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free.n_spans = 1};
			t->req.u.free.spans[0] = (struct wire_span){
			        large[i], shmi_span_word(&t->heap.img, (shmi_page){large[i]}).generation};
			cr_assert_eq(test_core_ask(t, d), WIRE_OK);
			large[i] = 0;
		} else {
			large[i] = test_core_large(t, d, test_random_length(&random, 1500), 0, false);
		}
		for (int again = 0; again < 3; again++) { /* what moved behind the walk is found by the next look */
			test_core_run(t);
			look(t);
		}
		cr_assert_not(t->core.damage.job.queued);
		test_core_check(t);
	}
	end(t);
}

/* As much of ctl as must be, and not a byte more. */
Test(damage, punched_ctl_is_backed_again)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000);
	const struct shmi_geometry *geo = &t->heap.img.geo;

	cr_assert_eq(test_core_refill(t, d, SHARED64, 2), 2);
	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 5}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	t->ctl_backed = 0;
	look(t);
	cr_assert(t->core.damage.job.queued);
	test_core_run(t);
	/* The head, two heads of records, two parts, and the arrays of 8,192 pages. */
	uint64_t due = 4096 + 2 * SHMI_THREAD_HEAD_BYTES + 2 * (uint64_t)geo->part_bytes + 8192 * 4 + 8192 * 64;

	cr_assert_eq(t->ctl_backed, due);
	look(t);
	cr_assert_not(t->core.damage.job.queued);
	t->ctl_backed--;
	look(t);
	cr_assert(t->core.damage.job.queued, "a byte is missing");
	test_core_run(t);
	end(t);
}

/* /dev/shm is full: the hole stays, the heap goes on, and is looked at again. */
Test(damage, no_memory_for_holes)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 2), 2);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;

	t->backed[page] = 0;
	t->fail_in = 0;
	look(t);
	test_core_run(t);
	cr_assert(strstr(said(), "no memory in /dev/shm to fill"), "%s", said());
	cr_assert_eq(COUNTER(mended_pages), 0);
	cr_assert_not(t->heap.fenced);
	t->fail_in = TEST_CORE_NEVER;
	look(t);
	test_core_run(t);
	cr_assert(all_backed(t));
	cr_assert_eq(COUNTER(mended_pages), 2);
	end(t);
}

/* A hole in ctl reads as zeros: all slots are allocated, nothing is cached. Nothing that is in use is given away. */
Test(damage, a_death_over_punched_ctl)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint64_t central;

	cr_assert_eq(test_core_refill(t, d, SHARED64, 20), 20);
	cr_assert_eq(madvise(t->heap.img.ctl, t->heap.img.geo.ctl_bytes, MADV_DONTNEED), 0);
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
	central = shmi_load(&t->heap.img.super->pages.central);
	cr_assert_eq(central, 20, "all of it might be somebody's");
	cr_assert_eq(test_core_refill(t, other, SHARED64, 5), 5);
	cr_assert_eq(shmi_load(&t->heap.img.super->pages.central), central, "from fresh pages");
	look(t);
	test_core_run(t);
	const char *wrong = test_core_wrong_meta(t);

	cr_assert_null(wrong, "%s", wrong);
	end(t);
}

Test(damage, the_head_of_ctl_is_written_anew)
{
	struct test_core *t = begin();
	struct shmi_ctl_head *head = t->memory.ctl, before = *head;

	memset(head, 0xa5, sizeof(*head));
	look(t);
	cr_assert_eq(memcmp(head, &before, sizeof(before)), 0);
	cr_assert(strstr(said(), "overwritten the head"), "%s", said());
	end(t);
}

/* ---- set aside ---- */

static uint32_t smeared_span(struct test_core *t, struct dialogue *d, uint32_t sclass)
{
	cr_assert_eq(test_core_refill(t, d, sclass, 1), 1);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;
	shmi_a64 *bitmap = shmi_bitmap_at(&t->heap.img, (shmi_page){page});

	shmi_slots_take(bitmap, 0, 1);
	shmi_fetch_or(&bitmap[7], 1);
	return page;
}

static uint32_t state(struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page}).state;
}

/* Told once, counted in the statistics, listed with the spans, and no page of it is used again. */
Test(damage, an_overwritten_span_is_set_aside_for_good)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint32_t page = smeared_span(t, d, SHARED64), scoped = smeared_span(t, d, SHARED64 + SHMI_SCOPED), n = 0;

	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
	cr_assert_eq(state(t, page), SHMI_SPAN_QUARANTINE);
	cr_assert_not(
	        shmi_state_in_use(state(t, scoped)), "a dead client's scoped span is free whatever its bitmap says");
	look(t);
	look(t);
	const char *line = strstr(said(), "set aside");

	cr_assert(line != NULL && !strstr(line + 1, "set aside"), "%s", said());
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(test_core_ask(t, other), WIRE_STATS);
	cr_assert_eq(t->reply.u.stats.quarantined, SHMI_PAGE_SIZE);
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_SPANS}};
	cr_assert_eq(test_core_ask(t, other), WIRE_SPAN_ROWS);
	for (uint32_t i = 0; i < t->reply.u.span_rows.n_rows; i++)
		n += t->reply.u.span_rows.rows[i].state == SHMI_SPAN_QUARANTINE;
	cr_assert_eq(n, 1);
	for (uint32_t got; (got = test_core_refill(t, other, SHARED64, 192)) != 0;)
		for (uint32_t i = 0; i < got; i++)
			cr_assert_neq(t->reply.u.refill_ok.grants[i].page, page);
	cr_assert_eq(state(t, page), SHMI_SPAN_QUARANTINE);
	cr_assert_eq(COUNTER(quarantined_pages), 1);
	test_core_check(t);
	end(t);
}

/* Given back by a client that lives: the same, and it is no fault of the request. */
Test(damage, an_overwritten_span_that_is_given_back)
{
	struct test_core *t = begin();
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page = smeared_span(t, d, SHARED64);

	t->req = (struct wire_msg){.kind = WIRE_REFILL, .u.refill.n_returns = 1};
	t->req.u.refill.returns[0] =
	        (struct wire_span){page, shmi_span_word(&t->heap.img, (shmi_page){page}).generation};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(state(t, page), SHMI_SPAN_QUARANTINE);
	cr_assert_eq(d->caller.client->account.used, d->caller.client->record_pages, "nobody pays for it");
	test_core_check(t);
	end(t);
}
