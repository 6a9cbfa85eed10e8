/* The heap of a configuration: made or taken over at the start, removed or left at the end.
 *
 * What an earlier daemon left is taken over if it is whole, ours and of this layout; else it is refused in words and not touched.
 * At a clean stop the heap goes if nobody can want it any more: no clients, no blocks, no roots. A damaged heap stays for a
 * person to look at. A heap that the last starts died of is set aside (daemon/boots.h, daemon/aside.h).
 */
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include "daemon/config.h"
#include "daemon/heap.h"
#include "daemon/objects.h"

/* Opens the heap of this name, under the instance's lock; with config->reset it is dropped first. *adopted: it was there. Returns
 * 0, or 1 after the reason has been logged, which is in objects->why then; nothing is open then. The start is counted until
 * boots_opened. */
int store_take(struct objects *objects, struct heap *heap, const char *instance, const struct config_heap *config,
        bool *adopted);

/* Says that the heap is refused, why, how it was left, and what to do. */
void store_refuse(struct objects *objects, const char *why, const char *left);

/* Whether the heap has blocks or roots, or cannot be looked at. */
bool store_has_blocks(struct heap *heap);

/* Marks the heap as cleanly left, or removes it. The objects stay open. */
void store_end(struct objects *objects, struct heap *heap, bool keep);

#endif
