/* What a client leaves goes back: at its death, or when it asks to be detached.
 *
 *	RECORDS  each of its thread records is copied by pread and what lies in it put back into the bitmaps; the large blocks
 *	         that it had cached are freed; the record's memory is returned
 *	SHARED   its shared spans go to the central lists with their live blocks untouched; its large shared blocks are nobody's
 *	WAIT     while somebody has its lease (daemon/lease.h): a forked child may still use the scoped blocks
 *	SCOPED   its scoped spans go to the page heap, whatever is in them
 *
 * A client that has detached is answered before WAIT: it has unmapped the heap, its children have not. A client that lives, has no
 * connection and whose lease has been free for a moment has become another program by exec, which ends its use of the heap as well: it
 * can reach none of it any more. One that has only closed its socket has the lease; one that dies drops it before it is dead.
 *
 * One job per client; a step looks at about POLICY_TURN_SLOTS cached slots or POLICY_TURN_SPANS spans. There is one buffer for
 * the copy of a record: a client whose turn comes while another's record is in it waits.
 *
 * After a death central spans may be empty that nobody was told of: a walk over the heap (daemon/scavenger.h) finds them.
 */
#ifndef DAEMON_REAPER_H
#define DAEMON_REAPER_H

#include "daemon/core.h"

/* Begins the reclaim of a client. `dead`: its process is; else it has left, perhaps with request client->reclaim.serial. */
void reaper_start(struct core *core, struct client *client, bool dead);

/* Looks at leases, of core->looks clients at most: queues those whose wait is over. In how many milliseconds it is due again;
 * -1: when a connection has ended or core->waiting is not 0. */
int reaper_look(struct core *core);

#endif
