#include "daemon/feed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/feedtext.h"
#include "daemon/policy.h"
#include "daemon/query.h"

/* ---- texts ---- */

void feed_put(struct text *text)
{
	if (!text || --text->refs)
		return;
	free(text->bytes);
	free(text);
}

static struct text *share(struct text *text)
{
	text->refs++;
	return text;
}

static void replace(struct text **at, struct text *text)
{
	feed_put(*at);
	*at = text;
}

/* ---- rows ---- */

/* Appends what fits of the reply's rows. */
#define TAKE(heap, reply, part, most)                                                                                  \
	do {                                                                                                           \
		uint32_t n_ = (reply)->n_rows;                                                                         \
                                                                                                                       \
		if (n_ > (most) - (heap)->report->n_##part)                                                            \
			n_ = (most) - (heap)->report->n_##part;                                                        \
		memcpy((heap)->part + (heap)->report->n_##part, (reply)->rows, n_ * sizeof((reply)->rows[0]));         \
		(heap)->report->n_##part += n_;                                                                        \
	} while (0)

static uint64_t take_stats(struct feed_heap *heap, const struct wire_msg *reply)
{
	heap->report->stats = reply->u.stats;
	return 0;
}

static uint64_t take_clients(struct feed_heap *heap, const struct wire_msg *reply)
{
	TAKE(heap, &reply->u.clients, clients, SHMI_MAX_CLIENTS);
	return reply->u.clients.next;
}

static uint64_t take_users(struct feed_heap *heap, const struct wire_msg *reply)
{
	TAKE(heap, &reply->u.users, users, SHMI_MAX_CLIENTS);
	return reply->u.users.next;
}

static uint64_t take_classes(struct feed_heap *heap, const struct wire_msg *reply)
{
	TAKE(heap, &reply->u.classes, classes, SHMI_SPAN_CLASSES);
	return reply->u.classes.next;
}

static uint64_t take_heaps(struct feed_heap *heap, const struct wire_msg *reply)
{
	TAKE(heap, &reply->u.heaps, heaps, WIRE_ROWS);
	return 0;
}

/* In the order in which they are asked. A query that is refused, as of a fenced heap, brings no rows. */
static const struct {
	enum wire_query_kind query;
	enum wire_kind reply;
	uint64_t (*take)(struct feed_heap *heap, const struct wire_msg *reply); /* where to go on; 0: that was all */
} queries[] = {
        {WIRE_Q_STATS, WIRE_STATS, take_stats},
        {WIRE_Q_CLIENTS, WIRE_CLIENTS, take_clients},
        {WIRE_Q_USERS, WIRE_USERS, take_users},
        {WIRE_Q_CLASSES, WIRE_CLASSES, take_classes},
        {WIRE_Q_HEAPS, WIRE_HEAPS, take_heaps},
};

#define QUERIES (sizeof(queries) / sizeof(queries[0]))

/* The answer, in the core's reply; NULL: it is another one. */
static const struct wire_msg *query(struct core *core, enum wire_query_kind kind, uint64_t cursor, enum wire_kind reply)
{
	struct caller nobody = {.peer = {.pidfd = -1, .uid = core->uid}, .lease = -1};
	static struct wire_msg req;

	req.kind = WIRE_QUERY;
	req.u.query = (struct wire_query){.kind = kind, .cursor = cursor};
	(void)query_run(core, &nobody, &req);
	return core->reply.kind == reply ? &core->reply : NULL;
}

static void begin_rows(struct feed *feed)
{
	struct feed_heap *heap = &feed->heaps[feed->heap];

	heap->report->n_clients = heap->report->n_users = heap->report->n_classes = heap->report->n_heaps = 0;
	replace(&heap->json, NULL);
	feed->stage = 0;
	feed->cursor = 0;
}

/* One reply's worth. True when there is no more. */
static bool collect_rows(struct feed *feed)
{
	struct feed_heap *heap = &feed->heaps[feed->heap];
	const struct wire_msg *reply =
	        query(heap->core, queries[feed->stage].query, feed->cursor, queries[feed->stage].reply);

	feed->cursor = reply ? queries[feed->stage].take(heap, reply) : 0;
	if (!feed->cursor)
		feed->stage++;
	if (feed->stage < QUERIES)
		return false;
	heap->taken_ms = heap->core->now_ms;
	return true;
}

/* ---- the map ---- */

/* Likewise. A run that begins before `to` is taken whole. */
static bool collect_spans(struct feed *feed)
{
	struct core *core = feed->heaps[feed->heap].core;
	const struct wire_msg *reply = query(core, WIRE_Q_SPANS, feed->cursor, WIRE_SPAN_ROWS);
	uint32_t n = reply ? reply->u.span_rows.n_rows : 0;

	feed->cursor = reply ? reply->u.span_rows.next : 0;
	while (n && reply->u.span_rows.rows[n - 1].page >= feed->now.to) {
		feed->cursor = 0;
		n--;
	}
	if (n && report_map_spans(feed->drawing, reply->u.span_rows.rows, n))
		feed->cursor = 0; /* without memory: as far as it came */
	return !feed->cursor;
}

static void free_map(struct feed *feed)
{
	report_map_free(feed->drawing);
	feed->drawing = NULL;
}

/* ---- the work ---- */

static bool is_fresh(const struct core *core, uint64_t then)
{
	return then && core->now_ms - then < POLICY_HTTP_FRESH_MS;
}

static bool same_ask(const struct feed_ask *a, const struct feed_ask *b)
{
	return a->kind == b->kind && a->heap == b->heap && a->from == b->from && a->to == b->to;
}

static struct text **place_of(struct feed *feed, const struct feed_ask *ask)
{
	switch (ask->kind) {
	case FEED_STATS:
		return &feed->heaps[ask->heap].json;
	case FEED_METRICS:
		return &feed->metrics;
	default:
		return &feed->map;
	}
}

/* What has been asked for is there, or cannot be made. */
static void finish(struct feed *feed, struct text *text)
{
	struct core *core = feed->heaps[feed->heap].core;

	replace(place_of(feed, &feed->now), text);
	if (feed->now.kind == FEED_METRICS)
		feed->metrics_ms = core->now_ms;
	if (feed->now.kind == FEED_MAP) {
		feed->map_ask = feed->now;
		feed->map_ms = core->now_ms;
	}
	feed->failed = !text;
	feed->busy = false;
	feedtext_free(feed->writer);
	feed->writer = NULL;
	free_map(feed);
	feed->done(feed->ctx);
}

/* The heap whose rows have to be collected next; n_heaps: none. */
static uint32_t stale_heap(const struct feed *feed)
{
	uint32_t h = feed->now.kind == FEED_STATS ? feed->now.heap : 0;
	uint32_t end = feed->now.kind == FEED_STATS ? h + 1 : feed->n_heaps;

	if (feed->now.kind == FEED_MAP)
		return feed->n_heaps;
	for (; h < end; h++)
		if (!is_fresh(feed->heaps[h].core, feed->heaps[h].taken_ms))
			return h;
	return feed->n_heaps;
}

static bool step(struct core *core, struct job *job);

static void queue(struct feed *feed)
{
	feed->job.step = step;
	core_queue(feed->heaps[feed->heap].core, &feed->job);
}

/* Rows first, then the text. */
static void next_part(struct feed *feed)
{
	uint32_t stale = stale_heap(feed);

	feed->collecting = stale < feed->n_heaps;
	if (feed->collecting) {
		feed->heap = stale;
		begin_rows(feed);
	} else if (feed->now.kind != FEED_METRICS) {
		feed->heap = feed->now.heap;
	}
	queue(feed);
}

static void write_some(struct feed *feed)
{
	struct text *text = NULL;

	if (!feed->writer)
		feed->writer = feedtext_new();
	if (feed->writer && !feedtext_step(feed->writer, feed)) {
		queue(feed);
		return;
	}
	if (feed->writer)
		text = feedtext_take(feed->writer);
	finish(feed, text);
}

static bool step(struct core *core, struct job *job)
{
	struct feed *feed = (struct feed *)(void *)((char *)job - offsetof(struct feed, job));

	(void)core;
	if (feed->collecting && !collect_rows(feed))
		queue(feed);
	else if (feed->collecting)
		next_part(feed);
	else if (feed->drawing && !feed->drawn && !(feed->drawn = collect_spans(feed)))
		queue(feed);
	else
		write_some(feed);
	return true; /* it has queued itself, perhaps with another core */
}

static bool begin(struct feed *feed, const struct feed_ask *ask)
{
	feed->now = *ask;
	feed->cursor = ask->from;
	feed->drawn = false;
	if (ask->kind == FEED_MAP)
		feed->drawing = report_map_new(&(struct report_map_options){.max_cells = POLICY_HTTP_CELLS});
	if (ask->kind == FEED_MAP && !feed->drawing)
		return false;
	feed->busy = true;
	next_part(feed);
	return true;
}

/* What there is, if it is fresh. */
static struct text *cached(struct feed *feed, const struct feed_ask *ask)
{
	struct text *text = *place_of(feed, ask);
	const struct feed_heap *heap = &feed->heaps[ask->heap];

	if (!text)
		return NULL;
	if (ask->kind == FEED_STATS)
		return is_fresh(heap->core, heap->taken_ms) ? text : NULL;
	if (ask->kind == FEED_METRICS)
		return is_fresh(feed->heaps[0].core, feed->metrics_ms) ? text : NULL;
	return same_ask(ask, &feed->map_ask) && is_fresh(heap->core, feed->map_ms) ? text : NULL;
}

struct text *feed_get(struct feed *feed, const struct feed_ask *ask, bool *failed)
{
	struct text *text = cached(feed, ask);

	*failed = false;
	if (text)
		return share(text);
	if (feed->busy)
		return NULL;
	*failed = (feed->failed && same_ask(ask, &feed->now)) || !begin(feed, ask);
	feed->failed = false;
	return NULL;
}

/* ---- start and end ---- */

int feed_heap(const struct feed *feed, const char *name)
{
	if (!name)
		return 0;
	for (uint32_t h = 0; h < feed->n_heaps; h++)
		if (!strcmp(feed->heaps[h].core->heap->name, name))
			return (int)h;
	return -1;
}

static int heap_init(struct feed_heap *heap, struct core *core, struct report *report)
{
	*heap = (struct feed_heap){.core = core,
	        .report = report,
	        .clients = calloc(SHMI_MAX_CLIENTS, sizeof(*heap->clients)),
	        .users = calloc(SHMI_MAX_CLIENTS, sizeof(*heap->users)),
	        .classes = calloc(SHMI_SPAN_CLASSES, sizeof(*heap->classes)),
	        .heaps = calloc(WIRE_ROWS, sizeof(*heap->heaps))};
	*report = (struct report){.clients = heap->clients,
	        .users = heap->users,
	        .classes = heap->classes,
	        .heaps = heap->heaps,
	        .version = SHMALLOC_VERSION};
	return heap->clients && heap->users && heap->classes && heap->heaps ? 0 : -ENOMEM;
}

int feed_init(struct feed *feed, struct core *const *cores, uint32_t n, void (*done)(void *ctx), void *ctx)
{
	int error = 0;

	*feed = (struct feed){.done = done,
	        .ctx = ctx,
	        .heaps = calloc(n, sizeof(*feed->heaps)),
	        .reports = calloc(n, sizeof(*feed->reports))};
	if (!feed->heaps || !feed->reports)
		error = -ENOMEM;
	for (; feed->n_heaps < n && !error; feed->n_heaps++)
		error = heap_init(&feed->heaps[feed->n_heaps], cores[feed->n_heaps], &feed->reports[feed->n_heaps]);
	if (error)
		feed_deinit(feed);
	return error;
}

void feed_deinit(struct feed *feed)
{
	if (feed->n_heaps)
		core_unqueue(feed->heaps[feed->heap].core, &feed->job);
	for (uint32_t h = 0; h < feed->n_heaps; h++) {
		free(feed->heaps[h].clients);
		free(feed->heaps[h].users);
		free(feed->heaps[h].classes);
		free(feed->heaps[h].heaps);
		feed_put(feed->heaps[h].json);
	}
	feed_put(feed->metrics);
	feed_put(feed->map);
	feedtext_free(feed->writer);
	free_map(feed);
	free(feed->heaps);
	free(feed->reports);
	*feed = (struct feed){0};
}
