#include "daemon/reaper.h"

#include "daemon/clients.h"
#include "daemon/large.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/records.h"
#include "daemon/scavenger.h"
#include "daemon/seizer.h"
#include "shm/central.h"

static struct client *client_of(struct job *job)
{
	return (struct client *)(void *)((char *)job - offsetof(struct client, reclaim.job));
}

/* ---- thread records ---- */

/* Copies the head and the backed parts of the record. False if ctl has been cut short. */
static bool copy_record(struct core *core, uint32_t thread, uint32_t parts)
{
	const struct heap *heap = core->heap;
	const struct shmi_geometry *geo = &heap->img.geo;
	uint64_t at = geo->records + thread * geo->record_bytes, off = SHMI_THREAD_HEAD_BYTES;
	unsigned char *copy = (unsigned char *)core->copy;

	if (heap->floor.snapshot(heap->floor.ctx, HEAP_CTL, at, copy, SHMI_THREAD_HEAD_BYTES))
		return false;
	for (uint32_t a = 0; a < SHMI_ATTRS; a++, off += geo->part_bytes)
		if (parts >> a & 1 &&
		        heap->floor.snapshot(heap->floor.ctx, HEAP_CTL, at + off, copy + off, geo->part_bytes))
			return false;
	return true;
}

/* The next record of the client; false when there is none. */
static bool next_record(struct core *core, struct client *client)
{
	struct reclaim *r = &client->reclaim;

	for (; client->threads && r->thread < SHMI_MAX_THREADS; r->thread++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(&core->heap->img, r->thread);

		if (slot->client != client->id)
			continue;
		if (!copy_record(core, r->thread, slot->parts)) {
			core_fence(core);
			return false;
		}
		shmi_reclaim_init(&core->record, r->thread, client->id, slot->parts);
		core->record.write_off = &core->heap->state->write_off;
		core->copying = client;
		return true;
	}
	return false;
}

static void end_record(struct core *core, struct client *client)
{
	struct reclaim *r = &client->reclaim;

	for (uint32_t i = 0; i < core->record.big_count; i++) {
		struct wire_span span = {(uint32_t)core->record.big[i], (uint32_t)(core->record.big[i] >> 32)};

		/* Many turns may have passed since the record was looked at: another client may have freed it as well. */
		(void)large_free_one(core, span);
	}
	shmi_bump(&core->heap->img.super->counters.bad_words, core->record.bad);
	if (core->record.bad)
		log_event(LEVEL_WARN, LOG_DAMAGE, core_about(core, client),
		        "client %u (pid %d) left %u words in its thread record that made no sense", client->id,
		        client->peer.pid, core->record.bad);
	records_drop(core, client, r->thread++);
	core->copying = NULL;
}

/* True when there are no more records. */
static bool step_records(struct core *core, struct client *client)
{
	if (core->copying && core->copying != client)
		return false;
	if (!core->copying && !next_record(core, client))
		return true;
	if (shmi_reclaim_step(&core->heap->img, &core->record, core->copy, POLICY_TURN_SLOTS))
		end_record(core, client);
	return false;
}

/* ---- spans ---- */

static void release_shared(struct core *core, shmi_page page, struct shmi_word word)
{
	struct shmi_image *img = &core->heap->img;

	if (word.state == SHMI_SPAN_SEIZED)
		seizer_close(core, page);
	else if (word.state == SHMI_SPAN_LARGE)
		shmi_span_set_owner(img, page, SHMI_NOBODY);
	else
		shmi_central_accept(img, page, core->heap->now);
}

static void release_scoped(struct core *core, shmi_page page, struct shmi_word word)
{
	struct shmi_image *img = &core->heap->img;

	if (word.state == SHMI_SPAN_SEIZED) {
		seizer_close(core, page);
		return;
	}
	if (word.state == SHMI_SPAN_LARGE) {
		core_free_large(core, page);
		return;
	}
	heap_put(core->heap, shmi_span_close(img, page));
}

/* The span to go on with: where we were, if that is still the client's, else from the head of its list. */
static shmi_page resume_at(struct core *core, const struct client *client)
{
	const struct shmi_image *img = &core->heap->img;
	shmi_page page = {client->reclaim.cursor};

	if (page.i && shmi_image_page_ok(img, page)) {
		struct shmi_word word = shmi_span_word(img, page);

		if (shmi_state_in_use(word.state) && word.owner == client->id)
			return page;
	}
	return (shmi_page){shmi_owner_at(img, client->id)->spans.head};
}

/* One turn over the client's spans: those that are scoped, or those that are not. True at the end of the list. */
static bool step_spans(struct core *core, struct client *client, bool scoped)
{
	const struct shmi_image *img = &core->heap->img;
	shmi_page page = resume_at(core, client);

	for (uint32_t n = 0; page.i && n < POLICY_TURN_SPANS; n++) {
		struct shmi_word word = shmi_span_word(img, page);
		shmi_page next = {shmi_span_at(img, page)->next};

		if (shmi_sclass_scoped(word.sclass) == scoped) {
			if (word.state != SHMI_SPAN_SEIZED) /* of which only the address space had been left */
				client->reclaim.pages += shmi_span_at(img, page)->pages;
			if (scoped)
				release_scoped(core, page, word);
			else
				release_shared(core, page, word);
		}
		page = next;
	}
	client->reclaim.cursor = page.i;
	clients_settle(core, client->id);
	return !page.i;
}

/* ---- the job ---- */

static void finish(struct core *core, struct client *client)
{
	struct reclaim *r = &client->reclaim;
	struct caller *caller = client->caller;
	uint64_t serial = r->serial;
	bool dead = r->dead;

	if (core->copying == client)
		core->copying = NULL;
	if (dead) {
		shmi_bump(&core->heap->img.super->counters.deaths, 1);
		shmi_bump(&core->heap->img.super->counters.reclaimed_pages, r->pages);
		log_event(LEVEL_INFO, LOG_DEATH, log_bytes(core_about(core, client), r->pages << SHMI_PAGE_SHIFT),
		        "client %u (pid %d) has ended: %llu pages taken back", client->id, client->peer.pid,
		        (unsigned long long)r->pages);
	} else {
		log_event(LEVEL_DEBUG, LOG_CLIENT, core_about(core, client), "client %u (pid %d) has detached",
		        client->id, client->peer.pid);
	}
	if (client->evicted && !dead)
		clients_bar(core, client);
	else
		clients_remove(core, client);
	if (!core->heap->fenced)
		scavenger_look(core);
	if (dead || !caller)
		return;
	core->reply.kind = WIRE_OK;
	core_finish(core, NULL, caller, serial, true);
}

static bool is_leased(const struct core *core, const struct client *client)
{
	return core->leases.held && core->leases.held(core->leases.ctx, client->id);
}

/* The client has heard the end of it; only its children have not. */
static void answer_detach(struct core *core, struct client *client)
{
	struct caller *caller = client->caller;

	if (client->reclaim.dead || !caller)
		return;
	clients_left(core, client);
	core->reply.kind = WIRE_OK;
	core_finish(core, NULL, caller, client->reclaim.serial, true);
}

/* True if the scoped spans must stay for now. */
static bool wait_for_lease(struct core *core, struct client *client)
{
	struct reclaim *r = &client->reclaim;

	r->stage = is_leased(core, client) ? RECLAIM_WAIT : RECLAIM_SCOPED;
	if (r->stage == RECLAIM_SCOPED)
		return false;
	core->waiting++;
	log_event(LEVEL_DEBUG, LOG_CLIENT, core_about(core, client),
	        "client %u (pid %d) %s; processes forked from it keep its scoped memory", client->id, client->peer.pid,
	        r->dead ? "has ended" : "has detached");
	answer_detach(core, client);
	return true;
}

static bool step_reclaim(struct core *core, struct job *job)
{
	struct client *client = client_of(job);
	struct reclaim *r = &client->reclaim;

	if (core->heap->fenced) { /* its memory stays where it is, like all of the heap */
		core->waiting -= r->stage == RECLAIM_WAIT;
		finish(core, client);
		return true;
	}
	switch (r->stage) {
	case RECLAIM_RECORDS:
		if (step_records(core, client))
			r->stage = RECLAIM_SHARED;
		return false;
	case RECLAIM_SHARED:
		return step_spans(core, client, false) && wait_for_lease(core, client);
	case RECLAIM_WAIT:
		core->waiting--;
		r->stage = RECLAIM_SCOPED;
		return false;
	default:
		if (!step_spans(core, client, true))
			return false;
		finish(core, client);
		return true;
	}
}

void reaper_start(struct core *core, struct client *client, bool dead)
{
	struct reclaim *r = &client->reclaim;
	uint64_t serial = r->serial;

	large_abort(core, client);
	*r = (struct reclaim){
	        .dead = dead, .serial = serial, .job = {.step = step_reclaim, .payer = &client->user->payer}};
	client->state = CLIENT_LEAVING;
	account_waive(&client->account);
	core_queue(core, &r->job);
}

/* Whether a client without a connection has become another program: it lives, and its lease has been free for a while. */
static bool has_gone(struct core *core, struct client *client)
{
	uint64_t now_ms = core->now_ms + 1;

	if (!client->unleased_ms)
		client->unleased_ms = now_ms;
	return now_ms - client->unleased_ms >= POLICY_EXEC_MS;
}

static void end_of_use(struct core *core, struct client *client)
{
	log_event(LEVEL_DEBUG, LOG_CLIENT, core_about(core, client), "client %u (pid %d) has become another program",
	        client->id, client->peer.pid);
	client->reclaim.serial = 0;
	reaper_start(core, client, false);
}

int reaper_look(struct core *core)
{
	uint32_t looks = 0, detached = 0;
	bool soon = core->waiting != 0;

	for (uint32_t n = 0; n < SHMI_MAX_CLIENTS && looks < core->looks; n++) {
		core->looked = (core->looked + 1) % SHMI_MAX_CLIENTS;
		struct client *client = &core->client[core->looked];
		bool waits = client->state == CLIENT_LEAVING && client->reclaim.stage == RECLAIM_WAIT;

		if (!core->leases.held || (!waits && client->state != CLIENT_DETACHED))
			continue;
		looks++;
		detached += !waits;
		if (is_leased(core, client))
			client->unleased_ms = 0;
		else if (waits)
			core_queue(core, &client->reclaim.job);
		else if (has_gone(core, client))
			end_of_use(core, client);
		else
			soon = true;
	}
	if (soon)
		return POLICY_LEASE_MS;
	return detached ? POLICY_LEASE_DETACHED_MS : -1;
}
