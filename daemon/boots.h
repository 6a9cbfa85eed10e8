/* Starts that come to nothing are counted, so that a heap which kills every daemon that takes it over cannot do so for ever.
 *
 * Each heap has a count, in its state object. A start is counted before anything else of the heap is looked at, and struck out
 * when the heap has been taken over and checked, and before the next one is: so a heap that kills the daemon at its start leaves no
 * count with those before it. What kills a serving daemon from outside (SIGKILL, an operator, the OOM killer)
 * is not a heap's fault and does not count; a crash of its own does, and a loop that computes without end until the watchdog
 * ends it, until it has served for BOOTS_GOOD_MS: what clients ask for in the first moments may be what it dies of. Such a crash
 * counts for the heap that the daemon was at work on; for all of them, if that is not known. A start that
 * is refused in words, and a clean stop, do not count. After BOOTS_MOST in a row the next start sets the heap aside
 * (daemon/aside.h) and makes a new one.
 */
#ifndef DAEMON_BOOTS_H
#define DAEMON_BOOTS_H

#include <stdbool.h>

#include "shm/layout.h"

/* Two may be chance, such as a machine that runs out of memory; each costs the clients a restart. */
#define BOOTS_MOST 3u

/* Twice what a hung loop has before the watchdog of shmallocd.service. */
#define BOOTS_GOOD_MS 10000

#define BOOTS_HEAPS 16u /* heaps of a daemon: CONFIG_HEAPS_MAX */

/* Whether the starts before this one say that this heap should not be taken over. */
bool boots_exhausted(const struct shmi_state *state);

/* This start counts. `state` stays mapped until boots_good or boots_refused. The daemon is at work on this heap. */
void boots_begin(struct shmi_state *state);

/* The heap is taken over and checked: its start counts only if the daemon crashes by itself. */
void boots_opened(const struct shmi_state *state);

/* What follows is done for this heap; NULL: for none that is known. */
void boots_working_on(const struct shmi_state *state);

/* The daemon serves: all heaps are opened. */
void boots_ready(void);

/* The event loop turns. */
void boots_turned(void);

/* It has served long enough, or stops as it should: it does not count whatever happens. The states may go. */
void boots_good(void);

/* This start is for this heap as if it had not been: it was refused. `state` may go. */
void boots_refused(const struct shmi_state *state);

/* A signal is about to end the daemon; for signal handlers. */
void boots_crashed(void);

#endif
