/* Memory that passes from one user to another is zero when it gets there.
 *
 * Each run of pages, free or in use, has a note of whose bytes may be in it (last_user of its record). Runs that become one have
 * that of both; pages that are returned to the system have nobody's. Before pages are handed out in which there may be bytes of
 * another user they are dropped and backed anew; the daemon need not map them for that. In a heap of one user nothing is ever
 * dropped so. What a killed daemon left free may be anybody's.
 *
 * A span that has blocks in use cannot be dropped. When nobody holds it, it goes to clients of the user who had it; to others only
 * when there is no memory left, and from then on it counts as of several users.
 */
#ifndef DAEMON_PASSING_H
#define DAEMON_PASSING_H

#include "daemon/heap.h"

/* Whether a run in state MOVING may hold what somebody else than `uid` has written. */
bool passing_foreign(const struct heap *heap, const struct shmi_run *run, uint32_t uid);

/* Drops the pages of a backed run and backs them again, at most POLICY_TURN_PAGES pages. Returns 0 or SHMI_E_NOMEM: then they may not
 * be backed any more. */
int passing_wipe(struct heap *heap, struct shmi_run run);

/* A span of `sclass` for `uid` that nobody holds, or SHMI_NO_PAGE; with `any`, whoever had it. */
shmi_page passing_central(struct heap *heap, shmi_sclass sclass, uint32_t uid, bool any);

/* The span at `page` is a client's of `uid` from here on; `fresh`: it was made for it, of a run that is not foreign. */
void passing_note(struct heap *heap, shmi_page page, uint32_t uid, bool fresh);

/* The pages of a run in state MOVING have been dropped. */
void passing_dropped(struct heap *heap, shmi_page run);

#endif
