#include "tests/lib/havoc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/requests.h"
#include "shm/threadrec.h"

/* ---- floor ---- */

static void mark(struct havoc *h, uint64_t off, uint64_t len, uint8_t backed)
{
	memset(h->backed + (off >> SHMI_PAGE_SHIFT), backed, len >> SHMI_PAGE_SHIFT);
}

static unsigned char *at(struct havoc *h, enum heap_object object, uint64_t off)
{
	unsigned char *const start[] = {
	        [HEAP_META] = h->memory.meta, [HEAP_CTL] = h->memory.ctl, [HEAP_STATE] = h->memory.state};

	return start[object] + off;
}

static int back(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	if (object == HEAP_DATA)
		mark(ctx, off, len, 1);
	return 0;
}

/* A thread record is almost all address space: only what it uses is wiped. */
static void wipe_record(struct havoc *h, uint64_t off)
{
	const struct shmi_geometry *geo = &h->heap.img.geo;
	const struct shmi_thread_slot *slot =
	        shmi_thread_slot_at(&h->heap.img, (uint32_t)((off - geo->records) / geo->record_bytes));
	unsigned char *record = at(h, HEAP_CTL, off);

	memset(record, 0, SHMI_THREAD_HEAD_BYTES);
	for (uint32_t a = 0; a < SHMI_ATTRS; a++)
		if (slot->parts >> a & 1)
			memset(record + SHMI_THREAD_HEAD_BYTES + (uint64_t)a * geo->part_bytes, 0, geo->part_bytes);
}

static int unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	struct havoc *h = ctx;

	if (object == HEAP_DATA)
		mark(h, off, len, 0);
	else if (object == HEAP_CTL && off >= h->heap.img.geo.records && len == h->heap.img.geo.record_bytes)
		wipe_record(h, off);
	else
		memset(at(h, object, off), 0, len);
	return 0;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	struct havoc *h = ctx;

	if (h->torn && object == HEAP_CTL)
		return -ENODATA;
	memcpy(copy, at(h, object, off), len);
	return 0;
}

static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	const struct havoc *h = ctx;
	const struct shmi_geometry *geo = &h->heap.img.geo;

	*length = object == HEAP_CTL ? geo->ctl_bytes : shmi_npages_bytes((shmi_npages){geo->limit_pages});
	*length -= h->cut[object];
	*backed = UINT64_MAX;
}

/* ---- hooks ---- */

static void on_watch(void *ctx, uint32_t client, int pidfd)
{
	(void)ctx;
	(void)client;
	(void)pidfd;
}

static void on_finished(void *ctx, struct caller *caller, const struct answer *answer, bool last)
{
	struct havoc *h = ctx;

	(void)caller;
	(void)last;
	h->answered = !shmi_codec_decode(&h->reply, &h->core.scratch, answer->bytes, answer->len);
}

static void on_replaced(void *ctx, struct caller *caller)
{
	(void)ctx;
	(void)caller;
}

static struct core_hooks hooks_of(struct havoc *h)
{
	return (struct core_hooks){.ctx = h, .watch = on_watch, .finished = on_finished, .replaced = on_replaced};
}

/* ---- life ---- */

static void *zeroed(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static struct havoc *spare; /* of the last heap: a fuzzer makes many, and its pages are there already */

struct havoc *havoc_new(uint32_t pages, struct test_random *random)
{
	struct havoc *h = spare ? memset(spare, 0, sizeof(*h)) : calloc(1, sizeof(*h));
	const struct heap_floor floor = {
	        .ctx = h, .back = back, .unback = unback, .snapshot = snapshot, .measure = measure};
	const struct shmi_image_params params = {.heap_id = 77,
	        .base = heap_base_address("havoc", "default", pages),
	        .heap_name = "default",
	        .limit_pages = pages};
	struct shmi_geometry geo;

	spare = NULL;
	if (!h)
		return NULL;
	shmi_geometry_init(&geo, pages);
	h->random = random;
	h->backed = calloc(pages, 1);
	h->memory = (struct heap_memory){.meta = zeroed(geo.meta_bytes),
	        .ctl = zeroed(geo.ctl_bytes),
	        .state = zeroed(sizeof(struct shmi_state)),
	        .meta_bytes = geo.meta_bytes,
	        .ctl_bytes = geo.ctl_bytes,
	        .state_bytes = sizeof(struct shmi_state),
	        .instance = "havoc",
	        .name = "default"};
	const struct core_hooks hooks = hooks_of(h);

	if (h->backed && h->memory.meta && h->memory.ctl && h->memory.state &&
	        !heap_create(&h->heap, &floor, &h->memory, &params) &&
	        !core_init(&h->core, &h->heap, &hooks, &(struct limits){0})) {
		core_tick(&h->core, 1000);
		return h;
	}
	havoc_free(h);
	return NULL;
}

void havoc_free(struct havoc *h)
{
	if (h->core.heap)
		core_deinit(&h->core);
	if (h->memory.meta)
		munmap(h->memory.meta, h->memory.meta_bytes);
	if (h->memory.ctl)
		munmap(h->memory.ctl, h->memory.ctl_bytes);
	if (h->memory.state)
		munmap(h->memory.state, h->memory.state_bytes);
	free(h->backed);
	if (spare)
		free(h);
	else
		spare = h;
}

const char *havoc_run(struct havoc *h)
{
	for (h->steps = 0; h->steps < HAVOC_STEPS; h->steps++) {
		if (h->meddle)
			h->meddle(h);
		if (!core_turn(&h->core))
			return NULL;
	}
	return "the jobs do not end";
}

enum wire_kind havoc_ask(struct havoc *h, uint32_t client, struct wire_msg *req)
{
	struct havoc_client *c = &h->client[client];
	struct answer answer;

	req->serial = ++c->serial;
	h->answered = false;
	h->reply.kind = WIRE_NONE;
	requests_run(&h->core, &c->caller, req, &answer);
	if (answer.outcome != OUTCOME_LATER)
		h->answered = !shmi_codec_decode(&h->reply, &h->core.scratch, answer.bytes, answer.len);
	for (uint32_t i = 0; i < HAVOC_STEPS && !h->answered && core_turn(&h->core); i++)
		;
	return h->answered ? h->reply.kind : WIRE_NONE;
}

bool havoc_attach(struct havoc *h, uint32_t client, uint32_t threads, uint32_t parts)
{
	struct havoc_client *c = &h->client[client];
	struct wire_msg req = {.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	static int32_t pid = 1 << 28; /* of no process: the kernel's limit is 2^22 */

	pid++;
	*c = (struct havoc_client){.parts = parts};
	c->caller.peer = (struct peer){.pid = pid, .uid = 1000, .gid = 1000, .pidfd = -1, .inode = (uint64_t)pid * 7};
	if (havoc_ask(h, client, &req) != WIRE_ATTACH_OK)
		return false;
	c->attached = true;
	c->serial = 0;
	for (; c->threads < threads; c->threads++) {
		req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = parts}};
		if (havoc_ask(h, client, &req) != WIRE_THREAD_OK)
			return false;
		c->thread[c->threads] = h->reply.u.thread_ok.thread;
	}
	return true;
}

uint32_t havoc_refill(struct havoc *h, uint32_t client, uint32_t sclass, uint32_t spans)
{
	struct havoc_client *c = &h->client[client];
	struct wire_msg req = {.kind = WIRE_REFILL, .u.refill = {.n_wants = 1, .wants = {{sclass, spans}}}};

	if (havoc_ask(h, client, &req) != WIRE_REFILL_OK)
		return 0;
	for (uint32_t i = 0; i < h->reply.u.refill_ok.n_grants && c->n_held < HAVOC_HELD; i++)
		c->held[c->n_held++] = (struct wire_span){
		        h->reply.u.refill_ok.grants[i].page, h->reply.u.refill_ok.grants[i].generation};
	return h->reply.u.refill_ok.n_grants;
}

uint32_t havoc_large(struct havoc *h, uint32_t client, uint32_t pages, uint32_t attrs, bool lazy)
{
	struct wire_msg req = {.kind = WIRE_LARGE};

	req.u.large = (struct wire_large){.bytes = shmi_npages_bytes((shmi_npages){pages}),
	        .pages = pages,
	        .align_pages = 1,
	        .attrs = attrs,
	        .lazy = lazy};
	return havoc_ask(h, client, &req) == WIRE_LARGE_OK ? h->reply.u.large_ok.page : 0;
}

/* What a thread does with a span that its client holds: takes a word of it and lets some blocks go to the program. */
static void use_span(struct havoc *h, struct havoc_client *c, struct wire_span span)
{
	struct shmi_image *img = &h->heap.img;
	struct shmi_word word = shmi_span_word(img, (shmi_page){span.page});
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word.sclass)];
	uint32_t w = test_random_below(h->random, class->words);
	uint64_t bits = shmi_slots_peek(shmi_bitmap_at(img, (shmi_page){span.page}), class, w);

	if (!c->threads || !bits || !(c->parts & 1u << shmi_sclass_attrs(word.sclass)))
		return;
	struct shmi_threadrec *rec = shmi_threadrec_at(img, c->thread[test_random_below(h->random, c->threads)]);
	struct shmi_magazine *mag = shmi_magazine_at(img, rec, word.sclass);
	const struct shmi_group group = {
	        .bits = bits, .span = span.page, .generation = span.generation, .word = w, .sclass = word.sclass.c};
	uint32_t room = class->mag_cap - shmi_load(&mag->top);

	if (shmi_load(&mag->top) > class->mag_cap || (uint32_t)__builtin_popcountll(bits) > room)
		return;
	uint32_t n = shmi_threadrec_take(img, rec, mag, &group);

	shmi_store(&mag->top, shmi_load(&mag->top) - test_random_below(h->random, n + 1));
}

static void live_one(struct havoc *h, uint32_t client)
{
	struct havoc_client *c = &h->client[client];

	for (uint32_t i = 0; i < 6; i++) {
		uint32_t sclass = SHMI_ATTRS * (1 + test_random_below(h->random, 40)) + test_random_below(h->random, 4);
		uint32_t before = c->n_held;

		havoc_refill(h, client, sclass, 1 + test_random_below(h->random, 2));
		for (; before < c->n_held; before++)
			use_span(h, c, c->held[before]);
	}
	(void)havoc_large(h, client, test_random_length(h->random, 40), test_random_below(h->random, 4),
	        test_random_one_in(h->random, 3));
}

static void set_root(struct havoc *h, uint32_t client)
{
	struct wire_msg req = {.kind = WIRE_ROOT_SET};

	if (!h->client[client].n_held)
		return;
	snprintf(req.u.root.name, sizeof(req.u.root.name), "root %u", test_random_below(h->random, 8));
	req.u.root.off = (uint64_t)h->client[client].held[0].page << SHMI_PAGE_SHIFT;
	(void)havoc_ask(h, client, &req);
}

void havoc_live(struct havoc *h)
{
	log_set_level(LEVEL_ERROR);
	for (uint32_t i = 0; i < HAVOC_FRESH; i++) {
		uint32_t parts = test_random_one_in(h->random, 8) ? 15 : 1;

		if (!h->client[i].attached &&
		        !havoc_attach(h, i, 1 + test_random_below(h->random, HAVOC_THREADS), parts))
			continue;
		if (h->client[i].n_held < HAVOC_HELD / 2)
			live_one(h, i);
		set_root(h, i);
	}
}

void havoc_die(struct havoc *h, uint32_t client)
{
	struct havoc_client *c = &h->client[client];

	if (!c->attached)
		return;
	(void)core_client_died(&h->core, c->caller.client->id);
	core_caller_left(&h->core, &c->caller);
	*c = (struct havoc_client){0};
}

bool havoc_spent(const struct havoc *h)
{
	const struct shmi_page_counts *pages = &h->heap.img.super->pages;

	return h->heap.fenced ||
	       shmi_load(&pages->free) + shmi_load(&pages->returned) + shmi_load(&pages->unpublished) <
	               h->heap.img.geo.limit_pages / 4;
}

/* ---- the next daemon ---- */

const char *havoc_restart(struct havoc *h)
{
	const struct core_hooks hooks = hooks_of(h);
	const struct heap_floor floor = h->heap.floor;
	const char *why = "";

	if (h->core.heap)
		core_deinit(&h->core);
	h->core.heap = NULL;
	memset(h->client, 0, sizeof(h->client));
	if (heap_adopt(&h->heap, &floor, &h->memory, UINT64_MAX, &why))
		return why;
	if (core_init(&h->core, &h->heap, &hooks, &(struct limits){0}))
		return "no memory";
	core_tick(&h->core, 1000);
	clients_adopt(&h->core);
	return NULL;
}
