#include "daemon/selfcheck.h"

#include <stdio.h>

#include "daemon/guard.h"
#include "daemon/log.h"
#include "shm/check.h"

#define ROOM 16u
#define STATISTICS 23u /* the invariant that is about counters alone */

struct looking {
	struct core *core;
	struct shmi_violation found[ROOM];
	uint32_t violations;
};

static bool client_lives(void *ctx, uint32_t id)
{
	const struct core *core = ctx;

	return id < SHMI_MAX_CLIENTS && core->client[id].state != CLIENT_FREE;
}

static int look_guarded(void *ctx)
{
	struct looking *l = ctx;
	struct shmi_image meta = l->core->heap->img;
	const struct shmi_check_env env = {.ctx = l->core, .client_lives = client_lives};

	meta.ctl = NULL;
	l->violations = shmi_check(&meta, &env, 1, l->found, ROOM);
	return 0;
}

int selfcheck_run(struct core *core, char *why, size_t room)
{
	struct looking l = {.core = core};

	if (guard_run(look_guarded, &l)) {
		snprintf(why, room, "one of its objects was cut short");
		return 1;
	}
	for (uint32_t i = 0; i < l.violations && i < ROOM; i++) {
		const struct shmi_violation *v = &l.found[i];

		log_line(LEVEL_WARN, "check of heap '%s': I%u, page %u, detail %llu: %s", core->heap->name,
		        v->invariant, v->page, (unsigned long long)v->detail, v->text);
		if (v->invariant != STATISTICS) {
			snprintf(why, room, "the check found %u violations, the first of I%u (page %u): %s",
			        l.violations, v->invariant, v->page, v->text);
			return 1;
		}
	}
	return 0;
}
