/* struct wire_msg <-> protobuf: what is in which message, and the envelope.
 *
 * The schema and wire.h say the same thing twice, so most of the work is done by tables, see proto/map.h. What is made of columns
 * (refill, its reply, free) has two short functions instead.
 *
 * protobuf-c works in the caller's scratch area; one that is used up is a malformed message, since no legal one needs as
 * much. That also caps what a hostile packet can make us do, as protobuf-c works in proportion to what it allocates.
 *
 * Most messages use a few hundred bytes of a struct wire_msg, which has room for the largest: nothing here clears or copies
 * what is beyond a count or behind a text's end.
 */
#include "proto/codec.h"

#include "proto/map.h"
#include "proto/shmalloc.pb-c.h"

_Static_assert(CODEC_SCRATCH % 16 == 0, "an arena ends on a multiple of 16");

/* ---- columns ---- */

static uint64_t span_pack(uint32_t page, uint32_t generation)
{
	return page | (uint64_t)generation << 32;
}

static uint64_t *spans_pack(const struct wire_span *spans, uint32_t n, struct arena *arena)
{
	uint64_t *to = shmi_arena_alloc(arena, sizeof(*to) * n);

	for (uint32_t i = 0; to && i < n; i++)
		to[i] = span_pack(spans[i].page, spans[i].generation);
	return to;
}

static void spans_unpack(struct wire_span *spans, const uint64_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		spans[i] = (struct wire_span){(uint32_t)from[i], (uint32_t)(from[i] >> 32)};
}

/* A column of large spans: `freed` of two requests, and all that a third one has. */
static bool freed_put(uint64_t **to, size_t *n_to, const struct wire_free *from, struct arena *arena)
{
	if (from->n_spans > WIRE_BIGS)
		return false;
	*n_to = from->n_spans;
	*to = spans_pack(from->spans, from->n_spans, arena);
	return *to;
}

static bool freed_get(struct wire_free *to, const uint64_t *from, size_t n)
{
	if (n > WIRE_BIGS)
		return false;
	to->n_spans = (uint32_t)n;
	spans_unpack(to->spans, from, n);
	return true;
}

static bool refill_put(void *pb, const void *wire, struct arena *arena)
{
	ShmiPb__Refill *p = pb;
	const struct wire_refill *w = wire;

	if (w->n_wants > WIRE_WANTS || w->n_returns > WIRE_SPANS || w->n_reports > WIRE_REPORTS)
		return false;
	p->want_sclass = shmi_arena_alloc(arena, sizeof(*p->want_sclass) * w->n_wants);
	p->want_spans = shmi_arena_alloc(arena, sizeof(*p->want_spans) * w->n_wants);
	p->returns = spans_pack(w->returns, w->n_returns, arena);
	if (!p->want_sclass || !p->want_spans || !p->returns)
		return false;
	for (uint32_t i = 0; i < w->n_wants; i++) {
		if (w->wants[i].sclass >= WIRE_SCLASSES)
			return false;
		p->want_sclass[i] = w->wants[i].sclass;
		p->want_spans[i] = w->wants[i].spans;
	}
	p->n_want_sclass = p->n_want_spans = w->n_wants;
	p->n_returns = w->n_returns;
	p->n_reports = w->n_reports;
	p->reports = shmi_at(w->reports, 0);
	p->waited_us = w->waited_us;
	p->remote_freed = w->remote_freed;
	return freed_put(&p->freed, &p->n_freed, &w->freed, arena);
}

static bool refill_get(void *wire, const void *pb)
{
	struct wire_refill *w = wire;
	const ShmiPb__Refill *p = pb;

	if (p->n_want_sclass > WIRE_WANTS || p->n_want_spans != p->n_want_sclass || p->n_returns > WIRE_SPANS ||
	        p->n_reports > WIRE_REPORTS)
		return false;
	for (size_t i = 0; i < p->n_want_sclass; i++) {
		if (p->want_sclass[i] >= WIRE_SCLASSES)
			return false;
		w->wants[i] = (struct wire_want){p->want_sclass[i], p->want_spans[i]};
	}
	spans_unpack(w->returns, p->returns, p->n_returns);
	for (size_t i = 0; i < p->n_reports; i++)
		w->reports[i] = p->reports[i];
	w->n_wants = (uint32_t)p->n_want_sclass;
	w->n_returns = (uint32_t)p->n_returns;
	w->n_reports = (uint32_t)p->n_reports;
	w->waited_us = p->waited_us;
	w->remote_freed = p->remote_freed;
	return freed_get(&w->freed, p->freed, p->n_freed);
}

static bool refill_ok_put(void *pb, const void *wire, struct arena *arena)
{
	ShmiPb__RefillOk *p = pb;
	const struct wire_refill_ok *w = wire;
	uint32_t n = w->n_grants;

	if (n > WIRE_SPANS)
		return false;
	p->grants = shmi_arena_alloc(arena, sizeof(*p->grants) * n);
	p->sclass = shmi_arena_alloc(arena, sizeof(*p->sclass) * n);
	p->fresh = shmi_arena_alloc(arena, sizeof(*p->fresh) * n);
	if (!p->grants || !p->sclass || !p->fresh)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct wire_grant *g = &w->grants[i];

		if (g->sclass >= WIRE_SCLASSES)
			return false;
		p->grants[i] = span_pack(g->page, g->generation);
		p->sclass[i] = g->sclass;
		p->fresh[i] = g->fresh;
	}
	p->n_grants = p->n_sclass = p->n_fresh = n;
	return true;
}

static bool refill_ok_get(void *wire, const void *pb)
{
	struct wire_refill_ok *w = wire;
	const ShmiPb__RefillOk *p = pb;
	size_t n = p->n_grants;

	if (n > WIRE_SPANS || p->n_sclass != n || p->n_fresh != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (p->sclass[i] >= WIRE_SCLASSES)
			return false;
		w->grants[i].page = (uint32_t)p->grants[i];
		w->grants[i].generation = (uint32_t)(p->grants[i] >> 32);
		w->grants[i].sclass = p->sclass[i];
		w->grants[i].fresh = p->fresh[i];
	}
	w->n_grants = (uint32_t)n;
	return true;
}

static bool free_put(void *pb, const void *wire, struct arena *arena)
{
	ShmiPb__Free *p = pb;

	return freed_put(&p->spans, &p->n_spans, wire, arena);
}

static bool free_get(void *wire, const void *pb)
{
	const ShmiPb__Free *p = pb;

	return freed_get(wire, p->spans, p->n_spans);
}

/* Beside the fields of its table. */
static bool large_put(void *pb, const void *wire, struct arena *arena)
{
	ShmiPb__Large *p = pb;
	const struct wire_large *w = wire;

	return freed_put(&p->freed, &p->n_freed, &w->freed, arena);
}

static bool large_get(void *wire, const void *pb)
{
	const ShmiPb__Large *p = pb;
	struct wire_large *w = wire;

	return freed_get(&w->freed, p->freed, p->n_freed);
}

/* ---- the messages ---- */

/* MESSAGE(m, M, fields...) makes map_m for struct wire_m and ShmiPb__M. The field macros take m and the field's name, which
 * is the same on both sides; a field of wire.h whose size is not that of the type said here does not compile. */
#define FIELD(m, t, size, w, p, low, high)                                                                             \
	{                                                                                                              \
		.type = (t),                                                                                           \
		.wire = offsetof(struct wire_##m, w) +                                                                 \
		        0 * sizeof(char[sizeof(((struct wire_##m *)0)->w) == (size) ? 1 : -1]),                        \
		.pb = offsetof(pb_##m, p), .lo = (low), .hi = (high)                                                   \
	}
#define LIST(m, t, f, max, row)                                                                                        \
	{                                                                                                              \
		.type = (t), .wire = offsetof(struct wire_##m, f), .pb = offsetof(pb_##m, f),                          \
		.pb_count = offsetof(pb_##m, n_##f), .hi = (max), .rows = (row)                                        \
	}
#define U32(m, f) FIELD(m, FIELD_U32, 4, f, f, 0, UINT32_MAX)
#define RANGE(m, f, low, high) FIELD(m, FIELD_U32, 4, f, f, low, high)
#define SCLASS(m, f) RANGE(m, f, 0, WIRE_SCLASSES - 1)
#define POW2(m, f) FIELD(m, FIELD_POW2, 4, f, f, 1, UINT32_MAX)
#define U64(m, f) FIELD(m, FIELD_U64, 8, f, f, 0, 0)
#define BOOL(m, f) FIELD(m, FIELD_BOOL, sizeof(bool), f, f, 0, 0)
#define TEXT(m, f) FIELD(m, FIELD_TEXT, sizeof(((struct wire_##m *)0)->f), f, f, 0, sizeof(((struct wire_##m *)0)->f))
#define ROWS(m, row) LIST(m, FIELD_ROWS, rows, WIRE_ROWS, &map_##row), U64(m, next)

#define MAP(m, M)                                                                                                      \
	typedef ShmiPb__##M pb_##m;                                                                                    \
	static const struct map map_##m
#define MESSAGE(m, M, ...) MESSAGE_AND(m, M, NULL, NULL, __VA_ARGS__)
#define MESSAGE_AND(m, M, put_more, get_more, ...)                                                                     \
	MAP(m, M) = {.pb = &shmi_pb__##m##__descriptor,                                                                \
	        .put = (put_more),                                                                                     \
	        .get = (get_more),                                                                                     \
	        .wire_bytes = sizeof(struct wire_##m),                                                                 \
	        .n_fields = sizeof((struct field[]){__VA_ARGS__}) / sizeof(struct field),                              \
	        .fields = (const struct field[]){__VA_ARGS__}}

MAP(empty, Empty) = {.pb = &shmi_pb__empty__descriptor};
MAP(refill, Refill) = {.pb = &shmi_pb__refill__descriptor, .put = refill_put, .get = refill_get};
MAP(refill_ok, RefillOk) = {.pb = &shmi_pb__refill_ok__descriptor, .put = refill_ok_put, .get = refill_ok_get};
MAP(free, Free) = {.pb = &shmi_pb__free__descriptor, .put = free_put, .get = free_get};

/* clang-format off */
MESSAGE(error, Error, RANGE(error, code, WIRE_E_PROTOCOL, WIRE_E_EXISTS), TEXT(error, text));
MESSAGE(hello, Hello, U32(hello, protocol), U64(hello, layout_hash), TEXT(hello, version), TEXT(hello, label));
MESSAGE(attach, Attach, TEXT(attach, heap), BOOL(attach, resume), U32(attach, client), U64(attach, nonce));
MESSAGE(attach_ok, AttachOk, U32(attach_ok, client), U32(attach_ok, thread), U64(attach_ok, nonce),
	FIELD(attach_ok, FIELD_U64, 8, base, address, 0, 0), /* every struct of protobuf-c has a `base` already */
	U64(attach_ok, meta_bytes), U64(attach_ok, ctl_bytes), U64(attach_ok, data_bytes));
MESSAGE(thread, Thread, U32(thread, thread), RANGE(thread, parts, 0, (1u << WIRE_ATTRS) - 1));
MESSAGE(thread_ok, ThreadOk, U32(thread_ok, thread));
MESSAGE_AND(large, Large, large_put, large_get, U64(large, bytes), U32(large, pages), POW2(large, align_pages),
	RANGE(large, attrs, 0, WIRE_ATTRS - 1), BOOL(large, lazy));
MESSAGE(large_ok, LargeOk, U32(large_ok, page), U32(large_ok, generation), BOOL(large_ok, zeroed));
MESSAGE(root, Root, TEXT(root, name), U64(root, off), U32(root, client), BOOL(root, exclusive));
MESSAGE(trim, Trim, BOOL(trim, all), TEXT(trim, heap), BOOL(trim, one), U32(trim, client));
MESSAGE(evict, Evict, TEXT(evict, heap), U32(evict, client));
MESSAGE(trim_ok, TrimOk, U64(trim_ok, bytes));
MESSAGE(query, Query, RANGE(query, kind, WIRE_Q_STATS, WIRE_Q_HEAPS), TEXT(query, heap), U64(query, cursor));
MESSAGE(stats, Stats,
	TEXT(stats, heap), U64(stats, limit), U64(stats, published), U64(stats, owned), U64(stats, central),
	U64(stats, free), U64(stats, backed), U64(stats, returned), U64(stats, lazy), U64(stats, moving),
	U64(stats, peak_backed), U64(stats, live), U64(stats, live_blocks), U64(stats, cached), U64(stats, slots_free),
	U64(stats, tail), U64(stats, written_off), U64(stats, quarantined), U64(stats, metadata), U32(stats, clients),
	U32(stats, threads), U32(stats, roots), LIST(stats, FIELD_U64S, counters, WIRE_COUNTERS, NULL),
	U64(stats, requests), U64(stats, uptime_ms), RANGE(stats, damaged, 0, 1), U64(stats, seized),
	RANGE(stats, pressure, 0, 2), U32(stats, sessions), U64(stats, recovery_us),
	LIST(stats, FIELD_U64S, served_us, WIRE_BUCKETS, NULL), LIST(stats, FIELD_U64S, waited_us, WIRE_BUCKETS, NULL),
	U64(stats, served_sum_us), U64(stats, waited_sum_us), U64(stats, soft_limit), U64(stats, swallowed),
	U64(stats, snapshot), U64(stats, unowned), U64(stats, unowned_live), U64(stats, unowned_cached),
	U64(stats, unowned_slots_free), U64(stats, unowned_tail), U64(stats, unowned_written_off));
MESSAGE(client_row, ClientRow,
	U32(client_row, client), U32(client_row, pid), U32(client_row, uid), U32(client_row, threads),
	RANGE(client_row, detached, 0, 1), U64(client_row, spans), U64(client_row, bytes), U64(client_row, cached),
	U64(client_row, limit), U64(client_row, requests), TEXT(client_row, label), U64(client_row, live),
	U64(client_row, slots_free), U64(client_row, tail), U64(client_row, soft_limit), U64(client_row, guaranteed),
	U64(client_row, granted), U64(client_row, failed), U64(client_row, since_ms), RANGE(client_row, evicted, 0, 1),
	U64(client_row, written_off));
MESSAGE(user_row, UserRow,
	U32(user_row, uid), U32(user_row, clients), U32(user_row, sessions), U64(user_row, bytes), U64(user_row, limit),
	U64(user_row, soft_limit), U64(user_row, guaranteed), U64(user_row, requests), U64(user_row, failed));
MESSAGE(heap_row, HeapRow,
	TEXT(heap_row, name), U64(heap_row, limit), U64(heap_row, backed), U32(heap_row, clients),
	RANGE(heap_row, backing, 0, 1), RANGE(heap_row, damaged, 0, 1), RANGE(heap_row, allowed, 0, 1));
MESSAGE(class_row, ClassRow,
	SCLASS(class_row, sclass), U32(class_row, size), U64(class_row, spans_owned), U64(class_row, spans_central),
	U64(class_row, bytes), U64(class_row, live), U64(class_row, cached), U64(class_row, slots_free));
MESSAGE(span_row, SpanRow,
	U32(span_row, page), U32(span_row, pages), U32(span_row, state), SCLASS(span_row, sclass), U32(span_row, owner),
	U32(span_row, generation), U32(span_row, slots), U32(span_row, slots_free));
MESSAGE(check_row, CheckRow,
	U32(check_row, invariant), U32(check_row, page), U64(check_row, detail), TEXT(check_row, text));
MESSAGE(clients, Clients, ROWS(clients, client_row));
MESSAGE(users, Users, ROWS(users, user_row));
MESSAGE(heaps, Heaps, ROWS(heaps, heap_row));
MESSAGE(classes, Classes, ROWS(classes, class_row));
MESSAGE(span_rows, SpanRows, ROWS(span_rows, span_row));
MESSAGE(roots, Roots, ROWS(roots, root));
MESSAGE(check, Check, ROWS(check, check_row), U32(check, violations));
/* clang-format on */

#define ROWS_LEAD(m) offsetof(struct wire_##m, n_rows) == 0 && sizeof(((struct wire_##m *)0)->n_rows) == 4
_Static_assert(ROWS_LEAD(clients) && ROWS_LEAD(users) && ROWS_LEAD(heaps) && ROWS_LEAD(classes) &&
                       ROWS_LEAD(span_rows) && ROWS_LEAD(roots) && ROWS_LEAD(check),
        "rows_put and rows_get find the number of rows at the start");

#define BODY(NAME, m)                                                                                                  \
	{                                                                                                              \
		SHMI_PB__ENVELOPE__BODY_##NAME, &map_##m                                                               \
	}

static const struct body {
	uint32_t number; /* of the field in Envelope */
	const struct map *map;
} bodies[WIRE_KINDS] = {
        [WIRE_HELLO] = BODY(HELLO, hello),
        [WIRE_ATTACH] = BODY(ATTACH, attach),
        [WIRE_THREAD] = BODY(THREAD, thread),
        [WIRE_REFILL] = BODY(REFILL, refill),
        [WIRE_LARGE] = BODY(LARGE, large),
        [WIRE_FREE] = BODY(FREE, free),
        [WIRE_ROOT_SET] = BODY(ROOT_SET, root),
        [WIRE_ROOT_DEL] = BODY(ROOT_DEL, root),
        [WIRE_DETACH] = BODY(DETACH, empty),
        [WIRE_TRIM] = BODY(TRIM, trim),
        [WIRE_QUERY] = BODY(QUERY, query),
        [WIRE_EVICT] = BODY(EVICT, evict),
        [WIRE_OK] = BODY(OK, empty),
        [WIRE_ERROR] = BODY(ERROR, error),
        [WIRE_HELLO_OK] = BODY(HELLO_OK, hello),
        [WIRE_ATTACH_OK] = BODY(ATTACH_OK, attach_ok),
        [WIRE_THREAD_OK] = BODY(THREAD_OK, thread_ok),
        [WIRE_REFILL_OK] = BODY(REFILL_OK, refill_ok),
        [WIRE_LARGE_OK] = BODY(LARGE_OK, large_ok),
        [WIRE_TRIM_OK] = BODY(TRIM_OK, trim_ok),
        [WIRE_STATS] = BODY(STATS, stats),
        [WIRE_CLIENTS] = BODY(CLIENTS, clients),
        [WIRE_CLASSES] = BODY(CLASSES, classes),
        [WIRE_SPAN_ROWS] = BODY(SPAN_ROWS, span_rows),
        [WIRE_ROOTS] = BODY(ROOTS, roots),
        [WIRE_CHECK] = BODY(CHECK, check),
        [WIRE_USERS] = BODY(USERS, users),
        [WIRE_HEAPS] = BODY(HEAPS, heaps),
};

/* ---- in and out ---- */

/* Where Envelope has the pointer to its body, whatever kind it is. */
static void **body_of(ShmiPb__Envelope *e)
{
	return shmi_at(e, offsetof(ShmiPb__Envelope, hello));
}

int shmi_codec_encode(
        const struct wire_msg *msg, struct codec_scratch *scratch, unsigned char *out, size_t room, size_t *len)
{
	struct arena arena = {scratch->bytes, scratch->bytes + sizeof(scratch->bytes)};
	ShmiPb__Envelope e = SHMI_PB__ENVELOPE__INIT;

	if ((unsigned)msg->kind >= WIRE_KINDS || !bodies[msg->kind].map)
		return CODEC_E_MALFORMED;

	const struct body *body = &bodies[msg->kind];
	void *pb = shmi_arena_alloc(&arena, body->map->pb->sizeof_message);

	if (!pb || !shmi_map_put(body->map, pb, &msg->u, &arena))
		return CODEC_E_MALFORMED;
	e.serial = msg->serial;
	e.body_case = (ShmiPb__Envelope__BodyCase)body->number;
	*body_of(&e) = pb;

	size_t size = shmi_pb__envelope__get_packed_size(&e);

	if (size > WIRE_MAX || size > room)
		return CODEC_E_TOO_LONG;
	*len = shmi_pb__envelope__pack(&e, out);
	return 0;
}

int shmi_codec_decode(struct wire_msg *msg, struct codec_scratch *scratch, const unsigned char *in, size_t len)
{
	struct arena arena = {scratch->bytes, scratch->bytes + sizeof(scratch->bytes)};
	ProtobufCAllocator allocator = {shmi_arena_alloc, shmi_arena_free, &arena};

	msg->serial = 0;
	msg->kind = WIRE_NONE;
	if (len > WIRE_MAX)
		return CODEC_E_TOO_LONG;

	ShmiPb__Envelope *e = shmi_pb__envelope__unpack(&allocator, len, in);

	if (!e)
		return CODEC_E_MALFORMED;
	msg->serial = e->serial;
	for (enum wire_kind kind = WIRE_NONE + 1; kind < WIRE_KINDS; kind++) {
		if (bodies[kind].number != (uint32_t)e->body_case)
			continue;
		if (!shmi_map_get(bodies[kind].map, &msg->u, *body_of(e)))
			return CODEC_E_MALFORMED;
		msg->kind = kind;
		return 0;
	}
	return CODEC_E_MALFORMED;
}
