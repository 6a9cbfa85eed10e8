/* A report: what a daemon knows about one heap at one moment, and how it is written down.
 *
 *	struct report report = {.stats = ..., .clients = rows, .n_clients = n, ..., .version = SHMALLOC_VERSION};
 *	json_t *json = report_json(&report);              // one heap
 *	report_prometheus(&report, 1, stdout);            // any number of heaps in one exposition
 *
 * Every figure stands once in the table of metrics (report_metrics), with its key in JSON, its label in text, its name for
 * Prometheus, its type and what it means; all writers walk that table. A figure that is not in the table appears nowhere.
 *
 * JSON has a `schema`. It is raised when a key goes, or changes its meaning, type or unit; keys may be added under the same one,
 * so a reader has to pass over those that it does not know. Keys say their unit: _bytes, _ms, _us; all else are counts.
 *
 * For Prometheus names begin with shmalloc_, units are bytes and seconds, and counters end in _total. Labels are bounded: `heap`;
 * `class` (a span class); `user` (a uid); `client` (its id in the heap) with `label`. The REPORT_EACH biggest clients and users are
 * given one by one and all others as one sum named "other": a client can be among these at one moment and not at the next, so a
 * counter of "other" may go down. Texts that come from clients are made printable and escaped.
 *
 * No function keeps anything; any thread may call any of them.
 */
#ifndef PROTO_REPORT_REPORT_H
#define PROTO_REPORT_REPORT_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "proto/wire.h"

#define REPORT_SCHEMA 1
#define REPORT_EACH 64u /* clients, and users, that Prometheus is told of one by one */
#define REPORT_PAGE 8192u /* bytes of a page of a heap */
#define REPORT_TEXT 512u /* room for a label or name, all of it escaped */

/* The rows belong to the caller. Any of them may be missing (none, NULL). */
struct report {
	struct wire_stats stats;
	uint32_t n_clients, n_users, n_classes, n_heaps;
	const struct wire_client_row *clients;
	const struct wire_user_row *users;
	const struct wire_class_row *classes;
	const struct wire_heap_row *heaps; /* all heaps of the daemon, this one among them; only in JSON */
	const char *version; /* of the daemon or program; NULL: not told */
};

/* NULL without memory. The caller decrefs it. */
json_t *report_json(const struct report *report);

/* One row of `classes`, `clients` and `users` in it. */
json_t *report_json_class(const struct wire_class_row *row);
json_t *report_json_client(const struct wire_client_row *row);
json_t *report_json_user(const struct wire_user_row *row);

/* `n` heaps in one exposition: each family once, with HELP and TYPE, and then its samples. Returns 0, or -EIO if `out` has an
 * error, or -ENOMEM. */
int report_prometheus(const struct report *reports, size_t n, FILE *out);

/* The same one family at a time, for a writer who may not take long: `family` is below report_families(). Returns likewise. */
size_t report_families(void);
int report_prometheus_family(const struct report *reports, size_t n, size_t family, FILE *out);

/* ---- the table ---- */

/* Whose figure it is: of what struct `at` is an offset. */
enum report_part {
	REPORT_HEAP, /* struct wire_stats; JSON: in `stats` */
	REPORT_COUNTER, /* struct wire_stats; JSON: in `counters`: since the heap was made */
	REPORT_CLASS, /* struct wire_class_row; JSON: in `classes` */
	REPORT_CLIENT, /* struct wire_client_row; in `clients` */
	REPORT_USER, /* struct wire_user_row; in `users` */
	REPORT_PARTS
};

enum report_unit {
	REPORT_NUMBER,
	REPORT_BYTES,
	REPORT_PAGES, /* of REPORT_PAGE bytes; written as bytes */
	REPORT_SMALL_PAGES, /* of 4096 bytes; written as bytes */
	REPORT_MS, /* JSON: milliseconds; Prometheus: seconds */
	REPORT_US, /* JSON: microseconds; Prometheus: seconds */
	REPORT_FLAG /* JSON: true or false; Prometheus: 1 or 0 */
};

struct report_metric {
	enum report_part part;
	enum report_unit unit;
	bool counter; /* else a gauge */
	bool wide; /* uint64_t, else uint32_t */
	bool single; /* of one client or user: no sum of it makes sense */
	size_t at; /* where the number is, unless ... */
	uint64_t (*derive)(const void *row); /* ... it follows from others */
	const char *key; /* JSON */
	const char *label; /* text */
	const char *name; /* Prometheus */
	const char *help;
};

/* All of them, ordered by part; *n is how many. */
const struct report_metric *report_metrics(size_t *n);

/* The one with this key; NULL: there is none. */
const struct report_metric *report_metric(enum report_part part, const char *key);

/* The figure in `row`, which is of the metric's part; pages as bytes. */
uint64_t report_value(const struct report_metric *metric, const void *row);

/* ---- histograms ---- */

struct report_histogram {
	const char *key; /* JSON: in `histograms` */
	const char *label; /* text */
	const char *name; /* Prometheus */
	const char *help;
	size_t buckets, sum; /* offsets in struct wire_stats; microseconds */
};

#define REPORT_HISTOGRAMS 2u
extern const struct report_histogram report_histograms[REPORT_HISTOGRAMS];

/* The bound of a bucket in microseconds; UINT64_MAX: none. */
uint64_t report_bound_us(uint32_t bucket);

/* ---- texts ---- */

/* Bytes of the UTF-8 character that begins there; 0 if it is none, or none to be shown: a control, or one that turns the direction of
 * what follows. */
size_t report_char(const char *text);

/* "1.5 MiB" */
void report_human(uint64_t bytes, char *to, size_t room);

/* Integers of JSON are signed: what is beyond is given as the largest. A text, or as report_clean has it if it is not fit to be shown. */
json_t *report_json_number(uint64_t n);
json_t *report_json_text(const char *text);

/* Bytes that would do something to a terminal, and what is not UTF-8, become \xNN; a backslash is doubled. `room` is at least
 * four times the length of `from`, plus 1, or the text is cut. */
void report_clean(const char *from, char *to, size_t room);

/* How much of a cleaned text fits into `most` bytes, without half a character at its end. */
size_t report_fit(const char *text, size_t most);

/* "64 B scoped", "large noscan" */
void report_class_name(const struct wire_class_row *row, char *to, size_t room);

#endif
