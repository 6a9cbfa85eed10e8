/* Stale pages: free or seized ones that may still have the memory, and the bytes, that an earlier daemon's clients left there.
 *
 * After a restart nothing tells which free pages are backed, so adoption enters all of them as returned. To drop what is there
 * takes about 0.3 ms for each 2 MiB, so it is not done before the heap serves but by a job, step by step, in the order of
 * addresses. Pages from heap->stale.next to heap->stale.end are yet to be looked at:
 *
 *	they may hold anybody's bytes: they are dropped, and backed anew, before they are handed out (daemon/passing.h)
 *	when the system has no memory left, they are dropped at once, as many as it takes
 *
 * A page that was handed out and comes back before its turn is dropped twice, which does no harm. What cannot be dropped stays as
 * it is, and so do all pages behind it: stale until the next start.
 */
#ifndef DAEMON_STALE_H
#define DAEMON_STALE_H

#include "daemon/heap.h"

/* All that is free now is stale. */
void stale_begin(struct heap *heap);

/* Goes on for about `most` pages. False when nothing is stale any more, or nothing can be done about it. */
bool stale_step(struct heap *heap, uint32_t most);

/* Whether the run has stale pages. */
bool stale_in(const struct heap *heap, const struct shmi_run *run);

#endif
