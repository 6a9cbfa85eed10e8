/* Who may attach to a heap.
 *
 * What counts is what the kernel says of the process that has connected (daemon/peer.h), never what a message says. With two empty
 * lists everybody may attach who can connect. Else those may who are root, the daemon's own user, one of the users, or a member
 * of one of the groups, by their primary group or a supplementary one.
 *
 * It is asked at an attach and at a resume. A client that is attached already, or is taken over from an earlier daemon, keeps what
 * it has when the lists change, and its connection; when it has lost that, it may not resume.
 */
#ifndef DAEMON_ACCESS_H
#define DAEMON_ACCESS_H

#include "daemon/peer.h"

#define ACCESS_MAX                                                                                                     \
	16u /* users, and groups, of one heap: what fits into a line of the configuration file; more are a group */

struct access_list {
	uint32_t n;
	uint32_t id[ACCESS_MAX];
};

struct access {
	struct access_list users, groups;
};

bool access_allows(
        const struct access *access, const struct peer *peer, const struct peer_groups *groups, uint32_t daemon_uid);

#endif
