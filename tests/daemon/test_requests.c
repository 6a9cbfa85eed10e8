/* Requests over the core in memory: greeting, attaching, thread records, roots, and each request taking effect once. */
#include "daemon/requests.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "shm/roots.h"
#include "tests/lib/core.h"

#define NOSCAN16 (1 * SHMI_ATTRS + SHMI_NOSCAN) /* 16-byte blocks */

static const struct shmi_client_state *entry(const struct test_core *t, const struct dialogue *d)
{
	return clients_entry(&t->core, d->caller.client);
}

Test(requests, versions_must_match)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_connect(t, 1000);
	char hash[32];

	t->req = (struct wire_msg){.kind = WIRE_HELLO};
	t->req.u.hello =
	        (struct wire_hello){.protocol = WIRE_PROTOCOL + 7, .layout_hash = 0xabcdef, .version = "9.9.9"};
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_VERSION);
	snprintf(hash, sizeof(hash), "%016llx", (unsigned long long)shmi_layout_hash());
	cr_assert(strstr(t->reply.u.error.text, "9.9.9 with protocol 12") && strstr(t->reply.u.error.text, "abcdef"),
	        "theirs: %s", t->reply.u.error.text);
	cr_assert(strstr(t->reply.u.error.text, SHMALLOC_VERSION) && strstr(t->reply.u.error.text, hash), "ours: %s",
	        t->reply.u.error.text);
	cr_assert_eq(d->state, SESSION_CLOSING);
	test_core_free(t);
}

Test(requests, attach)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *a = test_core_attach(t, 1000);
	struct wire_attach_ok ok = t->reply.u.attach_ok;
	struct dialogue *b = test_core_attach(t, 1000);

	cr_assert_neq(ok.client, t->reply.u.attach_ok.client);
	cr_assert_neq(ok.thread, t->reply.u.attach_ok.thread);
	cr_assert_neq(ok.nonce, t->reply.u.attach_ok.nonce);
	cr_assert_eq(ok.base, 1ull << 45);
	cr_assert_eq(ok.meta_bytes, t->heap.img.geo.meta_bytes);
	cr_assert_eq(ok.data_bytes, 1024u << SHMI_PAGE_SHIFT);
	cr_assert_eq(shmi_load(&entry(t, a)->in_use), 1);
	cr_assert_str_eq(entry(t, b)->label, "test");
	test_core_check(t);
	test_core_free(t);
}

Test(requests, another_heap_is_not_here)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_again(t, test_core_connect(t, 1000));

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "other"}};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_NO_HEAP);
	cr_assert_not(t->move.descriptors);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_ask(t, d), WIRE_ATTACH_OK, "the connection is still good");
	test_core_free(t);
}

Test(requests, a_process_that_we_cannot_see)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_connect(t, 1000);

	d->caller.peer.pid = 0;
	d = test_core_again(t, d);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_ACCESS);
	test_core_free(t);
}

Test(requests, out_of_order)
{
	static const enum wire_kind kinds[] = {
	        WIRE_ATTACH, WIRE_THREAD, WIRE_REFILL, WIRE_LARGE, WIRE_FREE, WIRE_ROOT_DEL, WIRE_DETACH, WIRE_TRIM};
	struct test_core *t = test_core_new(1024);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct dialogue *d = test_core_connect(t, 1000);

		t->req = (struct wire_msg){.kind = kinds[i]};
		if (kinds[i] == WIRE_LARGE)
			t->req.u.large = (struct wire_large){.bytes = 1, .pages = 1, .align_pages = 1};
		snprintf(t->req.u.root.name, kinds[i] == WIRE_ROOT_DEL ? sizeof(t->req.u.root.name) : 0, "x");
		if (kinds[i] == WIRE_ATTACH)
			strcpy(t->req.u.attach.heap, "default");
		cr_assert_eq(test_core_fails(t, d), WIRE_E_PROTOCOL, "%d", kinds[i]);
		cr_assert_eq(d->state, SESSION_CLOSING);
		test_core_hang_up(t, d);
	}
	/* A client that says hello again loses its connection, but not what it holds. */
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d);

	cr_assert_eq(test_core_refill(t, d, NOSCAN16, 3), 3);
	t->req = (struct wire_msg){.kind = WIRE_HELLO};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_PROTOCOL);
	cr_assert_eq(t->core.client[id].state, CLIENT_DETACHED);
	cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, 3);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, garbage)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	static const unsigned char noise[] = {0xff, 0xff, 0xff, 0xff, 1, 2, 3};
	struct move move = dialogue_packet(d, noise, sizeof(noise));

	cr_assert(move.bytes != NULL, "it is told");
	cr_assert_eq(d->state, SESSION_CLOSING);
	move = dialogue_event(d, EVENT_FLUSHED);
	cr_assert(move.drop);
	move = dialogue_packet(other, NULL, 0); /* oversized, or with descriptors */
	cr_assert_eq(other->state, SESSION_CLOSING);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, replies_are_not_requests)
{
	struct test_core *t = test_core_new(1024);

	for (int kind = WIRE_OK; kind < WIRE_KINDS; kind++) {
		struct dialogue *d = test_core_attach(t, 1000);

		t->req = (struct wire_msg){.kind = (enum wire_kind)kind};
		if (kind == WIRE_ERROR)
			t->req.u.error.code = WIRE_E_INVALID;
		if (!test_core_legal(t))
			continue;
		cr_assert_eq(test_core_fails(t, d), WIRE_E_PROTOCOL, "%d", kind);
		test_core_hang_up(t, d);
	}
	test_core_free(t);
}

/* ---- thread records ---- */

Test(requests, thread_records)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 4}};
	cr_assert_eq(test_core_ask(t, a), WIRE_THREAD_OK);
	uint32_t thread = t->reply.u.thread_ok.thread;
	struct shmi_thread_slot *slot = shmi_thread_slot_at(&t->heap.img, thread);

	cr_assert_eq(slot->client, test_core_client(a));
	cr_assert_eq(slot->parts, 4);
	cr_assert_eq(shmi_threadrec_at(&t->heap.img, thread)->client, test_core_client(a));
	uint64_t charged = a->caller.client->held.pages;

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = thread, .parts = 5}};
	cr_assert_eq(test_core_ask(t, a), WIRE_THREAD_OK);
	cr_assert_eq(slot->parts, 5);
	cr_assert_gt(a->caller.client->held.pages, charged, "records are paid for");

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = thread, .parts = 1}};
	cr_assert_eq(test_core_fails(t, b), WIRE_E_INVALID, "of another client");
	t->req.u.thread.thread = SHMI_MAX_THREADS;
	cr_assert_eq(test_core_force(t, a), WIRE_E_INVALID);
	t->req.u.thread = (struct wire_thread){.thread = thread, .parts = 16};
	cr_assert_eq(test_core_force(t, a), WIRE_E_INVALID);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, no_memory_for_a_record)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);

	t->fail_object = HEAP_CTL;
	for (uint32_t good = 0; good < 3; good++) { /* the head, then each part fails */
		t->fail_in = good;
		t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 3}};
		cr_assert_eq(test_core_fails(t, d), WIRE_E_NO_MEMORY);
		cr_assert_eq(d->caller.client->threads, 1);
	}
	t->fail_in = 0;
	struct dialogue *other = test_core_again(t, test_core_connect(t, 1000));

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_fails(t, other), WIRE_E_NO_MEMORY);
	t->fail_object = HEAP_STATE;
	cr_assert_eq(test_core_fails(t, other), WIRE_E_NO_MEMORY);
	t->fail_in = TEST_CORE_NEVER;
	cr_assert_eq(test_core_ask(t, other), WIRE_ATTACH_OK);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, records_of_one_client_are_bounded)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t got = 0;

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD}};
	while (test_core_ask(t, d) == WIRE_THREAD_OK)
		got++;
	cr_assert_eq(got, POLICY_THREADS_PER_CLIENT - 1, "one is the process's own");
	cr_assert_eq(t->reply.u.error.code, WIRE_E_NO_ROOM);
	test_core_attach(t, 1000);
	test_core_free(t);
}

/* ---- roots ---- */

static uint32_t set_root(struct test_core *t, struct dialogue *d, const char *name, uint64_t off)
{
	t->req = (struct wire_msg){.kind = WIRE_ROOT_SET, .u.root = {.off = off}};
	snprintf(t->req.u.root.name, sizeof(t->req.u.root.name), "%s", name);
	return test_core_fails(t, d);
}

Test(requests, roots)
{
	struct test_core *t = test_core_new(4096);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t page, large = test_core_large(t, d, 3, 0, false);

	cr_assert_eq(test_core_refill(t, d, NOSCAN16, 1), 1);
	page = t->reply.u.refill_ok.grants[0].page;
	cr_assert_eq(set_root(t, d, "a", ((uint64_t)page << SHMI_PAGE_SHIFT) + 16), 0);
	cr_assert_eq(set_root(t, d, "b", (uint64_t)large << SHMI_PAGE_SHIFT), 0);
	cr_assert_eq(set_root(t, d, "", (uint64_t)large << SHMI_PAGE_SHIFT), WIRE_E_INVALID);
	cr_assert_eq(set_root(t, d, "c", 0), WIRE_E_INVALID);
	cr_assert_eq(set_root(t, d, "c", 4000ull << SHMI_PAGE_SHIFT), WIRE_E_INVALID, "a free page");
	cr_assert_eq(set_root(t, d, "c", 4096ull << SHMI_PAGE_SHIFT), WIRE_E_INVALID, "beyond the end");
	cr_assert_eq(set_root(t, d, "c", UINT64_MAX), WIRE_E_INVALID);

	t->req = (struct wire_msg){.kind = WIRE_ROOT_DEL, .u.root = {.name = "a"}};
	cr_assert_eq(test_core_fails(t, d), 0);
	t->req.u.root = (struct wire_root){.name = "a"};
	cr_assert_eq(test_core_fails(t, d), WIRE_E_NOT_FOUND);
	test_core_check(t);
	test_core_free(t);
}

static uint32_t add_root(struct test_core *t, struct dialogue *d, const char *name, uint64_t off)
{
	t->req = (struct wire_msg){.kind = WIRE_ROOT_SET, .u.root = {.off = off, .exclusive = true}};
	snprintf(t->req.u.root.name, sizeof(t->req.u.root.name), "%s", name);
	return test_core_fails(t, d);
}

Test(requests, an_exclusive_root_replaces_nothing)
{
	struct test_core *t = test_core_new(4096);
	struct dialogue *one = test_core_attach(t, 1000), *two = test_core_attach(t, 1000);
	uint64_t a = (uint64_t)test_core_large(t, one, 3, 0, false) << SHMI_PAGE_SHIFT;
	uint64_t b = (uint64_t)test_core_large(t, one, 3, 0, false) << SHMI_PAGE_SHIFT;
	shmi_off off;

	cr_assert_eq(add_root(t, one, "a", a), 0);
	t->serial = 0;
	cr_assert_eq(add_root(t, two, "a", b), WIRE_E_EXISTS);
	cr_assert_eq(add_root(t, two, "a", a), WIRE_E_EXISTS, "the same block");
	struct wire_msg second = t->req;

	cr_assert_eq(add_root(t, two, "a", 0), WIRE_E_INVALID);
	cr_assert_eq(shmi_roots_get(&t->heap.img, "a", &off), 0);
	cr_assert_eq(off.b, a);
	cr_assert_eq(set_root(t, two, "a", b), 0, "not exclusive");
	t->req = (struct wire_msg){.kind = WIRE_ROOT_DEL, .u.root = {.name = "a"}};
	cr_assert_eq(test_core_fails(t, two), 0);
	t->req = second;
	cr_assert_eq(test_core_send(t, two), WIRE_ERROR, "a number of old");
	cr_assert_neq(shmi_roots_get(&t->heap.img, "a", &off), 0);
	cr_assert_eq(add_root(t, two, "a", b), 0);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, an_exclusive_root_that_is_repeated_has_its_first_result)
{
	struct test_core *t = test_core_new(4096);
	struct dialogue *d = test_core_attach(t, 1000);
	uint64_t a = (uint64_t)test_core_large(t, d, 3, 0, false) << SHMI_PAGE_SHIFT;
	uint64_t b = (uint64_t)test_core_large(t, d, 3, 0, false) << SHMI_PAGE_SHIFT;

	cr_assert_eq(add_root(t, d, "a", a), 0);
	cr_assert_eq(test_core_send(t, d), WIRE_OK, "not that it is there already");
	cr_assert_eq(add_root(t, d, "a", b), WIRE_E_EXISTS);
	cr_assert_eq(shmi_roots_del(&t->heap.img, "a"), 0);
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR, "not that it is free by now");
	cr_assert_eq(t->reply.u.error.code, WIRE_E_EXISTS);
	test_core_free(t);
}

Test(requests, roots_are_bounded)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);
	uint64_t off = (uint64_t)test_core_large(t, d, 1, 0, false) << SHMI_PAGE_SHIFT;
	char name[16];

	for (uint32_t i = 0; i < SHMI_MAX_ROOTS; i++) {
		snprintf(name, sizeof(name), "r%u", i);
		cr_assert_eq(set_root(t, d, name, off), 0);
	}
	cr_assert_eq(set_root(t, d, "another", off), WIRE_E_NO_ROOM);
	cr_assert_eq(add_root(t, d, "another", off), WIRE_E_NO_ROOM);
	cr_assert_eq(add_root(t, d, "r7", off), WIRE_E_EXISTS);
	cr_assert_eq(set_root(t, d, "r7", off), 0, "replaced");
	test_core_free(t);
}

/* ---- once ---- */

Test(requests, a_repeat_gives_the_same_reply_and_no_effect)
{
	struct test_core *t = test_core_new(4096);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d);
	struct wire_msg first, req;

	cr_assert_eq(test_core_refill(t, d, NOSCAN16, 5), 5);
	first = t->reply;
	req = t->req;
	/* Over the same connection ... */
	cr_assert_eq(test_core_send(t, d), WIRE_REFILL_OK);
	cr_assert(!memcmp(&first.u.refill_ok, &t->reply.u.refill_ok,
	        offsetof(struct wire_refill_ok, grants) + 5 * sizeof(struct wire_grant)));
	/* ... and over another one, after a resume. */
	struct dialogue *again = test_core_again(t, d);
	struct wire_attach resume = {.heap = "default", .resume = true, .client = id, .nonce = entry(t, d)->nonce};

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = resume};
	cr_assert_eq(test_core_send(t, again), WIRE_ATTACH_OK);
	cr_assert_eq(t->reply.u.attach_ok.client, id);
	cr_assert_eq(t->replaced, 1);
	t->req = req;
	cr_assert_eq(test_core_send(t, again), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.grants[4].page, first.u.refill_ok.grants[4].page);
	cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, 5);

	t->req.serial--;
	cr_assert_eq(test_core_send(t, again), WIRE_ERROR, "an older one");
	cr_assert_eq(t->reply.u.error.code, WIRE_E_INVALID);
	cr_assert_eq(shmi_owner_at(&t->heap.img, id)->spans.count, 5);
	test_core_check(t);
	test_core_free(t);
}

Test(requests, errors_are_repeated_too)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);

	cr_assert_neq(test_core_large(t, d, 600, 0, false), 0);
	cr_assert_eq(test_core_large(t, d, 600, 0, false), 0);
	uint32_t code = t->reply.u.error.code;
	char text[WIRE_TEXT];

	snprintf(text, sizeof(text), "%s", t->reply.u.error.text);
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, code);
	cr_assert_str_eq(t->reply.u.error.text, text);
	test_core_free(t);
}

Test(requests, serial_zero_is_no_request)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD}};
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_INVALID);
	test_core_free(t);
}

Test(requests, resume_needs_the_nonce_and_the_process)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = test_core_attach(t, 1000);
	struct wire_attach good = {
	        .heap = "default", .resume = true, .client = test_core_client(d), .nonce = entry(t, d)->nonce};
	struct wire_attach bad[3] = {good, good, good};
	struct dialogue *again = test_core_again(t, d), *other = test_core_again(t, test_core_connect(t, 1000));

	bad[0].nonce++;
	bad[1].client++;
	bad[2].client = SHMI_MAX_CLIENTS;
	for (int i = 0; i < 3; i++) {
		t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = bad[i]};
		cr_assert_eq(test_core_fails(t, again), WIRE_E_NOT_FOUND);
	}
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = good};
	cr_assert_eq(test_core_fails(t, other), WIRE_E_NOT_FOUND, "a forked child knows the nonce");
	struct dialogue *later = test_core_again(t, d);

	later->caller.peer.inode++;
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = good};
	cr_assert_eq(test_core_fails(t, later), WIRE_E_NOT_FOUND, "a pid may be used again");
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = good};
	cr_assert_eq(test_core_ask(t, again), WIRE_ATTACH_OK);
	test_core_free(t);
}

/* ---- limits ---- */

Test(requests, clients_are_bounded)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = NULL;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		d = test_core_attach(t, 0);
		dialogue_event(d, EVENT_HANGUP); /* detached: alive, and its slot is taken */
		if (i != SHMI_MAX_CLIENTS - 1)
			test_core_hang_up(t, d);
	}
	struct dialogue *late = test_core_again(t, test_core_connect(t, 0));

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_fails(t, late), WIRE_E_NO_ROOM);
	cr_assert_null(core_client_died(&t->core, 17));
	test_core_run(t);
	cr_assert_eq(test_core_ask(t, late), WIRE_ATTACH_OK);
	cr_assert_eq(t->reply.u.attach_ok.client, 17);
	test_core_free(t);
}

/* A process that attaches and closes keeps its places until it ends: one user cannot take them all. */
Test(requests, clients_of_one_user_are_bounded)
{
	struct test_core *t = test_core_new(1024);

	t->core.uid = 7;
	for (uint32_t i = 0; i < POLICY_CLIENTS_PER_USER; i++) {
		struct dialogue *d = test_core_attach(t, 1000);

		dialogue_event(d, EVENT_HANGUP);
		test_core_hang_up(t, d);
	}
	struct dialogue *late = test_core_again(t, test_core_connect(t, 1000));

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_fails(t, late), WIRE_E_NO_ROOM);
	test_core_attach(t, 1001);
	test_core_attach(t, 0);
	test_core_attach(t, 7);
	test_core_free(t);
}

Test(requests, limits)
{
	struct test_core *t = test_core_new(8192);
	uint32_t each = heap_record_pages(&t->heap, 0);

	t->core.limits.client.hard = 40 + each;
	t->core.users.limit.hard = 60 + 2 * each;
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000), *c = test_core_attach(t, 1001);

	cr_assert_eq(test_core_refill(t, a, NOSCAN16, 100), 40, "of the client");
	cr_assert_eq(test_core_refill(t, a, NOSCAN16, 1), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_LIMIT);
	cr_assert_eq(test_core_large(t, b, 21, 0, false), 0);
	cr_assert_eq(t->reply.u.error.code, WIRE_E_LIMIT, "of the user");
	uint32_t page = test_core_large(t, b, 20, 0, false);

	cr_assert_neq(page, 0);
	cr_assert_neq(test_core_large(t, c, 40, 0, false), 0, "another user");
	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD}};
	cr_assert_eq(test_core_fails(t, a), WIRE_E_LIMIT);
	/* Somebody else's free makes room for whom it was charged to. */
	t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1}};
	t->req.u.free.spans[0] = (struct wire_span){page, shmi_span_word(&t->heap.img, (shmi_page){page}).generation};
	cr_assert_eq(test_core_fails(t, c), 0);
	cr_assert_neq(test_core_large(t, b, 20, 0, false), 0);
	test_core_check(t);
	test_core_free(t);
}
