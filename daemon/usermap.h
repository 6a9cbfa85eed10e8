/* Users that the daemon cannot tell apart.
 *
 * Who a client is, SO_PEERCRED says in the ids of the user namespace in which the daemon runs. One that was made for a container
 * seldom maps all ids; every user whom it does not map has the same one there, the overflow id (65534 unless the machine says
 * otherwise), which may be the id of a mapped user at the same time. To the daemon they are then one user: they share that user's limits,
 * memory that passes between them is not dropped on the way, and a list that allows one allows all.
 *
 * That is safe as long as this user may no more than others. It must not be the daemon's own, who may evict and has no limits. So a
 * daemon that runs as this id, in a namespace that maps not all, does not start.
 *
 * What namespaces a client is in makes no difference: in the daemon's eyes it has the id that it has outside.
 */
#ifndef DAEMON_USERMAP_H
#define DAEMON_USERMAP_H

#include <stdbool.h>
#include <stdint.h>

#define USERMAP_OVERFLOW 65534u /* where /proc/sys cannot be read: systemd's ProcSubset=pid */

/* Whether the text of a uid_map maps every id: its counts add up to all there are. */
bool usermap_is_whole(const char *text);

/* The id of all users that this process's user namespace does not map; -1: it maps all. */
int64_t usermap_unmapped(void);

#endif
