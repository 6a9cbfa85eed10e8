#include "daemon/clients.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/guard.h"
#include "daemon/journal.h"
#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/reaper.h"
#include "daemon/records.h"
#include "daemon/seizer.h"

#define TOO_MANY_OF_USER 4 /* beside the errors of records_add */

enum { ATTACHED = 1, LEFT = 2, EVICTED = 3 }; /* in_use of an entry */

static uint64_t entry_off(uint32_t id)
{
	return offsetof(struct shmi_state, clients) + id * sizeof(struct shmi_client_state);
}

struct shmi_client_state *clients_entry(const struct core *core, const struct client *client)
{
	return &core->heap->state->clients[client->id];
}

void clients_settle(struct core *core, uint32_t id)
{
	if (id >= SHMI_MAX_CLIENTS || core->client[id].state == CLIENT_FREE)
		return;
	struct client *client = &core->client[id];
	uint64_t pages = (uint64_t)shmi_owner_at(&core->heap->img, id)->pages + client->record_pages;

	charge_set(&client->held, &client->account, pages);
	clients_entry(core, client)->charged_pages = pages;
	limits_watch(core, client);
}

void clients_count_failure(struct client *client)
{
	if (!client)
		return;
	client->failed++;
	client->user->failed++;
}

void clients_count_grant(struct core *core, struct client *client, uint64_t pages)
{
	client->granted_pages += pages;
	shmi_bump(&core->heap->img.super->counters.granted_pages, pages);
}

void clients_count_given(struct core *core, uint64_t pages)
{
	shmi_bump(&core->heap->img.super->counters.given_pages, pages);
}

void clients_unwatch(struct core *core, struct client *client)
{
	if (client->peer.pidfd < 0)
		return;
	core->hooks.watch(core->hooks.ctx, client->id, -1);
	peer_close(&client->peer);
}

/* ---- coming and going ---- */

/* Everything but in_use and the thread record. Returns 0 or SHMI_E_NOMEM. */
static int fill_entry(struct core *core, struct client *client, const struct caller *caller, uint64_t nonce)
{
	struct heap *heap = core->heap;
	struct shmi_client_state *entry = clients_entry(core, client);

	if (heap->floor.back(heap->floor.ctx, HEAP_STATE, entry_off(client->id), sizeof(*entry)))
		return SHMI_E_NOMEM;
	memset(entry, 0, sizeof(*entry));
	entry->pid = caller->peer.pid;
	entry->uid = caller->peer.uid;
	entry->gid = caller->peer.gid;
	entry->pidfd_inode = caller->peer.inode;
	snprintf(entry->label, sizeof(entry->label), "%.63s", caller->label);
	entry->nonce = nonce;
	if (nonce)
		return 0;
	return getrandom(&entry->nonce, sizeof(entry->nonce), 0) == sizeof(entry->nonce) ? 0 : SHMI_E_NOMEM;
}

static struct client *find_free(struct core *core)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (core->client[i].state == CLIENT_FREE)
			return &core->client[i];
	return NULL;
}

/* The in-memory half of a client: accounts. False when there are too many users. */
static bool open_client(struct core *core, struct client *client, const struct peer *peer)
{
	struct user *user = users_get(&core->users, peer->uid);

	if (!user)
		return false;
	*client = (struct client){.id = client->id,
	        .state = CLIENT_ATTACHED,
	        .peer = *peer,
	        .user = user,
	        .since_ms = core->now_ms,
	        .heard_ms = core->now_ms};
	account_open(&client->account, &user->account, &core->limits.client);
	limits_promised(core);
	shmi_owner_at(&core->heap->img, client->id)->in_use = 1;
	return true;
}

static void close_client(struct core *core, struct client *client)
{
	charge_refund(&client->held);
	account_close(&client->account);
	users_put(client->user);
	shmi_owner_at(&core->heap->img, client->id)->in_use = 0;
	if (client->caller)
		client->caller->client = NULL;
	*client = (struct client){.id = client->id, .peer = {.pidfd = -1}};
}

void clients_left(struct core *core, struct client *client)
{
	shmi_store_release(&clients_entry(core, client)->in_use, LEFT);
	client->caller->client = NULL;
	client->caller = NULL;
}

struct client *clients_find(struct core *core, uint32_t id)
{
	struct client *client = id < SHMI_MAX_CLIENTS ? &core->client[id] : NULL;

	if (client && client->state != CLIENT_FREE && client->state != CLIENT_LEAVING && !peer_is_dead(&client->peer))
		return client;
	core_fail(core, WIRE_E_NOT_FOUND,
	        client && client->state != CLIENT_FREE ? "client %u has ended already" : "there is no client %u", id);
	return NULL;
}

void clients_evict(struct core *core, struct client *client)
{
	shmi_store_release(&clients_entry(core, client)->in_use, EVICTED);
	client->evicted = true;
	account_waive(&client->account);
}

void clients_bar(struct core *core, struct client *client)
{
	client->state = CLIENT_BARRED;
	clients_settle(core, client->id);
}

void clients_remove(struct core *core, struct client *client)
{
	struct heap_floor *floor = &core->heap->floor;

	clients_unwatch(core, client);
	shmi_store_release(&clients_entry(core, client)->in_use, 0);
	(void)floor->unback(floor->ctx, HEAP_STATE, entry_off(client->id), sizeof(struct shmi_client_state));
	close_client(core, client);
}

static void refuse_record(struct core *core, int error)
{
	if (error == RECORDS_E_LIMIT)
		core_fail(core, WIRE_E_LIMIT, "over the limit of this client or user");
	else if (error == RECORDS_E_FULL)
		core_fail(core, WIRE_E_NO_ROOM, "no thread record is left");
	else if (error == TOO_MANY_OF_USER)
		core_fail(core, WIRE_E_NO_ROOM, "this user has %u clients already", POLICY_CLIENTS_PER_USER);
	else
		core_fail(core, WIRE_E_NO_MEMORY, "no memory for another client");
}

/* A client without a lease could not be told from one that has become another program. */
static int give_lease(struct core *core, const struct client *client, struct caller *caller)
{
	core_drop_lease(caller);
	if (!core->leases.give)
		return 0;
	int fd = core->leases.give(core->leases.ctx, client->id);

	if (fd < 0) {
		log_event(LEVEL_ERROR, LOG_REFUSED, core_about_peer(core, &caller->peer),
		        "no lease for pid %d: %s; it cannot attach", caller->peer.pid, strerror(-fd));
		return SHMI_E_NOMEM;
	}
	caller->lease = fd;
	return 0;
}

static void watch_by(struct core *core, struct client *client, struct caller *caller)
{
	client->peer.pidfd = caller->peer.pidfd;
	caller->peer.pidfd = -1; /* consumed by the client */
	if (client->peer.pidfd >= 0)
		core->hooks.watch(core->hooks.ctx, client->id, client->peer.pidfd);
}

static bool same_process(const struct peer *a, const struct peer *b)
{
	return a->pid == b->pid && a->inode == b->inode && a->uid == b->uid;
}

/* The client that the caller has become already, with the answer lost on its way. */
static struct client *find_attached(struct core *core, const struct caller *caller, uint64_t nonce)
{
	for (uint32_t i = 0; nonce && i < SHMI_MAX_CLIENTS; i++) {
		struct client *client = &core->client[i];

		if ((client->state == CLIENT_ATTACHED || client->state == CLIENT_DETACHED) &&
		        same_process(&client->peer, &caller->peer) && clients_entry(core, client)->nonce == nonce)
			return client;
	}
	return NULL;
}

/* Whether the caller's process has been evicted, whatever user it is now. The error is in core->reply then. */
static bool is_evicted(struct core *core, const struct caller *caller)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		const struct client *client = &core->client[i];

		if (!client->evicted || client->peer.pid != caller->peer.pid ||
		        client->peer.inode != caller->peer.inode)
			continue;
		core_fail(core, WIRE_E_EVICTED, "this process was evicted from heap '%s' by an operator",
		        core->heap->name);
		return true;
	}
	return false;
}

struct client *clients_add(struct core *core, struct caller *caller, uint64_t nonce)
{
	if (is_evicted(core, caller))
		return NULL;
	struct client *client = find_attached(core, caller, nonce);
	uint32_t thread;

	if (client && give_lease(core, client, caller)) { /* what the lost answer bore is lost, too */
		refuse_record(core, SHMI_E_NOMEM);
		return NULL;
	}
	if (client)
		return clients_resume(core, caller, client->id, nonce);
	client = find_free(core);
	if (!client || !open_client(core, client, &caller->peer)) {
		core_fail(core, WIRE_E_NO_ROOM, "there are %u clients already", SHMI_MAX_CLIENTS);
		return NULL;
	}
	client->peer.pidfd = -1; /* ours only once nothing can fail */
	int error = policy_attaches(client->peer.uid, core->uid, client->user->refs - 1) ? 0 : TOO_MANY_OF_USER;

	if (!error)
		error = give_lease(core, client, caller);
	if (!error)
		error = fill_entry(core, client, caller, nonce);
	if (!error)
		error = records_add(core, client, 0, &thread);
	if (error) {
		core_drop_lease(caller);
		/* The state entry is not in use yet, and may not even be backed. */
		refuse_record(core, error);
		close_client(core, client);
		return NULL;
	}
	clients_entry(core, client)->thread = thread;
	shmi_store_release(&clients_entry(core, client)->in_use, ATTACHED);
	watch_by(core, client, caller);
	client->caller = caller;
	caller->client = client;
	return client;
}

struct client *clients_resume(struct core *core, struct caller *caller, uint32_t id, uint64_t nonce)
{
	struct client *client = id < SHMI_MAX_CLIENTS ? &core->client[id] : NULL;

	if (is_evicted(core, caller))
		return NULL;
	if (!client || (client->state != CLIENT_ATTACHED && client->state != CLIENT_DETACHED) ||
	        clients_entry(core, client)->nonce != nonce || !same_process(&client->peer, &caller->peer)) {
		core_fail(core, WIRE_E_NOT_FOUND, "there is no client %u of yours to resume", id);
		return NULL;
	}
	if (client->caller) {
		struct caller *old = client->caller;

		old->client = NULL;
		client->caller = NULL;
		core->hooks.replaced(core->hooks.ctx, old);
	}
	if (client->peer.pidfd < 0)
		watch_by(core, client, caller);
	client->state = CLIENT_ATTACHED;
	client->caller = caller;
	caller->client = client;
	return client;
}

void clients_remember(struct core *core, struct client *client, uint64_t serial, const struct answer *answer)
{
	struct shmi_client_state *entry = clients_entry(core, client);

	entry->result_bytes = 0;
	if (answer->len <= SHMI_RESULT_MAX) {
		memcpy(entry->result, answer->bytes, answer->len);
		entry->result_bytes = (uint32_t)answer->len;
	}
	shmi_store_release(&entry->last_serial, serial);
}

/* ---- after a restart ---- */

/* The head of an entry, read without touching what may not be backed. */
static bool read_entry(struct core *core, uint32_t id, struct shmi_client_state *head)
{
	struct heap_floor *floor = &core->heap->floor;
	size_t len = offsetof(struct shmi_client_state, result);

	memset(head, 0, sizeof(*head));
	if (floor->snapshot(floor->ctx, HEAP_STATE, entry_off(id), head, len))
		return false;
	uint32_t in_use = shmi_load(&head->in_use);

	return in_use == ATTACHED || in_use == LEFT || in_use == EVICTED;
}

struct settle {
	struct core *core;
	struct client *client;
};

static int settle_guarded(void *ctx)
{
	struct settle *settle = ctx;

	return journal_settle(settle->core, settle->client);
}

/* True if the client is to be detached. */
static bool settle_unfinished(struct core *core, struct client *client)
{
	struct settle settle = {core, client};
	int leaving = guard_run(settle_guarded, &settle);

	if (leaving == GUARD_E_BUS)
		core_fence(core);
	return leaving == 1;
}

/* True if client `id` was there, dead or alive. */
static bool adopt_client(struct core *core, uint32_t id, struct shmi_client_state *head)
{
	struct client *client = &core->client[id];
	bool known = read_entry(core, id, head);
	struct peer peer = {
	        .pid = head->pid, .uid = head->uid, .gid = head->gid, .pidfd = -1, .inode = head->pidfd_inode};

	if (!known && !client->threads && !shmi_owner_at(&core->heap->img, id)->spans.count)
		return false;
	uint32_t threads = client->threads, pages = client->record_pages;
	int gone = known ? peer_reopen(peer.pid, peer.inode, &peer.pidfd) : PEER_E_GONE;
	bool alive = gone != PEER_E_GONE;

	if (gone < 0) /* no descriptor is left, say: what may be alive is not taken apart */
		log_event(LEVEL_ERROR, LOG_CLIENT,
		        ((struct log_fields){.known = LOG_HAS_CLIENT | LOG_HAS_PROCESS,
		                .client = id,
		                .pid = peer.pid,
		                .uid = peer.uid,
		                .heap = core->heap->name}),
		        "cannot look whether client %u (pid %d) lives: %s; what it holds is kept until the next start",
		        id, peer.pid, strerror(-gone));

	(void)core->heap->floor.back(core->heap->floor.ctx, HEAP_STATE, entry_off(id), sizeof(*head));
	if (!open_client(core, client, &peer)) /* as many users as clients: there is room for each */
		return false;
	client->threads = threads;
	client->record_pages = pages;
	client->state = CLIENT_DETACHED;
	client->evicted = known && shmi_load(&head->in_use) == EVICTED;
	if (client->evicted)
		account_waive(&client->account);
	bool leaving = known && shmi_load(&head->in_use) == LEFT;

	if (alive && !leaving)
		leaving = settle_unfinished(core, client);
	clients_settle(core, id);
	if (!alive || leaving)
		reaper_start(core, client, !alive);
	if (alive && peer.pidfd >= 0)
		core->hooks.watch(core->hooks.ctx, id, peer.pidfd);
	return true;
}

/* What a daemon that was killed in the middle of writing slots off, or of taking a span from a client, had still to do. */
static int settle_notes(void *ctx)
{
	struct core *core = ctx;
	struct shmi_write_off *note = &core->heap->state->write_off;

	if (note->thread < SHMI_MAX_THREADS && shmi_image_page_ok(&core->heap->img, (shmi_page){note->span}))
		shmi_reclaim_redo(&core->heap->img, note);
	seizer_settle(core);
	return 0;
}

uint32_t clients_adopt(struct core *core)
{
	struct shmi_client_state head;
	uint32_t alive = 0;

	if (guard_run(settle_notes, core) == GUARD_E_BUS)
		core_fence(core);
	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++)
		shmi_owner_at(&core->heap->img, id)->in_use = 0;
	records_count(core);
	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++)
		if (adopt_client(core, id, &head) && core->client[id].state == CLIENT_DETACHED)
			alive++;
	return alive;
}
