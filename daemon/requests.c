#include "daemon/requests.h"

#include <stdio.h>
#include <string.h>

#include "daemon/clients.h"
#include "daemon/damage.h"
#include "daemon/evict.h"
#include "daemon/guard.h"
#include "daemon/journal.h"
#include "daemon/large.h"
#include "daemon/log.h"
#include "daemon/query.h"
#include "daemon/reaper.h"
#include "daemon/records.h"
#include "daemon/refill.h"
#include "daemon/trim.h"
#include "shm/roots.h"

/* ---- getting acquainted ---- */

static enum outcome run_attach(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_attach *attach = &req->u.attach;
	const struct shmi_geometry *geo = &core->heap->img.geo;

	if (!caller->peer.pid)
		return core_fail(
		        core, WIRE_E_ACCESS, "the daemon cannot see your process: it is in another pid namespace");
	struct client *client = attach->resume ? clients_resume(core, caller, attach->client, attach->nonce)
	                                       : clients_add(core, caller, attach->nonce);

	if (!client)
		return OUTCOME_ANSWERED;
	const struct shmi_client_state *entry = clients_entry(core, client);

	core->reply.kind = WIRE_ATTACH_OK;
	core->reply.u.attach_ok = (struct wire_attach_ok){.client = client->id,
	        .thread = entry->thread,
	        .nonce = entry->nonce,
	        .base = core->heap->img.super->base,
	        .meta_bytes = geo->meta_bytes,
	        .ctl_bytes = geo->ctl_bytes,
	        .data_bytes = shmi_npages_bytes((shmi_npages){geo->limit_pages})};
	log_event(LEVEL_DEBUG, LOG_CLIENT, core_about(core, client), "client %u is pid %d, uid %u, '%s'%s", client->id,
	        client->peer.pid, client->peer.uid, entry->label, attach->resume ? ", again" : "");
	return OUTCOME_ATTACHED;
}

static enum outcome run_detach(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	caller->client->reclaim.serial = req->serial;
	journal_leaving(core, caller->client);
	reaper_start(core, caller->client, false);
	return OUTCOME_LATER;
}

/* ---- thread records ---- */

static enum outcome run_thread(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	struct client *client = caller->client;
	uint32_t thread = req->u.thread.thread, parts = req->u.thread.parts;
	int error;

	if (parts >> SHMI_ATTRS ||
	        (thread != SHMI_NO_THREAD &&
	                (thread >= SHMI_MAX_THREADS ||
	                        shmi_thread_slot_at(&core->heap->img, thread)->client != client->id)))
		return core_fail(core, WIRE_E_INVALID, "thread record %u is not client %u's", thread, client->id);
	if (thread == SHMI_NO_THREAD)
		error = records_add(core, client, parts, &thread);
	else
		error = records_grow(core, client, thread, parts);
	if (error == RECORDS_E_FULL)
		return core_fail(core, WIRE_E_NO_ROOM, "no thread record is left");
	if (error == RECORDS_E_LIMIT)
		return core_fail(core, WIRE_E_LIMIT, "over the limit of this client or user");
	if (error)
		return core_fail(core, WIRE_E_NO_MEMORY, "no memory for a thread record");
	core->reply.kind = WIRE_THREAD_OK;
	core->reply.u.thread_ok.thread = thread;
	return OUTCOME_ANSWERED;
}

/* ---- roots ---- */

/* Whether the offset lies in a span in use: a root to nowhere would be found by somebody and used. */
static bool is_in_use(const struct shmi_image *img, uint64_t off)
{
	shmi_page page = shmi_off_page((shmi_off){off});

	if (!shmi_image_page_ok(img, page))
		return false;
	shmi_page first = {shmi_load(shmi_page_span_at(img, page))};

	if (!first.i || first.i > page.i) /* the middle of a large block is not in the page map */
		return false;
	return shmi_state_has_blocks(shmi_span_word(img, first).state) &&
	       page.i - first.i < shmi_span_at(img, first)->pages;
}

#define ROOT_E_TAKEN (-1) /* beside those of shm/roots.h */

static enum outcome root_answer(struct core *core, int error, const char *name)
{
	switch (error) {
	case 0:
		core->reply.kind = WIRE_OK;
		return OUTCOME_ANSWERED;
	case SHMI_E_ROOT_FULL:
		return core_fail(core, WIRE_E_NO_ROOM, "there are %u roots already", SHMI_MAX_ROOTS);
	case ROOT_E_TAKEN:
		return core_fail(core, WIRE_E_EXISTS, "there is a root '%s' already", name);
	case SHMI_E_ROOT_NONE:
		return core_fail(core, WIRE_E_NOT_FOUND, "there is no root '%s'", name);
	default:
		return core_fail(core, WIRE_E_INVALID, "a root's name has 1 to %u bytes", SHMI_ROOT_NAME_MAX);
	}
}

static enum outcome run_root_set(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	struct shmi_image *img = &core->heap->img;
	const struct wire_root *root = &req->u.root;
	shmi_off old;

	if (!is_in_use(img, root->off))
		return core_fail(
		        core, WIRE_E_INVALID, "there is no block at offset %llu", (unsigned long long)root->off);
	/* Before the note, by which the next daemon would take the root for ours. */
	if (root->exclusive && shmi_roots_get(img, root->name, &old) == 0)
		return root_answer(core, ROOT_E_TAKEN, root->name);
	journal_root(core, caller->client, root->name, root->off);
	return root_answer(
	        core, shmi_roots_set(img, root->name, (shmi_off){root->off}, caller->client->id), root->name);
}

static enum outcome run_root_del(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const char *name = req->u.root.name;
	shmi_off off;
	int error = shmi_roots_get(&core->heap->img, name, &off);

	if (!error) {
		journal_root(core, caller->client, name, 0);
		error = shmi_roots_del(&core->heap->img, name);
	}
	return root_answer(core, error, name);
}

/* ---- the table ---- */

static const struct request {
	enum outcome (*run)(struct core *core, struct caller *caller, const struct wire_msg *req);
	bool numbered; /* of an attached client, and takes effect once */
	bool whole; /* needs a heap that is not fenced */
} table[WIRE_KINDS] = {
        [WIRE_ATTACH] = {run_attach, false, true},
        [WIRE_THREAD] = {run_thread, true, true},
        [WIRE_REFILL] = {refill_run, true, true},
        [WIRE_LARGE] = {large_alloc, true, true},
        [WIRE_FREE] = {large_free, true, true},
        [WIRE_ROOT_SET] = {run_root_set, true, true},
        [WIRE_ROOT_DEL] = {run_root_del, true, true},
        [WIRE_DETACH] = {run_detach, true, false},
        [WIRE_TRIM] = {trim_run, false, true},
        [WIRE_QUERY] = {query_run, false, false},
        [WIRE_EVICT] = {evict_run, false, false},
};

struct call {
	struct core *core;
	struct caller *caller;
	const struct wire_msg *req;
};

static int run_guarded(void *ctx)
{
	const struct call *call = ctx;

	return (int)table[call->req->kind].run(call->core, call->caller, call->req);
}

static enum outcome run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	struct call call = {core, caller, req};

	if (!core->heap->fenced) /* statistics are to say so, too */
		damage_look_for_cuts(core);
	if (table[req->kind].whole && core->heap->fenced)
		return core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
	int outcome = guard_run(run_guarded, &call);

	if (outcome != GUARD_E_BUS)
		return (enum outcome)outcome;
	core_fence(core);
	return core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
}

/* The stored answer to the last request of the client, in the core's buffer. */
static void repeat(struct core *core, const struct client *client, uint64_t serial, struct answer *answer)
{
	const struct shmi_client_state *entry = clients_entry(core, client);

	*answer = (struct answer){.outcome = OUTCOME_ANSWERED, .bytes = core->out, .len = entry->result_bytes};
	if (entry->result_bytes && entry->result_bytes <= SHMI_RESULT_MAX)
		memcpy(core->out, entry->result, entry->result_bytes);
	else
		requests_refuse(core, serial, WIRE_E_INVALID, "the result of this request was not kept", answer);
}

/* True if the request has been answered, is being answered, or is too old. */
static bool is_old(struct core *core, struct client *client, uint64_t serial, struct answer *answer)
{
	uint64_t last = shmi_load(&clients_entry(core, client)->last_serial);

	if (client->large.active) {
		if (client->large.serial == serial) { /* still under way: the answer will go to this caller */
			*answer = (struct answer){.outcome = OUTCOME_LATER};
			return true;
		}
		large_abort(core, client); /* the client has given it up */
	}
	if (serial > last)
		return false;
	if (serial == last && last)
		repeat(core, client, serial, answer);
	else
		requests_refuse(core, serial, WIRE_E_INVALID,
		        "a request with this number was answered before the last one", answer);
	return true;
}

void requests_run(struct core *core, struct caller *caller, const struct wire_msg *req, struct answer *answer)
{
	struct client *client = table[req->kind].numbered ? caller->client : NULL;

	core->requests++;
	if (caller->client) {
		caller->client->requests++;
		caller->client->user->requests++;
		caller->client->heard_ms = core->now_ms;
	}
	if (client && is_old(core, client, req->serial, answer))
		return;
	if (client)
		journal_begin(core, client, req->serial);
	enum outcome outcome = run(core, caller, req);

	if (outcome != OUTCOME_LATER && core->reply.kind == WIRE_ERROR)
		clients_count_failure(caller->client);
	core_encode(core, req->serial, outcome, answer);
	if (client && outcome == OUTCOME_ANSWERED)
		clients_remember(core, client, req->serial, answer);
}

void requests_refuse(
        struct core *core, uint64_t serial, enum wire_error_code code, const char *text, struct answer *answer)
{
	core_fail(core, code, "%s", text);
	core_encode(core, serial, OUTCOME_ANSWERED, answer);
}
