/* Dialogues with whoever: random bytes, random legal messages in any order, from several peers at once. Whatever they send, the
 * daemon's books stay right.
 */
#include "daemon/dialogue.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/core.h"
#include "tests/lib/random.h"

static uint64_t steps(uint64_t usual)
{
	return getenv("SHMALLOC_SOAK") ? usual * 100 : usual;
}

/* A page number that may mean something. */
static uint32_t some_page(struct test_random *random, struct test_core *t)
{
	static const uint32_t special[] = {0, 1, 8191, 8192, 1u << 28, UINT32_MAX};

	if (test_random_one_in(random, 5))
		return special[test_random_below(random, 6)];
	return test_random_below(random, t->heap.img.geo.limit_pages);
}

static struct wire_span some_span(struct test_random *random, struct test_core *t)
{
	struct wire_span span = {.page = some_page(random, t)};

	if (shmi_image_page_ok(&t->heap.img, (shmi_page){span.page}) && !test_random_one_in(random, 4))
		span.generation = shmi_span_word(&t->heap.img, (shmi_page){span.page}).generation;
	return span;
}

static void fill_refill(struct test_random *random, struct test_core *t)
{
	struct wire_refill *refill = &t->req.u.refill;

	refill->n_wants = test_random_below(random, 4);
	refill->n_returns = test_random_one_in(random, 3) ? test_random_below(random, 3) : 0;
	refill->n_reports = test_random_below(random, 3);
	for (uint32_t i = 0; i < refill->n_wants; i++)
		refill->wants[i] = (struct wire_want){
		        test_random_below(random, SHMI_SPAN_CLASSES), test_random_length(random, WIRE_SPANS)};
	for (uint32_t i = 0; i < refill->n_returns; i++)
		refill->returns[i] = some_span(random, t);
	for (uint32_t i = 0; i < refill->n_reports; i++)
		refill->reports[i] = some_page(random, t);
}

static void fill(struct test_random *random, struct test_core *t)
{
	union {
		struct wire_attach attach;
	} u;

	memset(&t->req, 0, sizeof(t->req));
	t->req.kind = (enum wire_kind)(WIRE_HELLO + test_random_below(random, WIRE_QUERY));
	switch (t->req.kind) {
	case WIRE_HELLO:
		t->req.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
		break;
	case WIRE_ATTACH:
		u.attach = (struct wire_attach){.heap = "default",
		        .resume = test_random_one_in(random, 2),
		        .client = test_random_below(random, 8)};
		if (test_random_one_in(random, 2))
			u.attach.nonce = t->heap.state->clients[u.attach.client].nonce;
		t->req.u.attach = u.attach;
		break;
	case WIRE_THREAD:
		t->req.u.thread.thread = test_random_one_in(random, 2) ? SHMI_NO_THREAD : test_random_below(random, 20);
		t->req.u.thread.parts = test_random_below(random, 16);
		break;
	case WIRE_REFILL:
		fill_refill(random, t);
		break;
	case WIRE_LARGE:
		t->req.u.large.pages = test_random_length(random, 4000);
		t->req.u.large.bytes = (uint64_t)t->req.u.large.pages << SHMI_PAGE_SHIFT;
		t->req.u.large.align_pages = 1u << test_random_below(random, 14);
		t->req.u.large.attrs = test_random_below(random, 4);
		t->req.u.large.lazy = test_random_one_in(random, 3);
		break;
	case WIRE_FREE:
		t->req.u.free.n_spans = 1 + test_random_below(random, 3);
		for (uint32_t i = 0; i < t->req.u.free.n_spans; i++)
			t->req.u.free.spans[i] = some_span(random, t);
		break;
	case WIRE_ROOT_SET:
	case WIRE_ROOT_DEL:
		t->req.u.root.off = (uint64_t)some_page(random, t) << SHMI_PAGE_SHIFT;
		t->req.u.root.name[0] = (char)('a' + test_random_below(random, 5));
		t->req.u.root.exclusive = test_random_one_in(random, 2);
		break;
	case WIRE_QUERY:
		t->req.u.query.kind = 1 + test_random_below(random, 6);
		t->req.u.query.cursor = test_random_below(random, 10000);
		break;
	default:
		break;
	}
}

/* What a client of this heap might write into ctl, wildly. */
static void scribble(struct test_random *random, struct test_core *t)
{
	struct shmi_image *img = &t->heap.img;
	uint32_t thread = test_random_below(random, 20);
	shmi_page page = {1 + test_random_below(random, 200)};

	if (test_random_one_in(random, 2))
		((uint64_t *)(void *)shmi_threadrec_at(img, thread))[test_random_below(random, 20000)] =
		        test_random_next(random);
	else if (shmi_image_page_ok(img, page))
		shmi_fetch_and(&shmi_bitmap_at(img, page)[test_random_below(random, 8)], test_random_next(random));
}

static struct dialogue *another(struct test_core *t, struct test_random *random, struct dialogue *old)
{
	if (test_random_one_in(random, 4))
		return test_core_connect(t, 1000 + test_random_below(random, 3));
	if (test_random_one_in(random, 3) && old)
		return test_core_again(t, old);
	return test_core_attach(t, 1000);
}

/* Those that lost their connection and never came back. */
static void kill_detached(struct test_core *t)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (t->core.client[i].state == CLIENT_DETACHED)
			core_client_died(&t->core, i);
	test_core_run(t);
}

static void books_are_right(struct test_core *t)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		const struct client *c = &t->core.client[i];

		if (c->state == CLIENT_FREE)
			continue;
		uint64_t held = shmi_owner_at(&t->heap.img, i)->pages + c->record_pages;

		cr_assert_eq(c->account.used, held + c->large.charge.pages, "client %u", i);
	}
}

Test(dialogue, random_requests)
{
	struct test_random random = test_random_init("dialogue");
	struct test_core *t = test_core_new(8192);
	struct dialogue *d[6] = {NULL};
	uint32_t answers = 0, errors = 0, deaths = 0, attached = 0;

	t->core.limits.client.hard = 5000;
	for (uint64_t step = 0; step < steps(40000); step++) {
		struct dialogue **who = &d[test_random_below(&random, 6)];

		t->fail_in = test_random_one_in(&random, 20) ? test_random_below(&random, 3) : TEST_CORE_NEVER;
		if (!*who || (*who)->state >= SESSION_CLOSING) {
			struct dialogue *old = *who;

			t->fail_in = TEST_CORE_NEVER;
			if (old && old->state != SESSION_CLOSED)
				dialogue_event(old, EVENT_FLUSHED);
			*who = another(t, &random, NULL);
			attached += (*who)->caller.client != NULL;
			if (old)
				test_core_hang_up(t, old);
			continue;
		}
		switch (test_random_below(&random, 40)) {
		case 0:
			if ((*who)->caller.client && (*who)->caller.client->state != CLIENT_LEAVING) {
				test_core_kill(t, *who);
				deaths++;
			}
			break;
		case 1:
			test_core_hang_up(t, *who);
			*who = NULL;
			break;
		case 2:
			scribble(&random, t);
			break;
		case 3:
		case 4:
		case 5:
			core_turn(&t->core);
			break;
		default:
			if (!dialogue_listens(*who))
				break;
			fill(&random, t);
			if (t->req.kind == WIRE_HELLO || t->req.kind == WIRE_ATTACH || t->req.kind == WIRE_DETACH ||
			        !(*who)->caller.client)
				if (!test_random_one_in(&random, 10))
					break;
			t->req.serial = test_random_one_in(&random, 30) ? t->serial : ++t->serial;
			enum wire_kind kind = test_core_send(t, *who);

			answers += kind != WIRE_NONE && kind != WIRE_ERROR;
			errors += kind == WIRE_ERROR;
		}
		core_tick(&t->core, 1000 + step);
		if (step % 500 == 0) {
			books_are_right(t);
			kill_detached(t);
		}
	}
	t->fail_in = TEST_CORE_NEVER;
	cr_assert(answers > 1000 && errors > 100 && deaths > 50 && attached > 50, "%u %u %u %u", answers, errors,
	        deaths, attached);
	for (int i = 0; i < 6; i++)
		if (d[i])
			test_core_hang_up(t, d[i]);
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (t->core.client[i].state != CLIENT_FREE)
			core_client_died(&t->core, i);
	test_core_run(t);
	cr_assert_eq(shmi_load(&t->heap.img.super->pages.owned), 0);
	cr_assert_eq(shmi_load(&t->heap.img.super->pages.moving), 0);
	for (uint32_t i = 0; i < ACCOUNT_USERS; i++)
		cr_assert(!t->core.users.user[i].refs && !t->core.users.user[i].account.used);
	test_core_check(t);
	test_core_free(t);
}

Test(dialogue, random_bytes)
{
	struct test_random random = test_random_init("bytes");
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = NULL;
	unsigned char bytes[600];

	for (uint64_t step = 0; step < steps(20000); step++) {
		if (d && d->state >= SESSION_CLOSING) {
			test_core_hang_up(t, d);
			d = NULL;
		}
		if (!d)
			d = test_random_one_in(&random, 2) ? test_core_connect(t, 1000) : test_core_attach(t, 1000);
		size_t len = 1 + test_random_below(&random, sizeof(bytes));

		for (size_t i = 0; i < len; i++)
			bytes[i] = (unsigned char)test_random_below(&random, test_random_one_in(&random, 2) ? 256 : 24);
		dialogue_packet(d, bytes, len);
		if (step % 500 == 0)
			kill_detached(t);
		test_core_run(t);
	}
	test_core_check(t);
	test_core_free(t);
}
