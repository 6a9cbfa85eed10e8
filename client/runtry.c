/* Whether the daemon would have the program. The library that is preloaded says nothing when it is refused, and the C library's malloc
 * serves instead: so we become a client of that heap before, as the program will, and leave again. What the daemon answers is
 * ours to say. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "client/run.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "proto/fd.h"
#include "shm/layout.h"

/* The longest wait for answers, unless $SHMALLOC_TIMEOUT_MS says otherwise, as it does for the library. */
#define TRY_MS 5000

struct trial {
	const struct run *run;
	int sock, fds[WIRE_FDS];
	int ms;
	int64_t deadline;
	struct wire_msg msg; /* what is said, and then the answer */
	struct codec_scratch scratch;
	unsigned char bytes[WIRE_MAX];
};

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

static int refused(const struct trial *t)
{
	const struct wire_error *error = &t->msg.u.error;
	const char *what = error->code < N_ADVICE ? advice[error->code] : NULL;
	char text[WIRE_TEXT];

	(void)snprintf(text, sizeof(text), "%s", error->text[0] ? error->text : shmi_wire_strerror(error->code));
	for (char *c = text; *c; c++) /* whoever listens there writes to a terminal */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return run_fail(
	        "the daemon at %s refuses: %s%s%s", t->run->path, text, what ? what : "; see its log", way_out(t->run));
}

/* Receives the answer with this serial. Returns 0, a negative errno or a CHAN_E code. */
static int receive(struct trial *t, uint64_t serial)
{
	for (;;) {
		unsigned n_fds = WIRE_FDS;
		size_t len;
		int error = shmi_chan_wait(t->sock, 0, t->deadline);

		if (!error)
			error = shmi_chan_recv(t->sock, t->bytes, sizeof(t->bytes), &len, t->fds, &n_fds);
		if (error == CHAN_E_AGAIN)
			continue;
		if (error)
			return error;
		for (unsigned i = 0; i < n_fds; i++)
			shmi_fd_close(&t->fds[i]);
		if (shmi_codec_decode(&t->msg, &t->scratch, t->bytes, len) != 0)
			return -EPROTO;
		if (t->msg.serial == serial)
			return 0;
	}
}

/* Says t->msg, of kind `say`. Returns 0 if the answer is of kind `want`, RUN_FAILED if it is a refusal, which has been said; a negative
 * errno or a smaller CHAN_E code if there is none. */
static int ask(struct trial *t, enum wire_kind say, enum wire_kind want, uint64_t serial)
{
	size_t len;

	t->msg.kind = say;
	t->msg.serial = serial;
	if (shmi_codec_encode(&t->msg, &t->scratch, t->bytes, sizeof(t->bytes), &len) != 0)
		return -EPROTO;
	int error = shmi_chan_send(t->sock, t->bytes, len, NULL, 0);

	if (!error)
		error = receive(t, serial);
	if (error)
		return error;
	if (t->msg.kind == WIRE_ERROR)
		return refused(t);
	return t->msg.kind == want ? 0 : -EPROTO;
}

/* Whether there is address space to map the heap in: a limit of it (ulimit -v) is the program's as well. */
static int look_for_room(const struct trial *t, const struct wire_attach_ok *ok)
{
	uint64_t bytes = ok->meta_bytes + ok->ctl_bytes + ok->data_bytes;
	void *room = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return run_fail(
		        "the heap needs %llu MiB of address space, which there are not: %s; see 'ulimit -v', or "
		        "take a smaller heap%s",
		        (unsigned long long)(bytes >> 20), strerror(errno), t->run->private ? " with --size" : "");
	(void)munmap(room, bytes);
	return 0;
}

static int attach_and_leave(struct trial *t)
{
	const char *program = strrchr(t->run->program[0], '/');
	const char *name = t->run->label ? t->run->label : program ? program + 1 : t->run->program[0];
	struct wire_hello hello = {
	        .protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .version = SHMALLOC_VERSION};

	(void)snprintf(hello.label, sizeof(hello.label), "%s", name);
	t->msg.u.hello = hello;
	int error = ask(t, WIRE_HELLO, WIRE_HELLO_OK, 0);

	if (error)
		return error;
	t->msg.u.attach = (struct wire_attach){0};
	if (snprintf(t->msg.u.attach.heap, WIRE_NAME, "%s", run_heap(t->run)) >= (int)WIRE_NAME)
		return run_fail("a heap's name has at most %u bytes", WIRE_NAME - 1);
	error = ask(t, WIRE_ATTACH, WIRE_ATTACH_OK, 0);
	if (error)
		return error;
	error = look_for_room(t, &t->msg.u.attach_ok);
	int left = ask(t, WIRE_DETACH, WIRE_OK, 1); /* waited for: what we had counts no more when the program comes */

	return error ? error : left;
}

static int try_once(struct trial *t)
{
	int error = shmi_chan_connect(t->run->path, &t->sock);

	if (error)
		return error;
	error = attach_and_leave(t);
	shmi_fd_close(&t->sock);
	return error;
}

static int say_no_answer(const struct trial *t, int error)
{
	if (error == -EPROTO)
		return run_fail("what listens at %s is no shmalloc daemon%s", t->run->path, way_out(t->run));
	if (error == -ETIMEDOUT || error == -EAGAIN)
		return run_fail("the daemon at %s does not answer within %d ms: see whether it is stopped, or give it "
		                "more time with SHMALLOC_TIMEOUT_MS%s",
		        t->run->path, t->ms, way_out(t->run));
	return run_fail("the daemon at %s has gone away: see its log%s", t->run->path, way_out(t->run));
}

int run_try(const struct run *run)
{
	const struct timespec pause = {.tv_nsec = 10000000};
	const char *given = getenv("SHMALLOC_TIMEOUT_MS");
	long ms = given ? strtol(given, NULL, 10) : 0;
	struct trial *t = calloc(1, sizeof(*t));
	int error;

	if (!t)
		return run_fail("no memory to speak with the daemon");
	t->run = run;
	t->ms = ms > 0 && ms <= 3600000 ? (int)ms : TRY_MS;
	t->deadline = shmi_chan_now_ns() + t->ms * (int64_t)1000000;
	for (;;) { /* what ends is perhaps on its way back, and nothing tells when it listens */
		error = try_once(t);
		if (error == 0 || error == RUN_FAILED || error == -EPROTO || shmi_chan_now_ns() >= t->deadline)
			break;
		(void)nanosleep(&pause, NULL);
	}
	if (error && error != RUN_FAILED)
		error = say_no_answer(t, error);
	free(t);
	return error;
}
