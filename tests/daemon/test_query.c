/* Queries: what they say, page by page, attached or not, and that they change nothing. */
#include "daemon/query.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "daemon/policy.h"
#include "tests/lib/core.h"

static enum wire_kind query(struct test_core *t, struct dialogue *d, uint32_t kind, uint64_t cursor)
{
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = kind, .heap = "default", .cursor = cursor}};
	return test_core_ask(t, d);
}

Test(query, stats_add_up)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *plain = test_core_again(t, test_core_connect(t, 1001));

	test_core_refill(t, d, 4 * SHMI_ATTRS, 10);
	test_core_large(t, d, 500, 0, false);
	cr_assert_eq(query(t, plain, WIRE_Q_STATS, 0), WIRE_STATS);
	const struct wire_stats *st = &t->reply.u.stats;

	cr_assert_str_eq(st->heap, "default");
	cr_assert_eq(st->owned + st->central + st->free, st->backed);
	cr_assert_eq(st->owned, 510ull << SHMI_PAGE_SHIFT);
	cr_assert_eq(st->live, 500ull << SHMI_PAGE_SHIFT);
	cr_assert_eq(st->clients, 1);
	cr_assert_eq(st->limit, 8192ull << SHMI_PAGE_SHIFT);
	cr_assert_gt(st->requests, 2); /* a hello is of no heap */
	cr_assert_eq(st->damaged, 0);
	test_core_free(t);
}

Test(query, unknown_ones)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);

	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS, .heap = "other"}};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_NO_HEAP);
	t->req.u.query = (struct wire_query){.kind = WIRE_Q_STATS};
	cr_assert_eq(test_core_ask(t, d), WIRE_STATS, "without a name: the heap that is there");
	t->req.kind = WIRE_QUERY;
	t->req.u.query = (struct wire_query){.kind = 0};
	cr_assert_eq(test_core_force(t, d), WIRE_E_INVALID);
	t->req.u.query = (struct wire_query){.kind = 99};
	cr_assert_eq(test_core_force(t, d), WIRE_E_INVALID);
	test_core_free(t);
}

/* Reads all pages of an answer, which has the rows that `count` counts. */
static uint32_t read_all(struct test_core *t, struct dialogue *d, uint32_t kind, enum wire_kind reply)
{
	uint32_t rows = 0, pages = 0;
	uint64_t cursor = 0;

	do {
		cr_assert_eq(query(t, d, kind, cursor), reply);
		cr_assert_leq(t->reply.u.span_rows.n_rows, WIRE_ROWS);
		rows += t->reply.u.span_rows.n_rows;
		cr_assert(t->reply.u.span_rows.next == 0 || t->reply.u.span_rows.next > cursor);
		cursor = t->reply.u.span_rows.next;
		cr_assert_lt(++pages, 1000);
	} while (cursor);
	return rows;
}

Test(query, rows_come_in_pages)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	char name[16];

	for (int i = 0; i < 5; i++)
		cr_assert_gt(test_core_refill(t, d, 4 * SHMI_ATTRS, 150), 0);
	uint32_t spans = shmi_owner_at(&t->heap.img, 0)->spans.count;
	uint64_t off = (uint64_t)test_core_large(t, d, 1, 0, false) << SHMI_PAGE_SHIFT;

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		t->req = (struct wire_msg){.kind = WIRE_ROOT_SET, .u.root = {.off = off}};
		strcpy(t->req.u.root.name, name);
		cr_assert_eq(test_core_fails(t, d), 0);
	}
	cr_assert_geq(read_all(t, d, WIRE_Q_SPANS, WIRE_SPAN_ROWS), spans + 2, "and free runs");
	cr_assert_eq(read_all(t, d, WIRE_Q_ROOTS, WIRE_ROOTS), 300);
	cr_assert_eq(read_all(t, d, WIRE_Q_CLASSES, WIRE_CLASSES), 2);
	cr_assert_eq(read_all(t, d, WIRE_Q_CLIENTS, WIRE_CLIENTS), 1);
	test_core_free(t);
}

Test(query, any_cursor)
{
	static const uint64_t cursors[] = {1, 5, 1023, 1024, 8191, 8192, UINT32_MAX, 1ull << 33, UINT64_MAX};
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	test_core_refill(t, d, 4 * SHMI_ATTRS, 5);
	for (uint32_t kind = WIRE_Q_SPANS; kind <= WIRE_Q_CHECK; kind++)
		for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++)
			cr_assert_neq(query(t, d, kind, cursors[i]), WIRE_ERROR);
	test_core_free(t);
}

/* Cursors of figures are of a snapshot: those that were made up are refused, those behind its last row bring nothing. */
Test(query, any_cursor_of_figures)
{
	static const uint64_t cursors[] = {
	        1, 5, 1023, 1024, UINT32_MAX, 2ull << 32, 17ull << 32, 1ull << 33, UINT64_MAX};
	static const uint32_t kinds[] = {WIRE_Q_STATS, WIRE_Q_CLIENTS, WIRE_Q_CLASSES, WIRE_Q_USERS};
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(query(t, d, WIRE_Q_STATS, 0), WIRE_STATS);
	uint64_t snapshot = t->reply.u.stats.snapshot;

	cr_assert_eq(snapshot, 1ull << 32);
	for (uint32_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		for (size_t i = 0; i < sizeof(cursors) / sizeof(cursors[0]); i++) {
			cr_assert_eq(query(t, d, kinds[k], cursors[i]), WIRE_ERROR);
			cr_assert_eq(t->reply.u.error.code, WIRE_E_NOT_FOUND);
		}
		cr_assert_neq(query(t, d, kinds[k], snapshot + UINT32_MAX), WIRE_ERROR);
		if (kinds[k] != WIRE_Q_STATS)
			cr_assert_eq(t->reply.u.clients.n_rows, 0);
	}
	test_core_free(t);
}

/* Who may have a big heap checked. */
Test(query, check_of_a_big_heap)
{
	struct test_core *t = test_core_new(2 * POLICY_CHECK_PAGES);
	struct dialogue *a = test_core_attach(t, 1000);

	t->core.uid = 900;
	cr_assert_neq(test_core_large(t, a, POLICY_CHECK_PAGES, 0, true), 0);
	cr_assert_eq(query(t, a, WIRE_Q_CHECK, 0), WIRE_CHECK);
	cr_assert_neq(test_core_large(t, a, 1, 0, true), 0);
	cr_assert_eq(query(t, a, WIRE_Q_CHECK, 0), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_ACCESS);
	cr_assert_eq(query(t, test_core_attach(t, 900), WIRE_Q_CHECK, 0), WIRE_CHECK);
	cr_assert_eq(query(t, test_core_attach(t, 0), WIRE_Q_CHECK, 0), WIRE_CHECK);
	test_core_free(t);
}

Test(query, clients)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1001);

	test_core_refill(t, b, 4 * SHMI_ATTRS, 5);
	test_core_hang_up(t, a);
	cr_assert_eq(query(t, b, WIRE_Q_CLIENTS, 0), WIRE_CLIENTS);
	cr_assert_eq(t->reply.u.clients.n_rows, 2);
	const struct wire_client_row *row = t->reply.u.clients.rows;

	cr_assert_eq(row[0].detached, 1);
	cr_assert_eq(row[1].detached, 0);
	cr_assert_eq(row[1].uid, 1001);
	cr_assert_eq(row[1].pid, (uint32_t)b->caller.client->peer.pid);
	cr_assert_eq(row[1].spans, 5);
	cr_assert_str_eq(row[1].label, "test");
	test_core_free(t);
}

Test(query, check)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	test_core_refill(t, d, 4 * SHMI_ATTRS, 5);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;

	cr_assert_eq(query(t, d, WIRE_Q_CHECK, 0), WIRE_CHECK);
	cr_assert_eq(t->reply.u.check.violations, 0);
	shmi_store(shmi_page_class_at(&t->heap.img, (shmi_page){page}), 77);
	cr_assert_eq(query(t, d, WIRE_Q_CHECK, 0), WIRE_CHECK);
	cr_assert_gt(t->reply.u.check.violations, 0);
	cr_assert_gt(t->reply.u.check.n_rows, 0);
	cr_assert_gt(strlen(t->reply.u.check.rows[0].text), 0);
	test_core_free(t);
}

/* A query between a request and its repeat does not come between them. */
Test(query, queries_are_not_numbered)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_eq(test_core_refill(t, d, 4 * SHMI_ATTRS, 2), 2);
	uint64_t serial = t->serial;
	struct wire_msg req = t->req;

	cr_assert_eq(query(t, d, WIRE_Q_STATS, 0), WIRE_STATS);
	t->req = req;
	t->req.serial = serial;
	cr_assert_eq(test_core_send(t, d), WIRE_REFILL_OK);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 2);
	test_core_free(t);
}
