/* The neighbour that nobody wants, on a daemon that others use as well: what tests/system/tenants.sh runs beside them.
 *
 *	neighbour idle      attaches, holds a little, and sleeps
 *	neighbour over      takes memory until it is refused, and goes on asking for more
 *	neighbour flood     asks for spans and for statistics over many connections, as fast as it is answered
 *
 * The daemon and the heap are those of $SHMALLOC_SOCKET and $SHMALLOC_HEAP. Says "ready" on standard output, goes on until standard
 * input is closed, and then says what it got: "asked N refused M". Exit status 0, or 1 and a line on standard error.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"

#define check(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "neighbour: line %d: %s (errno %d: %s)\n", __LINE__, #what, errno,             \
			        strerror(errno));                                                                      \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static unsigned long long asked, refused;

static void say_ready(void)
{
	puts("ready");
	check(fflush(stdout) == 0);
}

/* Standard input has been closed. */
static bool is_over(int wait_ms)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};

	return poll(&in, 1, wait_ms) > 0;
}

static void idle(void)
{
	check(shma_malloc(1000) != NULL);
	say_ready();
	while (!is_over(-1))
		;
}

/* ---- over its limit ---- */

#define BLOCK 65536u /* of a span class */
#define BIG (4u << 20) /* a span of its own */
#define KEPT 65536u

static void over(void)
{
	static void *kept[KEPT];
	size_t n = 0;
	bool ready = false;

	check(shma_default() != NULL);
	while (!(asked % 64 == 0 && is_over(0))) {
		size_t at = n < KEPT ? n : asked % KEPT;
		void *block = shma_heap_alloc(shma_default(), asked % 3 ? BLOCK : BIG, 0, SHMA_SCOPED);

		asked++;
		if (!block) {
			check(errno == ENOMEM);
			refused++;
			if (!ready)
				say_ready();
			ready = true;
			if (n && refused % 8 == 0) /* and a little coming and going */
				shma_free(kept[--n]);
			continue;
		}
		memset(block, 1, 4096);
		if (at < n)
			shma_free(kept[at]);
		kept[at] = block;
		n += at == n;
	}
}

/* ---- a flood ---- */

#define CONNECTIONS 16u
#define SPANS 4u

struct line {
	int sock;
	uint64_t serial;
	struct wire_refill_ok granted;
};

static struct codec_scratch scratch;
static unsigned char bytes[WIRE_MAX];
static struct wire_msg msg;

static void send_msg(struct line *line)
{
	size_t len = 0;

	msg.serial = line->serial;
	check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
	check(shmi_chan_send(line->sock, bytes, len, NULL, 0) == 0);
	asked++;
}

static void receive(struct line *line, bool attach)
{
	int fds[WIRE_FDS];
	unsigned n = WIRE_FDS;
	size_t len = 0;

	check(shmi_chan_recv(line->sock, bytes, sizeof(bytes), &len, attach ? fds : NULL, attach ? &n : NULL) == 0);
	for (unsigned i = 0; attach && i < n; i++)
		close(fds[i]);
	check(shmi_codec_decode(&msg, &scratch, bytes, len) == 0);
	refused += msg.kind == WIRE_ERROR;
}

static void open_line(struct line *line)
{
	const char *heap = getenv("SHMALLOC_HEAP");

	check(shmi_chan_connect(getenv("SHMALLOC_SOCKET"), &line->sock) == 0);
	msg = (struct wire_msg){.kind = WIRE_HELLO};
	msg.u.hello =
	        (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "flood"};
	send_msg(line);
	receive(line, false);
	msg = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(msg.u.attach.heap, sizeof(msg.u.attach.heap), "%s", heap ? heap : "default");
	send_msg(line);
	receive(line, true);
	check(msg.kind == WIRE_ATTACH_OK);
}

/* Spans, which are given back with the next request; every fourth connection asks for statistics instead. */
static void ask_again(struct line *line, unsigned i)
{
	if (i % 4 == 3) {
		msg = (struct wire_msg){.kind = WIRE_QUERY, .u.query.kind = WIRE_Q_CLIENTS};
		snprintf(msg.u.query.heap, sizeof(msg.u.query.heap), "%s", getenv("SHMALLOC_HEAP"));
	} else {
		struct wire_refill *refill = &msg.u.refill;

		memset(&msg, 0, offsetof(struct wire_msg, u));
		msg.kind = WIRE_REFILL;
		*refill = (struct wire_refill){.n_wants = 1, .wants[0] = {.sclass = 20, .spans = SPANS}};
		for (uint32_t g = 0; g < line->granted.n_grants; g++)
			refill->returns[refill->n_returns++] =
			        (struct wire_span){line->granted.grants[g].page, line->granted.grants[g].generation};
	}
	line->serial++;
	send_msg(line);
}

static void answered(struct line *line)
{
	receive(line, false);
	line->granted.n_grants = 0;
	if (msg.kind == WIRE_REFILL_OK)
		line->granted = msg.u.refill_ok;
}

static void flood(void)
{
	static struct line lines[CONNECTIONS];
	struct pollfd fds[CONNECTIONS];

	for (unsigned i = 0; i < CONNECTIONS; i++) {
		open_line(&lines[i]);
		fds[i] = (struct pollfd){.fd = lines[i].sock, .events = POLLIN};
		ask_again(&lines[i], i);
	}
	say_ready();
	while (!is_over(0)) {
		check(poll(fds, CONNECTIONS, 10000) > 0);
		for (unsigned i = 0; i < CONNECTIONS; i++)
			if (fds[i].revents) {
				answered(&lines[i]);
				ask_again(&lines[i], i);
			}
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} kinds[] = {{"idle", idle}, {"over", over}, {"flood", flood}};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (argc == 2 && !strcmp(argv[1], kinds[i].name)) {
			kinds[i].run();
			printf("asked %llu refused %llu\n", asked, refused);
			return 0;
		}
	fputs("usage: neighbour idle|over|flood\n", stderr);
	return 2;
}
