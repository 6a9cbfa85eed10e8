/* What a log line is about, as text behind the line and as the fields of a journal entry.
 *
 * Beside MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, CODE_FILE, CODE_FUNC and CODE_LINE an entry has SHMALLOC_CLIENT, SHMALLOC_PID,
 * SHMALLOC_UID, SHMALLOC_BYTES and SHMALLOC_HEAP, as far as they are known, and for the kinds of events that somebody may want to
 * act upon a MESSAGE_ID: 128 bits that were drawn once and stay as they are. shmallocd(8) lists them.
 */
#ifndef DAEMON_LOGFIELDS_H
#define DAEMON_LOGFIELDS_H

#include <stddef.h>
#include <sys/uio.h>

#include "daemon/log.h"

#define LOG_LINE 1024u /* bytes of a line, with all that stands before and behind it */
#define LOG_TAIL 192u /* the part of it that the fields may take */
#define LOG_ENTRY_FIELDS 12u

/* A journal entry: `iov` points into `text`. */
struct logfields_entry {
	unsigned n;
	struct iovec iov[LOG_ENTRY_FIELDS];
	size_t used;
	char text[LOG_LINE + 512];
};

/* The level's priority, as syslog counts. */
int logfields_priority(enum log_level level);

/* 32 hexadecimal digits, or NULL: the kind has no message id. */
const char *logfields_message_id(enum log_kind kind);

/* " client=3 pid=123 uid=1000 heap=default bytes=8192", cut where it does not fit. How long it is. */
size_t logfields_tail(const struct log_fields *about, char *to, size_t room);

/* Fills the entry. `kind` is LOG_KINDS for a line that is no event. A field that does not fit is left out, the last ones first. */
void logfields_entry(struct logfields_entry *entry, struct log_place place, enum log_level level, enum log_kind kind,
        const struct log_fields *about, const char *message);

#endif
