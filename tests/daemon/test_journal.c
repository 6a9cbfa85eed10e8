/* Requests that were cut short: the daemon is killed before it has stored the result, the next one takes over, and the client
 * repeats the request. Everything takes effect once. */
#include "daemon/journal.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/clients.h"
#include "shm/roots.h"
#include "shm/slots.h"
#include "tests/lib/core.h"

TestSuite(journal, .timeout = 60);

#define SHARED64 (4 * SHMI_ATTRS)

static struct shmi_word word(struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static struct shmi_client_state *entry(struct test_core *t, uint32_t client)
{
	return &t->heap.state->clients[client];
}

/* The peer at the end of a socket of our own: this process, which the next daemon finds alive. */
static struct peer self(void)
{
	struct peer peer;
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(peer_of_socket(pair[0], &peer), 0);
	close(pair[0]);
	close(pair[1]);
	return peer;
}

/* A client that is this very process. The first of them is client 0. */
static struct dialogue *attach_alive(struct test_core *t)
{
	struct dialogue *d = test_core_attach(t, getuid());
	uint32_t id = test_core_client(d);

	d->caller.client->peer = self();
	entry(t, id)->pid = d->caller.client->peer.pid;
	entry(t, id)->pidfd_inode = d->caller.client->peer.inode;
	return d;
}

static struct dialogue *reconnect(struct test_core *t)
{
	struct dialogue *d = test_core_connect(t, getuid());

	d->caller.peer = self();
	return test_core_again(t, d);
}

static struct dialogue *resume(struct test_core *t, uint32_t id)
{
	struct dialogue *d = reconnect(t);

	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach =
	        (struct wire_attach){.heap = "default", .resume = true, .client = id, .nonce = entry(t, id)->nonce};
	cr_assert_eq(test_core_send(t, d), WIRE_ATTACH_OK, "%s", t->reply.u.error.text);
	return d;
}

/* As if the daemon had been killed just before it stored the result of the client's last request. */
static void cut(struct test_core *t, uint32_t id)
{
	shmi_store(&entry(t, id)->last_serial, shmi_load(&entry(t, id)->begun_serial) - 1);
	test_core_restart(t);
}

Test(journal, central_spans_that_were_granted)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);
	uint32_t page[3];

	cr_assert_eq(test_core_refill(t, d, SHARED64, 3), 3);
	for (int i = 0; i < 3; i++)
		page[i] = t->reply.u.refill_ok.grants[i].page;
	t->req = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_returns = 3}};
	for (int i = 0; i < 3; i++) {
		t->req.u.refill.returns[i] = (struct wire_span){page[i], word(t, page[i]).generation};
		shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){page[i]}), 0, 1);
	}
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	cr_assert_eq(test_core_refill(t, d, SHARED64, 5), 5, "three of them central");
	struct wire_msg req = t->req;

	cut(t, 0);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(word(t, page[i]).state, SHMI_SPAN_CENTRAL);
	test_core_check(t);
	d = resume(t, 0);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.n_grants, 5);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 5);
	test_core_check(t);
	test_core_free(t);
}

/* Generations go round: a span that is older than all others looks like the youngest. */
Test(journal, spans_of_earlier_requests_stay)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 1), 1);
	uint32_t old = t->reply.u.refill_ok.grants[0].page;

	shmi_store(&t->heap.img.super->generations, 0x80000002u);
	cr_assert_eq(test_core_refill(t, d, SHARED64, 4), 4);
	cut(t, 0);
	cr_assert_eq(word(t, old).state, SHMI_SPAN_OWNED);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 1);
	test_core_free(t);
}

Test(journal, a_large_block_is_closed_at_once)
{
	struct test_core *t = test_core_new(1024);
	struct dialogue *d = attach_alive(t);

	cr_assert_neq(test_core_large(t, d, 600, 0, false), 0);
	struct wire_msg req = t->req;

	cut(t, 0);
	d = resume(t, 0);
	t->req = req;
	if (test_core_send(t, d) == WIRE_NONE)
		test_core_run(t);
	cr_assert_eq(t->reply.kind, WIRE_LARGE_OK, "%s", t->reply.u.error.text);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 1);
	test_core_free(t);
}

static uint32_t records(struct test_core *t)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SHMI_MAX_THREADS; i++)
		n += shmi_thread_slot_at(&t->heap.img, i)->client == 0;
	return n;
}

Test(journal, a_thread_record_that_was_made)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);

	for (int i = 0; i < 2; i++) {
		t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
		cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	}
	struct wire_msg req = t->req;

	cut(t, 0);
	cr_assert_eq(records(t), 2, "the process's and the first");
	d = resume(t, 0);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_THREAD_OK);
	cr_assert_eq(records(t), 3);
	cr_assert_eq(t->core.client[0].threads, 3);
	test_core_check(t);
	test_core_free(t);
}

/* A record is made anew where an earlier daemon left something behind. */
Test(journal, parts_that_are_backed_already)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	uint32_t thread = t->reply.u.thread_ok.thread;
	struct shmi_magazine *mag = shmi_magazine_at(
	        &t->heap.img, shmi_threadrec_at(&t->heap.img, thread), (shmi_sclass){SHARED64 + SHMI_NOSCAN});

	shmi_store(&mag->top, 77);
	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = thread, .parts = 4}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	cr_assert_eq(shmi_load(&mag->top), 0);
	test_core_check(t);
	test_core_free(t);
}

static enum wire_kind root(struct test_core *t, struct dialogue *d, enum wire_kind kind, uint64_t off)
{
	t->req = (struct wire_msg){.kind = kind, .u.root = {.name = "r", .off = off}};
	return test_core_ask(t, d);
}

static uint64_t root_off(struct test_core *t)
{
	shmi_off off = {0};

	return shmi_roots_get(&t->heap.img, "r", &off) ? 0 : off.b;
}

/* Between the first daemon's end and the repeat another client changes the root: the repeat must not undo that. */
Test(journal, roots_change_once)
{
	for (int deleted = 0; deleted < 2; deleted++) {
		struct test_core *t = test_core_new(8192);
		struct dialogue *d = attach_alive(t);
		uint64_t a, b;

		a = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;
		b = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;
		cr_assert_eq(root(t, d, WIRE_ROOT_SET, b), WIRE_OK);
		cr_assert_eq(root(t, d, deleted ? WIRE_ROOT_DEL : WIRE_ROOT_SET, a), WIRE_OK);
		struct wire_msg req = t->req;

		cut(t, 0);
		struct dialogue *other = test_core_attach(t, 1000);

		t->serial = 0;
		cr_assert_eq(root(t, other, WIRE_ROOT_SET, b), WIRE_OK);
		d = resume(t, 0);
		t->req = req;
		cr_assert_eq(test_core_send(t, d), WIRE_OK);
		cr_assert_eq(root_off(t), b, "the other one's");
		test_core_free(t);
	}
}

/* Killed before the root was changed: the repeat changes it. */
Test(journal, roots_that_were_not_changed_yet)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);
	uint64_t a = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;

	cr_assert_eq(root(t, d, WIRE_ROOT_SET, a), WIRE_OK);
	struct wire_msg req = t->req;

	cr_assert_eq(shmi_roots_del(&t->heap.img, "r"), 0);
	cut(t, 0);
	d = resume(t, 0);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_OK);
	cr_assert_eq(root_off(t), a);
	cr_assert_eq(root(t, d, WIRE_ROOT_DEL, 0), WIRE_OK);
	cr_assert_eq(root(t, d, WIRE_ROOT_DEL, 0), WIRE_ERROR);
	req = t->req;
	cut(t, 0);
	d = resume(t, 0);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR, "there was none to delete");
	test_core_free(t);
}

static enum wire_kind add(struct test_core *t, struct dialogue *d, uint64_t off)
{
	t->req = (struct wire_msg){.kind = WIRE_ROOT_SET, .u.root = {.name = "r", .off = off, .exclusive = true}};
	return test_core_ask(t, d);
}

/* Killed after it was done, and before the answer was kept: the repeat hears that it was first, though the root is there, or another's. */
Test(journal, an_exclusive_root_that_was_set)
{
	for (int replaced = 0; replaced < 2; replaced++) {
		struct test_core *t = test_core_new(8192);
		struct dialogue *d = attach_alive(t);
		uint64_t a = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;
		uint64_t b = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;

		cr_assert_eq(add(t, d, a), WIRE_OK);
		struct wire_msg req = t->req;

		cut(t, 0);
		if (replaced) {
			struct dialogue *other = test_core_attach(t, 1000);

			t->serial = 0;
			cr_assert_eq(root(t, other, WIRE_ROOT_SET, b), WIRE_OK);
		}
		d = resume(t, 0);
		t->req = req;
		cr_assert_eq(test_core_send(t, d), WIRE_OK);
		cr_assert_eq(root_off(t), replaced ? b : a);
		test_core_free(t);
	}
}

/* Killed before it was done, or with the refusal on its way: the repeat finds what is there by then, and takes nothing that is another's. */
Test(journal, an_exclusive_root_that_was_not_set)
{
	for (int refused = 0; refused < 2; refused++) {
		struct test_core *t = test_core_new(8192);
		struct dialogue *d = attach_alive(t);
		uint64_t a = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;
		uint64_t b = shmi_page_off((shmi_page){test_core_large(t, d, 40, 0, false)}).b;

		if (refused)
			cr_assert_eq(root(t, d, WIRE_ROOT_SET, a), WIRE_OK);
		cr_assert_eq(add(t, d, a), refused ? WIRE_ERROR : WIRE_OK);
		struct wire_msg req = t->req;

		if (!refused)
			cr_assert_eq(shmi_roots_del(&t->heap.img, "r"), 0);
		cut(t, 0);
		struct dialogue *other = test_core_attach(t, 1000);

		t->serial = 0;
		cr_assert_eq(add(t, other, b), refused ? WIRE_ERROR : WIRE_OK);
		d = resume(t, 0);
		t->req = req;
		cr_assert_eq(test_core_send(t, d), WIRE_ERROR);
		cr_assert_eq(t->reply.u.error.code, WIRE_E_EXISTS);
		cr_assert_eq(root_off(t), refused ? a : b);
		test_core_free(t);
	}
}

/* A client that was being taken apart is gone when the next daemon is through, whether it comes back or not. */
Test(journal, a_detach_goes_on)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);

	cr_assert_eq(test_core_refill(t, d, SHARED64, 4), 4);
	t->req = (struct wire_msg){.kind = WIRE_DETACH, .serial = ++t->serial};
	cr_assert_eq(test_core_send(t, d), WIRE_NONE);
	cr_assert(core_turn(&t->core));
	test_core_restart(t);
	test_core_run(t);
	cr_assert_eq(t->core.client[0].state, CLIENT_FREE);
	cr_assert_eq(shmi_load(&entry(t, 0)->in_use), 0);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 0);
	test_core_check(t);
	test_core_free(t);
}

/* ---- attaching ---- */

static uint32_t clients(struct test_core *t)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		n += t->core.client[i].state != CLIENT_FREE;
	return n;
}

static enum wire_kind attach_with(struct test_core *t, struct dialogue *d, uint64_t nonce)
{
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default", .nonce = nonce}};
	return test_core_send(t, d);
}

Test(journal, an_attach_is_repeated)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = reconnect(t);

	cr_assert_eq(attach_with(t, d, 4711), WIRE_ATTACH_OK);
	cr_assert_eq(t->reply.u.attach_ok.nonce, 4711);
	uint32_t thread = t->reply.u.attach_ok.thread;

	for (int round = 0; round < 3; round++) {
		if (round == 1)
			test_core_restart(t);
		d = reconnect(t);
		cr_assert_eq(attach_with(t, d, 4711), WIRE_ATTACH_OK);
		cr_assert_eq(t->reply.u.attach_ok.client, 0);
		cr_assert_eq(t->reply.u.attach_ok.thread, thread);
		cr_assert_eq(clients(t), 1);
	}
	cr_assert_eq(attach_with(t, reconnect(t), 4712), WIRE_ATTACH_OK);
	cr_assert_eq(clients(t), 2, "another heap of the same process, say");
	d = test_core_again(t, test_core_connect(t, getuid()));
	cr_assert_eq(attach_with(t, d, 4711), WIRE_ATTACH_OK);
	cr_assert_eq(clients(t), 3, "another process");
	test_core_free(t);
}

/* ---- slots in doubt ---- */

Test(journal, an_open_note_is_carried_out_once)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = attach_alive(t);
	struct shmi_write_off *note = &t->heap.state->write_off;

	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	uint32_t thread = t->reply.u.thread_ok.thread;

	t->serial = 0;
	cr_assert_eq(test_core_refill(t, other, SHARED64, 1), 1);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;
	struct shmi_threadrec *rec = shmi_threadrec_at(&t->heap.img, thread);
	struct shmi_span *span = shmi_span_at(&t->heap.img, (shmi_page){page});

	shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 1, 0xff);
	rec->spill[0] = rec->intent.group = (struct shmi_group){
	        .bits = 0xff, .span = page, .generation = word(t, page).generation, .word = 1, .sclass = SHARED64};
	shmi_store(&rec->spill_top, 1);
	shmi_store(&rec->intent.op, SHMI_INTENT_PUT);
	*note = (struct shmi_write_off){.thread = thread, .span = page, .bits = 0xff, .word = 1};
	note->written_off = 8;
	note->counter = 8;
	shmi_store(&note->open, 1);
	span->written_off = 8; /* as far as it came: it is not said yet which they are */
	test_core_restart(t);
	test_core_run(t);
	cr_assert_eq(shmi_load(&note->open), 0);
	cr_assert_eq(span->written_off, 8);
	cr_assert_eq(span->written_off_bits, 0xff);
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.slots_written_off), 8);
	test_core_check(t);
	test_core_free(t);
}
