#include "daemon/evict.h"

#include "daemon/clients.h"
#include "daemon/large.h"
#include "daemon/log.h"
#include "daemon/trim.h"

/* Whoever waits for an answer gets one; else there is nothing to say. */
static void end_connection(struct core *core, struct client *client)
{
	struct caller *caller = client->caller;
	bool backing = client->large.active;
	uint64_t serial = client->large.serial;

	large_abort(core, client);
	if (!caller)
		return;
	bool asks = caller->asking.wait.round != 0, waits = backing || asks || caller->trim.job.queued;

	if (!backing)
		serial = asks ? caller->asking.serial : caller->trim.serial;
	core_caller_left(core, caller);
	if (!waits) {
		core->hooks.replaced(core->hooks.ctx, caller);
		return;
	}
	core_fail(core, WIRE_E_EVICTED, "client %u has been evicted", client->id);
	core_finish(core, NULL, caller, serial, true);
}

static void evict(struct core *core, struct client *client, const struct peer *by)
{
	uint64_t bytes = shmi_npages_bytes((shmi_npages){shmi_owner_at(&core->heap->img, client->id)->pages});

	shmi_bump(&core->heap->img.super->counters.evictions, 1);
	clients_evict(core, client);
	log_event(LEVEL_WARN, LOG_EVICTED, log_bytes(core_about(core, client), bytes),
	        "client %u (pid %d) is evicted, as pid %d (uid %u) has asked: nothing is granted to it any more",
	        client->id, client->peer.pid, by->pid, by->uid);
	end_connection(core, client);
}

enum outcome evict_run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_evict *want = &req->u.evict;

	if (core_refuses(core, caller, want->heap))
		return OUTCOME_ANSWERED;
	struct client *client = clients_find(core, want->client);

	if (!client)
		return OUTCOME_ANSWERED;
	if (client == caller->client)
		return core_fail(core, WIRE_E_INVALID, "a client cannot evict itself");
	if (!client->evicted)
		evict(core, client, &caller->peer);
	core->reply.kind = WIRE_TRIM_OK;
	core->reply.u.trim_ok.bytes = 0;
	if (core->heap->fenced)
		return OUTCOME_ANSWERED; /* its memory stays where it is, like all of the heap */
	return trim_begin(core, caller, &(struct trim){.client = client->id, .serial = req->serial});
}
