/* Starts that come to nothing are counted, so that a heap which kills every daemon that takes it over cannot do so for ever.
 *
 * The count lies in the state object. A start is counted before anything else of the heap is looked at, and struck out when
 * the daemon serves: adopted, checked, in its loop. What kills a serving daemon from outside (SIGKILL, an operator, the OOM killer)
 * is not the heap's fault and does not count; a crash of its own does, and a loop that computes without end until the watchdog
 * ends it, until it has served for BOOTS_GOOD_MS: what clients ask for in the first moments may be what it dies of. A start that
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

/* Whether the starts before this one say that this heap should not be taken over. */
bool boots_exhausted(const struct shmi_state *state);

/* This start counts. `state` stays mapped until boots_good or boots_refused. */
void boots_begin(struct shmi_state *state);

/* It serves: it counts only if it crashes by itself. */
void boots_ready(void);

/* The event loop turns. */
void boots_turned(void);

/* It has served long enough, or stops as it should: it does not count whatever happens. `state` may go. */
void boots_good(void);

/* This start is as if it had not been: it was refused. */
void boots_refused(void);

/* A signal is about to end the daemon; for signal handlers. */
void boots_crashed(void);

#endif
