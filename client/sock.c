#include "client/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/chan.h"

#define SOCK_FROM 100 /* our descriptor's number, so that it is none that a program or a script takes for its own */

void shmi_sock_open(struct shmi_sock *sock, int fd)
{
	struct stat st = {0};

	(void)fstat(fd, &st);
	*sock = (struct shmi_sock){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
}

int shmi_sock_away(int fd)
{
	int moved = fd >= SOCK_FROM ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SOCK_FROM);

	if (moved < 0 && fd < 3)
		moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (moved < 0)
		return fd;
	(void)close(fd);
	return moved;
}

bool shmi_sock_is_there(const struct shmi_sock *sock)
{
	struct stat st;

	return sock->fd >= 0 && fstat(sock->fd, &st) == 0 && st.st_dev == sock->dev && st.st_ino == sock->ino;
}

void shmi_sock_close(struct shmi_sock *sock)
{
	if (shmi_sock_is_there(sock))
		(void)close(sock->fd);
	sock->fd = -1;
}

static int error_of(uint32_t code)
{
	switch (code) {
	case WIRE_E_VERSION:
	case WIRE_E_PROTOCOL:
		return EPROTO;
	case WIRE_E_NO_HEAP:
		return ENXIO;
	case WIRE_E_ACCESS:
	case WIRE_E_EVICTED:
		return EACCES;
	case WIRE_E_NO_MEMORY:
	case WIRE_E_LIMIT:
		return ENOMEM;
	case WIRE_E_NO_ROOM:
		return ENOSPC;
	case WIRE_E_NOT_FOUND:
		return ENOENT;
	case WIRE_E_EXISTS:
		return EEXIST;
	case WIRE_E_DAMAGED:
		return EIO;
	case WIRE_E_BAD_FREE:
		return EFAULT;
	default:
		return EINVAL;
	}
}

void shmi_channel_debug(const struct shma_heap *heap, const char *way, const struct wire_msg *msg)
{
	if (heap->debug)
		(void)dprintf(STDERR_FILENO, "shmalloc: %d %s %s #%llu%s%s\n", (int)getpid(), way,
		        shmi_wire_kind_name(msg->kind), (unsigned long long)msg->serial,
		        msg->kind == WIRE_ERROR ? ": " : "", msg->kind == WIRE_ERROR ? msg->u.error.text : "");
}

int shmi_channel_receive(struct shma_heap *heap, int sock, uint64_t serial, int *fds, int64_t deadline)
{
	struct shmi_buffers *b = heap->buffers;

	for (;;) {
		unsigned n_fds = WIRE_FDS;
		size_t len;

		if (shmi_chan_wait(sock, 0, deadline) != 0)
			return EAGAIN;
		int error = shmi_chan_recv(sock, b->in, sizeof(b->in), &len, fds, fds ? &n_fds : NULL);

		if (error == CHAN_E_AGAIN)
			continue;
		if (error)
			return ECONNRESET;
		if (shmi_codec_decode(&b->reply, &b->scratch, b->in, len) != 0)
			return EPROTO;
		shmi_channel_debug(heap, "<-", &b->reply);
		if (b->reply.kind == WIRE_ATTACH_OK && (!fds || n_fds != WIRE_FDS))
			return EPROTO;
		if (b->reply.serial == serial)
			return b->reply.kind == WIRE_ERROR ? error_of(b->reply.u.error.code) : 0;
	}
}

int shmi_channel_send(int sock, const unsigned char *bytes, size_t len, int64_t deadline)
{
	for (;;) {
		int error = shmi_chan_send(sock, bytes, len, NULL, 0);

		if (error != CHAN_E_AGAIN)
			return error ? ECONNRESET : 0;
		if (shmi_chan_wait(sock, 1, deadline) != 0)
			return EAGAIN;
	}
}
