/* The heap check at the start, over a heap that was taken over.
 *
 * It looks at what only a daemon writes. What clients write (bitmaps, thread records) is not a reason to refuse a heap to
 * all of them: it is checked where it is used, and `shmallocctl check` looks at it. Nor are statistics; they are only reported.
 * The cost is linear in the published pages.
 */
#ifndef DAEMON_SELFCHECK_H
#define DAEMON_SELFCHECK_H

#include "daemon/core.h"

/* Returns 0, or 1 with the reason in words. */
int selfcheck_run(struct core *core, char *why, size_t room);

#endif
