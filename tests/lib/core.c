#include "tests/lib/core.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/requests.h"
#include "shm/check.h"
#include "shm/walk.h"

/* ---- floor ---- */

static bool must_fail(struct test_core *t, enum heap_object object)
{
	if (object != t->fail_object || t->fail_in == TEST_CORE_NEVER)
		return false;
	if (!t->fail_in)
		return true;
	t->fail_in--;
	return false;
}

static void mark(struct test_core *t, uint64_t off, uint64_t len, uint8_t backed)
{
	cr_assert(off % SHMI_PAGE_SIZE == 0 && len % SHMI_PAGE_SIZE == 0);
	cr_assert(off && (off + len) >> SHMI_PAGE_SHIFT <= t->heap.img.geo.limit_pages);
	if (len >> SHMI_PAGE_SHIFT > t->longest)
		t->longest = (uint32_t)(len >> SHMI_PAGE_SHIFT);
	memset(t->backed + (off >> SHMI_PAGE_SHIFT), backed, len >> SHMI_PAGE_SHIFT);
}

static unsigned char *at(struct test_core *t, enum heap_object object, uint64_t off)
{
	unsigned char *const start[] = {
	        [HEAP_META] = t->memory.meta, [HEAP_CTL] = t->memory.ctl, [HEAP_STATE] = t->memory.state};

	return start[object] + off;
}

static int back(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	if (must_fail(ctx, object))
		return -ENOSPC;
	struct test_core *t = ctx;

	if (object == HEAP_DATA)
		mark(t, off, len, 1);
	if (object == HEAP_CTL && t->ctl_backed != UINT64_MAX)
		t->ctl_backed += len;
	return 0;
}

static int unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	if (object == HEAP_DATA)
		((struct test_core *)ctx)->dropped += len >> SHMI_PAGE_SHIFT;
	if (object == HEAP_DATA)
		mark(ctx, off, len, 0);
	else
		memset(at(ctx, object, off), 0, len);
	return 0;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	memcpy(copy, at(ctx, object, off), len);
	return 0;
}

static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	const struct test_core *t = ctx;
	const struct shmi_geometry *geo = &t->heap.img.geo;

	*backed = t->ctl_backed;
	*length = geo->ctl_bytes - t->cut[object];
	if (object != HEAP_DATA)
		return;
	*backed = 0;
	for (uint32_t page = 0; page < geo->limit_pages; page++)
		*backed += t->backed[page] ? SHMI_PAGE_SIZE : 0;
	*length = shmi_npages_bytes((shmi_npages){geo->limit_pages}) - t->cut[object];
}

static bool space(void *ctx, uint64_t *all, uint64_t *free)
{
	const struct test_core *t = ctx;

	*all = t->space_all;
	*free = t->space_free;
	return t->space_all != 0;
}

/* ---- hooks ---- */

static void keep_reply(struct test_core *t, struct dialogue *d, const struct move *move)
{
	t->move = *move;
	if (!move->bytes)
		return;
	cr_assert_eq(shmi_codec_decode(&t->reply, &t->scratch, move->bytes, move->len), 0, "an illegal reply");
	t->answered = d;
}

static void on_watch(void *ctx, uint32_t client, int pidfd)
{
	((struct test_core *)ctx)->watched[client] = pidfd >= 0;
}

static void on_finished(void *ctx, struct caller *caller, const struct answer *answer, bool last)
{
	struct dialogue *d = dialogue_of(caller);
	struct move move = dialogue_finished(d, answer, last);

	keep_reply(ctx, d, &move);
}

static void on_replaced(void *ctx, struct caller *caller)
{
	struct test_core *t = ctx;

	dialogue_event(dialogue_of(caller), EVENT_REPLACED);
	t->replaced++;
}

/* ---- leases ---- */

static int give(void *ctx, uint32_t client)
{
	struct test_core *t = ctx;

	cr_assert_lt(client, SHMI_MAX_CLIENTS);
	if (t->lease_error)
		return t->lease_error;
	t->leases++;
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool held(void *ctx, uint32_t client)
{
	return ((struct test_core *)ctx)->leased[client];
}

struct core_leases test_core_leases(struct test_core *t)
{
	return (struct core_leases){.ctx = t, .give = give, .held = held};
}

/* ---- life ---- */

static void *zeroed(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	cr_assert_neq(p, MAP_FAILED);
	return p;
}

static struct test_core *new_core(void)
{
	struct test_core *t = calloc(1, sizeof(*t));

	cr_assert(t != NULL);
	log_set_level(LEVEL_ERROR);
	t->fail_in = TEST_CORE_NEVER;
	t->fail_object = HEAP_DATA;
	t->ctl_backed = UINT64_MAX;
	return t;
}

static void start_core(struct test_core *t)
{
	const struct core_hooks hooks = {.ctx = t, .watch = on_watch, .finished = on_finished, .replaced = on_replaced};

	cr_assert_eq(core_init(&t->core, &t->heap, &hooks, &(struct limits){0}), 0);
	t->core.leases = test_core_leases(t);
	snprintf(t->config.name, sizeof(t->config.name), "default");
	t->heaps = (struct heaps){.n = 1, .entry = {{.config = &t->config, .core = &t->core}}};
	core_tick(&t->core, 1000);
}

static int create(struct test_core *t, const struct heap_floor *floor, uint32_t limit)
{
	const struct shmi_image_params params = {
	        .heap_id = 77, .base = 1ull << 45, .heap_name = "default", .limit_pages = limit};

	return heap_create(&t->heap, floor, &t->memory, &params);
}

struct test_core *test_core_over(
        const struct heap_memory *memory, const struct heap_floor *floor, uint32_t limit, const char **why)
{
	struct test_core *t = new_core();

	t->memory = *memory;
	*why = "heap_create failed";
	if (limit ? create(t, floor, limit) : heap_adopt(&t->heap, floor, memory, UINT64_MAX, why)) {
		free(t);
		return NULL;
	}
	start_core(t);
	return t;
}

struct test_core *test_core_new(uint32_t limit)
{
	struct test_core *t = new_core();
	const struct heap_floor floor = {
	        .ctx = t, .back = back, .unback = unback, .snapshot = snapshot, .measure = measure, .space = space};
	struct shmi_geometry geo;

	shmi_geometry_init(&geo, limit);
	t->backed = calloc(limit, 1);
	t->memory = (struct heap_memory){.meta = zeroed(geo.meta_bytes),
	        .ctl = zeroed(geo.ctl_bytes),
	        .state = zeroed(sizeof(struct shmi_state)),
	        .meta_bytes = geo.meta_bytes,
	        .ctl_bytes = geo.ctl_bytes,
	        .state_bytes = sizeof(struct shmi_state)};
	cr_assert_eq(create(t, &floor, limit), 0);
	start_core(t);
	return t;
}

void test_core_free(struct test_core *t)
{
	for (uint32_t i = 0; i < TEST_CORE_DIALOGUES; i++)
		free(t->dialogue[i]);
	core_deinit(&t->core);
	if (t->backed) {
		munmap(t->memory.meta, t->memory.meta_bytes);
		munmap(t->memory.ctl, t->memory.ctl_bytes);
		munmap(t->memory.state, t->memory.state_bytes);
	}
	free(t->backed);
	free(t);
}

/* ---- dialogues ---- */

static struct dialogue *connect_peer(struct test_core *t, struct peer peer)
{
	uint32_t i = 0;

	while (i < TEST_CORE_DIALOGUES && t->dialogue[i])
		i++;
	cr_assert_lt(i, TEST_CORE_DIALOGUES);
	t->dialogue[i] = calloc(1, sizeof(struct dialogue));
	cr_assert(t->dialogue[i] != NULL);
	dialogue_init(t->dialogue[i], &t->heaps, &peer, NULL);
	return t->dialogue[i];
}

static struct peer new_peer(uint32_t uid)
{
	static int32_t pid = 1000;

	pid++;
	return (struct peer){.pid = pid, .uid = uid, .gid = uid, .pidfd = -1, .inode = (uint64_t)pid * 7};
}

struct dialogue *test_core_connect(struct test_core *t, uint32_t uid)
{
	return connect_peer(t, new_peer(uid));
}

static void greet(struct test_core *t, struct dialogue *d)
{
	t->req = (struct wire_msg){.kind = WIRE_HELLO};
	t->req.u.hello = (struct wire_hello){
	        .protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .version = "0.1.0", .label = "test"};
	cr_assert_eq(test_core_send(t, d), WIRE_HELLO_OK);
}

struct dialogue *test_core_connect_as(struct test_core *t, struct peer peer)
{
	struct dialogue *d = connect_peer(t, peer);

	greet(t, d);
	return d;
}

struct dialogue *test_core_attach(struct test_core *t, uint32_t uid)
{
	return test_core_attach_as(t, new_peer(uid));
}

struct dialogue *test_core_attach_as(struct test_core *t, struct peer peer)
{
	struct dialogue *d = test_core_connect_as(t, peer);

	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(test_core_send(t, d), WIRE_ATTACH_OK, "%s", t->reply.u.error.text);
	cr_assert(t->move.descriptors);
	return d;
}

struct dialogue *test_core_again(struct test_core *t, const struct dialogue *d)
{
	struct peer peer = d->caller.client ? d->caller.client->peer : d->caller.peer;

	peer.pidfd = -1;
	struct dialogue *again = connect_peer(t, peer);

	greet(t, again);
	return again;
}

enum wire_kind test_core_send(struct test_core *t, struct dialogue *d)
{
	static unsigned char bytes[WIRE_MAX];
	size_t len;

	cr_assert_eq(shmi_codec_encode(&t->req, &t->scratch, bytes, sizeof(bytes), &len), 0, "an illegal request");
	t->answered = NULL;
	t->reply.kind = WIRE_NONE;
	struct move move = dialogue_packet(d, bytes, len);

	keep_reply(t, d, &move);
	if (move.descriptors)
		core_drop_lease(&d->caller); /* sent */
	if (t->reply.kind != WIRE_NONE)
		cr_assert_eq(t->reply.serial, t->req.serial);
	return t->reply.kind;
}

enum wire_kind test_core_ask(struct test_core *t, struct dialogue *d)
{
	t->req.serial = ++t->serial;
	if (test_core_send(t, d) == WIRE_NONE)
		while (!t->answered && core_turn(&t->core))
			;
	return t->reply.kind;
}

bool test_core_legal(struct test_core *t)
{
	static unsigned char bytes[WIRE_MAX];
	size_t len;

	return !shmi_codec_encode(&t->req, &t->scratch, bytes, sizeof(bytes), &len);
}

uint32_t test_core_force(struct test_core *t, struct dialogue *d)
{
	struct answer answer;

	t->req.serial = ++t->serial;
	requests_run(&t->core, &d->caller, &t->req, &answer);
	cr_assert_neq(answer.outcome, OUTCOME_LATER);
	cr_assert_eq(shmi_codec_decode(&t->reply, &t->scratch, answer.bytes, answer.len), 0, "an illegal reply");
	return t->reply.kind == WIRE_ERROR ? t->reply.u.error.code : 0;
}

uint32_t test_core_fails(struct test_core *t, struct dialogue *d)
{
	return test_core_ask(t, d) == WIRE_ERROR ? t->reply.u.error.code : 0;
}

uint32_t test_core_run(struct test_core *t)
{
	uint32_t steps = 0;

	while (core_turn(&t->core))
		cr_assert_lt(++steps, 1000000, "the jobs do not end");
	return steps;
}

void test_core_hang_up(struct test_core *t, struct dialogue *d)
{
	dialogue_event(d, EVENT_HANGUP);
	dialogue_deinit(d);
	for (uint32_t i = 0; i < TEST_CORE_DIALOGUES; i++)
		if (t->dialogue[i] == d)
			t->dialogue[i] = NULL;
	free(d);
}

void test_core_kill(struct test_core *t, struct dialogue *d)
{
	struct caller *caller = core_client_died(&t->core, test_core_client(d));

	cr_assert_eq(caller, &d->caller);
	dialogue_event(d, EVENT_DEATH);
}

/* ---- common requests ---- */

uint32_t test_core_refill(struct test_core *t, struct dialogue *d, uint32_t sclass, uint32_t spans)
{
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_wants = 1;
	t->req.u.refill.wants[0] = (struct wire_want){.sclass = sclass, .spans = spans};
	return test_core_ask(t, d) == WIRE_REFILL_OK ? t->reply.u.refill_ok.n_grants : 0;
}

uint32_t test_core_large(struct test_core *t, struct dialogue *d, uint32_t pages, uint32_t attrs, bool lazy)
{
	t->req = (struct wire_msg){.kind = WIRE_LARGE};
	t->req.u.large = (struct wire_large){.bytes = (uint64_t)pages << SHMI_PAGE_SHIFT,
	        .pages = pages,
	        .align_pages = 1,
	        .attrs = attrs,
	        .lazy = lazy};
	return test_core_ask(t, d) == WIRE_LARGE_OK ? t->reply.u.large_ok.page : 0;
}

/* ---- check ---- */

static bool client_lives(void *ctx, uint32_t client)
{
	const struct test_core *t = ctx;

	return client < SHMI_MAX_CLIENTS && t->core.client[client].state != CLIENT_FREE;
}

/* NULL, or what is wrong with what lies in meta and with what is backed; with `ctl` with that as well. */
static const char *wrong(struct test_core *t, bool ctl)
{
	static char text[200];
	struct shmi_image img = t->heap.img;
	struct shmi_walk walk = shmi_walk_start(&img);
	const struct shmi_check_env env = {.ctx = t, .client_lives = client_lives};
	struct shmi_violation found;

	while (shmi_walk_next(&img, &walk)) {
		bool must = shmi_span_is_backed(&img, walk.page);

		for (uint32_t i = 0; must && i < walk.pages.n; i++)
			if (!t->backed[walk.page.i + i]) {
				snprintf(text, sizeof(text), "page %u is in use and not backed", walk.page.i + i);
				return text;
			}
	}
	if (!ctl)
		img.ctl = NULL;
	if (!shmi_check(&img, &env, 1, &found, 1))
		return NULL;
	snprintf(text, sizeof(text), "I%u, page %u: %s", found.invariant, found.page, found.text);
	return text;
}

void test_core_check(struct test_core *t)
{
	const char *fault = wrong(t, true);

	cr_assert_null(fault, "%s", fault);
}

const char *test_core_wrong_meta(struct test_core *t)
{
	return wrong(t, false);
}

void test_core_restart(struct test_core *t)
{
	const struct core_hooks hooks = t->core.hooks;
	const struct core_leases leases = t->core.leases;
	const struct heap_floor floor = t->heap.floor;
	const uint64_t data = (uint64_t)t->heap.img.geo.limit_pages << SHMI_PAGE_SHIFT;
	const char *why = "";

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		t->core.client[i].state = CLIENT_FREE;
	core_deinit(&t->core);
	cr_assert_eq(heap_adopt(&t->heap, &floor, &t->memory, data, &why), 0, "%s", why);
	cr_assert_eq(core_init(&t->core, &t->heap, &hooks, &(struct limits){0}), 0);
	t->core.leases = leases;
	clients_adopt(&t->core);
}
