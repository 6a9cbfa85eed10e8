#include "daemon/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/clients.h"
#include "daemon/log.h"

static uint64_t bytes_of(uint64_t pages)
{
	return pages << SHMI_PAGE_SHIFT;
}

/* ---- the heap ---- */

static void add_pages(const struct core *core, struct wire_stats *stats)
{
	const struct shmi_image *img = &core->heap->img;
	const struct shmi_page_counts *pages = &img->super->pages;

	stats->limit = bytes_of(img->geo.limit_pages);
	stats->published = bytes_of(shmi_image_published(img));
	stats->owned = bytes_of(shmi_load(&pages->owned));
	stats->central = bytes_of(shmi_load(&pages->central));
	stats->free = bytes_of(shmi_load(&pages->free));
	stats->backed = stats->owned + stats->central + stats->free;
	stats->returned = bytes_of(shmi_load(&pages->returned));
	stats->lazy = bytes_of(shmi_load(&pages->lazy));
	stats->moving = bytes_of(shmi_load(&pages->moving));
	stats->seized = bytes_of(shmi_load(&pages->seized));
	stats->peak_backed = bytes_of(shmi_load(&img->super->counters.peak_backed_pages));
}

static void add_blocks(const struct shmi_ledger *ledger, struct wire_stats *stats)
{
	struct shmi_holding all = shmi_ledger_sum(ledger);
	const struct shmi_holding *nobody = &ledger->nobody;

	stats->live = all.live;
	stats->live_blocks = all.live_blocks;
	stats->cached = all.cached;
	stats->slots_free = all.slots_free;
	stats->tail = all.tail;
	stats->written_off = all.written_off;
	stats->quarantined = all.quarantined;
	stats->unowned = nobody->bytes;
	stats->unowned_live = nobody->live;
	stats->unowned_cached = nobody->cached;
	stats->unowned_slots_free = nobody->slots_free;
	stats->unowned_tail = nobody->tail;
	stats->unowned_written_off = nobody->written_off;
}

/* What memory beside the heap's own pages is backed: metadata and thread records. */
static void add_metadata(const struct core *core, struct wire_stats *stats)
{
	const struct shmi_image *img = &core->heap->img;
	uint64_t off, len;

	stats->metadata = img->geo.fixed_bytes + 4096 /* the head of ctl */;
	for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
		shmi_geometry_arena_part(&img->geo, part, 0, shmi_image_published(img), &off, &len);
		stats->metadata += len;
	}
	for (uint32_t r = 0; r < SHMI_MAX_THREADS; r++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, r);
		uint32_t parts = (uint32_t)__builtin_popcount(slot->parts);

		stats->metadata += (slot->head ? SHMI_THREAD_HEAD_BYTES : 0) + (uint64_t)parts * img->geo.part_bytes;
		stats->threads += slot->client != SHMI_NOBODY && slot->parts;
	}
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++)
		stats->roots += shmi_load(&shmi_root_at(img, r)->off) != 0;
}

static void add_counters(const struct core *core, struct wire_stats *stats)
{
	const shmi_a64 *counters = (const shmi_a64 *)&core->heap->img.super->counters;

	for (size_t i = 0; i < WIRE_COUNTERS; i++)
		stats->counters[i] = shmi_load(&counters[i]);
	memcpy(stats->served_us, core->served.bucket, sizeof(stats->served_us));
	memcpy(stats->waited_us, core->waited.bucket, sizeof(stats->waited_us));
	stats->served_sum_us = core->served.sum_us;
	stats->waited_sum_us = core->waited.sum_us;
}

static void fill_stats(const struct core *core, struct snapshot *s)
{
	struct wire_stats *stats = &s->stats;

	add_pages(core, stats);
	add_counters(core, stats);
	if (!core->heap->fenced) {
		add_blocks(&core->ledger, stats);
		add_metadata(core, stats);
	}
	stats->clients = s->n_clients;
	stats->requests = core->requests;
	stats->uptime_ms = core->now_ms - core->started_ms;
	stats->damaged = core->heap->fenced;
	stats->soft_limit = bytes_of(core->limits.heap_soft);
	stats->pressure = core->pressure.level;
	stats->sessions = core->connections ? core->connections->connections : 0;
	stats->recovery_us = core->recovery_us;
	stats->swallowed = log_swallowed();
	stats->snapshot = snapshot_cursor(s, 0);
	snprintf(stats->heap, sizeof(stats->heap), "%s", core->heap->name);
}

/* ---- rows ---- */

static void fill_client(const struct core *core, const struct client *client, struct wire_client_row *row)
{
	static const struct shmi_holding nothing;
	const struct shmi_holding *h = core->heap->fenced ? &nothing : &core->ledger.owner[client->id];

	*row = (struct wire_client_row){.client = client->id,
	        .pid = (uint32_t)client->peer.pid,
	        .uid = client->peer.uid,
	        .detached = !client->caller,
	        .evicted = client->evicted,
	        .spans = h->spans,
	        .bytes = h->bytes,
	        .live = h->live,
	        .cached = h->cached,
	        .slots_free = h->slots_free,
	        .tail = h->tail,
	        .written_off = h->written_off,
	        .limit = bytes_of(client->account.limit),
	        .soft_limit = bytes_of(client->account.soft),
	        .guaranteed = bytes_of(client->account.guaranteed),
	        .requests = client->requests,
	        .granted = bytes_of(client->granted_pages),
	        .failed = client->failed,
	        .since_ms = core->now_ms - client->since_ms};
	snprintf(row->label, sizeof(row->label), "%.63s", clients_entry(core, client)->label);
}

static void count_threads(const struct core *core, const struct wire_client_row **by_id, struct wire_client_row *rows)
{
	for (uint32_t r = 0; r < SHMI_MAX_THREADS; r++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(&core->heap->img, r);

		if (slot->client < SHMI_MAX_CLIENTS && slot->parts && by_id[slot->client])
			rows[by_id[slot->client] - rows].threads++;
	}
}

static bool fill_clients(const struct core *core, struct snapshot *s)
{
	const struct wire_client_row *by_id[SHMI_MAX_CLIENTS] = {NULL};
	uint32_t n = 0;

	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++)
		n += core->client[id].state != CLIENT_FREE;
	s->clients = calloc(n ? n : 1, sizeof(*s->clients));
	if (!s->clients)
		return false;
	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++)
		if (core->client[id].state != CLIENT_FREE) {
			by_id[id] = &s->clients[s->n_clients];
			fill_client(core, &core->client[id], &s->clients[s->n_clients++]);
		}
	count_threads(core, by_id, s->clients);
	return true;
}

static int by_uid(const void *a, const void *b)
{
	const struct wire_user_row *x = a, *y = b;

	return x->uid < y->uid ? -1 : x->uid > y->uid;
}

/* A user who has a connection and no client has a row as well. */
static struct wire_user_row *user_row(struct snapshot *s, uint32_t uid)
{
	for (uint32_t i = 0; i < s->n_users; i++)
		if (s->users[i].uid == uid)
			return &s->users[i];
	s->users[s->n_users] = (struct wire_user_row){.uid = uid};
	return &s->users[s->n_users++];
}

static void add_user(const struct user *user, struct wire_user_row *row)
{
	row->limit = bytes_of(user->account.limit);
	row->soft_limit = bytes_of(user->account.soft);
	row->guaranteed = bytes_of(user->account.guaranteed);
	row->requests = user->requests;
	row->failed = user->failed;
}

static bool fill_users(const struct core *core, struct snapshot *s)
{
	uint32_t places = core->connections ? POLICY_SESSIONS : 0, n = 0;

	for (uint32_t i = 0; i < places; i++)
		n += core->connections->user[i].connections != 0;
	for (uint32_t i = 0; i < ACCOUNT_USERS; i++)
		n += core->users.user[i].refs != 0;
	s->users = calloc(n ? n : 1, sizeof(*s->users));
	if (!s->users)
		return false;
	for (uint32_t i = 0; i < ACCOUNT_USERS; i++)
		if (core->users.user[i].refs)
			add_user(&core->users.user[i], user_row(s, core->users.user[i].uid));
	for (uint32_t i = 0; i < places; i++) {
		const struct fair_user *user = &core->connections->user[i];

		if (user->connections)
			user_row(s, user->uid)->sessions = user->connections;
	}
	for (uint32_t i = 0; i < s->n_clients; i++) {
		struct wire_user_row *row = user_row(s, s->clients[i].uid);

		row->clients++;
		row->bytes += s->clients[i].bytes;
	}
	qsort(s->users, s->n_users, sizeof(*s->users), by_uid);
	return true;
}

static void fill_class(const struct core *core, uint32_t sclass, struct wire_class_row *row)
{
	const struct shmi_stock *stock = &core->ledger.stock[sclass];

	*row = (struct wire_class_row){.sclass = sclass,
	        .size = core->heap->img.classes[sclass / SHMI_ATTRS].size,
	        .spans_owned = stock->spans_owned,
	        .spans_central = stock->spans_central,
	        .bytes = stock->bytes,
	        .live = stock->live,
	        .cached = stock->cached,
	        .slots_free = stock->slots_free};
}

static bool fill_classes(const struct core *core, struct snapshot *s)
{
	const struct shmi_stock *stock = core->ledger.stock;
	uint32_t n = 0;

	for (uint32_t c = 0; c < SHMI_SPAN_CLASSES; c++)
		n += stock[c].spans_owned || stock[c].spans_central;
	s->classes = calloc(n ? n : 1, sizeof(*s->classes));
	if (!s->classes)
		return false;
	for (uint32_t c = 0; c < SHMI_SPAN_CLASSES && !core->heap->fenced; c++)
		if (stock[c].spans_owned || stock[c].spans_central)
			fill_class(core, c, &s->classes[s->n_classes++]);
	return true;
}

/* ---- the whole ---- */

struct snapshot *snapshot_take(const struct core *core, uint32_t id)
{
	struct snapshot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->id = id;
	if (!fill_clients(core, s) || !fill_users(core, s) || !fill_classes(core, s)) {
		snapshot_free(s);
		return NULL;
	}
	fill_stats(core, s);
	return s;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	free(s->clients);
	free(s->users);
	free(s->classes);
	free(s);
}
