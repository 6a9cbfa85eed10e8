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

/* Takes the instance's lock. Returns 0, or 1 after the reason has been logged; nothing is open then. */
int store_lock(struct objects *objects, const struct config *config);

/* Opens the heap, under the lock; with config->reset it is dropped first. *adopted: it was there. Returns 0, or 1 after the
 * reason has been logged; nothing is open then, and the lock has been given up. The start is counted until boots_ready. */
int store_take(struct objects *objects, struct heap *heap, const struct config *config, bool *adopted);

/* Both. */
int store_open(struct objects *objects, struct heap *heap, const struct config *config, bool *adopted);

/* Says that the heap is refused, why, how it was left, and what to do. */
void store_refuse(const struct config *config, const char *why, const char *left);

/* Whether the heap has blocks or roots, or cannot be looked at. */
bool store_has_blocks(struct heap *heap);

/* Marks the heap as cleanly left, or removes it. The objects stay open. */
void store_end(struct objects *objects, struct heap *heap, bool keep);

#endif
