#include "daemon/large.h"

#include "daemon/clients.h"
#include "daemon/journal.h"
#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/passing.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/seizer.h"

static struct client *client_of(struct job *job)
{
	return (struct client *)(void *)((char *)job - offsetof(struct client, large.job));
}

static bool is_legal(const struct core *core, const struct wire_large *want)
{
	return want->bytes && want->pages && want->pages < core->heap->img.geo.limit_pages &&
	       want->bytes <= shmi_npages_bytes((shmi_npages){want->pages}) && want->align_pages &&
	       !(want->align_pages & (want->align_pages - 1)) && want->align_pages <= SHMI_ARENA_PAGES &&
	       want->attrs < SHMI_ATTRS;
}

static enum outcome no_memory(struct core *core, struct client *client, uint32_t pages)
{
	return limits_refuse(core, client, limits_no_memory(core), pages);
}

static enum outcome hand_out(
        struct core *core, struct client *client, const struct wire_large *want, struct shmi_run run, bool zeroed)
{
	struct shmi_image *img = &core->heap->img;

	journal_span(core, client, run.first);
	uint32_t generation = shmi_span_open_large(img, run, want->attrs, client->id, want->bytes, want->lazy);

	passing_note(core->heap, run.first, client->peer.uid, true);
	shmi_bump(&img->super->counters.large_granted, 1);
	clients_count_grant(core, client, run.pages.n);
	clients_settle(core, client->id);
	core->reply.kind = WIRE_LARGE_OK;
	core->reply.u.large_ok =
	        (struct wire_large_ok){.page = run.first.i, .generation = generation, .zeroed = zeroed};
	return OUTCOME_ANSWERED;
}

/* ---- in steps ---- */

/* The run goes back; what is backed of it is dropped first, in steps again. */
static void undo(struct core *core, struct large *large)
{
	large->active = false;
	charge_refund(&large->charge);
	if (core->heap->fenced || !large->run.pages.n)
		return;
	core_drop_run(core, large->run);
}

static void finish(struct core *core, struct client *client)
{
	struct caller *caller = client->caller;

	/* It has come back over another connection and waits for something else there: the answer is kept for its repeat. */
	if (caller && (caller->asking.wait.round || caller->trim.job.queued))
		caller = NULL;
	core_finish(core, client, caller, client->large.serial, false);
}

/* The system has no memory for it just now: true if it may have some once the sleepers have been gone through, which is begun. Once, until
 * something has come of it. */
static bool may_wait(struct core *core, struct large *large)
{
	if (large->waited || !core->heap->starved)
		return false;
	large->waited = true;
	pressure_begin(core, large->want.pages - large->done);
	return true;
}

/* Finds its run. Returns 0 or SHMI_E_NOMEM. */
static int take_run(struct core *core, const struct client *client, struct large *large)
{
	const struct wire_large *want = &large->want;
	int error = heap_alloc(core->heap, (shmi_npages){want->pages}, (shmi_npages){want->align_pages}, want->lazy,
	        &large->run, &large->clean);

	if (error) {
		large->run = (struct shmi_run){0};
		return error;
	}
	large->wipe = passing_foreign(core->heap, &large->run, client->peer.uid);
	large->clean |= large->wipe;
	return 0;
}

/* Nothing has to be done to its pages. */
static bool is_done(const struct large *large)
{
	return !large->wipe && (large->run.backed || large->want.lazy);
}

/* Makes pages of the run what they are to be. */
static int prepare(struct heap *heap, const struct large *large, shmi_page first, shmi_npages pages)
{
	if (!large->wipe)
		return heap_commit(heap, first, pages);
	if (large->want.lazy)
		return heap_decommit(heap, first, pages);
	return passing_wipe(heap, (struct shmi_run){.first = first, .pages = pages});
}

/* Prepares a part of it. False if there is no memory. */
static bool prepare_some(struct core *core, struct large *large)
{
	uint32_t pages = large->run.pages.n - large->done;

	if (is_done(large)) {
		large->done = large->run.pages.n;
		return true;
	}
	if (pages > POLICY_TURN_PAGES)
		pages = POLICY_TURN_PAGES;
	if (prepare(core->heap, large, (shmi_page){large->run.first.i + large->done}, (shmi_npages){pages}))
		return false;
	large->done += pages;
	large->waited = false;
	return true;
}

static bool step_large(struct core *core, struct job *job)
{
	struct client *client = client_of(job);
	struct large *large = &client->large;

	if (core->heap->fenced) {
		large->active = false;
		charge_refund(&large->charge);
		core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
		finish(core, client);
		return true;
	}
	if (large->waited && seizer_is_running(core))
		return false;
	if ((!large->run.pages.n && take_run(core, client, large)) || !prepare_some(core, large)) {
		if (may_wait(core, large))
			return false;
		undo(core, large);
		no_memory(core, client, large->want.pages);
		finish(core, client);
		return true;
	}
	if (large->done < large->run.pages.n)
		return false;
	large->active = false;
	charge_refund(&large->charge);
	large->run.backed = (large->run.backed && !large->wipe) || !large->want.lazy;
	hand_out(core, client, &large->want, large->run, large->clean);
	finish(core, client);
	return true;
}

void large_abort(struct core *core, struct client *client)
{
	if (!client->large.active)
		return;
	core_unqueue(core, &client->large.job);
	undo(core, &client->large);
}

/* ---- freeing ---- */

bool large_free_one(struct core *core, struct wire_span span)
{
	const struct shmi_image *img = &core->heap->img;
	shmi_page page = {span.page};

	if (!shmi_image_page_ok(img, page))
		return false;
	struct shmi_word word = shmi_span_word(img, page);

	if (word.state != SHMI_SPAN_LARGE || word.generation != span.generation)
		return false;
	uint32_t pages = shmi_span_at(img, page)->pages;

	core_free_large(core, page);
	clients_count_given(core, pages);
	return true;
}

bool large_free_all(struct core *core, const struct caller *caller, const struct wire_free *want, uint64_t serial)
{
	uint32_t bad = 0, first_bad = 0;

	for (uint32_t i = 0; i < want->n_spans; i++)
		if (!large_free_one(core, want->spans[i]) && !bad++)
			first_bad = want->spans[i].page;
	if (!bad || caller->client->redo == serial) /* freed before we were killed */
		return true;
	log_event(LEVEL_WARN, LOG_CLIENT, core_about(core, caller->client),
	        "client %u (pid %d) freed %u large blocks that are none, the first at page %u", caller->client->id,
	        caller->client->peer.pid, bad, first_bad);
	core_fail(core, WIRE_E_BAD_FREE, "%u of %u were not large blocks, the first at page %u: freed twice?", bad,
	        want->n_spans, first_bad);
	return false;
}

enum outcome large_free(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	core->reply.kind = WIRE_OK;
	(void)large_free_all(core, caller, &req->u.free, req->serial);
	return OUTCOME_ANSWERED;
}

/* ---- allocation ---- */

enum outcome large_alloc(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_large *want = &req->u.large;
	struct client *client = caller->client;

	if (!is_legal(core, want))
		return core_fail(core, WIRE_E_INVALID, "a large block of %llu bytes in %u pages is not possible here",
		        (unsigned long long)want->bytes, want->pages);
	if (!large_free_all(core, caller, &want->freed, req->serial))
		return OUTCOME_ANSWERED;
	struct large large = {.active = true,
	        .serial = req->serial,
	        .want = *want,
	        .job = {.step = step_large, .payer = &client->user->payer}};

	if (want->pages > limits_share(core, client))
		return limits_refuse(core, client, LIMITS_SHARE, want->pages);
	if (charge_take(&large.charge, &client->account, want->pages))
		return limits_refuse(core, client, limits_which(client), want->pages);
	if (take_run(core, client, &large)) {
		if (!may_wait(core, &large)) {
			charge_refund(&large.charge);
			pressure_begin(core, want->pages);
			return no_memory(core, client, want->pages);
		}
	} else if (is_done(&large)) {
		charge_refund(&large.charge);
		return hand_out(core, client, want, large.run, large.clean);
	}
	client->large = large;
	core_queue(core, &client->large.job);
	return OUTCOME_LATER;
}
