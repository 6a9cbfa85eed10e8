/* The daemon's log: one line per event, on standard error or, with fields, in the journal.
 *
 * A line is written where an error is decided, once, and says what was done about it. An event is of a kind, and says whom it
 * is about as far as that is known: which client, process, user and heap, and how many bytes. On standard error these stand
 * behind the line as `client=3 pid=123 uid=1000 heap=default bytes=8192`; in the journal they are fields of their own, with the
 * kind's message id (daemon/logfields.h). The journal is used when standard error is connected to it ($JOURNAL_STREAM names
 * its file); where that only seems so, lines begin with the priority that journald understands, else with the program's name.
 *
 * What a peer can cause as often as it likes is an event, and limited for each kind and user (daemon/loglimit.h): what one user
 * does takes no line away from another. The next line of that kind and user says how many were left out.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LEVEL_ERROR, LEVEL_WARN, LEVEL_INFO, LEVEL_DEBUG, LEVELS };

enum log_kind {
	LOG_ACCEPT, /* connections that are not taken */
	LOG_REFUSED,
	LOG_PROTOCOL,
	LOG_CLIENT, /* what else clients do */
	LOG_DEATH, /* a client has ended, and what it held was taken back */
	LOG_MEMORY, /* no memory for a request */
	LOG_LIMIT, /* a limit was reached */
	LOG_DAMAGE, /* clients write where they should not */
	LOG_FENCED, /* a heap is out of service */
	LOG_ASIDE, /* a heap was set aside */
	LOG_EVICTED, /* a client was evicted */
	LOG_PRESSURE, /* memory has become short, or is not any more */
	LOG_RECOVERED, /* an earlier daemon's heap was taken over */
	LOG_HTTP, /* HTTP connections that are not taken */
	LOG_KINDS
};

/* Whom a line is about. What is not known is left out: all of it, with (struct log_fields){0}. */
struct log_fields {
	uint32_t known; /* LOG_HAS_... */
	uint32_t client;
	int32_t pid;
	uint32_t uid;
	uint64_t bytes;
	const char *heap; /* NULL: not known */
};

#define LOG_HAS_CLIENT 1u
#define LOG_HAS_PROCESS 2u /* pid and uid */
#define LOG_HAS_BYTES 4u

/* The same, and so many bytes. */
static inline struct log_fields log_bytes(struct log_fields about, uint64_t bytes)
{
	about.known |= LOG_HAS_BYTES;
	about.bytes = bytes;
	return about;
}

/* Where in the source a line comes from. */
struct log_place {
	const char *file, *function;
	int line;
};

#define LOG_HERE ((struct log_place){__FILE__, __func__, __LINE__})

void log_set_level(enum log_level level);

/* Lines go to `fd` instead of standard error; for tests. */
void log_set_fd(int fd);

/* How many lines were left out since the start. */
uint64_t log_swallowed(void);

/* A line about nobody that no peer can cause: it is never left out. */
#define log_line(level, ...) log_line_at(LOG_HERE, level, __VA_ARGS__)

/* An event; `about` is a struct log_fields. */
#define log_event(level, kind, about, ...) log_event_at(LOG_HERE, level, kind, about, __VA_ARGS__)

/* An event about nobody. */
#define log_limited(level, kind, ...) log_event_at(LOG_HERE, level, kind, (struct log_fields){0}, __VA_ARGS__)

void log_line_at(struct log_place place, enum log_level level, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
void log_event_at(struct log_place place, enum log_level level, enum log_kind kind, struct log_fields about,
        const char *format, ...) __attribute__((format(printf, 5, 6)));

#endif
