#include "daemon/logfields.h"

#include <stdarg.h>
#include <stdio.h>

int logfields_priority(enum log_level level)
{
	static const int priority[LEVELS] = {3, 4, 6, 7};

	return priority[level];
}

const char *logfields_message_id(enum log_kind kind)
{
	static const char *const ids[LOG_KINDS] = {
	        [LOG_DEATH] = "4302031f12e9474f92711d1ef4bbe5cc",
	        [LOG_LIMIT] = "0a00b84a46344f97b8c37af3b9c447b2",
	        [LOG_EVICTED] = "1136a67a78c946fb93cd64bb0e6af7c7",
	        [LOG_FENCED] = "dfd48962b3c44b0792960f84bfb3f80f",
	        [LOG_ASIDE] = "e55e482a6b1a492ca32c39e95850f20e",
	        [LOG_PRESSURE] = "0c56deda63fd48e0b451a7a355e045c6",
	        [LOG_RECOVERED] = "b48cdee03ce543609f56adce52bbcb44",
	};

	return kind < LOG_KINDS ? ids[kind] : NULL;
}

/* ---- the tail of a line ---- */

__attribute__((format(printf, 4, 5))) static void append(char *to, size_t room, size_t *len, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	int n = vsnprintf(to + *len, room - *len, format, args);

	va_end(args);
	if (n > 0)
		*len = *len + (size_t)n < room ? *len + (size_t)n : room - 1;
}

size_t logfields_tail(const struct log_fields *about, char *to, size_t room)
{
	size_t len = 0;

	to[0] = 0;
	if (about->known & LOG_HAS_CLIENT)
		append(to, room, &len, " client=%u", about->client);
	if (about->known & LOG_HAS_PROCESS)
		append(to, room, &len, " pid=%d uid=%u", about->pid, about->uid);
	if (about->heap)
		append(to, room, &len, " heap=%s", about->heap);
	if (about->known & LOG_HAS_BYTES)
		append(to, room, &len, " bytes=%llu", (unsigned long long)about->bytes);
	return len;
}

/* ---- an entry of the journal ---- */

__attribute__((format(printf, 2, 3))) static void add(struct logfields_entry *entry, const char *format, ...)
{
	char *at = entry->text + entry->used;
	size_t room = sizeof(entry->text) - entry->used;
	va_list args;

	va_start(args, format);
	int n = vsnprintf(at, room, format, args);

	va_end(args);
	if (n < 0 || (size_t)n >= room || entry->n == LOG_ENTRY_FIELDS)
		return;
	entry->iov[entry->n++] = (struct iovec){at, (size_t)n};
	entry->used += (size_t)n;
}

static void add_about(struct logfields_entry *entry, const struct log_fields *about)
{
	if (about->known & LOG_HAS_CLIENT)
		add(entry, "SHMALLOC_CLIENT=%u", about->client);
	if (about->known & LOG_HAS_PROCESS) {
		add(entry, "SHMALLOC_PID=%d", about->pid);
		add(entry, "SHMALLOC_UID=%u", about->uid);
	}
	if (about->known & LOG_HAS_BYTES)
		add(entry, "SHMALLOC_BYTES=%llu", (unsigned long long)about->bytes);
	if (about->heap)
		add(entry, "SHMALLOC_HEAP=%s", about->heap);
}

void logfields_entry(struct logfields_entry *entry, struct log_place place, enum log_level level, enum log_kind kind,
        const struct log_fields *about, const char *message)
{
	const char *id = logfields_message_id(kind);

	entry->n = 0;
	entry->used = 0;
	add(entry, "MESSAGE=%s", message);
	add(entry, "PRIORITY=%d", logfields_priority(level));
	add(entry, "SYSLOG_IDENTIFIER=shmallocd");
	if (id)
		add(entry, "MESSAGE_ID=%s", id);
	add_about(entry, about);
	add(entry, "CODE_FILE=%s", place.file);
	add(entry, "CODE_FUNC=%s", place.function);
	add(entry, "CODE_LINE=%d", place.line);
}
