/* Where the looks of `shmallocctl top` come from: one connection, one question at a time, never waited for.
 *
 *	away --begin: connect, HELLO--> hello --HELLO_OK--> stats --STATS--> clients --CLIENTS, the last--> idle
 *	                                                      ^                  |  \--CLIENTS, more--> clients
 *	                                                      '------ begin -----'-- idle
 *
 * Whatever goes wrong leads to away, with a text that says what; the next begin tries again. The caller polls `sock` while the feed
 * is busy and calls top_feed_read when it is readable, and top_feed_expire at the deadline.
 */
#ifndef CLIENT_CTL_TOP_FEED_H
#define CLIENT_CTL_TOP_FEED_H

#include "client/ctl/ctl.h"
#include "client/ctl/top/model.h"

enum top_phase { TOP_AWAY, TOP_IDLING, TOP_HELLO, TOP_STATS, TOP_CLIENTS };

struct top_feed {
	const struct ctl *ctl;
	enum top_phase phase;
	int sock; /* -1: away */
	uint64_t serial, cursor;
	int64_t deadline_ns; /* of the answer; monotonic */
	char why[384]; /* away: what is wrong; "" as long as nothing was tried */
	struct wire_stats stats; /* of the look that is being taken */
	struct top_rows rows;
	struct top_buffers *buffers;
};

/* False without memory. */
bool top_feed_init(struct top_feed *feed, const struct ctl *ctl);
void top_feed_deinit(struct top_feed *feed);

/* Is an answer due? */
static inline bool top_feed_busy(const struct top_feed *feed)
{
	return feed->phase > TOP_IDLING;
}

/* Begins a look, if none is being taken. */
void top_feed_begin(struct top_feed *feed, int64_t now_ns);

/* Takes one answer. True if the look is complete: `stats` and `rows` are good. */
bool top_feed_read(struct top_feed *feed, int64_t now_ns);

/* Gives up if the answer is overdue. */
void top_feed_expire(struct top_feed *feed, int64_t now_ns);

#endif
