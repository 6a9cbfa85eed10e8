#include "daemon/scavenger.h"

#include "daemon/damage.h"
#include "daemon/policy.h"
#include "daemon/pressure.h"
#include "daemon/stale.h"
#include "shm/central.h"
#include "shm/walk.h"

/* While memory is short: several runs, of whatever age. */
static uint32_t release_now(struct core *core)
{
	uint32_t got = 0, most, now = 1;

	for (uint32_t n = 0; n < POLICY_PRESSED_RUNS && got < POLICY_TURN_PAGES && now; n++) {
		most = pressure_scavenges(core);
		now = most ? heap_release(core->heap, 0, most) : 0;
		got += now;
	}
	return got;
}

uint32_t scavenger_turn(struct core *core, uint32_t delay_ms)
{
	const struct shmi_page_counts *pages = &core->heap->img.super->pages;

	damage_look(core);
	if (core->heap->fenced)
		return 0;
	pressure_look(core);
	if (core->pressure.level)
		return release_now(core);
	uint32_t most = policy_scavenge(shmi_load(&pages->free), shmi_load(&pages->owned) + shmi_load(&pages->central));

	return most ? heap_release(core->heap, delay_ms, most) : 0;
}

/* Looks at the central spans among the next POLICY_TURN_SPANS runs from *at on. True at the end of the heap. */
static bool look_on(struct core *core, uint32_t *at)
{
	struct shmi_image *img = &core->heap->img;
	struct shmi_walk walk = shmi_walk_from(img, *at);
	uint32_t n = 0;

	while (shmi_walk_next(img, &walk)) {
		if (n++ == POLICY_TURN_SPANS) {
			*at = walk.page.i;
			return false;
		}
		if (walk.word.state == SHMI_SPAN_CENTRAL)
			shmi_central_report(img, walk.page, core->heap->now);
	}
	return true;
}

static bool step_look(struct core *core, struct job *job)
{
	struct look *look = &core->look;

	(void)job;
	if (core->heap->fenced)
		return true;
	if (!look_on(core, &look->page))
		return false;
	look->page = 1;
	if (!look->again)
		return true;
	look->again = false;
	return false;
}

void scavenger_look(struct core *core)
{
	struct look *look = &core->look;

	if (look->job.queued) {
		look->again = true;
		return;
	}
	look->job.step = step_look;
	look->page = 1;
	core_queue(core, &look->job);
}

static bool step_stale(struct core *core, struct job *job)
{
	(void)job;
	return core->heap->fenced || !stale_step(core->heap, POLICY_TURN_PAGES);
}

void scavenger_drop_stale(struct core *core)
{
	core->stale.step = step_stale;
	core_queue(core, &core->stale);
}

/* ---- trim ---- */

static struct caller *caller_of(struct job *job)
{
	return (struct caller *)(void *)((char *)job - offsetof(struct caller, trim.job));
}

static bool finish_trim(struct core *core, struct caller *caller)
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
		return finish_trim(core, caller);
	}
	if (trim->page) {
		if (look_on(core, &trim->page))
			trim->page = 0;
		return false;
	}
	uint32_t now = heap_release(core->heap, 0, POLICY_TURN_PAGES);

	trim->bytes += shmi_npages_bytes((shmi_npages){now});
	if (now)
		return false;
	core->reply.kind = WIRE_TRIM_OK;
	core->reply.u.trim_ok.bytes = trim->bytes;
	return finish_trim(core, caller);
}

enum outcome scavenger_trim(struct core *core, struct caller *caller, const struct wire_msg *req)
{
	struct trim *trim = &caller->trim;

	if (caller->peer.uid != 0 && caller->peer.uid != core->uid)
		return core_fail(core, WIRE_E_ACCESS, "only root and uid %u may ask for that", core->uid);
	*trim = (struct trim){.page = 1, .serial = req->serial, .job.step = step_trim};
	core_queue(core, &trim->job);
	return OUTCOME_LATER;
}
