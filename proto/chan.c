/* One packet, one message.
 *
 * A SOCK_SEQPACKET socket keeps the borders of messages, delivers descriptors with the message that they were sent with,
 * and tells a hang-up. What is left to do here is to make every way of receiving too much an error that leaves nothing
 * behind: a packet cut short, a descriptor more than was wanted, a descriptor table that is full.
 */
#include "proto/chan.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "proto/fd.h"
#include "proto/wire.h"

#define NS_PER_S 1000000000ll

/* Room for the descriptors of one message, as the kernel wants it. */
union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS)];
};

static int failure(int error)
{
	switch (error) {
	case EAGAIN:
		return CHAN_E_AGAIN;
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return CHAN_E_CLOSED;
	case EMSGSIZE:
		return CHAN_E_TOO_LONG;
	default:
		return -error;
	}
}

int shmi_chan_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds)
{
	union control control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (n_fds > WIRE_FDS || len == 0)
		return -EINVAL;
	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? failure(errno) : 0;
}

/* The descriptors that came with `msg`, at most WIRE_FDS as that is what there is room for. */
static unsigned received_fds(struct msghdr *msg, int fds[WIRE_FDS])
{
	struct cmsghdr *c = CMSG_FIRSTHDR(msg);

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return 0;

	size_t bytes = c->cmsg_len - CMSG_LEN(0);

	memcpy(fds, CMSG_DATA(c), bytes);
	return (unsigned)(bytes / sizeof(int));
}

int shmi_chan_recv(int sock, void *bytes, size_t room, size_t *len, int *fds, unsigned *n_fds)
{
	union control control;
	struct iovec iov = {.iov_base = bytes, .iov_len = room};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	unsigned want = fds ? *n_fds : 0, got = 0;
	int came[WIRE_FDS], error = 0;
	ssize_t n;

	if (want > WIRE_FDS)
		return -EINVAL;
	if (fds)
		*n_fds = 0;
	if (want > 0) {
		msg.msg_control = &control;
		/* not CMSG_SPACE: its padding is room for one more */
		msg.msg_controllen = CMSG_LEN(sizeof(int) * want);
	}
	/* That a peer has closed without reading all is told as an error, once, before what it sent itself. */
	for (int told = 0; (n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC)) < 0; told += errno == ECONNRESET)
		if (errno != EINTR && (errno != ECONNRESET || told))
			return failure(errno);
	if (want > 0)
		got = received_fds(&msg, came);
	if (msg.msg_flags & MSG_TRUNC)
		error = CHAN_E_TOO_LONG;
	else if (msg.msg_flags & MSG_CTRUNC)
		error = got < want ? -EMFILE : CHAN_E_TOO_LONG;
	else if (n == 0)
		error = CHAN_E_CLOSED;
	if (error) {
		for (unsigned i = 0; i < got; i++)
			close(came[i]);
		return error;
	}
	if (got > 0)
		memcpy(fds, came, sizeof(int) * got);
	if (fds)
		*n_fds = got;
	*len = (size_t)n;
	return 0;
}

int64_t shmi_chan_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int shmi_chan_wait(int sock, int write, int64_t deadline_ns)
{
	struct pollfd p = {.fd = sock, .events = write ? POLLOUT : POLLIN};
	int n;

	do {
		int64_t now = shmi_chan_now_ns(), left = deadline_ns > now ? deadline_ns - now : 0;
		struct timespec t = {.tv_sec = left / NS_PER_S, .tv_nsec = left % NS_PER_S};

		n = ppoll(&p, 1, deadline_ns == INT64_MAX ? NULL : &t, NULL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (n == 0)
		return -ETIMEDOUT;
	return p.revents & POLLNVAL ? -EBADF : 0;
}

static int address_of(const char *path, struct sockaddr_un *addr)
{
	size_t len = strlen(path);

	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(addr->sun_path, path, len + 1);
	return 0;
}

int shmi_chan_connect(const char *path, int *sock)
{
	struct sockaddr_un addr;
	int error = address_of(path, &addr);

	*sock = -1;
	if (error)
		return error;

	/* non-blocking for the connect: a daemon that hangs does not accept, and a connect would wait for it for ever */
	FD_AUTO int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -errno;
	if (fcntl(fd, F_SETFL, O_RDWR) < 0)
		return -errno;
	*sock = shmi_fd_pass(&fd);
	return 0;
}

/* Whoever wants to listen at `path` holds the lock PATH.lock while it looks whether the socket file is stale and puts its own
 * in its place; without it the second of two starters could remove the live socket of the first. */
static int lock_path(const char *path, int *lock)
{
	char name[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(".lock")];

	snprintf(name, sizeof(name), "%s.lock", path);
	*lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*lock < 0)
		return -errno;
	while (flock(*lock, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Removes the socket file at `path` if nobody listens on it. */
static int remove_stale(const char *path)
{
	struct stat st;
	FD_AUTO int probe = -1;
	int error = shmi_chan_connect(path, &probe);

	if (error == -ENOENT)
		return 0;
	if (error == 0 || error == -EAGAIN || error == -EPROTOTYPE)
		return -EADDRINUSE;
	if (error != -ECONNREFUSED)
		return error;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int shmi_chan_listen(const char *path, unsigned mode, int backlog, int *sock)
{
	struct sockaddr_un addr;
	FD_AUTO int lock = -1;
	int error = address_of(path, &addr);

	*sock = -1;
	if (!error)
		error = lock_path(path, &lock);
	if (!error)
		error = remove_stale(path);
	if (error)
		return error;

	FD_AUTO int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	/* with this mode from the first moment: a client that waits for us must not be told that it may not connect */
	mode_t mask = umask(~(mode_t)mode & 0777);

	error = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ? -errno : 0;
	umask(mask);
	if (error)
		return error;
	if (chmod(path, (mode_t)mode) < 0 || listen(fd, backlog) < 0) {
		error = -errno;
		unlink(path);
		return error;
	}
	*sock = shmi_fd_pass(&fd);
	return 0;
}
