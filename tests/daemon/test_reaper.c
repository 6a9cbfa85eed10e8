/* What a client leaves: at its death, with its socket gone or held, and when it detaches. */
#include "daemon/reaper.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "shm/slots.h"
#include "tests/lib/core.h"

#define SHARED64 (4 * SHMI_ATTRS)
#define SCOPED64 (4 * SHMI_ATTRS + SHMI_SCOPED)

static struct shmi_word word(struct test_core *t, uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static uint32_t one_span(struct test_core *t, struct dialogue *d, uint32_t sclass)
{
	cr_assert_eq(test_core_refill(t, d, sclass, 1), 1);
	return t->reply.u.refill_ok.grants[0].page;
}

static uint32_t new_thread(struct test_core *t, struct dialogue *d, uint32_t parts)
{
	t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = parts}};
	cr_assert_eq(test_core_ask(t, d), WIRE_THREAD_OK);
	return t->reply.u.thread_ok.thread;
}

/* What the client's thread does: takes slots of the span into its magazine, of which `alloc` leave it again. */
static void cache(struct test_core *t, uint32_t thread, uint32_t page, uint64_t bits, uint32_t alloc)
{
	struct shmi_image *img = &t->heap.img;
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);
	struct shmi_magazine *mag = shmi_magazine_at(img, rec, word(t, page).sclass);
	struct shmi_group group = {
	        .bits = bits, .span = page, .generation = word(t, page).generation, .sclass = word(t, page).sclass.c};
	uint32_t n = shmi_threadrec_take(img, rec, mag, &group);

	cr_assert_geq(n, alloc);
	shmi_store(&mag->top, shmi_load(&mag->top) - alloc);
}

static uint32_t free_slots(struct test_core *t, uint32_t page)
{
	return shmi_slots_count(shmi_bitmap_at(&t->heap.img, (shmi_page){page}),
	        &t->heap.img.classes[shmi_sclass_size_class(word(t, page).sclass)]);
}

static void die(struct test_core *t, struct dialogue *d)
{
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
}

Test(reaper, death)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d), thread = new_thread(t, d, 15);
	uint32_t shared = one_span(t, d, SHARED64), scoped = one_span(t, d, SCOPED64), idle = one_span(t, d, SHARED64);
	uint32_t theirs = one_span(t, other, SHARED64), slots = t->heap.img.classes[4].slots;
	uint32_t large = test_core_large(t, d, 200, 0, false),
	         scoped_large = test_core_large(t, d, 200, SHMI_SCOPED, false);

	cache(t, thread, shared, 0xff, 3); /* 8 taken, 3 allocated, 5 cached */
	cache(t, thread, scoped, 0xff, 3);
	cache(t, thread, idle, 0xf, 0);
	/* a block of the other client's that this one has freed into its own magazine */
	cache(t, thread, theirs, 0x3, 1);
	die(t, d);

	cr_assert_eq(t->core.client[id].state, CLIENT_FREE);
	cr_assert_eq(word(t, shared).state, SHMI_SPAN_CENTRAL);
	cr_assert_eq(free_slots(t, shared), slots - 3, "live blocks stay, cached ones go back");
	cr_assert_eq(free_slots(t, theirs), slots - 1);
	cr_assert_eq(word(t, theirs).owner, test_core_client(other));
	cr_assert_not(shmi_state_in_use(word(t, scoped).state));
	cr_assert_not(shmi_state_in_use(word(t, idle).state), "nothing was allocated in it");
	cr_assert_eq(word(t, large).state, SHMI_SPAN_LARGE);
	cr_assert_eq(word(t, large).owner, SHMI_NOBODY);
	cr_assert_not(shmi_state_in_use(word(t, scoped_large).state));
	cr_assert_eq(shmi_thread_slot_at(&t->heap.img, thread)->client, SHMI_NOBODY);
	cr_assert_eq(shmi_load(&t->heap.state->clients[id].in_use), 0);
	cr_assert_eq(t->core.users.user[0].account.used, other->caller.client->account.used, "refunded");
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.deaths), 1);
	test_core_check(t);
	/* Whoever comes next gets what was left. */
	cr_assert_eq(one_span(t, other, SHARED64), shared);
	test_core_free(t);
}

/* A child that holds the socket of its dead parent open has no business there. */
Test(reaper, a_dead_clients_connection_ends)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	test_core_kill(t, d);
	cr_assert_eq(d->state, SESSION_CLOSED);
	cr_assert_null(d->caller.client);
	test_core_run(t);
	cr_assert_eq(t->core.client[0].state, CLIENT_FREE);
	test_core_free(t);
}

Test(reaper, a_hang_up_is_not_death)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t scoped = one_span(t, d, SCOPED64), shared = one_span(t, d, SHARED64), id = test_core_client(d);

	test_core_hang_up(t, d);
	cr_assert_eq(test_core_run(t), 0);
	cr_assert_eq(t->core.client[id].state, CLIENT_DETACHED);
	cr_assert_eq(word(t, scoped).owner, id);
	cr_assert_eq(word(t, shared).owner, id);
	cr_assert_null(core_client_died(&t->core, id));
	test_core_run(t);
	cr_assert_eq(t->core.client[id].state, CLIENT_FREE);
	test_core_check(t);
	test_core_free(t);
}

Test(reaper, detach)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d), thread = new_thread(t, d, 1);
	uint32_t scoped = one_span(t, d, SCOPED64), shared = one_span(t, d, SHARED64);

	cache(t, thread, shared, 0xff, 3);
	shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){scoped}), 0, 1);
	t->req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(test_core_ask(t, d), WIRE_OK);
	cr_assert_eq(d->state, SESSION_CLOSING);
	cr_assert_eq(t->core.client[id].state, CLIENT_FREE);
	cr_assert_not(shmi_state_in_use(word(t, scoped).state), "at once");
	cr_assert_eq(word(t, shared).state, SHMI_SPAN_CENTRAL);
	cr_assert_eq(shmi_load(&t->heap.img.super->counters.deaths), 0);
	test_core_run(t);
	test_core_check(t);
	test_core_free(t);
}

Test(reaper, death_while_detaching)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d);

	one_span(t, d, SCOPED64);
	t->req = (struct wire_msg){.kind = WIRE_DETACH, .serial = ++t->serial};
	cr_assert_eq(test_core_send(t, d), WIRE_NONE);
	core_turn(&t->core);
	test_core_kill(t, d);
	test_core_hang_up(t, d);
	test_core_run(t);
	cr_assert_eq(t->core.client[id].state, CLIENT_FREE);
	test_core_check(t);
	test_core_free(t);
}

/* However much a client leaves, one step is bounded, and others are served in between. */
Test(reaper, in_slices)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint32_t id = test_core_client(d), got = 0, steps = 0;

	for (int i = 0; i < 5; i++)
		new_thread(t, d, 15);
	while (got < 4000)
		got += test_core_refill(t, d, SHARED64 + got / 100 % 2, 1000);
	struct shmi_list *spans = &shmi_owner_at(&t->heap.img, id)->spans;
	uint32_t before = spans->count;

	test_core_kill(t, d);
	test_core_hang_up(t, d);
	while (core_turn(&t->core)) {
		cr_assert_leq(before - spans->count, POLICY_TURN_SPANS);
		before = spans->count;
		if (steps++ % 7 == 3)
			cr_assert_eq(test_core_refill(t, other, 9 * SHMI_ATTRS, 1), 1);
	}
	cr_assert_geq(steps, 4000 / POLICY_TURN_SPANS);
	cr_assert_eq(t->core.client[id].state, CLIENT_FREE);
	cr_assert_eq(before, 0);
	test_core_check(t);
	test_core_free(t);
}

/* Many die at once: their records go through one buffer, one after the other. */
Test(reaper, many_deaths)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d[20];
	uint32_t page[20];

	for (int i = 0; i < 20; i++) {
		d[i] = test_core_attach(t, 1000 + (uint32_t)i);
		uint32_t thread = new_thread(t, d[i], 1);

		page[i] = one_span(t, d[i], SHARED64);
		cache(t, thread, page[i], 0xfff, 4);
	}
	for (int i = 0; i < 20; i++) {
		test_core_kill(t, d[i]);
		test_core_hang_up(t, d[i]);
	}
	test_core_run(t);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(free_slots(t, page[i]), t->heap.img.classes[4].slots - 4);
	test_core_check(t);
	test_core_free(t);
}

/* Spans that nobody holds become empty through the death of whoever had cached their blocks: they are found. */
Test(reaper, emptied_central_spans_are_found)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *a = test_core_attach(t, 1000), *b = test_core_attach(t, 1000);
	uint32_t page = one_span(t, a, SHARED64), thread = new_thread(t, b, 1);

	cache(t, thread, page, 0x3, 0); /* b has freed the last two blocks of the span: into its magazine */
	die(t, a);
	cr_assert_eq(word(t, page).state, SHMI_SPAN_CENTRAL);
	die(t, b);
	cr_assert_not(shmi_state_in_use(word(t, page).state));
	test_core_check(t);
	test_core_free(t);
}

/* The big cache: freed large blocks that the process kept. */
Test(reaper, cached_large_blocks)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint32_t own = t->heap.state->clients[test_core_client(d)].thread;
	struct shmi_bigmag *big = &shmi_threadrec_at(&t->heap.img, own)->big;
	uint32_t kept = test_core_large(t, d, 300, 0, false), freed = test_core_large(t, other, 300, 0, false);
	uint32_t live = test_core_large(t, d, 300, 0, false);

	cr_assert(kept && freed && live);
	shmi_store(&big->entry[0], kept | (uint64_t)word(t, kept).generation << 32);
	shmi_store(&big->entry[1], freed | (uint64_t)word(t, freed).generation << 32);
	shmi_store(&big->entry[2], live | (uint64_t)(word(t, live).generation + 1) << 32); /* void */
	shmi_store(&big->top, 3);
	die(t, d);
	cr_assert_not(shmi_state_in_use(word(t, kept).state));
	cr_assert_not(shmi_state_in_use(word(t, freed).state), "freed by the dead client, whoever had it made");
	cr_assert_eq(word(t, live).state, SHMI_SPAN_LARGE);
	cr_assert_eq(other->caller.client->held.pages, other->caller.client->record_pages);
	test_core_check(t);
	test_core_free(t);
}

/* The record of a dead client is worked through in many turns. A block in its big cache that another client frees meanwhile,
 * and the pages of which are something else by then, is not freed again. */
Test(reaper, a_cached_large_block_that_another_one_frees)
{
	for (int again = 0; again < 2; again++) {
		struct test_core *t = test_core_new(8192);
		struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
		uint32_t thread = new_thread(t, d, 15), page = test_core_large(t, other, 300, 0, false);
		struct shmi_threadrec *rec = shmi_threadrec_at(&t->heap.img, thread);

		shmi_store(&rec->big.entry[0], page | (uint64_t)word(t, page).generation << 32);
		shmi_store(&rec->big.top, 1);
		for (uint32_t c = SHMI_ATTRS; c < SHMI_CLASS_LARGE * SHMI_ATTRS; c++)
			shmi_store(&shmi_magazine_at(&t->heap.img, rec, (shmi_sclass){(uint16_t)c})->top, UINT32_MAX);
		t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1}};
		t->req.u.free.spans[0] = (struct wire_span){page, word(t, page).generation};
		test_core_kill(t, d);
		test_core_hang_up(t, d);
		do
			cr_assert(core_turn(&t->core));
		while (!t->core.copying || !t->core.record.big_count);
		t->req.serial = ++t->serial;
		cr_assert_eq(test_core_send(t, other), WIRE_OK);
		if (again)
			cr_assert_eq(test_core_large(t, other, 300, 0, false), page);
		test_core_run(t);
		cr_assert_eq(word(t, page).state == SHMI_SPAN_LARGE, again);
		test_core_check(t);
		test_core_free(t);
	}
}

/* A client that scribbled over everything it can write: nobody but itself is harmed. */
Test(reaper, hostile_records)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000), *other = test_core_attach(t, 1000);
	uint32_t thread = new_thread(t, d, 15), theirs = one_span(t, other, SHARED64);
	uint32_t large = test_core_large(t, other, 10, 0, false);

	memset(shmi_threadrec_at(&t->heap.img, thread), 0xff, t->heap.img.geo.record_bytes);
	one_span(t, d, SHARED64);
	die(t, d);
	cr_assert_eq(word(t, theirs).owner, test_core_client(other));
	cr_assert_eq(word(t, large).state, SHMI_SPAN_LARGE);
	test_core_check(t);
	test_core_free(t);
}

/* ---- the next daemon ---- */

static void restart(struct test_core *t)
{
	test_core_restart(t);
	test_core_run(t);
	test_core_check(t);
}

Test(reaper, adoption_of_the_dead)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);
	uint32_t thread = new_thread(t, d, 1), shared = one_span(t, d, SHARED64), scoped = one_span(t, d, SCOPED64);

	cache(t, thread, shared, 0xff, 3);
	restart(t);
	cr_assert_eq(word(t, shared).state, SHMI_SPAN_CENTRAL);
	cr_assert_eq(free_slots(t, shared), t->heap.img.classes[4].slots - 3);
	cr_assert_not(shmi_state_in_use(word(t, scoped).state));
	cr_assert_eq(shmi_thread_slot_at(&t->heap.img, thread)->client, SHMI_NOBODY);
	cr_assert_eq(shmi_load(&t->heap.state->clients[0].in_use), 0);
	test_core_free(t);
}

/* A client that is this very process, so that the next daemon finds it alive. */
static struct dialogue *attach_alive(struct test_core *t)
{
	struct dialogue *d = test_core_attach(t, getuid());
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(peer_of_socket(pair[0], &d->caller.client->peer), 0);
	t->heap.state->clients[0].pid = d->caller.client->peer.pid;
	t->heap.state->clients[0].pidfd_inode = d->caller.client->peer.inode;
	close(pair[0]);
	close(pair[1]);
	return d;
}

static struct dialogue *resume(struct test_core *t)
{
	struct dialogue *d = test_core_connect(t, getuid());

	cr_assert_eq(t->core.client[0].state, CLIENT_DETACHED);
	d->caller.peer = t->core.client[0].peer;
	d->caller.peer.pidfd = -1;
	d = test_core_again(t, d);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach =
	        (struct wire_attach){.heap = "default", .resume = true, .nonce = t->heap.state->clients[0].nonce};
	cr_assert_eq(test_core_send(t, d), WIRE_ATTACH_OK);
	return d;
}

/* Out of descriptors nobody can say whether a client lives: its blocks are not given to others, and when it resumes its death will
 * be noticed again. */
Test(reaper, adoption_without_a_look)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);
	uint32_t scoped = one_span(t, d, SCOPED64);
	struct rlimit none = {0, 0}, before;
	struct peer self = d->caller.client->peer;

	self.pidfd = dup(self.pidfd);
	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	none.rlim_max = before.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	restart(t);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	cr_assert_eq(word(t, scoped).owner, 0);
	t->watched[0] = 0;
	d = test_core_connect(t, getuid());
	d->caller.peer = self;
	t->req = (struct wire_msg){.kind = WIRE_HELLO};
	t->req.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	cr_assert_eq(test_core_send(t, d), WIRE_HELLO_OK);
	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach =
	        (struct wire_attach){.heap = "default", .resume = true, .nonce = t->heap.state->clients[0].nonce};
	cr_assert_eq(test_core_send(t, d), WIRE_ATTACH_OK);
	cr_assert_eq(t->watched[0], 1);
	die(t, d);
	cr_assert_not(shmi_state_in_use(word(t, scoped).state));
	test_core_free(t);
}

/* What the daemon's memory is like if it is killed just before it stores the result of the last request. */
static void forget_result(struct test_core *t)
{
	shmi_store(&t->heap.state->clients[0].last_serial, t->serial - 1);
}

Test(reaper, a_request_that_was_cut_short)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);
	uint32_t back = one_span(t, d, SHARED64), kept = one_span(t, d, SHARED64);

	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_wants = t->req.u.refill.n_returns = 1;
	t->req.u.refill.wants[0] = (struct wire_want){SHARED64 + SHMI_NOSCAN, 30};
	t->req.u.refill.returns[0] = (struct wire_span){back, word(t, back).generation};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	struct wire_msg req = t->req;

	forget_result(t);
	restart(t);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 1, "the grants are taken back");
	cr_assert_eq(word(t, kept).owner, 0);
	d = resume(t);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.n_grants, 30);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 31);
	/* Only that one request: a span that is not its own is refused again. */
	t->req.serial = ++t->serial;
	cr_assert_eq(test_core_send(t, d), WIRE_ERROR);
	test_core_check(t);
	test_core_free(t);
}

Test(reaper, large_requests_that_were_cut_short)
{
	struct test_core *t = test_core_new(16384);
	struct dialogue *d = attach_alive(t);

	cr_assert_neq(test_core_large(t, d, 2000, 0, false), 0);
	struct wire_msg req = t->req;

	forget_result(t);
	restart(t);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 0);
	d = resume(t);
	t->req = req;
	if (test_core_send(t, d) == WIRE_NONE)
		test_core_run(t);
	cr_assert_eq(t->reply.kind, WIRE_LARGE_OK);
	uint32_t page = t->reply.u.large_ok.page;

	t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1}};
	t->req.u.free.spans[0] = (struct wire_span){page, t->reply.u.large_ok.generation};
	cr_assert_eq(test_core_ask(t, d), WIRE_OK);
	req = t->req;
	forget_result(t);
	restart(t);
	d = resume(t);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_OK, "no double free");
	test_core_free(t);
}

/* A request that was answered is not undone. */
Test(reaper, a_request_that_was_finished)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = attach_alive(t);
	uint32_t page = one_span(t, d, SHARED64);
	struct wire_msg req = t->req;

	restart(t);
	cr_assert_eq(word(t, page).owner, 0);
	d = resume(t);
	t->req = req;
	cr_assert_eq(test_core_send(t, d), WIRE_REFILL_OK);
	cr_assert_eq(t->reply.u.refill_ok.grants[0].page, page);
	cr_assert_eq(shmi_owner_at(&t->heap.img, 0)->spans.count, 1);
	test_core_free(t);
}
