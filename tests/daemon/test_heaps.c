/* Which heap a request is for, and who may have it: dialogues over two heaps in memory. */
#include "daemon/limits.h"
#include "daemon/heaps.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/core.h"

static struct test_core *a, *b; /* dialogues are a's; its heaps are both */

static void begin(void)
{
	a = test_core_new(1024);
	b = test_core_new(2048);
	snprintf(a->config.name, sizeof(a->config.name), "a");
	snprintf(b->config.name, sizeof(b->config.name), "b");
	snprintf(a->heap.name, sizeof(a->heap.name), "a");
	snprintf(b->heap.name, sizeof(b->heap.name), "b");
	a->heaps.entry[a->heaps.n++] = (struct heaps_entry){.config = &b->config, .core = &b->core};
	a->heaps.uid = 77;
}

static void end(void)
{
	test_core_free(a);
	test_core_free(b);
}

TestSuite(heaps, .init = begin, .fini = end);

static struct peer peer_of(uint32_t uid, uint32_t gid)
{
	static int32_t pid = 5000;

	pid++;
	return (struct peer){.pid = pid, .uid = uid, .gid = gid, .pidfd = -1, .inode = (uint64_t)pid};
}

/* The code of the error, or 0. */
static uint32_t attach(struct dialogue *d, const char *heap)
{
	a->req = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(a->req.u.attach.heap, sizeof(a->req.u.attach.heap), "%s", heap);
	return test_core_fails(a, d);
}

static uint32_t ask_stats(struct dialogue *d, const char *heap)
{
	a->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query.kind = WIRE_Q_STATS};
	snprintf(a->req.u.query.heap, sizeof(a->req.u.query.heap), "%s", heap);
	b->answered = NULL;
	if (test_core_ask(a, d) == WIRE_NONE) { /* the other heap gathers them */
		while (!b->answered && core_turn(&b->core))
			;
		a->reply = b->reply;
	}
	return a->reply.kind == WIRE_ERROR ? a->reply.u.error.code : 0;
}

static const struct wire_heap_row *ask_heaps(struct dialogue *d)
{
	a->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_HEAPS, .heap = "nonsense"}};
	cr_assert_eq(test_core_fails(a, d), 0);
	cr_assert_eq(a->reply.kind, WIRE_HEAPS);
	cr_assert_eq(a->reply.u.heaps.n_rows, 2);
	cr_assert_eq(a->reply.u.heaps.next, 0);
	return a->reply.u.heaps.rows;
}

Test(heaps, an_attach_picks_one_by_name)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000)),
	                *e = test_core_connect_as(a, peer_of(1000, 1000));

	cr_expect_eq(attach(d, "c"), WIRE_E_NO_HEAP);
	cr_expect_eq(attach(d, ""), WIRE_E_NO_HEAP);
	cr_expect_eq(attach(d, "b"), 0);
	cr_expect_eq(d->caller.client, &b->core.client[0]);
	cr_expect_eq(attach(e, "a"), 0);
	cr_expect_eq(e->caller.client, &a->core.client[0]);
	cr_expect_eq(test_core_refill(a, d, 4, 3), 3);
	cr_expect_eq(shmi_load(&b->heap.img.super->pages.owned), 3);
	cr_expect_eq(shmi_load(&a->heap.img.super->pages.owned), 0);
	test_core_hang_up(a, d);
	cr_expect_eq(b->core.client[0].state, CLIENT_DETACHED);
	cr_expect_eq(a->core.client[0].state, CLIENT_ATTACHED);
}

Test(heaps, a_query_names_one)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));

	cr_expect_eq(ask_stats(d, "b"), 0);
	cr_expect_str_eq(a->reply.u.stats.heap, "b");
	cr_expect_eq(ask_stats(d, "a"), 0);
	cr_expect_str_eq(a->reply.u.stats.heap, "a");
	cr_expect_eq(ask_stats(d, "c"), WIRE_E_NO_HEAP);
	cr_expect_eq(ask_stats(d, ""), WIRE_E_NO_HEAP, "none of two is called 'default'");
	snprintf(b->config.name, sizeof(b->config.name), "default");
	cr_expect_eq(ask_stats(d, ""), 0);
	cr_expect_eq(a->reply.u.stats.limit, 2048ull << SHMI_PAGE_SHIFT);
	a->heaps.n = 1;
	cr_expect_eq(ask_stats(d, ""), 0, "the only one, whatever it is called");
	cr_expect_str_eq(a->reply.u.stats.heap, "a");
}

Test(heaps, a_client_asks_its_own)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(0, 0));

	cr_assert_eq(attach(d, "b"), 0);
	cr_expect_eq(ask_stats(d, ""), 0);
	cr_expect_str_eq(a->reply.u.stats.heap, "b");
	cr_expect_eq(ask_stats(d, "b"), 0);
	cr_expect_eq(ask_stats(d, "a"), WIRE_E_INVALID);
	cr_expect_not_null(
	        strstr(a->reply.u.error.text, "attached to heap 'b', and asks of 'a'"), "%s", a->reply.u.error.text);
	a->req = (struct wire_msg){.kind = WIRE_TRIM, .u.trim.heap = "a"};
	cr_expect_eq(test_core_fails(a, d), WIRE_E_INVALID);
	cr_expect_not(core_has_jobs(&a->core));
	ask_heaps(d);
}

Test(heaps, one_that_could_not_be_opened)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));

	a->heaps.entry[1].core = NULL;
	a->heaps.entry[1].why = "data is cut short";
	cr_expect_eq(attach(d, "b"), WIRE_E_DAMAGED);
	cr_expect_str_eq(a->reply.u.error.text, "heap 'b' could not be opened: data is cut short");
	cr_expect_eq(ask_stats(d, "b"), WIRE_E_DAMAGED);
	cr_expect_eq(ask_heaps(d)[1].damaged, 1);
	cr_expect_eq(attach(d, "a"), 0);
}

/* ---- who may ---- */

Test(heaps, who_may_attach)
{
	static const struct {
		uint32_t uid, gid, groups[2];
		bool allowed;
	} cases[] = {{1000, 1000, {0}, false}, {1001, 1000, {0}, true}, {1000, 50, {0}, true},
	        {1000, 1000, {50, 0}, true}, {1000, 1000, {49, 51}, false}, {1000, 1000, {49, 50}, true},
	        {0, 9, {0}, true}, {77, 77, {0}, true}, {50, 1001, {1001, 1002}, false}};

	b->config.access = (struct access){.users = {2, {1001, 1002}}, .groups = {1, {50}}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct dialogue *d = test_core_connect_as(a, peer_of(cases[i].uid, cases[i].gid));

		d->caller.groups = (struct peer_groups){2, {cases[i].groups[0], cases[i].groups[1]}};
		if (!cases[i].groups[0])
			d->caller.groups.n = 0;
		cr_expect_eq(ask_heaps(d)[1].allowed, cases[i].allowed, "case %zu", i);
		cr_expect_eq(ask_heaps(d)[0].allowed, 1, "a has no lists");
		cr_expect_eq(attach(d, "b"), cases[i].allowed ? 0 : WIRE_E_ACCESS, "case %zu", i);
		test_core_hang_up(a, d);
	}
	cr_expect_eq(a->heaps.entry[1].refused, 3);
	cr_expect_eq(a->heaps.entry[0].refused, 0);
}

/* Each list alone keeps all others out. */
Test(heaps, one_list_is_enough)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));

	b->config.access = (struct access){.users = {1, {1001}}};
	cr_expect_eq(attach(d, "b"), WIRE_E_ACCESS);
	b->config.access = (struct access){.groups = {1, {1001}}};
	cr_expect_eq(attach(d, "b"), WIRE_E_ACCESS);
	b->config.access = (struct access){0};
	cr_expect_eq(attach(d, "b"), 0);
}

/* Who is there stays when the lists change; who has lost the connection then may not come back. */
Test(heaps, a_resume_is_asked_too)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));

	cr_assert_eq(attach(d, "b"), 0);
	uint32_t client = a->reply.u.attach_ok.client;
	uint64_t nonce = a->reply.u.attach_ok.nonce;

	b->config.access.users = (struct access_list){1, {1001}};
	cr_expect_eq(test_core_refill(a, d, 4, 2), 2, "it stays");
	struct dialogue *again = test_core_again(a, d);

	a->req = (struct wire_msg){
	        .kind = WIRE_ATTACH, .u.attach = {.heap = "b", .resume = true, .client = client, .nonce = nonce}};
	const struct wire_msg resume = a->req;

	cr_expect_eq(test_core_fails(a, again), WIRE_E_ACCESS);
	cr_expect_eq(b->core.client[client].caller, &d->caller, "its connection is what it was");
	b->config.access.users.n = 0;
	a->req = resume;
	cr_expect_eq(test_core_fails(a, again), 0);
	cr_expect_eq(b->core.client[client].caller, &again->caller);
}

Test(heaps, rows)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));

	cr_assert_eq(attach(d, "b"), 0);
	cr_assert_eq(test_core_refill(a, d, 4, 7), 7);
	a->heaps.entry[1].sealed = true;
	a->heap.fenced = true;
	const struct wire_heap_row *rows = ask_heaps(d);

	cr_expect_str_eq(rows[0].name, "a");
	cr_expect_str_eq(rows[1].name, "b");
	cr_expect_eq(rows[0].clients, 0);
	cr_expect_eq(rows[1].clients, 1);
	cr_expect_eq(rows[0].backed, 0);
	cr_expect_geq(rows[1].backed, 7 << SHMI_PAGE_SHIFT);
	cr_expect_eq(rows[0].limit, 1024 << SHMI_PAGE_SHIFT);
	cr_expect_eq(rows[1].limit, 2048 << SHMI_PAGE_SHIFT);
	cr_expect(rows[0].damaged && !rows[1].damaged && !rows[0].backing && rows[1].backing == 1);
}

Test(heaps, limits_change_for_those_who_are_there)
{
	struct dialogue *d = test_core_connect_as(a, peer_of(1000, 1000));
	struct limits limits = {.client.hard = 500, .user.hard = 20};

	cr_assert_eq(attach(d, "b"), 0);
	cr_expect_eq(test_core_refill(a, d, 4, 10), 10);
	limits_apply(&b->core, &limits);
	cr_expect_lt(test_core_refill(a, d, 4, 100), 20, "the user's limit holds");
	limits = (struct limits){.client.hard = 1};
	limits_apply(&b->core, &limits);
	cr_expect_eq(test_core_refill(a, d, 4, 1), 0);
	cr_expect_eq(a->reply.u.error.code, WIRE_E_LIMIT);
	limits_apply(&b->core, &(struct limits){0});
	cr_expect_eq(test_core_refill(a, d, 4, 100), 100);
}
