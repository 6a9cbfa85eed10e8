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

bool scavenger_look_on(struct core *core, uint32_t *at)
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
	if (!scavenger_look_on(core, &look->page))
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
