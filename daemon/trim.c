#include "daemon/trim.h"

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "daemon/scavenger.h"

static struct caller *caller_of(struct job *job)
{
	return (struct caller *)(void *)((char *)job - offsetof(struct caller, trim.job));
}

static bool finish(struct core *core, struct caller *caller)
{
	core_finish(core, NULL, caller, caller->trim.serial, false);
	return true;
}

static bool step_trim(struct core *core, struct job *job)
{
	struct caller *caller = caller_of(job);
	struct trim *trim = &caller->trim;

	if (core->heap->fenced) {
		core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
		return finish(core, caller);
	}
	if (trim->page) {
		if (scavenger_look_on(core, &trim->page))
			trim->page = 0;
		return false;
	}
	uint32_t now = heap_release(core->heap, 0, POLICY_TURN_PAGES);

	trim->bytes += shmi_npages_bytes((shmi_npages){now});
	if (now)
		return false;
	core->reply.kind = WIRE_TRIM_OK;
	core->reply.u.trim_ok.bytes = trim->bytes;
	return finish(core, caller);
}

enum outcome trim_begin(struct core *core, struct caller *caller, const struct trim *trim)
{
	caller->trim = *trim;
	caller->trim.page = 1;
	caller->trim.job.step = step_trim;
	core_queue(core, &caller->trim.job);
	return OUTCOME_LATER;
}

static void tell(struct core *core, const struct client *client)
{
	struct shmi_owner *owner = shmi_owner_at(&core->heap->img, client->id);

	if (client->evicted || (client->state != CLIENT_ATTACHED && client->state != CLIENT_DETACHED))
		return;
	shmi_store_release(&owner->trim_wanted, shmi_load(&owner->trim_wanted) + 1);
	shmi_bump(&core->heap->img.super->counters.trims, 1);
}

enum outcome trim_run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_trim *want = &req->u.trim;
	struct trim trim = {.client = SHMI_NOBODY, .serial = req->serial};

	if (core_refuses(core, caller, want->heap))
		return OUTCOME_ANSWERED;
	if (want->one) {
		const struct client *client = clients_find(core, want->client);

		if (!client)
			return OUTCOME_ANSWERED;
		trim.client = client->id;
		tell(core, client);
	}
	for (uint32_t i = 0; want->all && !want->one && i < SHMI_MAX_CLIENTS; i++)
		tell(core, &core->client[i]);
	return trim_begin(core, caller, &trim);
}
