#include "daemon/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif

/* Returns 0 and *pidfd, PEER_E_GONE or a negative errno. */
static int pidfd_of(int sock, int32_t pid, int *pidfd)
{
	socklen_t len = sizeof(*pidfd);

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, pidfd, &len))
		return fcntl(*pidfd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
	*pidfd = -1;
	if (errno == ESRCH || errno == EINVAL || errno == ENODATA)
		return PEER_E_GONE;
	if (errno != ENOPROTOOPT)
		return -errno;
	/* A kernel before 6.5. The pid may have been used again since connect; such a kernel knows no better. */
	*pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (*pidfd < 0)
		return errno == ESRCH ? PEER_E_GONE : -errno;
	return 0;
}

int peer_of_socket(int sock, struct peer *peer)
{
	struct ucred cred;
	struct stat st;
	socklen_t len = sizeof(cred);

	*peer = (struct peer){.pidfd = -1};
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	peer->pid = cred.pid;
	peer->uid = cred.uid;
	peer->gid = cred.gid;
	if (!cred.pid)
		return 0;
	int error = pidfd_of(sock, cred.pid, &peer->pidfd);

	if (error)
		return error;
	if (fstat(peer->pidfd, &st)) {
		error = -errno;
		peer_close(peer);
		return error;
	}
	peer->inode = st.st_ino;
	return 0;
}

void peer_groups_of_socket(int sock, struct peer_groups *groups)
{
	socklen_t len = sizeof(groups->id);

	groups->n = 0;
	if (!getsockopt(sock, SOL_SOCKET, SO_PEERGROUPS, groups->id, &len) && len <= sizeof(groups->id))
		groups->n = (uint32_t)(len / sizeof(groups->id[0]));
}

int peer_reopen(int32_t pid, uint64_t inode, int *pidfd)
{
	struct stat st;
	int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	*pidfd = -1;
	if (fd < 0)
		return pid <= 0 || errno == ESRCH ? PEER_E_GONE : -errno;
	struct pollfd dead = {.fd = fd, .events = POLLIN};

	int error = fstat(fd, &st) || poll(&dead, 1, 0) < 0 ? -errno : 0;

	if (!error && (st.st_ino != inode || dead.revents))
		error = PEER_E_GONE;
	if (error) {
		close(fd);
		return error;
	}
	*pidfd = fd;
	return 0;
}

bool peer_is_dead(const struct peer *peer)
{
	struct pollfd dead = {.fd = peer->pidfd, .events = POLLIN};

	return peer->pidfd >= 0 && poll(&dead, 1, 0) > 0;
}

void peer_close(struct peer *peer)
{
	if (peer->pidfd >= 0)
		close(peer->pidfd);
	peer->pidfd = -1;
}
