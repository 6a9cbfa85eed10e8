#include "daemon/feed.h"

#include <errno.h>
#include <stdio.h>
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
	for (uint32_t i = 0; i < text->n_pieces; i++)
		free(text->pieces[i].bytes);
	free(text->pieces);
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

/* The rows of a snapshot, which may be gone by the time at which the last of them is written down. */
static void copy_snapshot(struct feed_heap *heap, const struct snapshot *snapshot)
{
	struct report *report = heap->report;

	report->stats = snapshot->stats;
	report->n_clients = snapshot->n_clients;
	report->n_users = snapshot->n_users;
	report->n_classes = snapshot->n_classes;
	memcpy(heap->clients, snapshot->clients, snapshot->n_clients * sizeof(*heap->clients));
	memcpy(heap->users, snapshot->users, snapshot->n_users * sizeof(*heap->users));
	memcpy(heap->classes, snapshot->classes, snapshot->n_classes * sizeof(*heap->classes));
}

static uint64_t pages_bytes(const shmi_a64 *pages)
{
	return shmi_load(pages) << SHMI_PAGE_SHIFT;
}

/* What there is to choose from. */
static void list_heaps(const struct feed *feed, struct feed_heap *heap)
{
	heap->report->n_heaps = feed->n_heaps;
	for (uint32_t h = 0; h < feed->n_heaps; h++) {
		const struct heap *other = feed->heaps[h].core->heap;
		const struct shmi_page_counts *pages = &other->img.super->pages;
		struct wire_heap_row *row = &heap->heaps[h];

		*row = (struct wire_heap_row){.limit = shmi_npages_bytes((shmi_npages){other->img.geo.limit_pages}),
		        .backed = pages_bytes(&pages->owned) + pages_bytes(&pages->central) + pages_bytes(&pages->free),
		        .backing = feed->heaps[h].backing,
		        .damaged = other->fenced,
		        .allowed = 1};
		snprintf(row->name, sizeof(row->name), "%s", other->name);
		for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++)
			row->clients += feed->heaps[h].core->client[c].state != CLIENT_FREE;
	}
}

/* ---- the map ---- */

/* The answer, in the core's reply; NULL: there is none, as of a fenced heap. */
static const struct wire_msg *ask_spans(struct core *core, uint64_t cursor)
{
	struct caller nobody = {.peer = {.pidfd = -1, .uid = core->uid}, .lease = -1};
	static struct wire_msg req;

	req.kind = WIRE_QUERY;
	req.u.query = (struct wire_query){.kind = WIRE_Q_SPANS, .cursor = cursor};
	(void)query_run(core, &nobody, &req);
	return core->reply.kind == WIRE_SPAN_ROWS ? &core->reply : NULL;
}

/* Where the run begins that `page` is in the middle of; `page` itself if that is not within reach. */
static uint32_t run_at(const struct core *core, uint32_t page)
{
	const struct shmi_image *img = &core->heap->img;
	uint32_t end = shmi_image_published(img);

	for (uint32_t back = 0; page < end && back < page && back < POLICY_HTTP_BACK; back++) {
		shmi_page first = {page - back};
		uint32_t state = shmi_span_word(img, first).state;

		if (state != SHMI_SPAN_NONE)
			return shmi_span_at(img, first)->pages > back ? first.i : page;
	}
	return page;
}

/* One reply's worth. True when there is no more. A run that begins before `to` is taken whole. */
static bool collect_spans(struct feed *feed)
{
	struct core *core = feed->heaps[feed->heap].core;
	const struct wire_msg *reply = ask_spans(core, feed->cursor);
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

static uint64_t now_of(const struct feed *feed)
{
	return feed->heaps[0].core->now_ms;
}

static bool is_fresh(uint64_t now_ms, uint64_t then_ms)
{
	return then_ms && now_ms < then_ms + POLICY_HTTP_FRESH_MS;
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
	replace(place_of(feed, &feed->now), text);
	if (feed->now.kind == FEED_METRICS)
		feed->metrics_ms = now_of(feed);
	if (feed->now.kind == FEED_MAP) {
		feed->map_ask = feed->now;
		feed->map_ms = now_of(feed);
	}
	feed->failed = !text;
	feed->busy = false;
	feedtext_free(feed->writer);
	feed->writer = NULL;
	free_map(feed);
	feed->done(feed->ctx);
}

/* The heap whose rows have to be collected next; n_heaps: none. Those that were fresh when the work began will do, or it would
 * not come to an end with heaps that take long. */
static uint32_t stale_heap(const struct feed *feed)
{
	uint32_t h = feed->now.kind == FEED_STATS ? feed->now.heap : 0;
	uint32_t end = feed->now.kind == FEED_STATS ? h + 1 : feed->n_heaps;

	if (feed->now.kind == FEED_MAP)
		return feed->n_heaps;
	for (; h < end; h++)
		if (!is_fresh(feed->began_ms, feed->heaps[h].taken_ms))
			return h;
	return feed->n_heaps;
}

static bool step(struct core *core, struct job *job);

static void queue(struct feed *feed)
{
	feed->job.step = step;
	core_queue(feed->heaps[feed->heap].core, &feed->job);
}

static void on_ready(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot);

/* Rows first, then the text. */
static void next_part(struct feed *feed)
{
	uint32_t stale = stale_heap(feed);

	if (stale < feed->n_heaps) {
		struct feed_heap *heap = &feed->heaps[stale];

		replace(&heap->json, NULL);
		heap->wait.ready = on_ready;
		heap->wait.uid = heap->core->uid;
		survey_ask(heap->core, &heap->wait);
		return;
	}
	if (feed->now.kind != FEED_METRICS)
		feed->heap = feed->now.heap;
	queue(feed);
}

/* Also while survey_ask is under way, of a fenced heap. */
static void on_ready(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot)
{
	struct feed_heap *heap = (struct feed_heap *)(void *)((char *)wait - offsetof(struct feed_heap, wait));

	if (!snapshot) {
		finish(heap->feed, NULL);
		return;
	}
	copy_snapshot(heap, snapshot);
	list_heaps(heap->feed, heap);
	heap->taken_ms = core->now_ms;
	next_part(heap->feed);
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
	if (feed->drawing && !feed->drawn && !(feed->drawn = collect_spans(feed)))
		queue(feed);
	else
		write_some(feed);
	return true; /* it has queued itself, perhaps with another core */
}

static bool begin(struct feed *feed, const struct feed_ask *ask)
{
	feed->now = *ask;
	feed->began_ms = now_of(feed);
	feed->cursor = ask->kind == FEED_MAP ? run_at(feed->heaps[ask->heap].core, ask->from) : 0;
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
		return is_fresh(now_of(feed), heap->taken_ms) ? text : NULL;
	if (ask->kind == FEED_METRICS)
		return is_fresh(now_of(feed), feed->metrics_ms) ? text : NULL;
	return same_ask(ask, &feed->map_ask) && is_fresh(now_of(feed), feed->map_ms) ? text : NULL;
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

static int heap_init(struct feed *feed, struct feed_heap *heap, const struct feed_source *source, uint32_t n_heaps)
{
	*heap = (struct feed_heap){.feed = feed,
	        .core = source->core,
	        .backing = source->backing,
	        .report = &feed->reports[feed->n_heaps],
	        .clients = calloc(SHMI_MAX_CLIENTS, sizeof(*heap->clients)),
	        .users = calloc(SNAPSHOT_USERS, sizeof(*heap->users)),
	        .classes = calloc(SHMI_SPAN_CLASSES, sizeof(*heap->classes)),
	        .heaps = calloc(n_heaps, sizeof(*heap->heaps))};
	*heap->report = (struct report){.clients = heap->clients,
	        .users = heap->users,
	        .classes = heap->classes,
	        .heaps = heap->heaps,
	        .version = SHMALLOC_VERSION};
	return heap->clients && heap->users && heap->classes && heap->heaps ? 0 : -ENOMEM;
}

int feed_init(struct feed *feed, const struct feed_source *sources, uint32_t n, void (*done)(void *ctx), void *ctx)
{
	int error = 0;

	*feed = (struct feed){.done = done,
	        .ctx = ctx,
	        .heaps = calloc(n, sizeof(*feed->heaps)),
	        .reports = calloc(n, sizeof(*feed->reports))};
	if (!feed->heaps || !feed->reports)
		error = -ENOMEM;
	for (; feed->n_heaps < n && !error; feed->n_heaps++)
		error = heap_init(feed, &feed->heaps[feed->n_heaps], &sources[feed->n_heaps], n);
	if (error)
		feed_deinit(feed);
	return error;
}

void feed_deinit(struct feed *feed)
{
	if (feed->n_heaps)
		core_unqueue(feed->heaps[feed->heap].core, &feed->job);
	for (uint32_t h = 0; h < feed->n_heaps; h++) {
		survey_forget(feed->heaps[h].core, &feed->heaps[h].wait);
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
