/* The library's end of the control channel: one request at a time, repeated under its number when the daemon was away. */
#include "client/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/chan.h"

#define LOOK_NS 10000000ll /* what a free waits for a daemon that was away */
#define LOOK_AGAIN_NS 200000000ll /* and how long the next ones do not */
#define SOCK_FROM 100 /* our descriptor's number, so that it is none that a program or a script takes for its own */

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

static void debug_line(const struct shma_heap *heap, const char *way, const struct wire_msg *msg)
{
	if (heap->debug)
		(void)dprintf(STDERR_FILENO, "shmalloc: %d %s %s #%llu%s%s\n", (int)getpid(), way,
		        shmi_wire_kind_name(msg->kind), (unsigned long long)msg->serial,
		        msg->kind == WIRE_ERROR ? ": " : "", msg->kind == WIRE_ERROR ? msg->u.error.text : "");
}

int64_t shmi_channel_deadline(const struct shma_heap *heap)
{
	int ms = heap->hurry_ms && shmi_load(&heap->proc->look_ns) ? heap->hurry_ms : heap->timeout_ms;

	return ms < 0 ? INT64_MAX : shmi_chan_now_ns() + ms * (int64_t)1000000;
}

void shmi_channel_lock_until(struct shma_heap *heap, int64_t deadline)
{
	(void)pthread_mutex_lock(&heap->proc->lock);
	heap->proc->deadline = deadline;
}

void shmi_channel_lock(struct shma_heap *heap)
{
	shmi_channel_lock_until(heap, shmi_channel_deadline(heap));
}

bool shmi_channel_try(struct shma_heap *heap)
{
	struct shmi_proc *proc = heap->proc;

	shmi_channel_lock(heap);
	int64_t look = shmi_load(&proc->look_ns), now;

	if (!look)
		return true;
	now = shmi_chan_now_ns();
	if (now >= look) {
		proc->deadline = now + LOOK_NS;
		return true;
	}
	shmi_channel_unlock(heap);
	return false;
}

void shmi_channel_unlock(struct shma_heap *heap)
{
	(void)pthread_mutex_unlock(&heap->proc->lock);
}

static void open_sock(struct shmi_sock *sock, int fd)
{
	struct stat st = {0};

	(void)fstat(fd, &st);
	*sock = (struct shmi_sock){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
}

/* Out of the way: a program that starts with 0, 1 or 2 closed would read and write here. Under a low limit 3 is the best there is; without a
 * free descriptor it stays where it is. */
static int out_of_the_way(int fd)
{
	int moved = fd >= SOCK_FROM ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SOCK_FROM);

	if (moved < 0 && fd < 3)
		moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (moved < 0)
		return fd;
	(void)close(fd);
	return moved;
}

static bool is_there(const struct shmi_sock *sock)
{
	struct stat st;

	return sock->fd >= 0 && fstat(sock->fd, &st) == 0 && st.st_dev == sock->dev && st.st_ino == sock->ino;
}

void shmi_sock_close(struct shmi_sock *sock)
{
	if (is_there(sock))
		(void)close(sock->fd);
	sock->fd = -1;
}

static void hang_up(struct shma_heap *heap)
{
	shmi_sock_close(&heap->last_sock);
	heap->proc->sock = -1;
	if (heap->proc->outstanding)
		heap->proc->outstanding = 1;
}

/* Receives the reply with this serial; older ones, to requests that nobody waits for, are dropped. 0, EAGAIN (time is
 * up), EPROTO or ECONNRESET. */
static int receive(struct shma_heap *heap, int sock, uint64_t serial, int *fds, int64_t deadline)
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
		debug_line(heap, "<-", &b->reply);
		if (b->reply.kind == WIRE_ATTACH_OK && (!fds || n_fds != WIRE_FDS))
			return EPROTO;
		if (b->reply.serial == serial)
			return b->reply.kind == WIRE_ERROR ? error_of(b->reply.u.error.code) : 0;
	}
}

static int send_request(int sock, const unsigned char *bytes, size_t len, int64_t deadline)
{
	for (;;) {
		int error = shmi_chan_send(sock, bytes, len, NULL, 0);

		if (error != CHAN_E_AGAIN)
			return error ? ECONNRESET : 0;
		if (shmi_chan_wait(sock, 1, deadline) != 0)
			return EAGAIN;
	}
}

/* One message of the greeting; `in` is used for it, as no reply has come yet. */
static int greet(struct shma_heap *heap, int sock, const struct wire_msg *msg, int64_t deadline)
{
	struct shmi_buffers *b = heap->buffers;
	size_t len;

	debug_line(heap, "->", msg);
	if (shmi_codec_encode(msg, &b->scratch, b->in, sizeof(b->in), &len) != 0)
		return EINVAL;
	return send_request(sock, b->in, len, deadline);
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

	error = receive(heap, sock, 0, NULL, deadline);
	if (!error)
		error = unsaid ? unsaid : receive(heap, sock, 0, fds ? fds : spare, deadline);
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

/* `error` is what the reply in the buffer says. Of an eviction we take note: nothing that is asked later can end otherwise. */
static void note_eviction(struct shma_heap *heap, int error)
{
	const struct wire_msg *reply = &heap->buffers->reply;

	if (error == EACCES && reply->kind == WIRE_ERROR && reply->u.error.code == WIRE_E_EVICTED)
		heap->proc->lost = EACCES;
}

/* The daemon may be on its way: what says so is tried again until the deadline. */
static bool worth_waiting(int error)
{
	return error == ENOENT || error == ECONNREFUSED || error == ECONNRESET || error == EAGAIN;
}

int shmi_channel_open(struct shma_heap *heap, bool resume, int *fds, struct wire_attach_ok *ok, int64_t deadline)
{
	struct timespec pause = {.tv_nsec = 1000000};
	int failed = resume ? 0 : choose_nonce(&heap->proc->nonce);

	if (failed)
		return failed;
	for (;;) {
		int sock, error = -shmi_chan_connect(heap->socket, &sock);
		bool connected = !error;

		if (connected) {
			sock = out_of_the_way(sock);
			error = hello_and_attach(heap, sock, resume, fds, ok, deadline);
			if (!error) {
				open_sock(&heap->last_sock, sock);
				heap->proc->sock = sock;
				shmi_store(&heap->proc->look_ns, 0);
				return 0;
			}
			(void)close(sock);
		}
		if (connected && error == ENOENT) {
			heap->proc->lost = EIO;
			return EIO;
		}
		if (connected)
			note_eviction(heap, error);
		if (!worth_waiting(error))
			return error;
		int64_t now = shmi_chan_now_ns();

		if (now >= deadline) {
			shmi_store(&heap->proc->look_ns, now + LOOK_AGAIN_NS);
			return error;
		}
		/* Nothing tells when a daemon will listen: look again, at first soon. */
		(void)nanosleep(&pause, NULL);
		if (pause.tv_nsec < 20000000)
			pause.tv_nsec *= 2;
	}
}

/* The reply to the request has come; `error` is what it says. What a posted one named is not free: nobody waits there to say so. */
static void answered(struct shma_heap *heap, int error)
{
	struct shmi_proc *proc = heap->proc;

	if (error == EFAULT && proc->posted_free)
		shmi_misuse(&heap->env, SHMI_FREE_TWICE, shmi_page_off((shmi_page){proc->posted_free}).b);
	note_eviction(heap, error);
	proc->outstanding = 0;
}

/* Sends the request in the buffer, as often as the connection breaks, and receives its reply. */
static int finish(struct shma_heap *heap, int64_t deadline)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	struct shmi_proc *proc = heap->proc;
	struct wire_attach_ok ok;

	for (;;) {
		int error = 0;

		if (proc->lost)
			return proc->lost;
		if (!is_there(&heap->last_sock))
			hang_up(heap);
		if (proc->sock < 0)
			error = shmi_channel_open(heap, true, NULL, &ok, deadline);
		if (error == EIO && proc->lost && proc->detaching) {
			proc->outstanding = 0; /* nobody knows us any more: it has been done */
			return 0;
		}
		if (error)
			return worth_waiting(error) ? EAGAIN : error;
		if (proc->outstanding == 1)
			error = send_request(proc->sock, heap->buffers->out, heap->buffers->out_len, deadline);
		if (!error) {
			proc->outstanding = 2;
			error = receive(heap, proc->sock, proc->serial, NULL, deadline);
		}
		if (error != ECONNRESET) {
			if (error != EAGAIN)
				answered(heap, error);
			return error;
		}
		hang_up(heap);
		/* A daemon that lets us in and hangs up on this request is as good as away. */
		if (shmi_chan_now_ns() >= deadline)
			return EAGAIN;
		(void)nanosleep(&pause, NULL);
	}
}

static int begin(struct shma_heap *heap, struct wire_msg *msg)
{
	struct shmi_proc *proc = heap->proc;
	struct shmi_buffers *b = heap->buffers;

	msg->serial = ++proc->serial;
	if (shmi_codec_encode(msg, &b->scratch, b->out, sizeof(b->out), &b->out_len) != 0)
		return EINVAL;
	debug_line(heap, "->", msg);
	proc->outstanding = 1;
	proc->posted = proc->posted_free = 0;
	proc->detaching = msg->kind == WIRE_DETACH;
	proc->for_record = msg->kind == WIRE_THREAD && msg->u.thread.thread == SHMI_NO_THREAD;
	shmi_store(&proc->messages, shmi_load(&proc->messages) + 1);
	return 0;
}

/* The reply to a request whose caller has given up: what it brought must not be lost. */
static int deal_with_late(struct shma_heap *heap, int64_t deadline)
{
	struct wire_msg *reply = &heap->buffers->reply;

	if (reply->kind == WIRE_REFILL_OK)
		shmi_pool_late(heap, &reply->u.refill_ok);
	if (reply->kind == WIRE_THREAD_OK && heap->proc->for_record)
		shmi_thread_late(heap, reply->u.thread_ok.thread);
	if (reply->kind != WIRE_LARGE_OK)
		return 0;
	struct wire_span unwanted = {reply->u.large_ok.page, reply->u.large_ok.generation};

	reply->kind = WIRE_FREE;
	reply->u.free = (struct wire_free){.n_spans = 1, .spans = {unwanted}};
	int error = begin(heap, reply);

	return error ? error : finish(heap, deadline);
}

/* A request whose reply has not come goes first. EAGAIN if the reply still does not come. */
static int settle_late(struct shma_heap *heap, int64_t deadline)
{
	int error = finish(heap, deadline);

	if (!error)
		error = deal_with_late(heap, deadline);
	return heap->proc->outstanding ? error : 0;
}

int shmi_channel_settle(struct shma_heap *heap)
{
	struct shmi_proc *proc = heap->proc;
	int error = proc->outstanding ? settle_late(heap, proc->deadline) : 0;

	shmi_store(&proc->look_ns, error == EAGAIN ? shmi_chan_now_ns() + LOOK_AGAIN_NS : 0);
	return error;
}

/* What only gives something back needs no answer. */
static bool only_gives(const struct wire_msg *request)
{
	return request->kind == WIRE_FREE || (request->kind == WIRE_REFILL && !request->u.refill.n_wants);
}

static int call(struct shma_heap *heap, bool *sent, int64_t deadline)
{
	int error = heap->proc->outstanding ? settle_late(heap, deadline) : 0;

	if (!error)
		error = begin(heap, &heap->buffers->request);
	if (error)
		return error;
	*sent = true;
	return finish(heap, deadline);
}

/* Once a wait was in vain, a free does not wait any more, as each of thousands would: now and then one looks whether the
 * daemon is back. */
int shmi_channel_call(struct shma_heap *heap, bool *sent)
{
	int64_t look = shmi_load(&heap->proc->look_ns);
	bool began = false, hurry = look && only_gives(&heap->buffers->request);
	int64_t now = hurry ? shmi_chan_now_ns() : 0;
	int error = EAGAIN;

	if (!hurry || now >= look) {
		error = call(heap, &began, hurry ? now + LOOK_NS : heap->proc->deadline);
		shmi_store(&heap->proc->look_ns, error == EAGAIN ? shmi_chan_now_ns() + LOOK_AGAIN_NS : 0);
	}
	if (sent)
		*sent = began;
	return error;
}

bool shmi_channel_lock_if_idle(struct shma_heap *heap)
{
	return pthread_mutex_trylock(&heap->proc->lock) == 0;
}

bool shmi_channel_post(struct shma_heap *heap, uint32_t thread)
{
	struct shmi_proc *proc = heap->proc;
	struct wire_msg *request = &heap->buffers->request;

	if (proc->outstanding || proc->lost || shmi_load(&proc->look_ns) || !is_there(&heap->last_sock) ||
	        begin(heap, request))
		return false;
	proc->posted = thread + 1;
	proc->posted_free = request->u.refill.freed.n_spans ? request->u.refill.freed.spans[0].page : 0;
	if (shmi_chan_send(proc->sock, heap->buffers->out, heap->buffers->out_len, NULL, 0) == 0)
		proc->outstanding = 2; /* else it is sent again by whoever waits for the answer */
	return true;
}

/* Receives the reply if it is there. */
static int look(struct shma_heap *heap)
{
	if (heap->proc->outstanding != 2 || !is_there(&heap->last_sock))
		return EAGAIN;
	int error = receive(heap, heap->proc->sock, heap->proc->serial, NULL, 0);

	if (error == ECONNRESET)
		hang_up(heap);
	else if (error != EAGAIN)
		answered(heap, error);
	return error;
}

bool shmi_channel_collect(struct shma_heap *heap, bool wait)
{
	if (!heap->proc->outstanding || !heap->proc->posted)
		return false;
	int error = wait ? finish(heap, heap->proc->deadline) : look(heap);

	return !error;
}

void shmi_channel_farewell(struct shma_heap *heap)
{
	struct wire_msg *request = &heap->buffers->request;

	request->kind = WIRE_DETACH;
	if (!is_there(&heap->last_sock) || heap->proc->outstanding != 2 || begin(heap, request))
		return;
	(void)shmi_chan_send(heap->proc->sock, heap->buffers->out, heap->buffers->out_len, NULL, 0);
}
