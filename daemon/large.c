#include "daemon/large.h"

#include "daemon/clients.h"
#include "daemon/journal.h"
#include "daemon/log.h"
#include "daemon/passing.h"
#include "daemon/policy.h"

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

static enum outcome no_memory(struct core *core, const struct client *client, uint32_t pages)
{
	shmi_bump(&core->heap->img.super->counters.no_memory, 1);
	log_event(LEVEL_WARN, LOG_MEMORY, log_bytes(core_about(core, client), shmi_npages_bytes((shmi_npages){pages})),
	        "no memory for a block of %u pages for client %u (pid %d)", pages, client->id, client->peer.pid);
	return core_fail(core, WIRE_E_NO_MEMORY, "no memory for a block of %u pages", pages);
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
	if (core->heap->fenced)
		return;
	core_drop_run(core, large->run);
}

static void finish(struct core *core, struct client *client)
{
	core_finish(core, client, client->caller, client->large.serial, false);
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

static bool step_large(struct core *core, struct job *job)
{
	struct client *client = client_of(job);
	struct large *large = &client->large;
	uint32_t pages = large->run.pages.n - large->done;

	if (core->heap->fenced) {
		large->active = false;
		charge_refund(&large->charge);
		core_fail(core, WIRE_E_DAMAGED, "the heap is damaged");
		finish(core, client);
		return true;
	}
	if (pages > POLICY_TURN_PAGES)
		pages = POLICY_TURN_PAGES;
	if (prepare(core->heap, large, (shmi_page){large->run.first.i + large->done}, (shmi_npages){pages})) {
		undo(core, large);
		no_memory(core, client, large->run.pages.n);
		finish(core, client);
		return true;
	}
	large->done += pages;
	if (large->done < large->run.pages.n)
		return false;
	large->active = false;
	charge_refund(&large->charge);
	large->run.backed = !large->want.lazy;
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
	struct shmi_run run;

	if (!is_legal(core, want))
		return core_fail(core, WIRE_E_INVALID, "a large block of %llu bytes in %u pages is not possible here",
		        (unsigned long long)want->bytes, want->pages);
	if (!large_free_all(core, caller, &want->freed, req->serial))
		return OUTCOME_ANSWERED;
	struct large large = {.active = true,
	        .serial = req->serial,
	        .want = *want,
	        .job = {.step = step_large, .payer = &client->user->payer}};

	if (charge_take(&large.charge, &client->account, want->pages)) {
		shmi_bump(&core->heap->img.super->counters.no_memory, 1);
		log_event(LEVEL_WARN, LOG_LIMIT, log_bytes(core_about(core, client), want->bytes),
		        "client %u (pid %d, uid %u) is at its limit", client->id, client->peer.pid, client->peer.uid);
		return core_fail(core, WIRE_E_LIMIT, "over the limit of this client or user");
	}
	if (heap_alloc(core->heap, (shmi_npages){want->pages}, (shmi_npages){want->align_pages}, want->lazy, &run,
	            &large.clean)) {
		charge_refund(&large.charge);
		return no_memory(core, client, want->pages);
	}
	large.wipe = passing_foreign(core->heap, &run, client->peer.uid);
	large.clean |= large.wipe;
	if (!large.wipe && (run.backed || want->lazy)) {
		charge_refund(&large.charge);
		return hand_out(core, client, want, run, large.clean);
	}
	large.run = run;
	client->large = large;
	core_queue(core, &client->large.job);
	return OUTCOME_LATER;
}
