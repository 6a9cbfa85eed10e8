/* What is done when memory is short.
 *
 * How short it is has three sources, each a level of 0, 1 or 2; the highest counts (core->pressure.level):
 *
 *	heap     little of its limit is free
 *	tmpfs    little of /dev/shm is free; looked at every second, and when it has refused memory
 *	system   the system says that programs wait for memory (daemon/psi.h): 2, until it has said nothing for ten seconds
 *
 *	level 1  idle pages are returned without regard to their age, at a raised rate; who is over a soft limit is told to trim
 *	level 2  all clients are told, once a second, and wholly free spans are taken from those that sleep (daemon/seizer.h)
 *
 * A request that would fail for want of memory tells all, has some memory taken from sleepers at once, and is tried again; one for a
 * large block waits until the sleepers have been gone through (daemon/large.h).
 *
 * While it is the heap alone that is nearly full, idle memory of a thirty-second of what is in use is kept, as always: to return and back
 * the same pages in turn would gain nobody anything.
 *
 * Being told: a word in meta changes (struct shmi_owner, trim_wanted), which each thread of the client compares at its next slow
 * path. Nobody is woken, and nobody waited for.
 */
#ifndef DAEMON_PRESSURE_H
#define DAEMON_PRESSURE_H

#include "daemon/core.h"

/* Looks how short memory is and does what is due. At intervals. */
void pressure_look(struct core *core);

/* The system says that it is short of memory. */
void pressure_system(struct core *core);

/* How many idle pages the scavenger may return in this turn, whatever their age; 0: none. */
uint32_t pressure_scavenges(const struct core *core);

/* A request for `pages` pages has failed. True if it is worth another try: something was gained. */
bool pressure_relieve(struct core *core, uint32_t pages);

/* The same for who can wait: begins what may help. While seizer_is_running that goes on. */
void pressure_begin(struct core *core, uint32_t pages);

/* Pages that the heap has left: free ones, and such as there may be. */
uint64_t pressure_room(const struct core *core);

/* Tells a client to give back what it can spare. */
void pressure_tell(struct core *core, struct client *client);

#endif
