/* Who is at the other end of a socket, as the kernel says it, and whether that process still lives.
 *
 * Nothing here comes from a message. A process is identified by its pid together with the inode of its pidfd: a pid is used
 * again, a (pid, start time) pair can be, a pidfd's inode never is (Linux 6.9 and later; before that all pidfds have one
 * inode, and a pid that was used again while no daemon ran is mistaken for its predecessor).
 */
#ifndef DAEMON_PEER_H
#define DAEMON_PEER_H

#include <stdbool.h>
#include <stdint.h>

struct peer {
	int32_t pid; /* 0: in a pid namespace that we do not see */
	uint32_t uid;
	uint32_t gid;
	int pidfd; /* -1: none */
	uint64_t inode;
};

/* The supplementary groups of the process, as they were when it connected. */
#define PEER_GROUPS_MAX 256u /* 1 KiB for each connection; the kernel allows 65,536 */

struct peer_groups {
	uint32_t n;
	uint32_t id[PEER_GROUPS_MAX];
};

#define PEER_E_GONE 1 /* the process is dead */

/* Fills `peer` from a connected socket; peer->pidfd is the caller's to close. Returns 0, PEER_E_GONE or a negative errno. */
int peer_of_socket(int sock, struct peer *peer);

/* Fills `groups` from a connected socket. Of a process that has more than PEER_GROUPS_MAX none are known: it counts as a member of its
 * primary group alone. */
void peer_groups_of_socket(int sock, struct peer_groups *groups);

/* Opens the process that had this pid and inode. Returns 0 and *pidfd, PEER_E_GONE, or a negative errno. */
int peer_reopen(int32_t pid, uint64_t inode, int *pidfd);

/* Whether the process is known to be dead. */
bool peer_is_dead(const struct peer *peer);

/* Closes the pidfd, if there is one. */
void peer_close(struct peer *peer);

#endif
