/* Messages for the tests of the codec: the smallest, the largest and random legal ones of every kind.
 *
 * Written from the limits that wire.h states, not from the codec's tables. Included by one file of each test program.
 */
#ifndef TESTS_PROTO_MESSAGES_H
#define TESTS_PROTO_MESSAGES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/wire.h"

enum fill_mode { FILL_MIN, FILL_MAX, FILL_RANDOM };

struct fill {
	enum fill_mode mode;
	uint64_t state; /* of the random numbers */
	uint32_t most; /* of a count, for messages that shall stay small */
};

/* SEED of the environment, or a new one; it is printed, so that a failure can be had again. */
static inline uint64_t seed_from_env(void)
{
	const char *text = getenv("SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

	fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* splitmix64 */
static inline uint64_t fill_next(struct fill *f)
{
	uint64_t z = f->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static inline uint64_t fill_range(struct fill *f, uint64_t lo, uint64_t hi)
{
	if (f->mode == FILL_MIN)
		return lo;
	if (f->mode == FILL_MAX)
		return hi;
	/* as many short numbers as long ones */
	uint64_t v = fill_next(f) >> (fill_next(f) % 64);

	return hi - lo == UINT64_MAX ? v : lo + v % (hi - lo + 1);
}

static inline uint64_t fill_u64(struct fill *f)
{
	return fill_range(f, 0, UINT64_MAX);
}

static inline uint32_t fill_u32(struct fill *f, uint32_t lo, uint32_t hi)
{
	return (uint32_t)fill_range(f, lo, hi);
}

static inline uint32_t fill_any(struct fill *f)
{
	return fill_u32(f, 0, UINT32_MAX);
}

static inline bool fill_bool(struct fill *f)
{
	return fill_range(f, 0, 1);
}

static inline uint32_t fill_count(struct fill *f, uint32_t limit)
{
	return fill_u32(f, 0, limit < f->most ? limit : f->most);
}

/* Any bytes but zero. */
static inline void fill_text(struct fill *f, char *text, uint32_t room)
{
	uint32_t len = fill_u32(f, 0, room - 1);

	for (uint32_t i = 0; i < len; i++)
		text[i] = (char)fill_range(f, 1, 255);
	text[len] = 0;
}

static inline void fill_hello(struct fill *f, struct wire_hello *m)
{
	m->protocol = fill_any(f);
	m->layout_hash = fill_u64(f);
	fill_text(f, m->version, sizeof(m->version));
	fill_text(f, m->label, sizeof(m->label));
}

static inline void fill_attach(struct fill *f, struct wire_attach *m)
{
	fill_text(f, m->heap, sizeof(m->heap));
	m->resume = fill_bool(f);
	m->client = fill_any(f);
	m->nonce = fill_u64(f);
}

static inline void fill_attach_ok(struct fill *f, struct wire_attach_ok *m)
{
	m->client = fill_any(f);
	m->thread = fill_any(f);
	m->nonce = fill_u64(f);
	m->base = fill_u64(f);
	m->meta_bytes = fill_u64(f);
	m->ctl_bytes = fill_u64(f);
	m->data_bytes = fill_u64(f);
}

static inline void fill_free(struct fill *f, struct wire_free *m)
{
	m->n_spans = fill_count(f, WIRE_BIGS);
	for (uint32_t i = 0; i < m->n_spans; i++)
		m->spans[i] = (struct wire_span){fill_any(f), fill_any(f)};
}

static inline void fill_refill(struct fill *f, struct wire_refill *m)
{
	m->n_wants = fill_count(f, WIRE_WANTS);
	m->n_returns = fill_count(f, WIRE_SPANS);
	m->n_reports = fill_count(f, WIRE_REPORTS);
	for (uint32_t i = 0; i < m->n_wants; i++)
		m->wants[i] = (struct wire_want){fill_u32(f, 0, WIRE_SCLASSES - 1), fill_any(f)};
	for (uint32_t i = 0; i < m->n_returns; i++)
		m->returns[i] = (struct wire_span){fill_any(f), fill_any(f)};
	for (uint32_t i = 0; i < m->n_reports; i++)
		m->reports[i] = fill_any(f);
	fill_free(f, &m->freed);
	m->waited_us = fill_any(f);
	m->remote_freed = fill_any(f);
}

static inline void fill_refill_ok(struct fill *f, struct wire_refill_ok *m)
{
	m->n_grants = fill_count(f, WIRE_SPANS);
	for (uint32_t i = 0; i < m->n_grants; i++) {
		m->grants[i].page = fill_any(f);
		m->grants[i].generation = fill_any(f);
		m->grants[i].sclass = fill_u32(f, 0, WIRE_SCLASSES - 1);
		m->grants[i].fresh = fill_bool(f);
	}
}

static inline void fill_large(struct fill *f, struct wire_large *m)
{
	m->bytes = fill_u64(f);
	m->pages = fill_any(f);
	m->align_pages = 1u << fill_u32(f, 0, 31);
	m->attrs = fill_u32(f, 0, 3);
	m->lazy = fill_bool(f);
	fill_free(f, &m->freed);
}

static inline void fill_large_ok(struct fill *f, struct wire_large_ok *m)
{
	m->page = fill_any(f);
	m->generation = fill_any(f);
	m->zeroed = fill_bool(f);
}

static inline void fill_root(struct fill *f, struct wire_root *m)
{
	fill_text(f, m->name, sizeof(m->name));
	m->off = fill_u64(f);
	m->client = fill_any(f);
	m->exclusive = fill_bool(f);
}

static inline void fill_query(struct fill *f, struct wire_query *m)
{
	m->kind = fill_u32(f, WIRE_Q_STATS, WIRE_Q_HEAPS);
	fill_text(f, m->heap, sizeof(m->heap));
	m->cursor = fill_u64(f);
}

static inline void fill_stats(struct fill *f, struct wire_stats *m)
{
	uint64_t *sums[] = {&m->limit, &m->published, &m->owned, &m->central, &m->free, &m->backed, &m->returned,
	        &m->lazy, &m->moving, &m->peak_backed, &m->live, &m->live_blocks, &m->cached, &m->slots_free, &m->tail,
	        &m->written_off, &m->quarantined, &m->metadata, &m->requests, &m->uptime_ms, &m->seized, &m->soft_limit,
	        &m->recovery_us, &m->swallowed, &m->served_sum_us, &m->waited_sum_us, &m->snapshot, &m->unowned,
	        &m->unowned_live, &m->unowned_cached, &m->unowned_slots_free, &m->unowned_tail,
	        &m->unowned_written_off};

	fill_text(f, m->heap, sizeof(m->heap));
	for (uint32_t i = 0; i < sizeof(sums) / sizeof(*sums); i++)
		*sums[i] = fill_u64(f);
	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		m->counters[i] = fill_u64(f);
	for (uint32_t i = 0; i < WIRE_BUCKETS; i++) {
		m->served_us[i] = fill_u64(f);
		m->waited_us[i] = fill_u64(f);
	}
	m->clients = fill_any(f);
	m->threads = fill_any(f);
	m->roots = fill_any(f);
	m->damaged = fill_u32(f, 0, 1);
	m->pressure = fill_u32(f, 0, 2);
	m->sessions = fill_any(f);
}

static inline void fill_client_row(struct fill *f, struct wire_client_row *m)
{
	m->client = fill_any(f);
	m->pid = fill_any(f);
	m->uid = fill_any(f);
	m->threads = fill_any(f);
	m->detached = fill_u32(f, 0, 1);
	m->spans = fill_u64(f);
	m->bytes = fill_u64(f);
	m->cached = fill_u64(f);
	m->limit = fill_u64(f);
	m->requests = fill_u64(f);
	fill_text(f, m->label, sizeof(m->label));
	m->live = fill_u64(f);
	m->slots_free = fill_u64(f);
	m->tail = fill_u64(f);
	m->written_off = fill_u64(f);
	m->soft_limit = fill_u64(f);
	m->guaranteed = fill_u64(f);
	m->granted = fill_u64(f);
	m->failed = fill_u64(f);
	m->since_ms = fill_u64(f);
	m->evicted = fill_u32(f, 0, 1);
}

static inline void fill_user_row(struct fill *f, struct wire_user_row *m)
{
	m->uid = fill_any(f);
	m->clients = fill_any(f);
	m->sessions = fill_any(f);
	m->bytes = fill_u64(f);
	m->limit = fill_u64(f);
	m->soft_limit = fill_u64(f);
	m->guaranteed = fill_u64(f);
	m->requests = fill_u64(f);
	m->failed = fill_u64(f);
}

static inline void fill_heap_row(struct fill *f, struct wire_heap_row *m)
{
	fill_text(f, m->name, sizeof(m->name));
	m->limit = fill_u64(f);
	m->backed = fill_u64(f);
	m->clients = fill_any(f);
	m->backing = fill_u32(f, 0, 1);
	m->damaged = fill_u32(f, 0, 1);
	m->allowed = fill_u32(f, 0, 1);
}

static inline void fill_class_row(struct fill *f, struct wire_class_row *m)
{
	m->sclass = fill_u32(f, 0, WIRE_SCLASSES - 1);
	m->size = fill_any(f);
	m->spans_owned = fill_u64(f);
	m->spans_central = fill_u64(f);
	m->bytes = fill_u64(f);
	m->live = fill_u64(f);
	m->cached = fill_u64(f);
	m->slots_free = fill_u64(f);
}

static inline void fill_span_row(struct fill *f, struct wire_span_row *m)
{
	m->page = fill_any(f);
	m->pages = fill_any(f);
	m->state = fill_any(f);
	m->sclass = fill_u32(f, 0, WIRE_SCLASSES - 1);
	m->owner = fill_any(f);
	m->generation = fill_any(f);
	m->slots = fill_any(f);
	m->slots_free = fill_any(f);
}

static inline void fill_check_row(struct fill *f, struct wire_check_row *m)
{
	m->invariant = fill_any(f);
	m->page = fill_any(f);
	m->detail = fill_u64(f);
	fill_text(f, m->text, sizeof(m->text));
}

#define FILL_ROWS(f, m, row)                                                                                           \
	do {                                                                                                           \
		(m)->n_rows = fill_count((f), WIRE_ROWS);                                                              \
		(m)->next = fill_u64(f);                                                                               \
		for (uint32_t i_ = 0; i_ < (m)->n_rows; i_++)                                                          \
			fill_##row((f), &(m)->rows[i_]);                                                               \
	} while (0)

/* A legal message of `kind`; all that it does not use is zero. */
static inline void fill_msg(struct fill *f, enum wire_kind kind, struct wire_msg *m)
{
	memset(m, 0, sizeof(*m));
	m->serial = fill_u64(f);
	m->kind = kind;
	switch (kind) {
	case WIRE_NONE:
	case WIRE_KINDS:
	case WIRE_DETACH:
	case WIRE_OK:
		return;
	case WIRE_HELLO:
	case WIRE_HELLO_OK:
		fill_hello(f, &m->u.hello);
		return;
	case WIRE_ATTACH:
		fill_attach(f, &m->u.attach);
		return;
	case WIRE_ATTACH_OK:
		fill_attach_ok(f, &m->u.attach_ok);
		return;
	case WIRE_THREAD:
		m->u.thread.thread = fill_any(f);
		m->u.thread.parts = fill_u32(f, 0, 15);
		return;
	case WIRE_THREAD_OK:
		m->u.thread_ok.thread = fill_any(f);
		return;
	case WIRE_REFILL:
		fill_refill(f, &m->u.refill);
		return;
	case WIRE_REFILL_OK:
		fill_refill_ok(f, &m->u.refill_ok);
		return;
	case WIRE_LARGE:
		fill_large(f, &m->u.large);
		return;
	case WIRE_LARGE_OK:
		fill_large_ok(f, &m->u.large_ok);
		return;
	case WIRE_FREE:
		fill_free(f, &m->u.free);
		return;
	case WIRE_ROOT_SET:
	case WIRE_ROOT_DEL:
		fill_root(f, &m->u.root);
		return;
	case WIRE_TRIM:
		m->u.trim.all = fill_bool(f);
		fill_text(f, m->u.trim.heap, sizeof(m->u.trim.heap));
		m->u.trim.one = fill_bool(f);
		m->u.trim.client = fill_any(f);
		return;
	case WIRE_EVICT:
		fill_text(f, m->u.evict.heap, sizeof(m->u.evict.heap));
		m->u.evict.client = fill_any(f);
		return;
	case WIRE_TRIM_OK:
		m->u.trim_ok.bytes = fill_u64(f);
		return;
	case WIRE_QUERY:
		fill_query(f, &m->u.query);
		return;
	case WIRE_ERROR:
		m->u.error.code = fill_u32(f, WIRE_E_PROTOCOL, WIRE_E_EXISTS);
		fill_text(f, m->u.error.text, sizeof(m->u.error.text));
		return;
	case WIRE_STATS:
		fill_stats(f, &m->u.stats);
		return;
	case WIRE_CLIENTS:
		FILL_ROWS(f, &m->u.clients, client_row);
		return;
	case WIRE_USERS:
		FILL_ROWS(f, &m->u.users, user_row);
		return;
	case WIRE_HEAPS:
		FILL_ROWS(f, &m->u.heaps, heap_row);
		return;
	case WIRE_CLASSES:
		FILL_ROWS(f, &m->u.classes, class_row);
		return;
	case WIRE_SPAN_ROWS:
		FILL_ROWS(f, &m->u.span_rows, span_row);
		return;
	case WIRE_ROOTS:
		FILL_ROWS(f, &m->u.roots, root);
		return;
	case WIRE_CHECK:
		FILL_ROWS(f, &m->u.check, check_row);
		m->u.check.violations = fill_any(f);
		return;
	}
}

#endif
