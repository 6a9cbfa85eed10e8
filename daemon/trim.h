/* A trim: idle memory goes back to the system now, for root and the daemon's user.
 *
 *	tell     the clients that it names are told to give back what they can spare, which they do when they next need the
 *	         daemon; nobody waits for that
 *	seize    their wholly free spans are taken, whether they sleep or not (daemon/seizer.h)
 *	look     at all central spans: those that are empty go to the page heap
 *	return   free runs, whatever their age, 2 MiB a turn
 *
 * It names one client, or all, or none. It is one job of the caller that asked for it, and ends with the caller. The answer says
 * how many bytes went back; what the seizer takes meanwhile for other reasons is counted as well.
 */
#ifndef DAEMON_TRIM_H
#define DAEMON_TRIM_H

#include "daemon/core.h"

/* The request. */
enum outcome trim_run(struct core *core, struct caller *caller, const struct wire_msg *req);

/* Begins one for `caller` without a word to anybody: `all`, `client` and `serial` of *trim are good. */
enum outcome trim_begin(struct core *core, struct caller *caller, const struct trim *trim);

#endif
