#include "client/ctl/top/feed.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client/ctl/show.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "proto/fd.h"
#include "shm/layout.h"

#define ROWS_MOST 65536u /* clients have ids of 16 bits */
#define WHY_TEXT 300u /* bytes of what a daemon says when it refuses */

struct top_buffers {
	struct wire_msg message;
	struct codec_scratch scratch;
	unsigned char bytes[WIRE_MAX];
};

bool top_feed_init(struct top_feed *feed, const struct ctl *ctl)
{
	*feed = (struct top_feed){.ctl = ctl, .sock = -1, .buffers = malloc(sizeof(*feed->buffers))};
	return feed->buffers;
}

void top_feed_deinit(struct top_feed *feed)
{
	shmi_fd_close(&feed->sock);
	free(feed->rows.row);
	free(feed->buffers);
}

__attribute__((format(printf, 2, 3))) static void leave(struct top_feed *feed, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(feed->why, sizeof(feed->why), format, args);
	va_end(args);
	shmi_fd_close(&feed->sock);
	feed->phase = TOP_AWAY;
	feed->rows.n = 0;
}

/* ---- questions ---- */

static void ask(struct top_feed *feed, enum top_phase phase, int64_t now_ns)
{
	struct top_buffers *b = feed->buffers;
	size_t len;

	b->message.serial = ++feed->serial;
	feed->phase = phase;
	feed->deadline_ns = now_ns + (int64_t)feed->ctl->timeout_s * 1000000000;
	if (shmi_codec_encode(&b->message, &b->scratch, b->bytes, sizeof(b->bytes), &len) != 0)
		leave(feed, "a heap's name has at most %u bytes", WIRE_NAME - 1);
	else if (shmi_chan_send(feed->sock, b->bytes, len, NULL, 0) != 0)
		leave(feed, "it hung up");
}

static void ask_hello(struct top_feed *feed, int64_t now_ns)
{
	struct wire_msg *message = &feed->buffers->message;

	*message = (struct wire_msg){.kind = WIRE_HELLO,
	        .u.hello = {.protocol = WIRE_PROTOCOL, .version = SHMALLOC_VERSION, .label = "shmallocctl top"}};
	message->u.hello.layout_hash = shmi_layout_hash();
	ask(feed, TOP_HELLO, now_ns);
}

static void ask_rows(struct top_feed *feed, enum top_phase phase, int64_t now_ns)
{
	struct wire_msg *message = &feed->buffers->message;

	*message = (struct wire_msg){.kind = WIRE_QUERY,
	        .u.query = {.kind = phase == TOP_STATS ? WIRE_Q_STATS : WIRE_Q_CLIENTS, .cursor = feed->cursor}};
	snprintf(message->u.query.heap, sizeof(message->u.query.heap), "%s", feed->ctl->heap);
	ask(feed, phase, now_ns);
}

void top_feed_begin(struct top_feed *feed, int64_t now_ns)
{
	if (top_feed_busy(feed))
		return;
	feed->cursor = 0;
	feed->rows.n = 0;
	if (feed->phase == TOP_IDLING) {
		ask_rows(feed, TOP_STATS, now_ns);
		return;
	}
	int error = shmi_chan_connect(feed->ctl->socket, &feed->sock);

	if (error)
		leave(feed, "%s",
		        error == -ENOENT || error == -ECONNREFUSED ? "nobody listens there" : strerror(-error));
	else
		ask_hello(feed, now_ns);
}

/* ---- answers ---- */

static bool receive(struct top_feed *feed)
{
	static const enum wire_kind wanted[] = {
	        [TOP_HELLO] = WIRE_HELLO_OK, [TOP_STATS] = WIRE_STATS, [TOP_CLIENTS] = WIRE_CLIENTS};
	struct top_buffers *b = feed->buffers;
	char text[4 * WIRE_TEXT];
	size_t len;

	if (shmi_chan_recv(feed->sock, b->bytes, sizeof(b->bytes), &len, NULL, NULL) != 0) {
		leave(feed, "it hung up");
		return false;
	}
	if (shmi_codec_decode(&b->message, &b->scratch, b->bytes, len) != 0 || b->message.serial != feed->serial) {
		leave(feed, "its answer makes no sense");
		return false;
	}
	if (b->message.kind == WIRE_ERROR) {
		report_clean(b->message.u.error.text, text, sizeof(text));
		if (!text[0])
			snprintf(text, sizeof(text), "%s", shmi_wire_strerror(b->message.u.error.code));
		leave(feed, "it refuses: %.*s", (int)report_fit(text, WHY_TEXT), text);
		return false;
	}
	if (b->message.kind != wanted[feed->phase]) {
		leave(feed, "its answer is to another question");
		return false;
	}
	return true;
}

/* True if these were the last. */
static bool take_clients(struct top_feed *feed, int64_t now_ns)
{
	const struct wire_clients *clients = &feed->buffers->message.u.clients;
	uint64_t next = clients->next;

	if ((next && next <= feed->cursor) || feed->rows.n >= ROWS_MOST) {
		leave(feed, "its answers have no end");
		return false;
	}
	if (!top_rows_add(&feed->rows, clients->rows, clients->n_rows)) {
		leave(feed, "there is no memory here for its answer");
		return false;
	}
	feed->cursor = next;
	if (next)
		ask_rows(feed, TOP_CLIENTS, now_ns);
	else
		feed->phase = TOP_IDLING;
	return !next;
}

bool top_feed_read(struct top_feed *feed, int64_t now_ns)
{
	if (!top_feed_busy(feed) || !receive(feed))
		return false;
	if (feed->phase == TOP_CLIENTS)
		return take_clients(feed, now_ns);
	if (feed->phase == TOP_STATS)
		feed->stats = feed->buffers->message.u.stats;
	ask_rows(feed, feed->phase == TOP_HELLO ? TOP_STATS : TOP_CLIENTS, now_ns);
	return false;
}

void top_feed_expire(struct top_feed *feed, int64_t now_ns)
{
	if (top_feed_busy(feed) && now_ns >= feed->deadline_ns)
		leave(feed, "it has not answered for %u s", feed->ctl->timeout_s);
}
