/* The connection to the daemon: one question, one answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/ctl.h"
#include "client/ctl/show.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "proto/fd.h"
#include "shm/layout.h"

struct ctl_buffers {
	struct wire_msg reply;
	struct codec_scratch scratch;
	unsigned char bytes[WIRE_MAX];
};

static int unreachable(struct ctl *ctl, int error)
{
	switch (error) {
	case -ENOENT:
	case -ECONNREFUSED:
		return ctl_fail(ctl, CTL_UNREACHABLE,
		        "no daemon listens at %s: start shmallocd, or say where it listens with --socket or "
		        "SHMALLOC_SOCKET",
		        ctl->socket);
	case -EACCES:
	case -EPERM:
		return ctl_fail(ctl, CTL_UNREACHABLE,
		        "you may not connect to %s: ask as the daemon's user or root, or have yourself let in there",
		        ctl->socket);
	case -EAGAIN:
		return ctl_fail(ctl, CTL_UNREACHABLE, "the daemon at %s has too many connections waiting: try again",
		        ctl->socket);
	default:
		return ctl_fail(ctl, CTL_UNREACHABLE,
		        "cannot connect to %s: %s: is it the socket of a shmalloc daemon?", ctl->socket,
		        strerror(-error));
	}
}

static int broken(struct ctl *ctl, int error)
{
	if (error == -ETIMEDOUT)
		return ctl_fail(ctl, CTL_UNREACHABLE,
		        "the daemon at %s did not answer within %u seconds: see whether it is stopped, or give it more "
		        "time with "
		        "--timeout",
		        ctl->socket, ctl->timeout_s);
	if (error == CHAN_E_TOO_LONG)
		return ctl_fail(ctl, CTL_FAILED, "the answer from %s is longer than a message can be", ctl->socket);
	return ctl_fail(ctl, CTL_UNREACHABLE, "the daemon at %s hung up: see its log, and try again", ctl->socket);
}

/* The reply to the request with this serial. Returns 0, -ETIMEDOUT or what shmi_chan_recv returns. */
static int receive(struct ctl *ctl, size_t *len, int64_t deadline)
{
	for (;;) {
		int error = shmi_chan_wait(ctl->sock, 0, deadline);

		if (!error)
			error = shmi_chan_recv(
			        ctl->sock, ctl->buffers->bytes, sizeof(ctl->buffers->bytes), len, NULL, NULL);
		if (error != CHAN_E_AGAIN)
			return error;
	}
}

static int refused(struct ctl *ctl, const struct wire_error *error)
{
	char text[4 * WIRE_TEXT];

	report_clean(error->text, text, sizeof(text));
	if (error->code == WIRE_E_NO_HEAP)
		return ctl_fail(ctl, CTL_FAILED, "%s: say which with --heap or SHMALLOC_HEAP", text);
	if (error->code == WIRE_E_VERSION)
		return ctl_fail(ctl, CTL_FAILED, "%s: use the shmallocctl that came with the daemon", text);
	return ctl_fail(ctl, CTL_FAILED, "the daemon refuses: %s", text[0] ? text : shmi_wire_strerror(error->code));
}

/* One request on an open connection. */
static int exchange(struct ctl *ctl, struct wire_msg *request, enum wire_kind want)
{
	struct ctl_buffers *b = ctl->buffers;
	int64_t deadline = shmi_chan_now_ns() + (int64_t)ctl->timeout_s * 1000000000;
	size_t len;

	request->serial = ctl->serial++;
	if (shmi_codec_encode(request, &b->scratch, b->bytes, sizeof(b->bytes), &len) != 0)
		return ctl_fail(ctl, CTL_USAGE, "a heap's name has at most %u bytes", WIRE_NAME - 1);
	int error = shmi_chan_send(ctl->sock, b->bytes, len, NULL, 0);

	if (!error)
		error = receive(ctl, &len, deadline);
	if (error)
		return broken(ctl, error);
	if (shmi_codec_decode(&b->reply, &b->scratch, b->bytes, len) != 0 || b->reply.serial != request->serial)
		return ctl_fail(ctl, CTL_FAILED, "the answer from %s makes no sense", ctl->socket);
	if (b->reply.kind == WIRE_ERROR)
		return refused(ctl, &b->reply.u.error);
	if (b->reply.kind != want)
		return ctl_fail(ctl, CTL_FAILED, "the answer from %s is to another question", ctl->socket);
	return CTL_OK;
}

static int open_link(struct ctl *ctl)
{
	struct wire_msg hello = {.kind = WIRE_HELLO,
	        .u.hello = {.protocol = WIRE_PROTOCOL, .version = SHMALLOC_VERSION, .label = "shmallocctl"}};
	int error = shmi_chan_connect(ctl->socket, &ctl->sock);

	if (error)
		return unreachable(ctl, error);
	ctl->buffers = malloc(sizeof(*ctl->buffers));
	if (!ctl->buffers)
		return ctl_fail(ctl, CTL_FAILED, "there is no memory");
	hello.u.hello.layout_hash = shmi_layout_hash();
	return exchange(ctl, &hello, WIRE_HELLO_OK);
}

int ctl_ask(struct ctl *ctl, struct wire_msg *request, enum wire_kind want, const struct wire_msg **reply)
{
	int status = ctl->buffers ? CTL_OK : open_link(ctl);

	if (status == CTL_OK)
		status = exchange(ctl, request, want);
	*reply = status == CTL_OK ? &ctl->buffers->reply : NULL;
	return status;
}

int ctl_query(struct ctl *ctl, enum wire_query_kind query, uint64_t cursor, enum wire_kind want,
        const struct wire_msg **reply)
{
	struct wire_msg request = {.kind = WIRE_QUERY, .u.query = {.kind = query, .cursor = cursor}};

	*reply = NULL;
	if (snprintf(request.u.query.heap, sizeof(request.u.query.heap), "%s", ctl->heap) >= (int)WIRE_NAME)
		return ctl_fail(ctl, CTL_USAGE, "a heap's name has at most %u bytes", WIRE_NAME - 1);
	return ctl_ask(ctl, &request, want, reply);
}

void ctl_hang_up(struct ctl *ctl)
{
	shmi_fd_close(&ctl->sock);
	free(ctl->buffers);
	ctl->buffers = NULL;
}
