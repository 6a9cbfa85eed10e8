/* The SIGBUS guard: what lets the daemon look at memory that a client can cut short.
 *
 * A client has ctl writable, and so may truncate it; the daemon's next touch is then a SIGBUS. All code that may touch ctl
 * runs inside guard_run. A SIGBUS within a watched range ends the guarded function; the caller fences the heap, since
 * the function may have been in the middle of a change of meta. A SIGBUS anywhere else, or outside of guard_run, ends the
 * daemon as it would have done without us.
 *
 * The guarded function must hold nothing that has to be released: it is left by siglongjmp. Single-threaded; may nest.
 */
#ifndef DAEMON_GUARD_H
#define DAEMON_GUARD_H

#include <stddef.h>

#define GUARD_E_BUS (-1000) /* what guard_run returns when the guard has tripped: no errno, no outcome */
#define GUARD_RANGES 40u /* two for each heap of a daemon, and some */

/* Installs the handler; once, at start. */
void guard_install(void);

/* Watches a mapping; 0 or -ENOSPC beyond GUARD_RANGES. */
int guard_watch(const void *start, size_t len);
void guard_unwatch(const void *start);

/* Runs fn(ctx) and returns its value, or GUARD_E_BUS. */
int guard_run(int (*fn)(void *ctx), void *ctx);

#endif
