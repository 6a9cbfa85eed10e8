/* What the HTTP listener shows: figures, metrics and the map of heaps, collected from the cores and written down as text.
 *
 * Figures come from a survey (daemon/survey.h), the map from a walk over the runs. Both, and the writing, are jobs of the core's with
 * one step per turn of the loop like all others, so whoever asks holds up nobody. One thing is made at a time, and kept for a
 * while (POLICY_HTTP_FRESH_MS): however many ask, a heap is looked at no more often.
 *
 *	text = feed_get(feed, &ask);
 *	... NULL: it is being made, or something else is; `done` is called, then ask again
 *	... text->pieces
 *	feed_put(text);
 *
 * The rows are those that queries over the socket get (daemon/query.h); the writers are those of shmallocctl (proto/report/).
 */
#ifndef DAEMON_FEED_H
#define DAEMON_FEED_H

#include "daemon/core.h"
#include "daemon/survey.h"
#include "proto/report/map.h"
#include "proto/report/report.h"

/* Counted: the cache and each reply that is being sent have it. In pieces, since one that grows to megabytes would be copied, and its
 * pages touched for the first time, in one go. */
struct text {
	uint32_t refs;
	uint32_t n_pieces;
	struct piece {
		char *bytes;
		size_t len;
	} * pieces;
};

enum feed_kind {
	FEED_STATS, /* JSON of one heap */
	FEED_METRICS, /* for Prometheus, of all heaps */
	FEED_MAP, /* JSON of the runs of one heap */
	FEED_KINDS
};

struct feed_ask {
	enum feed_kind kind;
	uint32_t heap; /* index; FEED_METRICS: not looked at */
	uint32_t from, to; /* FEED_MAP: pages */
};

/* A heap that there are figures of. */
struct feed_source {
	struct core *core;
	uint32_t backing; /* as in struct wire_heap_row */
};

/* What is known of it. */
struct feed_heap {
	struct feed *feed;
	struct core *core;
	uint32_t backing;
	struct survey_wait wait;
	uint64_t taken_ms; /* when the rows were collected; 0: never */
	struct report *report; /* of the rows below */
	struct wire_client_row *clients;
	struct wire_user_row *users;
	struct wire_class_row *classes;
	struct wire_heap_row *heaps;
	struct text *json; /* of these rows; NULL: not written yet */
};

struct feed {
	struct feed_heap *heaps;
	struct report *reports; /* of each of them */
	uint32_t n_heaps;
	struct text *metrics; /* of rows that are as old as `metrics_ms` */
	uint64_t metrics_ms;
	struct text *map; /* of `map_ask` */
	struct feed_ask map_ask;
	uint64_t map_ms;

	struct job job;
	bool busy; /* with `now` */
	bool failed; /* the last one could not be made */
	struct feed_ask now;
	uint64_t began_ms; /* it */
	uint32_t heap; /* whose queue the job is in */
	struct report_map *drawing; /* FEED_MAP: the runs ... */
	uint64_t cursor; /* ... up to here */
	bool drawn; /* all of them */
	struct feed_writer *writer; /* daemon/feedtext.h */

	void (*done)(void *ctx); /* something was made, or could not be: from within a job, so it only takes note */
	void *ctx;
};

/* Returns 0 or -ENOMEM. */
int feed_init(struct feed *feed, const struct feed_source *sources, uint32_t n, void (*done)(void *ctx), void *ctx);
void feed_deinit(struct feed *feed);

/* The heap of that name; NULL: the first. -1: there is none. */
int feed_heap(const struct feed *feed, const char *name);

/* The text if there is a fresh one: the caller's, until feed_put. NULL with *failed: it cannot be made. NULL otherwise: later. */
struct text *feed_get(struct feed *feed, const struct feed_ask *ask, bool *failed);
void feed_put(struct text *text);

#endif
