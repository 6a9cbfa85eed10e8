/* Surveys: bounded steps, answers that are never older than their question, snapshots that are kept for their rows. */
#include "daemon/limits.h"
#include "daemon/survey.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "daemon/policy.h"
#include "shm/slots.h"
#include "shm/stats.h"
#include "tests/lib/core.h"
#include "tests/lib/random.h"

TestSuite(survey, .timeout = 60);

#define CLASS_64 16u /* span class of 64-byte blocks, shared */

/* Somebody in the daemon that waits for figures. */
struct listener {
	struct survey_wait wait;
	uint32_t called;
	uint32_t id; /* of the last snapshot */
	struct wire_stats stats;
};

static void hear(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot)
{
	struct listener *l = (struct listener *)(void *)((char *)wait - offsetof(struct listener, wait));

	(void)core;
	cr_assert_not_null(snapshot);
	l->called++;
	l->id = snapshot->id;
	l->stats = snapshot->stats;
}

static void ask(struct test_core *t, struct listener *l)
{
	l->wait.ready = hear;
	survey_ask(&t->core, &l->wait);
}

static enum wire_kind query(struct test_core *t, struct dialogue *d, uint32_t kind, uint64_t cursor)
{
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = kind, .cursor = cursor}};
	return test_core_ask(t, d);
}

/* The same, without running jobs: WIRE_NONE if there is no answer yet. */
static enum wire_kind query_only(struct test_core *t, struct dialogue *d, uint32_t kind)
{
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .serial = 77, .u.query = {.kind = kind}};
	return test_core_send(t, d);
}

/* A span of 64-byte blocks, of which the client has allocated `n`. */
static shmi_page span_with(struct test_core *t, struct dialogue *d, uint32_t n)
{
	cr_assert_eq(test_core_refill(t, d, CLASS_64, 1), 1);
	shmi_page page = {t->reply.u.refill_ok.grants[0].page};

	shmi_slots_take(shmi_bitmap_at(&t->heap.img, page), 0, n < 64 ? (1ull << n) - 1 : ~0ull);
	return page;
}

/* A record with magazines of all attributes. */
static struct shmi_threadrec *record_of(struct test_core *t, struct dialogue *d)
{
	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 15}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	return shmi_threadrec_at(&t->heap.img, t->reply.u.thread_ok.thread);
}

static void push(struct test_core *t, struct shmi_threadrec *rec, uint64_t off)
{
	struct shmi_magazine *mag = shmi_magazine_at(&t->heap.img, rec, (shmi_sclass){CLASS_64});
	uint32_t top = shmi_load(&mag->top);

	shmi_store(&mag->entry[top], off);
	shmi_store(&mag->top, top + 1);
}

Test(survey, what_clients_did_before_the_question_is_in_the_answer)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	shmi_page page = span_with(t, a, 10);
	struct shmi_threadrec *rec = record_of(t, b);

	push(t, rec, shmi_page_off(page).b + 64);
	push(t, rec, shmi_page_off(page).b + 128);
	cr_assert_eq(query(t, a, WIRE_Q_CLIENTS, 0), WIRE_CLIENTS);
	const struct wire_client_row *rows = t->reply.u.clients.rows;

	cr_assert_eq(rows[0].live, 8 * 64);
	cr_assert_eq(rows[0].cached, 2 * 64, "of its span, in the other's cache");
	cr_assert_eq(rows[0].slots_free, SHMI_PAGE_SIZE - 10 * 64);
	cr_assert_eq(rows[1].cached, 0);
	cr_assert_eq(rows[1].threads, 1);
	cr_assert_eq(rows[0].granted, SHMI_PAGE_SIZE);
	test_core_free(t);
}

/* Who asks while a survey is on gets the next one. */
Test(survey, a_question_in_the_middle_waits_for_the_next)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000);
	struct listener first = {.called = 0}, second = {.called = 0};
	shmi_page page = span_with(t, a, 1);

	for (int i = 0; i < 30; i++)
		(void)record_of(t, a); /* so that it takes more than a step */
	ask(t, &first);
	cr_assert(core_turn(&t->core));
	cr_assert_eq(first.called, 0);
	shmi_slots_take(shmi_bitmap_at(&t->heap.img, page), 1, ~0ull);
	ask(t, &second);
	test_core_run(t);
	cr_assert_eq(first.called, 1);
	cr_assert_eq(second.called, 1);
	cr_assert_neq(first.id, second.id);
	cr_assert_eq(second.stats.live, 65 * 64);
	cr_assert_not(core_has_jobs(&t->core));
	test_core_free(t);
}

Test(survey, all_who_ask_at_once_get_one_answer)
{
	struct test_core *t = test_core_new(8192);
	struct listener many[20] = {{.called = 0}};

	for (uint32_t i = 0; i < 20; i++)
		ask(t, &many[i]);
	test_core_run(t);
	for (uint32_t i = 0; i < 20; i++) {
		cr_assert_eq(many[i].called, 1);
		cr_assert_eq(many[i].id, many[0].id);
	}
	test_core_free(t);
}

Test(survey, who_leaves_is_not_answered)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	struct listener l = {.called = 0};

	cr_assert_eq(query_only(t, a, WIRE_Q_STATS), WIRE_NONE);
	cr_assert_eq(query_only(t, b, WIRE_Q_STATS), WIRE_NONE);
	test_core_hang_up(t, a);
	cr_assert_eq(TAILQ_FIRST(&t->core.survey.waiting), &b->caller.asking.wait);
	t->answered = NULL;
	test_core_run(t);
	cr_assert_eq(t->answered, b);
	ask(t, &l);
	survey_forget(&t->core, &l.wait);
	survey_forget(&t->core, &l.wait);
	test_core_run(t);
	cr_assert_eq(l.called, 0);
	test_core_free(t);
}

/* The words that one step may read. A heap of many spans and full caches is read in many steps. */
Test(survey, steps_are_bounded)
{
	struct test_core *t = test_core_new(40000);
	struct dialogue *a = test_core_attach(t, 1000);
	struct listener l = {.called = 0};
	uint32_t steps = 0, spans = 0;

	while (spans < 20000) {
		uint32_t n = test_core_refill(t, a, CLASS_64, 150);

		cr_assert_gt(n, 0);
		spans += n;
	}
	ask(t, &l);
	while (!l.called) {
		cr_assert(core_turn(&t->core));
		steps++;
	}
	cr_assert_geq(steps, spans * 8 / POLICY_SURVEY_WORK, "%u spans in %u steps", spans, steps);
	cr_assert_leq(steps, spans * 8 / POLICY_SURVEY_WORK + 20, "%u spans in %u steps", spans, steps);
	test_core_free(t);
}

Test(survey, rows_of_one_moment)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000);
	shmi_page page = span_with(t, a, 3);

	cr_assert_eq(query(t, a, WIRE_Q_STATS, 0), WIRE_STATS);
	uint64_t moment = t->reply.u.stats.snapshot;

	shmi_slots_take(shmi_bitmap_at(&t->heap.img, page), 1, ~0ull);
	test_core_attach(t, 1001);
	cr_assert_eq(query(t, a, WIRE_Q_STATS, 0), WIRE_STATS);
	cr_assert_eq(t->reply.u.stats.live, 67 * 64);
	cr_assert_eq(query(t, a, WIRE_Q_CLIENTS, moment), WIRE_CLIENTS);
	cr_assert_eq(t->reply.u.clients.n_rows, 1, "as it was then");
	cr_assert_eq(t->reply.u.clients.rows[0].live, 3 * 64);
	for (uint32_t i = 0; i < SURVEY_KEPT; i++)
		cr_assert_eq(query(t, a, WIRE_Q_USERS, 0), WIRE_USERS);
	cr_assert_eq(query(t, a, WIRE_Q_CLIENTS, moment), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NOT_FOUND);
	test_core_free(t);
}

/* Whoever reads page by page is not disturbed by how often others ask. */
Test(survey, others_push_out_their_own)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *quiet = test_core_attach(t, 1000), *loud = test_core_attach(t, 1001);

	cr_assert_eq(query(t, loud, WIRE_Q_STATS, 0), WIRE_STATS);
	uint64_t theirs = t->reply.u.stats.snapshot;

	cr_assert_eq(query(t, quiet, WIRE_Q_STATS, 0), WIRE_STATS);
	uint64_t moment = t->reply.u.stats.snapshot;

	for (uint32_t i = 0; i < 10 * SURVEY_KEPT; i++) {
		cr_assert_eq(query(t, loud, WIRE_Q_USERS, 0), WIRE_USERS);
		cr_assert_eq(query(t, quiet, WIRE_Q_CLIENTS, moment), WIRE_CLIENTS);
	}
	cr_assert_eq(query(t, loud, WIRE_Q_CLIENTS, theirs), WIRE_ERROR);
	test_core_free(t);
}

/* More rows than a message has room for. */
Test(survey, rows_come_in_pages)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000);
	struct fair *connections = calloc(1, sizeof(*connections));
	uint32_t rows = 0, pages = 0;
	uint64_t cursor = 0;

	cr_assert_not_null(connections);
	for (uint32_t i = 0; i < 2 * WIRE_ROWS + 7; i++)
		cr_assert_not_null(fair_enter(connections, 5000 + i, 1));
	t->core.connections = connections;
	do {
		cr_assert_eq(query(t, a, WIRE_Q_USERS, cursor), WIRE_USERS);
		for (uint32_t i = 0; i < t->reply.u.users.n_rows; i++, rows++)
			cr_assert_eq(t->reply.u.users.rows[i].uid, rows ? 4999 + rows : 1000);
		*connections = (struct fair){0}; /* later pages are of the moment of the first */
		cursor = t->reply.u.users.next;
		pages++;
	} while (cursor);
	cr_assert_eq(pages, 3);
	cr_assert_eq(rows, 2 * WIRE_ROWS + 8);
	test_core_free(t);
	free(connections);
}

Test(survey, users_are_the_sums_of_their_clients)
{
	struct test_core *t = test_core_new(8192);
	static const struct fair connections = {
	        .connections = 7, .user = {{.uid = 1000, .connections = 2}, {0}, {.uid = 77, .connections = 5}}};
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000), *c = test_core_attach(t, 1001);

	t->core.connections = &connections;
	limits_apply(&t->core, &(struct limits){.user.soft = 3});
	span_with(t, a, 1);
	span_with(t, b, 1);
	span_with(t, c, 1);
	t->req = (struct wire_msg){.kind = WIRE_ROOT_DEL, .u.root = {.name = "none"}};
	cr_assert_eq(test_core_fails(t, b), WIRE_E_NOT_FOUND);
	cr_assert_eq(query(t, a, WIRE_Q_USERS, 0), WIRE_USERS);
	const struct wire_user_row *rows = t->reply.u.users.rows;

	cr_assert_eq(t->reply.u.users.n_rows, 3);
	cr_assert_eq(rows[0].uid, 77);
	cr_assert_eq(rows[0].sessions, 5);
	cr_assert_eq(rows[0].clients, 0);
	cr_assert_eq(rows[1].uid, 1000);
	cr_assert_eq(rows[1].clients, 2);
	cr_assert_eq(rows[1].sessions, 2);
	cr_assert_eq(rows[1].bytes, 2 * SHMI_PAGE_SIZE);
	cr_assert_eq(rows[1].failed, 1);
	cr_assert_eq(rows[1].soft_limit, 3 * SHMI_PAGE_SIZE);
	cr_assert_gt(rows[1].requests, 2);
	cr_assert_eq(rows[2].bytes, SHMI_PAGE_SIZE);
	cr_assert_eq(rows[2].failed, 0);
	test_core_free(t);
}

/* Failures are counted where the answer comes later, too. */
Test(survey, what_was_refused_and_moved)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	uint32_t page = test_core_large(t, a, 600, 0, false);

	cr_assert_neq(page, 0);
	t->fail_object = HEAP_DATA;
	t->fail_in = 1;
	cr_assert_eq(test_core_large(t, a, 1200, 0, false), 0);
	t->fail_in = TEST_CORE_NEVER;
	t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {{page, 0}}}};
	t->req.u.free.spans[0].generation = shmi_span_word(&t->heap.img, (shmi_page){page}).generation;
	cr_assert_eq(test_core_fails(t, b), 0);
	t->req = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.waited_us = 100, .remote_freed = 9}};
	cr_assert_eq(test_core_ask(t, b), WIRE_REFILL_OK);
	cr_assert_eq(query(t, a, WIRE_Q_STATS, 0), WIRE_STATS);
	const struct wire_stats *s = &t->reply.u.stats;

	cr_assert_eq(s->counters[16], 600);
	cr_assert_eq(s->counters[17], 600);
	cr_assert_eq(s->counters[18], 9);
	cr_assert_eq(s->waited_us[7], 1);
	cr_assert_eq(s->waited_sum_us, 100);
	cr_assert_eq(query(t, a, WIRE_Q_CLIENTS, 0), WIRE_CLIENTS);
	cr_assert_eq(t->reply.u.clients.rows[0].failed, 1);
	cr_assert_eq(t->reply.u.clients.rows[0].granted, 600 * SHMI_PAGE_SIZE);
	cr_assert_eq(t->reply.u.clients.rows[1].failed, 0);
	test_core_free(t);
}

/* A heap that is cut short in the middle of a survey, and one that was before. */
Test(survey, of_a_fenced_heap)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);
	struct listener l = {.called = 0};

	span_with(t, a, 5);
	ask(t, &l);
	core_fence(&t->core);
	test_core_run(t);
	cr_assert_eq(l.called, 1);
	cr_assert_eq(l.stats.damaged, 1);
	ask(t, &l);
	cr_assert_eq(l.called, 2, "at once");
	cr_assert_eq(query_only(t, b, WIRE_Q_STATS), WIRE_STATS);
	cr_assert_eq(t->reply.u.stats.damaged, 1);
	cr_assert_eq(t->reply.u.stats.owned, SHMI_PAGE_SIZE);
	cr_assert_eq(query_only(t, b, WIRE_Q_CLIENTS), WIRE_CLIENTS);
	cr_assert_eq(t->reply.u.clients.n_rows, 2);
	cr_assert_eq(query_only(t, b, WIRE_Q_CLASSES), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_DAMAGED);
	test_core_free(t);
}

/* The next daemon counts anew what it finds, and says that it took over. */
Test(survey, after_a_restart)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000);

	span_with(t, a, 5);
	test_core_restart(t);
	cr_assert_eq(shmi_ledger_sum(&t->core.ledger).bytes, SHMI_PAGE_SIZE, "before anybody asks");
	a = test_core_attach(t, 1001);
	cr_assert_eq(query(t, a, WIRE_Q_STATS, 0), WIRE_STATS);
	cr_assert_eq(t->reply.u.stats.live, 5 * 64);
	cr_assert_eq(t->reply.u.stats.counters[27], 1);
	test_core_free(t);
}

/* ---- at random ---- */

static void must_add_up(const struct wire_stats *s)
{
	cr_assert_eq(s->live + s->cached + s->slots_free + s->tail + s->written_off + s->quarantined,
	        s->owned + s->central + s->lazy);
}

/* Clients scribble in bitmaps and caches between any two steps. */
static void scribble(struct test_core *t, struct test_random *r, struct shmi_threadrec *rec)
{
	shmi_page page = {1 + test_random_below(r, 2000)};
	struct shmi_magazine *mag =
	        shmi_magazine_at(&t->heap.img, rec, (shmi_sclass){(uint16_t)(4 + test_random_below(r, 60))});

	if (!shmi_image_page_ok(&t->heap.img, page))
		return;
	shmi_store(&shmi_bitmap_at(&t->heap.img, page)[test_random_below(r, 7)], test_random_next(r));
	shmi_store(&mag->top, (uint32_t)test_random_next(r));
	shmi_store(&mag->entry[test_random_below(r, 4)], test_random_next(r) % (2100ull << SHMI_PAGE_SHIFT));
	shmi_store(&rec->spill_top, test_random_below(r, 600));
	rec->spill[test_random_below(r, 500)].span = test_random_below(r, 3000);
	rec->spill[test_random_below(r, 500)].bits = test_random_next(r);
	shmi_store(&rec->big.top, (uint32_t)test_random_next(r));
	shmi_store(&rec->big.entry[test_random_below(r, 400)], test_random_next(r) % (2100ull << 32));
}

static void move_spans(struct test_core *t, struct test_random *r, struct dialogue *d)
{
	static uint32_t page[64], generation[64];
	uint32_t k = test_random_below(r, 64);

	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	if (page[k]) {
		t->req.u.refill.n_returns = 1;
		t->req.u.refill.returns[0] = (struct wire_span){page[k], generation[k]};
	}
	t->req.u.refill.n_wants = 1;
	t->req.u.refill.wants[0] = (struct wire_want){4 + test_random_below(r, 60), 1};
	page[k] = 0;
	t->req.serial = ++t->serial;
	if (test_core_send(t, d) != WIRE_REFILL_OK || !t->reply.u.refill_ok.n_grants)
		return;
	page[k] = t->reply.u.refill_ok.grants[0].page;
	generation[k] = t->reply.u.refill_ok.grants[0].generation;
}

Test(survey, adds_up_whatever_happens_between_its_steps)
{
	struct test_core *t = test_core_new(8192);
	struct test_random r = test_random_init("survey");
	struct dialogue *d = test_core_attach(t, 1000);
	struct shmi_threadrec *rec = record_of(t, d);
	struct listener l = {.called = 0};

	for (uint32_t i = 0; i < 3000; i++) {
		if (!l.wait.round)
			ask(t, &l);
		scribble(t, &r, rec);
		move_spans(t, &r, d);
		core_turn(&t->core);
		if (l.called)
			must_add_up(&l.stats);
	}
	cr_assert_gt(l.called, 100);
	test_core_free(t);
}
