/* The library's end of the control channel: one request at a time, repeated under its number when the daemon was away. */
#include "client/channel.h"

#include <errno.h>
#include <time.h>

#include "proto/chan.h"

#define LOOK_NS 10000000ll /* what a free waits for a daemon that was away */

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

static void hang_up(struct shma_heap *heap)
{
	shmi_sock_close(&heap->last_sock);
	heap->proc->sock = -1;
	if (heap->proc->outstanding)
		heap->proc->outstanding = 1;
}

/* The reply to the request has come; `error` is what it says. What a posted one named is not free: nobody waits there to say so. */
static void answered(struct shma_heap *heap, int error)
{
	struct shmi_proc *proc = heap->proc;

	if (error == EFAULT && proc->posted_free)
		shmi_misuse(&heap->env, SHMI_FREE_TWICE, shmi_page_off((shmi_page){proc->posted_free}).b);
	shmi_channel_note_eviction(heap, error);
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
		if (!shmi_sock_is_there(&heap->last_sock))
			hang_up(heap);
		if (proc->sock < 0)
			error = shmi_channel_open(heap, true, NULL, &ok, deadline);
		if (error == EIO && proc->lost && proc->detaching) {
			proc->outstanding = 0; /* nobody knows us any more: it has been done */
			return 0;
		}
		if (error)
			return shmi_channel_may_pass(error) ? EAGAIN : error;
		if (proc->outstanding == 1)
			error = shmi_channel_send(proc->sock, heap->buffers->out, heap->buffers->out_len, deadline);
		if (!error) {
			proc->outstanding = 2;
			error = shmi_channel_receive(heap, proc->sock, proc->serial, NULL, deadline);
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
	shmi_channel_debug(heap, "->", msg);
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

	shmi_store(&proc->look_ns, error == EAGAIN ? shmi_chan_now_ns() + SHMI_LOOK_AGAIN_NS : 0);
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
		shmi_store(&heap->proc->look_ns, error == EAGAIN ? shmi_chan_now_ns() + SHMI_LOOK_AGAIN_NS : 0);
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

	if (proc->outstanding || proc->lost || shmi_load(&proc->look_ns) || !shmi_sock_is_there(&heap->last_sock) ||
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
	if (heap->proc->outstanding != 2 || !shmi_sock_is_there(&heap->last_sock))
		return EAGAIN;
	int error = shmi_channel_receive(heap, heap->proc->sock, heap->proc->serial, NULL, 0);

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
	if (!shmi_sock_is_there(&heap->last_sock) || heap->proc->outstanding != 2 || begin(heap, request))
		return;
	(void)shmi_chan_send(heap->proc->sock, heap->buffers->out, heap->buffers->out_len, NULL, 0);
}
