#include "daemon/passing.h"

#include "daemon/stale.h"
#include "shm/central.h"

static uint32_t user_of(uint32_t uid)
{
	/* of the last id there is that is SHMI_SEVERAL_USERS: such a user gets nothing of anybody's, its own included */
	return uid + 1;
}

bool passing_foreign(const struct heap *heap, const struct shmi_run *run, uint32_t uid)
{
	uint32_t user = shmi_span_at(&heap->img, run->first)->last_user;

	return stale_in(heap, run) || (user && (user != user_of(uid) || user == SHMI_SEVERAL_USERS));
}

int passing_wipe(struct heap *heap, struct shmi_run run)
{
	if (heap_decommit(heap, run.first, run.pages) || heap_commit(heap, run.first, run.pages))
		return SHMI_E_NOMEM;
	return 0;
}

shmi_page passing_central(struct heap *heap, shmi_sclass sclass, uint32_t uid, bool any)
{
	if (any)
		return shmi_central_find(&heap->img, sclass);
	return user_of(uid) == SHMI_SEVERAL_USERS ? SHMI_NO_PAGE
	                                          : shmi_central_find_of(&heap->img, sclass, user_of(uid));
}

void passing_note(struct heap *heap, shmi_page page, uint32_t uid, bool fresh)
{
	struct shmi_span *span = shmi_span_at(&heap->img, page);
	uint32_t before = span->last_user ? span->last_user : SHMI_SEVERAL_USERS;

	span->last_user = fresh ? user_of(uid) : shmi_users_join(before, user_of(uid));
}

void passing_dropped(struct heap *heap, shmi_page run)
{
	shmi_span_at(&heap->img, run)->last_user = 0;
}
