/* Answers of a daemon to queries, made of an input: legal messages, with whatever in them.
 *
 * An answer is: how (one byte), length (one), that many bytes, which are repeated until the message is full; if it has rows, their
 * number and whether more follow (one byte each). HOW_NEAT makes rows that go together, as a daemon's do: ids and pages that
 * rise, spans beside each other, numbers of every size.
 */
#ifndef TESTS_FUZZ_ANSWERS_H
#define TESTS_FUZZ_ANSWERS_H

#include "proto/wire.h"
#include "tests/fuzz/input.h"

#define HOW_ALL 1u /* filled to its end, or near its begin alone */
#define HOW_NEAT 2u
#define HOW_ERROR 4u

#define FILLED 2048u /* bytes, without HOW_ALL */
#define ROWS_FEW 200u /* numbers of rows from here on are many */

/* A number of any size, by its own last bits. */
static inline uint64_t answer_scaled(uint64_t n)
{
	return n >> (n & 63);
}

static inline void answer_client(struct wire_client_row *row, uint32_t id, bool neat)
{
	row->label[WIRE_NAME - 1] = 0;
	row->detached &= 1;
	row->evicted &= 1;
	if (!neat)
		return;
	row->client = id;
	row->detached = row->pid & 1;
	row->evicted = row->pid >> 1 & 1;
	row->bytes = answer_scaled(row->bytes);
	row->cached = answer_scaled(row->cached);
	row->limit = row->uid & 1 ? answer_scaled(row->limit) : 0;
	row->granted = answer_scaled(row->granted);
	row->requests = answer_scaled(row->requests);
	row->since_ms = answer_scaled(row->since_ms);
}

/* The next span behind `page`. */
static inline uint32_t answer_span(struct wire_span_row *row, uint32_t page, bool neat)
{
	row->sclass %= WIRE_SCLASSES;
	if (!neat)
		return page;
	row->page = page + row->page % 2 * (row->generation % 64);
	row->pages = 1 + row->pages % (row->pages & 1 ? 4096 : 4);
	row->state %= 10;
	row->sclass %= 512;
	row->owner = row->owner & 1 ? row->owner % 96 : 0xffff;
	row->slots %= 128;
	row->slots_free = row->slots ? row->slots_free % (row->slots + 1) : 0;
	return row->page + row->pages;
}

static inline void answer_heap(struct wire_heap_row *row)
{
	row->name[WIRE_NAME - 1] = 0;
	row->backing &= 1;
	row->damaged &= 1;
	row->allowed &= 1;
}

/* All replies with rows begin alike. Ids and pages go on where the query says. */
static inline void answer_rows(struct wire_msg *reply, uint64_t cursor, bool neat, struct input *in)
{
	uint32_t n = input_byte(in), more = input_byte(in), next = (uint32_t)cursor;

	n = n < ROWS_FEW ? n % 6 : n - ROWS_FEW + 24;
	reply->u.clients.n_rows = n;
	for (uint32_t i = 0; i < WIRE_ROWS; i++) { /* the codec looks at as many as there are */
		if (reply->kind == WIRE_CLIENTS)
			answer_client(&reply->u.clients.rows[i], next++, neat);
		else if (reply->kind == WIRE_HEAPS)
			answer_heap(&reply->u.heaps.rows[i]);
		else if (reply->kind == WIRE_SPAN_ROWS && i < n)
			next = answer_span(&reply->u.span_rows.rows[i], next, neat);
		else if (reply->kind == WIRE_CLASSES)
			reply->u.classes.rows[i].sclass %= neat ? 512 : WIRE_SCLASSES;
		else if (reply->kind == WIRE_ROOTS)
			reply->u.roots.rows[i].name[WIRE_NAME - 1] = 0;
		else if (reply->kind == WIRE_CHECK)
			reply->u.check.rows[i].text[sizeof(reply->u.check.rows[i].text) - 1] = 0;
	}
	if (reply->kind == WIRE_CHECK && neat) {
		reply->u.check.violations = n ? n + more : 0;
		for (uint32_t i = 0; i < n; i++)
			reply->u.check.rows[i].invariant %= 64;
	}
	if (more % 4 == 0)
		next = 0;
	else if (more < 8) /* round in a circle */
		next = (uint32_t)cursor;
	reply->u.clients.next = next;
}

static inline void answer_stats(struct wire_stats *stats, bool neat)
{
	stats->heap[WIRE_NAME - 1] = 0;
	stats->damaged &= 1;
	stats->pressure %= 3;
	if (!neat)
		return;
	stats->damaged = stats->roots % 4 == 0;
	stats->uptime_ms = answer_scaled(stats->uptime_ms);
	stats->requests = answer_scaled(stats->requests);
	stats->published = answer_scaled(stats->published);
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		stats->served_us[b] = answer_scaled(stats->served_us[b]);
}

/* An answer of the kind that is asked for; one that has no rows and no figures if it is no query. */
static inline void answer_make(struct wire_msg *reply, const struct wire_msg *request, struct input *in)
{
	static const enum wire_kind kinds[] = {[WIRE_Q_STATS] = WIRE_STATS,
	        [WIRE_Q_CLIENTS] = WIRE_CLIENTS,
	        [WIRE_Q_CLASSES] = WIRE_CLASSES,
	        [WIRE_Q_SPANS] = WIRE_SPAN_ROWS,
	        [WIRE_Q_ROOTS] = WIRE_ROOTS,
	        [WIRE_Q_CHECK] = WIRE_CHECK,
	        [WIRE_Q_USERS] = WIRE_USERS,
	        [WIRE_Q_HEAPS] = WIRE_HEAPS};
	size_t n;
	uint32_t how = input_byte(in);
	const unsigned char *from = input_bytes(in, 1 + input_byte(in) % 128, &n);
	unsigned char *to = (unsigned char *)&reply->u;

	memset(&reply->u, 0, sizeof(reply->u));
	for (size_t i = 0; n && i < (how & HOW_ALL ? sizeof(reply->u) : FILLED); i++)
		to[i] = from[i % n];
	reply->serial = request->serial;
	reply->kind = request->kind == WIRE_TRIM || request->kind == WIRE_EVICT ? WIRE_TRIM_OK : WIRE_OK;
	if (request->kind == WIRE_QUERY && request->u.query.kind < sizeof(kinds) / sizeof(kinds[0]))
		reply->kind = kinds[request->u.query.kind];
	if (how & HOW_ERROR) {
		reply->kind = WIRE_ERROR;
		reply->u.error.code = 1 + reply->u.error.code % WIRE_E_EVICTED;
		reply->u.error.text[WIRE_TEXT - 1] = 0;
	} else if (reply->kind == WIRE_STATS) {
		answer_stats(&reply->u.stats, how & HOW_NEAT);
	} else if (reply->kind > WIRE_STATS) {
		answer_rows(reply, request->u.query.cursor, how & HOW_NEAT, in);
	}
}

#endif
