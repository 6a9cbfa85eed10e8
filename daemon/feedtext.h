/* The texts of daemon/feed.h, written a part at a time: a step is a few rows, so that it takes well under a millisecond. */
#ifndef DAEMON_FEEDTEXT_H
#define DAEMON_FEEDTEXT_H

#include "daemon/feed.h"

struct feed_writer;

/* NULL without memory. */
struct feed_writer *feedtext_new(void);
void feedtext_free(struct feed_writer *writer); /* NULL: nothing happens */

/* Writes the next part of what `feed` is busy with. True when that was the last one, or if there is no memory. */
bool feedtext_step(struct feed_writer *writer, const struct feed *feed);

/* The text; NULL if there was no memory for it. */
struct text *feedtext_take(struct feed_writer *writer);

#endif
