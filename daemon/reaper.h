/* What a client leaves goes back: at its death, or when it asks to be detached.
 *
 *	RECORDS  each of its thread records is copied by pread and what lies in it put back into the bitmaps; the large blocks
 *	         that it had cached are freed; the record's memory is returned
 *	SHARED   its shared spans go to the central lists with their live blocks untouched; its large shared blocks are nobody's
 *	WAIT     for the socket to hang up: a forked child that holds it open still uses the scoped blocks
 *	SCOPED   its scoped spans go to the page heap, whatever is in them
 *
 * One job per client; a step looks at about POLICY_TURN_SLOTS cached slots or POLICY_TURN_SPANS spans. There is one buffer for
 * the copy of a record: a client whose turn comes while another's record is in it waits.
 *
 * After a death central spans may be empty that nobody was told of: a walk over the heap (daemon/scavenger.h) finds them.
 */
#ifndef DAEMON_REAPER_H
#define DAEMON_REAPER_H

#include "daemon/core.h"

/* Begins the reclaim of a client. `dead`: its process is; else it asked for it with request client->reclaim.serial, and its scoped
 * spans go at once. */
void reaper_start(struct core *core, struct client *client, bool dead);

/* The last connection of a client that is being reclaimed has gone. */
void reaper_socket_gone(struct core *core, struct client *client);

#endif
