/* Sets a heap aside: its objects go on under other names, for a person to look at, and the heap's own names are free.
 *
 *	/shmalloc.INSTANCE.HEAP.meta  ->  /shmalloc.INSTANCE.HEAP.aside-1.meta        and so on
 *
 * meta goes first, since without it the heap is not there. A daemon that dies between the four leaves the others under their
 * old names; the next start finishes that before it looks for a heap (a new heap's making would remove them).
 *
 * Sealed memory has no name to change: the service manager keeps it under another one, until the service is stopped.
 *
 * Heaps that were set aside stay until somebody removes them. There are at most ASIDE_MOST of one heap: a daemon that dies
 * of something else than its heap would fill the memory with new ones. Then the start is refused.
 */
#ifndef DAEMON_ASIDE_H
#define DAEMON_ASIDE_H

#include "daemon/objects.h"

#define ASIDE_MOST 8u

/* Where a part of the heap that was set aside as `number` lies. */
struct objects_path aside_path(const struct objects *o, unsigned number, enum heap_object object);

/* Renames the objects of the heap, which is there and not open; *number says as which. Returns 0, or a negative errno with
 * o->why filled; -EEXIST: there are ASIDE_MOST already. */
int aside_set(struct objects *o, unsigned *number);

/* Finishes what a daemon that died in aside_set has begun. */
void aside_finish(const struct objects *o);

#endif
