/* Evicting a client: an operator ends its use of the heap.
 *
 * The daemon cannot unmap another process's memory. What it can do is to have nothing to do with the process any more:
 *
 *	mark     the client's entry in the state object says so, in one store (in_use 3): a daemon that takes over finds it
 *	leave    a request under way ends with WIRE_E_EVICTED, and the connection ends
 *	trim     what can be taken from it without its help is (daemon/trim.h), and the answer says how much went back
 *
 * From then on its process, by pid and pidfd inode, is refused with WIRE_E_EVICTED whatever it asks for, and whatever user it has
 * become. It may use what it holds, and frees go on where they need no daemon. What it holds comes back when it ends; or before,
 * when nobody has its memory mapped any more (daemon/lease.h). Its place in the table stays taken until the process has ended, that
 * it be known: see CLIENT_BARRED.
 *
 * Processes that were forked from it are clients of their own, which this does not touch. Those that share its scoped memory keep
 * that as if it had died.
 *
 * Killed before the mark the daemon has evicted nobody; after it the next one does what is left. Doing it again takes what has become
 * free since, and does nothing else. Its counter is raised first, and may have one too many then.
 */
#ifndef DAEMON_EVICT_H
#define DAEMON_EVICT_H

#include "daemon/core.h"

/* The request. */
enum outcome evict_run(struct core *core, struct caller *caller, const struct wire_msg *req);

#endif
