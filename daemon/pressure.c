#include "daemon/pressure.h"

#include "daemon/limits.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/seizer.h"

void pressure_tell(struct core *core, struct client *client)
{
	shmi_bump(&shmi_owner_at(&core->heap->img, client->id)->trim_wanted, 1);
	shmi_bump(&core->heap->img.super->counters.trims, 1);
}

uint64_t pressure_room(const struct core *core)
{
	const struct shmi_page_counts *pages = &core->heap->img.super->pages;

	return shmi_load(&pages->free) + shmi_load(&pages->returned) + shmi_load(&pages->unpublished);
}

/* Whether something that is done every `ms` is due. */
static bool is_due(const struct core *core, uint64_t *last_ms, uint64_t ms)
{
	if (*last_ms && core->now_ms - *last_ms < ms)
		return false;
	*last_ms = core->now_ms ? core->now_ms : 1;
	return true;
}

static void tell_everybody(struct core *core)
{
	if (!is_due(core, &core->pressure.told_ms, POLICY_TELL_MS))
		return;
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (core->client[i].state != CLIENT_FREE)
			pressure_tell(core, &core->client[i]);
}

/* ---- how short it is ---- */

static void look_at_heap(struct core *core)
{
	struct pressure *p = &core->pressure;

	p->heap = policy_pressure(p->heap, pressure_room(core), core->heap->img.geo.limit_pages);
}

static void look_at_tmpfs(struct core *core)
{
	const struct heap_floor *floor = &core->heap->floor;
	struct pressure *p = &core->pressure;
	uint64_t all, left;

	if (!is_due(core, &p->looked_ms, POLICY_TMPFS_MS))
		return;
	p->tmpfs = floor->space && floor->space(floor->ctx, &all, &left) ? policy_pressure(p->tmpfs, left, all) : 0;
}

static void look_at_system(struct core *core)
{
	struct pressure *p = &core->pressure;

	if (p->system && core->now_ms - p->pressed_ms > POLICY_PRESSED_MS)
		p->system = 0;
}

static uint32_t highest(const struct pressure *p)
{
	uint32_t level = p->heap > p->tmpfs ? p->heap : p->tmpfs;

	return level > p->system ? level : p->system;
}

static void change(struct core *core, uint32_t level)
{
	struct pressure *p = &core->pressure;

	if (!p->level)
		shmi_bump(&core->heap->img.super->counters.pressures, 1);
	log_event(LEVEL_INFO, LOG_PRESSURE, core_about_heap(core),
	        "heap '%s': memory is %s (heap %u, tmpfs %u, system %u)", core->heap->name,
	        level == 2   ? "very short"
	        : level == 1 ? "short"
	                     : "not short any more",
	        p->heap, p->tmpfs, p->system);
	p->level = level;
}

static void act(struct core *core)
{
	struct pressure *p = &core->pressure;

	if (p->level)
		limits_watch_all(core);
	if (p->level < 2)
		return;
	tell_everybody(core);
	if (!seizer_is_running(core) && is_due(core, &p->seized_ms, POLICY_SEIZE_MS))
		seizer_start(core, UINT64_MAX);
}

void pressure_look(struct core *core)
{
	if (core->heap->fenced)
		return;
	look_at_heap(core);
	look_at_tmpfs(core);
	look_at_system(core);
	uint32_t level = highest(&core->pressure);

	if (level != core->pressure.level)
		change(core, level);
	act(core);
}

void pressure_system(struct core *core)
{
	core->pressure.system = 2;
	core->pressure.pressed_ms = core->now_ms;
	pressure_look(core);
}

uint32_t pressure_scavenges(const struct core *core)
{
	const struct pressure *p = &core->pressure;
	const struct shmi_page_counts *pages = &core->heap->img.super->pages;
	uint64_t idle = shmi_load(&pages->free), used = shmi_load(&pages->owned) + shmi_load(&pages->central);

	if (!p->level)
		return 0;
	return policy_scavenge(idle, p->tmpfs || p->system ? 0 : used);
}

/* ---- a request that would fail ---- */

void pressure_begin(struct core *core, uint32_t pages)
{
	core->pressure.looked_ms = 0; /* the tmpfs has changed its mind since the last look, perhaps */
	tell_everybody(core);
	if (core->heap->starved)
		seizer_start(core, pages);
}

bool pressure_relieve(struct core *core, uint32_t pages)
{
	core->pressure.looked_ms = 0;
	tell_everybody(core);
	/* Of a heap that is full no seizure makes room: the addresses stay taken. */
	return core->heap->starved && seizer_now(core, pages) != 0;
}
