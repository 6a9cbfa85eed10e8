#include "daemon/query.h"

#include <stdio.h>
#include <string.h>

#include "daemon/clients.h"
#include "shm/check.h"
#include "shm/slots.h"
#include "shm/stats.h"
#include "shm/walk.h"

#define CHECK_PASSES 3u /* a finding about memory that clients write counts if it is seen each time */

/* ---- stats ---- */

/* What is known of a fenced heap without looking at ctl. */
static void fenced_stats(const struct core *core, struct shmi_heap_stats *st)
{
	const struct shmi_super *super = core->heap->img.super;

	*st = (struct shmi_heap_stats){.limit = shmi_npages_bytes((shmi_npages){core->heap->img.geo.limit_pages}),
	        .published = shmi_npages_bytes((shmi_npages){shmi_load(&super->published_pages)}),
	        .owned = shmi_load(&super->pages.owned) << SHMI_PAGE_SHIFT,
	        .central = shmi_load(&super->pages.central) << SHMI_PAGE_SHIFT,
	        .free = shmi_load(&super->pages.free) << SHMI_PAGE_SHIFT,
	        .returned = shmi_load(&super->pages.returned) << SHMI_PAGE_SHIFT,
	        .lazy = shmi_load(&super->pages.lazy) << SHMI_PAGE_SHIFT};
	st->backed = st->owned + st->central + st->free;
}

static void query_stats(struct core *core, const struct wire_query *query)
{
	struct wire_stats *out = &core->reply.u.stats;
	struct shmi_heap_stats st;

	(void)query;
	if (core->heap->fenced)
		fenced_stats(core, &st);
	else
		shmi_stats_heap(&core->heap->img, &st);
	core->reply.kind = WIRE_STATS;
	*out = (struct wire_stats){.limit = st.limit,
	        .published = st.published,
	        .owned = st.owned,
	        .central = st.central,
	        .free = st.free,
	        .backed = st.backed,
	        .returned = st.returned,
	        .lazy = st.lazy,
	        .moving = st.moving,
	        .peak_backed = st.peak_backed,
	        .live = st.live,
	        .live_blocks = st.live_blocks,
	        .cached = st.cached,
	        .slots_free = st.slots_free,
	        .tail = st.tail,
	        .written_off = st.written_off,
	        .quarantined = st.quarantined,
	        .metadata = st.metadata,
	        .clients = st.clients,
	        .threads = st.threads,
	        .roots = st.roots,
	        .requests = core->requests,
	        .uptime_ms = core->now_ms - core->started_ms,
	        .damaged = core->heap->fenced,
	        .seized = st.seized,
	        .soft_limit = core->limits.heap_soft << SHMI_PAGE_SHIFT,
	        .pressure = core->pressure.level};
	memcpy(out->counters, st.counters, sizeof(out->counters));
	snprintf(out->heap, sizeof(out->heap), "%s", core->heap->name);
}

/* ---- rows ---- */

static void client_row(struct core *core, const struct client *client, struct wire_client_row *row)
{
	struct shmi_client_stats st = {0};

	if (!core->heap->fenced)
		shmi_stats_client(&core->heap->img, client->id, &st);
	*row = (struct wire_client_row){.client = client->id,
	        .pid = (uint32_t)client->peer.pid,
	        .uid = client->peer.uid,
	        .threads = st.threads,
	        .detached = !client->caller,
	        .spans = st.spans,
	        .bytes = st.bytes,
	        .cached = st.cached,
	        .limit = client->account.limit << SHMI_PAGE_SHIFT,
	        .soft_limit = client->account.soft << SHMI_PAGE_SHIFT,
	        .guaranteed = client->account.guaranteed << SHMI_PAGE_SHIFT,
	        .failed = client->failed,
	        .requests = client->requests};
	snprintf(row->label, sizeof(row->label), "%.63s", clients_entry(core, client)->label);
}

static void query_clients(struct core *core, const struct wire_query *query)
{
	struct wire_clients *out = &core->reply.u.clients;

	core->reply.kind = WIRE_CLIENTS;
	out->n_rows = 0;
	out->next = 0;
	for (uint64_t id = query->cursor; id < SHMI_MAX_CLIENTS; id++) {
		if (core->client[id].state == CLIENT_FREE)
			continue;
		if (out->n_rows == WIRE_ROWS) {
			out->next = id;
			return;
		}
		client_row(core, &core->client[id], &out->rows[out->n_rows++]);
	}
}

static void query_classes(struct core *core, const struct wire_query *query)
{
	static struct shmi_class_stats rows[SHMI_SPAN_CLASSES];
	struct wire_classes *out = &core->reply.u.classes;

	core->reply.kind = WIRE_CLASSES;
	out->n_rows = 0;
	out->next = 0;
	shmi_stats_classes(&core->heap->img, rows);
	for (uint64_t c = query->cursor; c < SHMI_SPAN_CLASSES; c++) {
		const struct shmi_class_stats *row = &rows[c];

		if (!row->spans_owned && !row->spans_central)
			continue;
		if (out->n_rows == WIRE_ROWS) {
			out->next = c;
			return;
		}
		out->rows[out->n_rows++] = (struct wire_class_row){.sclass = row->sclass.c,
		        .size = row->size,
		        .spans_owned = row->spans_owned,
		        .spans_central = row->spans_central,
		        .bytes = row->bytes,
		        .live = row->live,
		        .cached = row->cached,
		        .slots_free = row->slots_free};
	}
}

static void span_row(const struct shmi_image *img, const struct shmi_walk *walk, struct wire_span_row *row)
{
	*row = (struct wire_span_row){.page = walk->page.i,
	        .pages = walk->pages.n,
	        .state = walk->word.state,
	        .sclass = walk->word.sclass.c,
	        .owner = walk->word.owner,
	        .generation = walk->word.generation,
	        .slots = shmi_span_at(img, walk->page)->slots};
	if (shmi_state_has_blocks(walk->word.state) && shmi_sclass_is_small(walk->word.sclass))
		row->slots_free = shmi_slots_count(
		        shmi_bitmap_at(img, walk->page), &img->classes[shmi_sclass_size_class(walk->word.sclass)]);
}

/* Every run of the heap, free ones included. The cursor is a page; if runs have been joined meanwhile, the walk finds its
 * way again at the next run that begins at or behind it. */
static void query_spans(struct core *core, const struct wire_query *query)
{
	const struct shmi_image *img = &core->heap->img;
	struct wire_span_rows *out = &core->reply.u.span_rows;
	uint32_t from = query->cursor < UINT32_MAX ? (uint32_t)query->cursor : UINT32_MAX;
	struct shmi_walk walk = shmi_walk_from(img, from);

	core->reply.kind = WIRE_SPAN_ROWS;
	out->n_rows = 0;
	out->next = 0;
	while (shmi_walk_next(img, &walk)) {
		if (out->n_rows == WIRE_ROWS) {
			out->next = walk.page.i;
			return;
		}
		span_row(img, &walk, &out->rows[out->n_rows++]);
	}
}

static void query_roots(struct core *core, const struct wire_query *query)
{
	struct wire_roots *out = &core->reply.u.roots;

	core->reply.kind = WIRE_ROOTS;
	out->n_rows = 0;
	out->next = 0;
	for (uint64_t i = query->cursor; i < SHMI_MAX_ROOTS; i++) {
		struct shmi_root *root = shmi_root_at(&core->heap->img, (uint32_t)i);
		uint64_t off = shmi_load(&root->off);

		if (!off)
			continue;
		if (out->n_rows == WIRE_ROWS) {
			out->next = i;
			return;
		}
		struct wire_root *row = &out->rows[out->n_rows++];

		*row = (struct wire_root){.off = off, .client = shmi_load(&root->client)};
		snprintf(row->name, sizeof(row->name), "%.95s", root->name);
	}
}

static bool client_lives(void *ctx, uint32_t id)
{
	const struct core *core = ctx;

	return id < SHMI_MAX_CLIENTS && core->client[id].state != CLIENT_FREE;
}

/* Some of what the record holds has gone back by now, and may be anybody's again. */
static bool reclaiming(void *ctx, uint32_t thread)
{
	const struct core *core = ctx;
	uint32_t id = shmi_thread_slot_at(&core->heap->img, thread)->client;

	return id < SHMI_MAX_CLIENTS && core->client[id].state == CLIENT_LEAVING;
}

static void query_check(struct core *core, const struct wire_query *query)
{
	static struct shmi_violation found[WIRE_ROWS];
	const struct shmi_check_env env = {.ctx = core, .client_lives = client_lives, .reclaiming = reclaiming};
	struct wire_check *out = &core->reply.u.check;

	(void)query;
	core->reply.kind = WIRE_CHECK;
	out->next = 0;
	out->violations = shmi_check(&core->heap->img, &env, CHECK_PASSES, found, WIRE_ROWS);
	out->n_rows = out->violations < WIRE_ROWS ? out->violations : WIRE_ROWS;
	for (uint32_t i = 0; i < out->n_rows; i++) {
		struct wire_check_row *row = &out->rows[i];

		*row = (struct wire_check_row){
		        .invariant = found[i].invariant, .page = found[i].page, .detail = found[i].detail};
		snprintf(row->text, sizeof(row->text), "%.119s", found[i].text);
	}
}

enum outcome query_run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	static const struct {
		void (*run)(struct core *core, const struct wire_query *query);
		bool needs_ctl;
	} queries[] = {
	        [WIRE_Q_STATS] = {query_stats, false},
	        [WIRE_Q_CLIENTS] = {query_clients, false},
	        [WIRE_Q_CLASSES] = {query_classes, true},
	        [WIRE_Q_SPANS] = {query_spans, true},
	        [WIRE_Q_ROOTS] = {query_roots, false},
	        [WIRE_Q_CHECK] = {query_check, true},
	};
	const struct wire_query *query = &req->u.query;

	(void)caller;
	if (query->kind >= sizeof(queries) / sizeof(queries[0]) || !queries[query->kind].run)
		return core_fail(core, WIRE_E_INVALID, "there is no query of kind %u", query->kind);
	if (query->heap[0] && strcmp(query->heap, core->heap->name) != 0)
		return core_fail(core, WIRE_E_NO_HEAP, "there is no heap '%.60s' here", query->heap);
	if (queries[query->kind].needs_ctl && core->heap->fenced)
		return core_fail(
		        core, WIRE_E_DAMAGED, "the heap is damaged: a client has cut one of its objects short");
	queries[query->kind].run(core, query);
	return OUTCOME_ANSWERED;
}
