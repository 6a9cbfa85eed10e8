/* Damage: what clients can do to the objects that they can write, found and dealt with while the daemon runs.
 *
 *	cut short   an object is shorter than its header says. Whoever touches what is missing gets a SIGBUS, the daemon too: it
 *	            fences the heap (core_fence). Looked for at each request, and at intervals under an idle heap
 *	punched     fewer bytes are backed than the books say must be. What was there reads as zeros: in a bitmap, everything is
 *	            allocated; in a thread's record, nothing is cached; so nothing that is in use is given away. But a write into a
 *	            hole is a SIGBUS when /dev/shm is full: all that must be backed is backed again, by a job, a little at a time
 *	the head    of ctl, by which the next daemon and the next client know it: written anew
 *	set aside   spans whose bitmaps were overwritten (shm/central.h): the operator is told
 *
 * A hole is only noticed if the sum of what is backed is too low. A client that backs as much elsewhere, behind what is published
 * or in a lazy block of its own, hides it: it harms those who share the heap with it, and they trust it anyway. Neither the
 * daemon's metadata nor its books of pages come from these sums.
 */
#ifndef DAEMON_DAMAGE_H
#define DAEMON_DAMAGE_H

#include "daemon/core.h"

/* Fences the heap if an object has been cut short. Two system calls. */
void damage_look_for_cuts(struct core *core);

/* The same, and looks for all the rest. Under the guard. Cost: linear in the number of thread records. */
void damage_look(struct core *core);

/* Backs all of ctl that must be, at once, if something is missing: before a daemon that takes over reads it. 0 or SHMI_E_NOMEM. */
int damage_mend_ctl(struct heap *heap);

#endif
