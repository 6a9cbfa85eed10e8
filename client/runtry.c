/* Whether the daemon would have the program. The library that is preloaded says nothing when it is refused, and the C library's malloc
 * serves instead: so we become a client of that heap before, as the program will, with the library's own means, and leave again.
 * What the daemon answers is ours to say. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/heap.h"
#include "client/run.h"

static const char *const advice[] = {
        [WIRE_E_VERSION] = "; use the shmalloc-run that came with the daemon",
        [WIRE_E_NO_HEAP] = "; say which with --heap or SHMALLOC_HEAP",
        [WIRE_E_ACCESS] = "; have yourself let in there",
        [WIRE_E_NO_ROOM] = "; try again when there are fewer",
};

#define N_ADVICE (sizeof(advice) / sizeof(advice[0]))

static const char *way_out(const struct run *run)
{
	return run->usual ? "; or set SHMALLOC_SOCKET to where no daemon is, and a private one is started" : "";
}

static int refused(const struct run *run, const struct wire_error *error)
{
	const char *what = error->code < N_ADVICE ? advice[error->code] : NULL;
	char text[WIRE_TEXT];

	(void)snprintf(text, sizeof(text), "%s", error->text[0] ? error->text : shmi_wire_strerror(error->code));
	for (char *c = text; *c; c++) /* whoever listens there writes to a terminal */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return run_fail(
	        "the daemon at %s refuses: %s%s%s", run->path, text, what ? what : "; see its log", way_out(run));
}

static int say_no_answer(const struct run *run, const struct shma_heap *heap, int error)
{
	if (error == EPROTO)
		return run_fail("what listens at %s is no shmalloc daemon%s", run->path, way_out(run));
	if (error == EAGAIN)
		return run_fail("the daemon at %s does not answer within %d ms: see whether it is stopped, or give it "
		                "more time with SHMALLOC_TIMEOUT_MS%s",
		        run->path, heap->timeout_ms, way_out(run));
	return run_fail("the daemon at %s has gone away: see its log%s", run->path, way_out(run));
}

/* A limit of address space (ulimit -v) is the program's as well. */
static int say_no_room(const struct run *run, const struct wire_attach_ok *ok, int error)
{
	if (error != ENOMEM)
		return run_fail(
		        "the heap at %s cannot be mapped: %s; see the daemon's log", run->path, strerror(error));
	return run_fail(
	        "the heap needs %llu MiB of address space, which there are not; see 'ulimit -v', or take a smaller "
	        "heap%s",
	        (unsigned long long)((ok->meta_bytes + ok->ctl_bytes + ok->data_bytes) >> 20),
	        run->private ? " with --size" : "");
}

/* Waited for: what we had counts no more when the program comes. */
static int leave(const struct run *run, struct shma_heap *heap)
{
	shmi_heap_unlease(heap);
	shmi_channel_lock(heap);
	heap->buffers->request.kind = WIRE_DETACH;
	int error = shmi_channel_call(heap, NULL);

	shmi_channel_unlock(heap);
	return error ? say_no_answer(run, heap, error) : 0;
}

static int attach_and_leave(const struct run *run, struct shma_heap *heap)
{
	const struct wire_msg *reply = &heap->buffers->reply;
	int fds[WIRE_FDS] = {-1, -1, -1};
	struct wire_attach_ok ok;
	int error = shmi_channel_open(heap, false, fds, &ok, shmi_channel_deadline(heap));

	if (error)
		return reply->kind == WIRE_ERROR ? refused(run, &reply->u.error) : say_no_answer(run, heap, error);
	heap->proc->client = ok.client;
	heap->proc->nonce = ok.nonce;
	error = shmi_heap_map(heap, fds, &ok);
	for (unsigned i = 0; i < WIRE_FDS; i++)
		(void)close(fds[i]);
	int failed = error ? say_no_room(run, &ok, error) : 0, left = leave(run, heap);

	return failed ? failed : left;
}

int run_try(const struct run *run)
{
	const char *program = strrchr(run->program[0], '/');
	struct shma_options options = {.size = sizeof(options),
	        .socket = run->path,
	        .heap = run_heap(run),
	        .label = run->label ? run->label
	                 : program  ? program + 1
	                            : run->program[0],
	        .timeout_ms = shmi_env_timeout_ms(0)};
	struct shmi_target target;
	int error = shmi_target_resolve(&options, &target);

	if (error)
		return run_fail("a heap's name has at most %u bytes", WIRE_NAME - 1);
	struct shma_heap *heap = shmi_heap_new(&target, 0);

	if (!heap)
		return run_fail("no memory to speak with the daemon");
	error = attach_and_leave(run, heap);
	shmi_heap_drop(heap);
	return error;
}
