#include "daemon/refill.h"

#include "daemon/clients.h"
#include "daemon/journal.h"
#include "daemon/large.h"
#include "daemon/limits.h"
#include "daemon/passing.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/seizer.h"
#include "shm/central.h"
#include "shm/slots.h"

/* ---- spans that come back ---- */

/* A span of blocks that is the client's, or was until it was seized. */
static bool is_theirs(const struct core *core, const struct client *client, struct wire_span span)
{
	const struct shmi_image *img = &core->heap->img;

	if (!shmi_image_page_ok(img, (shmi_page){span.page}))
		return false;
	struct shmi_word word = shmi_span_word(img, (shmi_page){span.page});

	return (word.state == SHMI_SPAN_OWNED || word.state == SHMI_SPAN_SEIZED) && word.owner == client->id &&
	       word.generation == span.generation;
}

/* A scoped span with blocks in use stays its client's, quietly: the blocks' life ends with that client and no other. */
static bool must_stay(const struct core *core, shmi_page page)
{
	const struct shmi_image *img = &core->heap->img;
	shmi_sclass sclass = shmi_span_word(img, page).sclass;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];

	return shmi_sclass_scoped(sclass) && shmi_slots_count(shmi_bitmap_at(img, page), class) != class->slots;
}

/* Whatever stands in the bitmap of a seized one: it is the daemon's. */
static void take_back(struct core *core, shmi_page page)
{
	struct shmi_image *img = &core->heap->img;
	uint32_t pages = shmi_span_at(img, page)->pages;

	if (shmi_span_word(img, page).state == SHMI_SPAN_SEIZED) {
		seizer_close(core, page); /* its pages count as given since they were seized */
	} else if (must_stay(core, page)) {
		return;
	} else {
		shmi_central_accept(img, page, core->heap->now);
		clients_count_given(core, pages);
	}
	shmi_bump(&img->super->counters.spans_returned, 1);
}

/* True if all of them were the client's. Nothing is taken from a message in which one is not, unless it may have been taken
 * already, before we were killed (`redo`). */
static bool take_returns(struct core *core, const struct client *client, const struct wire_refill *req, bool redo)
{
	for (uint32_t i = 0; i < req->n_returns && !redo; i++)
		if (!is_theirs(core, client, req->returns[i]))
			return false;
	for (uint32_t i = 0; i < req->n_returns; i++) {
		shmi_page page = {req->returns[i].page};

		if (!is_theirs(core, client, req->returns[i])) {
			if (redo)
				continue;
			return false; /* named twice */
		}
		take_back(core, page);
	}
	return true;
}

static void take_reports(struct core *core, const struct wire_refill *req)
{
	for (uint32_t i = 0; i < req->n_reports; i++)
		shmi_central_report(&core->heap->img, (shmi_page){req->reports[i]}, core->heap->now);
	shmi_bump(&core->heap->img.super->counters.spans_reported, req->n_reports);
}

/* ---- spans that go out ---- */

/* One span of the class, from those that nobody holds: such as were this user's, or any. */
static shmi_page from_central(struct core *core, const struct client *client, shmi_sclass sclass, bool any)
{
	struct shmi_image *img = &core->heap->img;
	uint32_t uid = client->peer.uid;
	shmi_page page = passing_central(core->heap, sclass, uid, any);

	if (!page.i && !any && shmi_central_sweep(img, sclass, POLICY_SWEEP, core->heap->now))
		page = passing_central(core->heap, sclass, uid, any);
	if (page.i) {
		journal_span(core, client, page);
		shmi_central_give(img, page, client->id);
		passing_note(core->heap, page, uid, false);
	}
	return page;
}

/* One span of fresh pages. */
static shmi_page from_pages(struct core *core, const struct client *client, shmi_sclass sclass, bool *fresh)
{
	struct shmi_image *img = &core->heap->img;
	struct shmi_run run;

	if (heap_alloc(core->heap, (shmi_npages){img->classes[shmi_sclass_size_class(sclass)].pages}, (shmi_npages){1},
	            false, &run, fresh))
		return SHMI_NO_PAGE;
	if (passing_foreign(core->heap, &run, client->peer.uid)) {
		if (passing_wipe(core->heap, run)) {
			core_drop_run(core, run);
			return SHMI_NO_PAGE;
		}
		*fresh = true;
	}
	journal_span(core, client, run.first);
	shmi_span_open(img, run, sclass, client->id);
	passing_note(core->heap, run.first, client->peer.uid, true);
	return run.first;
}

/* A span of the class for the client, which may have `share` fresh pages. Why there is none, in *why. */
static shmi_page find_span(struct core *core, const struct client *client, shmi_sclass sclass, uint64_t *share,
        bool *fresh, enum limits_why *why)
{
	uint32_t each = core->heap->img.classes[shmi_sclass_size_class(sclass)].pages;
	shmi_page page = from_central(core, client, sclass, false);

	if (page.i)
		return page;
	*why = LIMITS_SHARE;
	if (*share >= each) {
		page = from_pages(core, client, sclass, fresh);
		if (!page.i && pressure_relieve(core, each))
			page = from_pages(core, client, sclass, fresh);
		*share -= each;
		*why = limits_no_memory(core);
	}
	return page.i ? page : from_central(core, client, sclass, true); /* what is left has blocks of others in it */
}

/* Grants up to `spans` spans of the class. Why there were fewer. */
static enum limits_why grant(
        struct core *core, struct client *client, shmi_sclass sclass, uint32_t spans, uint32_t *pages)
{
	const struct shmi_image *img = &core->heap->img;
	struct wire_refill_ok *ok = &core->reply.u.refill_ok;
	uint32_t each = img->classes[shmi_sclass_size_class(sclass)].pages;
	uint64_t room = account_room(&client->account) / each, share = limits_share(core, client);

	spans = policy_grants(spans, each, ok->n_grants, *pages);
	for (uint32_t i = 0; i < spans; i++) {
		enum limits_why why;
		bool fresh = false;

		if (i >= room)
			return limits_which(client);
		shmi_page page = find_span(core, client, sclass, &share, &fresh, &why);

		if (!page.i)
			return why;
		ok->grants[ok->n_grants++] = (struct wire_grant){.page = page.i,
		        .generation = shmi_span_word(img, page).generation,
		        .sclass = sclass.c,
		        .fresh = fresh};
		*pages += each;
	}
	return LIMITS_NONE;
}

static bool wants_ok(const struct wire_refill *req)
{
	for (uint32_t i = 0; i < req->n_wants; i++)
		if (req->wants[i].sclass >= SHMI_SPAN_CLASSES ||
		        !shmi_sclass_is_small((shmi_sclass){(uint16_t)req->wants[i].sclass}) || !req->wants[i].spans)
			return false;
	return true;
}

static uint32_t pages_of(const struct core *core, uint32_t sclass)
{
	return core->heap->img.classes[shmi_sclass_size_class((shmi_sclass){(uint16_t)sclass})].pages;
}

enum outcome refill_run(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	const struct wire_refill *refill = &req->u.refill;
	struct client *client = caller->client;
	struct shmi_counters *counters = &core->heap->img.super->counters;
	enum limits_why why = LIMITS_NONE;
	uint32_t pages = 0;

	core->reply.kind = WIRE_REFILL_OK;
	core->reply.u.refill_ok.n_grants = 0;
	if (refill->waited_us)
		histogram_add(&core->waited, refill->waited_us);
	shmi_bump(&counters->remote_freed, refill->remote_freed);
	if (!wants_ok(refill))
		return core_fail(core, WIRE_E_INVALID, "not a span class that can be asked for");
	bool good = take_returns(core, client, refill, client->redo == req->serial);

	take_reports(core, refill);
	bool all_large = large_free_all(core, caller, &refill->freed, req->serial);

	clients_settle(core, client->id);
	if (!good)
		return core_fail(core, WIRE_E_INVALID, "a span that was given back is not client %u's", client->id);
	if (!all_large)
		return OUTCOME_ANSWERED;
	for (uint32_t i = 0; i < refill->n_wants && !why; i++) {
		why = grant(
		        core, client, (shmi_sclass){(uint16_t)refill->wants[i].sclass}, refill->wants[i].spans, &pages);
		clients_settle(core, client->id);
	}
	uint32_t granted = core->reply.u.refill_ok.n_grants;

	if (refill->n_wants && !granted)
		return limits_refuse(core, client, why, pages_of(core, refill->wants[0].sclass));
	shmi_bump(&counters->refills, granted ? 1 : 0);
	shmi_bump(&counters->spans_granted, granted);
	clients_count_grant(core, client, pages);
	return OUTCOME_ANSWERED;
}
