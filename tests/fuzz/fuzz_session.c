/* The dialogue with several peers at once, in every state, and what they write into ctl meanwhile: no answer is illegal, what the
 * peers hold is never another's, meta stays whole, and when all of them are dead nothing is left of them.
 *
 * An input is a list of steps: what to do (one byte), with whom (one byte), and what that needs. Most messages are made from their
 * fields, with spans that have been granted among them, so that the core gets what the codec would let through; some are raw bytes.
 */
#include <fcntl.h>

#include "daemon/dialogue.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/reaper.h"
#include "daemon/scavenger.h"
#include "tests/fuzz/input.h"
#include "tests/lib/havoc.h"

#define PAGES 256u
#define PEERS 8u /* connections, two for each process */
#define KNOWN 32u /* spans that were granted last */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

struct connection {
	struct dialogue d;
	bool open, pending; /* pending: an answer is kept for a peer that does not read */
};

static struct scene {
	struct havoc *h;
	struct heaps heaps;
	struct core_hooks own; /* of havoc itself */
	struct input in;
	struct connection peer[PEERS];
	int32_t pid[PEERS / 2];
	struct wire_span known[KNOWN];
	uint32_t n_known;
	uint8_t leased; /* a bit for each client id below 8 */
	struct wire_msg msg, reply;
	struct codec_scratch scratch;
	unsigned char packet[WIRE_MAX];
} s;

static void insist(bool holds, const char *what)
{
	input_insist(holds ? NULL : what);
}

/* ---- answers ---- */

static void know(uint32_t page, uint32_t generation)
{
	s.known[s.n_known++ % KNOWN] = (struct wire_span){page, generation};
}

/* What was granted is the client's, whoever else asks. */
static void look_at_grant(const struct connection *c, uint32_t page, uint32_t generation, uint32_t state)
{
	insist(shmi_image_page_ok(&s.h->heap.img, (shmi_page){page}), "a page beyond the heap was granted");
	struct shmi_word word = shmi_span_word(&s.h->heap.img, (shmi_page){page});

	know(page, generation);
	if (c->d.caller.client && word.generation == generation && word.state == state)
		insist(word.owner == c->d.caller.client->id, "another's span was granted");
}

static void look_at_reply(const struct connection *c, const struct move *move)
{
	insist(move->len && move->len <= WIRE_MAX, "the length of an answer");
	insist(!shmi_codec_decode(&s.reply, &s.scratch, move->bytes, move->len), "an illegal answer");
	insist(s.reply.kind > WIRE_EVICT, "an answer that is a request");
	insist(!move->descriptors || s.reply.kind == WIRE_ATTACH_OK, "descriptors with another answer");
	if (s.reply.kind == WIRE_LARGE_OK)
		look_at_grant(c, s.reply.u.large_ok.page, s.reply.u.large_ok.generation, SHMI_SPAN_LARGE);
	for (uint32_t i = 0; s.reply.kind == WIRE_REFILL_OK && i < s.reply.u.refill_ok.n_grants; i++)
		look_at_grant(c, s.reply.u.refill_ok.grants[i].page, s.reply.u.refill_ok.grants[i].generation,
		        SHMI_SPAN_OWNED);
}

/* What the socket's owner does (daemon/session.c). */
static void act(struct connection *c, struct move move)
{
	while (!move.drop && move.bytes) {
		look_at_reply(c, &move);
		uint32_t how = input_byte(&s.in);

		if (how < 16 && how & 1) { /* there is no room just now */
			c->pending = true;
			return;
		}
		if (move.descriptors)
			core_drop_lease(&c->d.caller);
		move = dialogue_event(&c->d, how < 16 ? EVENT_HANGUP : EVENT_FLUSHED);
	}
	if (move.drop) {
		dialogue_deinit(&c->d);
		c->open = c->pending = false;
	}
}

static void event(struct connection *c, enum session_event what)
{
	if (c->open)
		act(c, dialogue_event(&c->d, what));
}

static void on_watch(void *ctx, uint32_t client, int pidfd)
{
	(void)ctx;
	(void)client;
	(void)pidfd;
}

static struct connection *connection_of(struct caller *caller)
{
	return (struct connection *)(void *)dialogue_of(caller);
}

static void on_finished(void *ctx, struct caller *caller, const struct answer *answer, bool last)
{
	struct connection *c = connection_of(caller);

	(void)ctx;
	act(c, dialogue_finished(&c->d, answer, last));
}

static void on_replaced(void *ctx, struct caller *caller)
{
	(void)ctx;
	event(connection_of(caller), EVENT_REPLACED);
}

static int give(void *ctx, uint32_t client)
{
	(void)ctx;
	(void)client;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool held(void *ctx, uint32_t client)
{
	(void)ctx;
	return client < 8 && s.leased >> client & 1;
}

/* ---- messages ---- */

static struct wire_span a_span(void)
{
	uint32_t which = input_byte(&s.in);

	if (which < 2 * KNOWN)
		return s.known[which % KNOWN];
	return (struct wire_span){input_word(&s.in) % (PAGES + 8), input_byte(&s.in)};
}

static void some_spans(struct wire_free *body)
{
	body->n_spans = input_byte(&s.in) % 8;
	for (uint32_t i = 0; i < body->n_spans; i++)
		body->spans[i] = a_span();
}

static void a_name(char *name)
{
	snprintf(name, WIRE_NAME, "%s",
	        (const char *const[]){"default", "root", "", "other", "root 2"}[input_byte(&s.in) % 5]);
}

static void make_refill(struct wire_refill *r)
{
	r->n_wants = input_byte(&s.in) % 4;
	for (uint32_t i = 0; i < r->n_wants; i++)
		r->wants[i] = (struct wire_want){input_word(&s.in) % WIRE_SCLASSES, input_byte(&s.in)};
	r->n_returns = input_byte(&s.in) % 8;
	for (uint32_t i = 0; i < r->n_returns; i++)
		r->returns[i] = a_span();
	r->n_reports = input_byte(&s.in) % 8;
	for (uint32_t i = 0; i < r->n_reports; i++)
		r->reports[i] = a_span().page;
	some_spans(&r->freed);
	r->waited_us = input_word(&s.in);
	r->remote_freed = input_word(&s.in);
}

static void make_large(struct wire_large *l)
{
	l->pages = input_word(&s.in) % (PAGES + 8);
	l->bytes = ((uint64_t)l->pages << SHMI_PAGE_SHIFT) - input_word(&s.in);
	l->align_pages = 1u << input_byte(&s.in) % 16;
	l->attrs = input_byte(&s.in) % 5;
	l->lazy = input_byte(&s.in) & 1;
	some_spans(&l->freed);
}

static void make_attach(struct wire_attach *a)
{
	a_name(a->heap);
	a->resume = input_byte(&s.in) & 1;
	a->client = input_byte(&s.in) % 8;
	/* The nonce of that client, as if it had been guessed, or any. */
	a->nonce = input_byte(&s.in) & 1 ? s.h->heap.state->clients[a->client].nonce : input_byte(&s.in);
}

static void make_hello(struct wire_hello *h)
{
	*h = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	h->protocol += input_byte(&s.in) == 1;
	snprintf(h->version, sizeof(h->version), "0");
	a_name(h->label);
}

static void make(enum wire_kind kind)
{
	s.msg = (struct wire_msg){.kind = kind};
	switch (kind) {
	case WIRE_HELLO:
		make_hello(&s.msg.u.hello);
		break;
	case WIRE_ATTACH:
		make_attach(&s.msg.u.attach);
		break;
	case WIRE_THREAD:
		s.msg.u.thread.thread = input_byte(&s.in) & 1 ? input_byte(&s.in) : SHMI_NO_THREAD;
		s.msg.u.thread.parts = input_byte(&s.in) % 20;
		break;
	case WIRE_REFILL:
		make_refill(&s.msg.u.refill);
		break;
	case WIRE_LARGE:
		make_large(&s.msg.u.large);
		break;
	case WIRE_FREE:
		some_spans(&s.msg.u.free);
		break;
	case WIRE_ROOT_SET:
	case WIRE_ROOT_DEL:
		a_name(s.msg.u.root.name);
		s.msg.u.root.off = (uint64_t)a_span().page << SHMI_PAGE_SHIFT;
		s.msg.u.root.exclusive = s.msg.u.root.name[0] & 1;
		break;
	case WIRE_TRIM:
		s.msg.u.trim.all = input_byte(&s.in) & 1;
		a_name(s.msg.u.trim.heap);
		s.msg.u.trim.one = input_byte(&s.in) & 1;
		s.msg.u.trim.client = input_byte(&s.in) % 8;
		break;
	case WIRE_QUERY:
		s.msg.u.query.kind = 1 + input_byte(&s.in) % WIRE_Q_HEAPS;
		a_name(s.msg.u.query.heap);
		s.msg.u.query.cursor = input_word(&s.in);
		break;
	case WIRE_EVICT:
		a_name(s.msg.u.evict.heap);
		s.msg.u.evict.client = input_byte(&s.in) % 8;
		break;
	default:
		break;
	}
}

/* The number of a client's request: the next one, the last one again, or any. */
static uint64_t a_serial(const struct connection *c)
{
	uint32_t how = input_byte(&s.in);
	uint64_t last =
	        c->d.caller.client ? shmi_load(&s.h->heap.state->clients[c->d.caller.client->id].last_serial) : 0;

	return how < 8 ? last : how < 16 ? input_byte(&s.in) : last + 1;
}

static void send_made(struct connection *c)
{
	enum wire_kind kind = (enum wire_kind)(WIRE_HELLO + input_byte(&s.in) % (WIRE_EVICT + 1));
	size_t len;

	make(kind);
	s.msg.serial = a_serial(c);
	if (!shmi_codec_encode(&s.msg, &s.scratch, s.packet, sizeof(s.packet), &len))
		act(c, dialogue_packet(&c->d, s.packet, len));
}

static void send_raw(struct connection *c)
{
	size_t len;
	const unsigned char *bytes = input_bytes(&s.in, input_word(&s.in) % 512, &len);

	act(c, dialogue_packet(&c->d, len ? bytes : NULL, len));
}

/* ---- steps ---- */

static void open_connection(uint32_t i)
{
	static const uint32_t uids[PEERS / 2] = {1000, 1000, 1001, 0};
	struct connection *c = &s.peer[i];
	const struct peer peer = {.pid = s.pid[i / 2],
	        .uid = uids[i / 2],
	        .gid = uids[i / 2],
	        .pidfd = -1,
	        .inode = (uint64_t)s.pid[i / 2] * 7};

	if (c->open)
		return;
	c->open = true;
	dialogue_init(&c->d, &s.heaps, &peer, NULL);
}

/* Greeted and attached: where most of an input should happen. */
static void open_and_attach(uint32_t i)
{
	struct connection *c = &s.peer[i];
	size_t len;

	open_connection(i);
	s.msg = (struct wire_msg){.kind = WIRE_HELLO,
	        .u.hello = {.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "fuzz"}};
	if (c->d.state == SESSION_NEW && !shmi_codec_encode(&s.msg, &s.scratch, s.packet, sizeof(s.packet), &len))
		act(c, dialogue_packet(&c->d, s.packet, len));
	s.msg = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	if (c->open && !c->pending && c->d.state == SESSION_GREETED &&
	        !shmi_codec_encode(&s.msg, &s.scratch, s.packet, sizeof(s.packet), &len))
		act(c, dialogue_packet(&c->d, s.packet, len));
}

static void kill_process(uint32_t i)
{
	static int32_t pid = 1 << 28; /* of no process: the kernel's limit is 2^22 */
	struct core *core = &s.h->core;

	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS && id < 64; id++) {
		if (core->client[id].state == CLIENT_FREE || core->client[id].peer.pid != s.pid[i])
			continue;
		struct caller *caller = core_client_died(core, id);

		if (caller)
			event(connection_of(caller), EVENT_DEATH);
	}
	for (uint32_t c = 2 * i; c < 2 * i + 2; c++)
		event(&s.peer[c], EVENT_HANGUP);
	s.pid[i] = ++pid;
}

static void write_ctl(void)
{
	const struct shmi_image *img = &s.h->heap.img;
	uint32_t where = input_byte(&s.in), off = input_word(&s.in), thread = where / 4 % 8;
	unsigned char *to = img->ctl + (where % 4 ? img->geo.bitmaps : 0);
	uint64_t room = where % 4 ? PAGES * SHMI_BITMAP_BYTES_PER_PAGE : img->geo.records;
	size_t len;

	if (where % 4 > 1 && shmi_thread_slot_at(img, thread)->head) {
		to = (unsigned char *)shmi_threadrec_at(img, thread);
		room = SHMI_THREAD_HEAD_BYTES + (shmi_thread_slot_at(img, thread)->parts & 1 ? img->geo.part_bytes : 0);
	}
	const unsigned char *bytes = input_bytes(&s.in, 1 + input_byte(&s.in) % 64, &len);

	off %= (uint32_t)room;
	memcpy(to + off, bytes, len < room - off ? len : room - off);
}

static void flush(struct connection *c, uint32_t how)
{
	static const enum session_event events[] = {EVENT_FLUSHED, EVENT_STUCK, EVENT_HANGUP};

	if (!c->open || !c->pending)
		return;
	c->pending = false;
	core_drop_lease(&c->d.caller);
	event(c, events[how % 3]);
}

static void turn(uint32_t n)
{
	while (n-- && core_turn(&s.h->core))
		;
	core_tick(&s.h->core, s.h->core.now_ms + 1);
}

static void step(void)
{
	uint32_t what = input_byte(&s.in), i = input_byte(&s.in) % PEERS;
	struct connection *c = &s.peer[i];
	bool listens = c->open && !c->pending && dialogue_listens(&c->d);

	if (what < 100 && !c->open)
		open_and_attach(i);
	else if (what < 150 && listens)
		send_made(c);
	else if (what < 160 && listens)
		send_raw(c);
	else if (what < 170)
		flush(c, what);
	else if (what < 180)
		open_connection(i);
	else if (what < 185)
		event(c, EVENT_HANGUP);
	else if (what < 190)
		kill_process(i / 2);
	else if (what < 195)
		event(c, c->d.state == SESSION_NEW ? EVENT_SILENT : EVENT_STOP);
	else if (what < 200)
		s.leased = (uint8_t)input_byte(&s.in);
	else if (what < 210)
		(void)reaper_look(&s.h->core);
	else if (what < 220)
		(void)scavenger_turn(&s.h->core, 0);
	else if (what < 230)
		write_ctl();
	else
		turn(what - 225);
}

/* ---- the end ---- */

static void judge(void)
{
	struct havoc *h = s.h;

	s.leased = 0;
	for (uint32_t i = 0; i < PEERS; i++)
		event(&s.peer[i], EVENT_HANGUP);
	for (uint32_t i = 0; i < PEERS / 2; i++)
		kill_process(i);
	input_insist(havoc_run(h));
	while (reaper_look(&h->core) == POLICY_LEASE_MS)
		input_insist(havoc_run(h));
	input_insist(havoc_run(h));
	for (uint32_t i = 0; i < PEERS; i++)
		insist(!s.peer[i].open, "a connection is left");
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		insist(h->core.client[i].state == CLIENT_FREE, "a client is left");
	for (uint32_t t = 0; t < SHMI_MAX_THREADS && !h->heap.fenced; t++)
		insist(shmi_thread_slot_at(&h->heap.img, t)->client == SHMI_NOBODY, "a thread record is left");
	insist(h->heap.fenced || !shmi_load(&h->heap.img.super->pages.owned), "pages of a client are left");
	h->core.hooks = s.own;
	memset(&h->core.leases, 0, sizeof(h->core.leases));
	input_insist(havoc_judge(h));
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	struct test_random random = {88172645463325252u};
	static struct config_heap config;
	static bool quiet;

	if (!quiet)
		log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	quiet = true;
	log_set_level(LEVEL_ERROR);
	memset(&s, 0, offsetof(struct scene, msg));
	s.h = havoc_new(PAGES, &random);
	if (!s.h)
		return 0;
	s.own = s.h->core.hooks;
	snprintf(config.name, sizeof(config.name), "default");
	s.heaps = (struct heaps){.n = 1, .entry = {{.config = &config, .core = &s.h->core}}};
	s.h->core.hooks =
	        (struct core_hooks){.ctx = &s, .watch = on_watch, .finished = on_finished, .replaced = on_replaced};
	s.h->core.leases = (struct core_leases){.ctx = &s, .give = give, .held = held};
	s.in = (struct input){bytes, len};
	for (uint32_t i = 0; i < PEERS / 2; i++)
		kill_process(i);
	for (uint32_t steps = 0; s.in.left && steps < 400; steps++)
		step();
	judge();
	havoc_free(s.h);
	return 0;
}
