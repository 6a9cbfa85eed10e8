#include "client/channel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "proto/chan.h"

/* One message of the greeting; `in` is used for it, as no reply has come yet. */
static int greet(struct shma_heap *heap, int sock, const struct wire_msg *msg, int64_t deadline)
{
	struct shmi_buffers *b = heap->buffers;
	size_t len;

	shmi_channel_debug(heap, "->", msg);
	if (shmi_codec_encode(msg, &b->scratch, b->in, sizeof(b->in), &len) != 0)
		return EINVAL;
	return shmi_channel_send(sock, b->in, len, deadline);
}

static int say_hello(struct shma_heap *heap, int sock, int64_t deadline)
{
	struct wire_msg *msg = &heap->buffers->reply;

	msg->kind = WIRE_HELLO;
	msg->serial = 0;
	msg->u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	(void)snprintf(msg->u.hello.version, sizeof(msg->u.hello.version), "%s", SHMALLOC_VERSION);
	(void)snprintf(msg->u.hello.label, sizeof(msg->u.hello.label), "%s", heap->label);
	return greet(heap, sock, msg, deadline);
}

static int say_attach(struct shma_heap *heap, int sock, bool resume, int64_t deadline)
{
	const struct shmi_proc *proc = heap->proc;
	struct wire_msg *msg = &heap->buffers->reply;

	msg->kind = WIRE_ATTACH;
	msg->serial = 0;
	msg->u.attach = (struct wire_attach){.resume = resume, .client = proc->client, .nonce = proc->nonce};
	(void)snprintf(msg->u.attach.heap, sizeof(msg->u.attach.heap), "%s", heap->name);
	return greet(heap, sock, msg, deadline);
}

/* Both are said at once, which saves a round trip: a daemon that refuses the first does not read the second. */
static int hello_and_attach(
        struct shma_heap *heap, int sock, bool resume, int *fds, struct wire_attach_ok *ok, int64_t deadline)
{
	int spare[WIRE_FDS] = {-1, -1, -1};
	int error = say_hello(heap, sock, deadline);

	if (error)
		return error;
	int unsaid = say_attach(heap, sock, resume, deadline); /* it may have hung up after its refusal */

	error = shmi_channel_receive(heap, sock, 0, NULL, deadline);
	if (!error)
		error = unsaid ? unsaid : shmi_channel_receive(heap, sock, 0, fds ? fds : spare, deadline);
	if (!error && heap->buffers->reply.kind != WIRE_ATTACH_OK)
		error = EPROTO;
	for (unsigned i = 0; i < WIRE_FDS; i++)
		if (spare[i] >= 0)
			(void)close(spare[i]);
	if (!error)
		*ok = heap->buffers->reply.u.attach_ok;
	return error;
}

/* With it an ATTACH whose answer was lost can be repeated: whoever has it already gets the same place again. */
static int choose_nonce(uint64_t *nonce)
{
	do
		if (getrandom(nonce, sizeof(*nonce), 0) != (ssize_t)sizeof(*nonce))
			return errno == EINTR ? EAGAIN : errno;
	while (!*nonce);
	return 0;
}

void shmi_channel_note_eviction(struct shma_heap *heap, int error)
{
	const struct wire_msg *reply = &heap->buffers->reply;

	if (error == EACCES && reply->kind == WIRE_ERROR && reply->u.error.code == WIRE_E_EVICTED)
		heap->proc->lost = EACCES;
}

bool shmi_channel_may_pass(int error)
{
	return error == ENOENT || error == ECONNREFUSED || error == ECONNRESET || error == EAGAIN;
}

/* One attempt. What a daemon says that knows us no longer, or has evicted us, is for good. */
static int try_to_open(struct shma_heap *heap, bool resume, int *fds, struct wire_attach_ok *ok, int64_t deadline)
{
	int sock, error = -shmi_chan_connect(heap->socket, &sock);

	if (error)
		return error;
	sock = shmi_sock_away(sock);
	error = hello_and_attach(heap, sock, resume, fds, ok, deadline);
	if (!error) {
		shmi_sock_open(&heap->last_sock, sock);
		heap->proc->sock = sock;
		shmi_store(&heap->proc->look_ns, 0);
		return 0;
	}
	(void)close(sock);
	if (error == ENOENT)
		return heap->proc->lost = EIO;
	shmi_channel_note_eviction(heap, error);
	return error;
}

/* Nothing tells when a daemon will listen: one looks again, at first soon. */
int shmi_channel_open(struct shma_heap *heap, bool resume, int *fds, struct wire_attach_ok *ok, int64_t deadline)
{
	struct timespec pause = {.tv_nsec = 1000000};
	int error = resume ? 0 : choose_nonce(&heap->proc->nonce);

	if (error)
		return error;
	while ((error = try_to_open(heap, resume, fds, ok, deadline)) != 0 && shmi_channel_may_pass(error)) {
		int64_t now = shmi_chan_now_ns();

		if (now >= deadline) {
			shmi_store(&heap->proc->look_ns, now + SHMI_LOOK_AGAIN_NS);
			break;
		}
		(void)nanosleep(&pause, NULL);
		if (pause.tv_nsec < 20000000)
			pause.tv_nsec *= 2;
	}
	return error;
}
