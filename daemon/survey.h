/* Surveys: a look at what clients have written in ctl, so that the figures of a heap are of now.
 *
 * Bitmaps and caches change without a word to the daemon. A survey is a job that reads them all, in steps of at most
 * POLICY_SURVEY_WORK words: first what the thread records cache, then the bitmap of each span, and brings the ledger up to date with them.
 * At its end a snapshot is taken (daemon/snapshot.h), for all who have asked before it began. Who asks while it runs is served
 * by the next one: what was done before the question is always in the answer.
 *
 * SURVEY_KEPT snapshots are kept, for the rows that are asked for page by page; a new one takes the place of the oldest of the user who
 * has most of them, so that nobody's questions push out what others still read. Of a heap that is fenced nothing in ctl is
 * read: its snapshot is taken at once.
 *
 * What a snapshot says of spans (whose, of what class, how many bytes) is of the moment at which it was taken; what it says of
 * slots, of the moment in the survey at which each was looked at: exact if no client was inside an allocation meanwhile.
 */
#ifndef DAEMON_SURVEY_H
#define DAEMON_SURVEY_H

#include "daemon/core.h"
#include "daemon/snapshot.h"

/* Begins to keep the heap's ledger. Returns 0 or -ENOMEM. */
int survey_open(struct core *core);
void survey_close(struct core *core);

/* wait->ready is called with the snapshot (NULL: there was no memory), perhaps before this returns. */
void survey_ask(struct core *core, struct survey_wait *wait);

/* The question is not asked any more. Harmless if it was answered, or never asked. */
void survey_forget(struct core *core, struct survey_wait *wait);

/* The snapshot that a cursor is of, or NULL if it is kept no longer. */
const struct snapshot *survey_kept(const struct core *core, uint64_t cursor);

#endif
