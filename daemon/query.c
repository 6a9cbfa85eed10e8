#include "daemon/query.h"

#include <stdio.h>
#include <string.h>

#include "daemon/policy.h"
#include "daemon/survey.h"
#include "shm/check.h"
#include "shm/slots.h"
#include "shm/walk.h"

#define CHECK_PASSES 3u /* a finding about memory that clients write counts if it is seen each time */

/* ---- figures: from a snapshot ---- */

static void show_stats(struct wire_msg *reply, const struct snapshot *s, uint32_t at)
{
	(void)at;
	reply->kind = WIRE_STATS;
	reply->u.stats = s->stats;
}

/* The rows from `at` on, as many as a reply has room for. */
#define SHOW_ROWS(function, kind_, member)                                                                             \
	static void function(struct wire_msg *reply, const struct snapshot *s, uint32_t at)                            \
	{                                                                                                              \
		uint32_t left = at < s->n_##member ? s->n_##member - at : 0, n = left < WIRE_ROWS ? left : WIRE_ROWS;  \
                                                                                                                       \
		reply->kind = kind_;                                                                                   \
		reply->u.member.n_rows = n;                                                                            \
		reply->u.member.next = left > n ? snapshot_cursor(s, at + n) : 0;                                      \
		for (uint32_t i = 0; i < n; i++)                                                                       \
			reply->u.member.rows[i] = s->member[at + i];                                                   \
	}

SHOW_ROWS(show_clients, WIRE_CLIENTS, clients)
SHOW_ROWS(show_users, WIRE_USERS, users)
SHOW_ROWS(show_classes, WIRE_CLASSES, classes)

static const struct {
	void (*show)(struct wire_msg *reply, const struct snapshot *s, uint32_t at);
	bool needs_ctl;
} figures[] = {
        [WIRE_Q_STATS] = {show_stats, false},
        [WIRE_Q_CLIENTS] = {show_clients, false},
        [WIRE_Q_CLASSES] = {show_classes, true},
        [WIRE_Q_USERS] = {show_users, false},
};

static bool is_figures(uint32_t kind)
{
	return kind < sizeof(figures) / sizeof(figures[0]) && figures[kind].show;
}

static struct caller *caller_of(struct survey_wait *wait)
{
	return (struct caller *)(void *)((char *)wait - offsetof(struct caller, asking.wait));
}

static void fill_figures(struct core *core, uint32_t kind, const struct snapshot *snapshot)
{
	if (!snapshot)
		core_fail(core, WIRE_E_NO_MEMORY, "no memory for an answer");
	else if (figures[kind].needs_ctl && snapshot->stats.damaged)
		core_fail(core, WIRE_E_DAMAGED, "the heap is damaged: a client has cut one of its objects short");
	else
		figures[kind].show(&core->reply, snapshot, 0);
}

static void on_ready(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot)
{
	struct caller *caller = caller_of(wait);

	fill_figures(core, caller->asking.kind, snapshot);
	core_finish(core, NULL, caller, caller->asking.serial, false);
}

/* Of a heap that is fenced the answer is there at once. */
static void on_ready_now(struct core *core, struct survey_wait *wait, const struct snapshot *snapshot)
{
	fill_figures(core, caller_of(wait)->asking.kind, snapshot);
}

static enum outcome query_figures(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_query *query = &req->u.query;
	struct asking *asking = &caller->asking;
	const struct snapshot *kept = query->cursor ? survey_kept(core, query->cursor) : NULL;

	if (query->cursor && !kept)
		return core_fail(core, WIRE_E_NOT_FOUND, "these rows are not kept any more: ask again from the start");
	if (kept) {
		figures[query->kind].show(&core->reply, kept, (uint32_t)query->cursor);
		return OUTCOME_ANSWERED;
	}
	asking->kind = query->kind;
	asking->serial = req->serial;
	asking->wait.uid = caller->peer.uid;
	asking->wait.ready = core->heap->fenced ? on_ready_now : on_ready;
	survey_ask(core, &asking->wait);
	return core->heap->fenced ? OUTCOME_ANSWERED : OUTCOME_LATER;
}

/* ---- rows of the heap itself ---- */

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

static uint64_t pages_in_use(const struct core *core)
{
	const struct shmi_page_counts *pages = &core->heap->img.super->pages;

	return shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->lazy);
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
	        [WIRE_Q_SPANS] = {query_spans, true},
	        [WIRE_Q_ROOTS] = {query_roots, false},
	        [WIRE_Q_CHECK] = {query_check, true},
	};
	const struct wire_query *query = &req->u.query;

	if (!is_figures(query->kind) &&
	        (query->kind >= sizeof(queries) / sizeof(queries[0]) || !queries[query->kind].run))
		return core_fail(core, WIRE_E_INVALID, "there is no query of kind %u", query->kind);
	if (query->heap[0] && strcmp(query->heap, core->heap->name) != 0)
		return core_fail(core, WIRE_E_NO_HEAP, "there is no heap '%.60s' here", query->heap);
	if (is_figures(query->kind))
		return query_figures(core, caller, req);
	if (query->kind == WIRE_Q_CHECK && !policy_checks(caller->peer.uid, core->uid, pages_in_use(core)))
		return core_fail(core, WIRE_E_ACCESS,
		        "a check of a heap as big as this one stops the daemon for a while: only root and uid %u may "
		        "ask "
		        "for it",
		        core->uid);
	if (queries[query->kind].needs_ctl && core->heap->fenced)
		return core_fail(
		        core, WIRE_E_DAMAGED, "the heap is damaged: a client has cut one of its objects short");
	queries[query->kind].run(core, query);
	return OUTCOME_ANSWERED;
}
