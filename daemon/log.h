/* The daemon's log: one line per event on standard error.
 *
 * A line is written where an error is decided, once, and says what was done about it. What a peer can cause as often as it
 * likes goes through log_limited, which lets LOG_BURST lines of a kind through and then one a second; the next line of that
 * kind says how many were swallowed. Under systemd ($JOURNAL_STREAM) lines begin with the priority that journald
 * understands, else with the program's name.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LEVEL_ERROR, LEVEL_WARN, LEVEL_INFO, LEVEL_DEBUG, LEVELS };

/* Events that a peer can cause at will. */
enum log_kind {
	LOG_ACCEPT,
	LOG_REFUSED,
	LOG_PROTOCOL,
	LOG_CLIENT,
	LOG_DEATH,
	LOG_MEMORY,
	LOG_LIMIT,
	LOG_DAMAGE,
	LOG_HTTP,
	LOG_KINDS
};

#define LOG_BURST 20u /* lines of one kind before the limit of one a second holds */

/* "warn" to LEVEL_WARN. False if there is no such level. */
bool log_level_parse(const char *name, enum log_level *level);

void log_set_level(enum log_level level);

/* Lines go to `fd` instead of standard error; for tests. */
void log_set_fd(int fd);

/* How many lines were left out since the start. */
uint64_t log_swallowed(void);

void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_limited(enum log_level level, enum log_kind kind, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#endif
