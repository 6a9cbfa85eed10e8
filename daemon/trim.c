#include "daemon/trim.h"

#include "daemon/clients.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/scavenger.h"
#include "daemon/seizer.h"

static struct caller *caller_of(struct job *job)
{
	return (struct caller *)(void *)((char *)job - offsetof(struct caller, trim.job));
}

static bool finish(struct core *core, struct caller *caller)
{
	core_finish(core, NULL, caller, caller->trim.serial, false);
	return true;
}

/* ---- the job ---- */

static bool is_wanted(const struct trim *trim, const struct client *client)
{
	return (trim->all || client->id == trim->client) &&
	       (client->state == CLIENT_ATTACHED || client->state == CLIENT_DETACHED);
}

/* Whether the seizer has yet to go through somebody's spans; who has ended meanwhile is not waited for. */
static bool is_seizing(const struct core *core, const struct trim *trim)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (core->client[i].seize_now && is_wanted(trim, &core->client[i]))
			return true;
	return false;
}

static uint64_t seized(const struct core *core)
{
	return shmi_load(&core->heap->img.super->counters.seized_pages);
}

static void count(struct trim *trim, uint64_t pages)
{
	trim->bytes += pages << SHMI_PAGE_SHIFT;
}

static bool step_return(struct core *core, struct caller *caller)
{
	uint32_t pages = heap_release(core->heap, 0, POLICY_TURN_PAGES);

	count(&caller->trim, pages);
	if (pages)
		return false;
	core->reply.kind = WIRE_TRIM_OK;
	core->reply.u.trim_ok.bytes = caller->trim.bytes;
	return finish(core, caller);
}

static bool step_trim(struct core *core, struct job *job)
{
	struct caller *caller = caller_of(job);
	struct trim *trim = &caller->trim;

	if (core->heap->fenced) {
		core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
		return finish(core, caller);
	}
	if (trim->stage == TRIM_RETURN)
		return step_return(core, caller);
	if (trim->stage == TRIM_SEIZE && !is_seizing(core, trim)) {
		count(trim, seized(core) - trim->seized);
		trim->stage = TRIM_LOOK;
	} else if (trim->stage == TRIM_LOOK && scavenger_look_on(core, &trim->page)) {
		trim->stage = TRIM_RETURN;
	}
	return false;
}

enum outcome trim_begin(struct core *core, struct caller *caller, const struct trim *trim)
{
	caller->trim = *trim;
	caller->trim.page = 1;
	caller->trim.seized = seized(core);
	caller->trim.job.step = step_trim;
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (is_wanted(trim, &core->client[i]))
			seizer_client(core, &core->client[i]);
	core_queue(core, &caller->trim.job);
	return OUTCOME_LATER;
}

/* ---- the request ---- */

static void tell(struct core *core, struct client *client)
{
	if (!client->evicted && (client->state == CLIENT_ATTACHED || client->state == CLIENT_DETACHED))
		pressure_tell(core, client);
}

enum outcome trim_run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_trim *want = &req->u.trim;
	struct trim trim = {.all = want->all && !want->one, .client = SHMI_NOBODY, .serial = req->serial};

	if (core_refuses(core, caller, want->heap))
		return OUTCOME_ANSWERED;
	if (want->one) {
		struct client *client = clients_find(core, want->client);

		if (!client)
			return OUTCOME_ANSWERED;
		trim.client = client->id;
		tell(core, client);
	}
	for (uint32_t i = 0; trim.all && i < SHMI_MAX_CLIENTS; i++)
		tell(core, &core->client[i]);
	return trim_begin(core, caller, &trim);
}
