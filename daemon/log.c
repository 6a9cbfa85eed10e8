#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket" /* without it libsystemd drops entries and says nothing */

#define SD_JOURNAL_SUPPRESS_LOCATION /* the place is the caller's */
#include <systemd/sd-journal.h>

#include "daemon/logfields.h"
#include "daemon/loglimit.h"

static const char *const level_name[LEVELS] = {"error", "warn", "info", "debug"};

static enum log_level most = LEVEL_INFO;
static int out = STDERR_FILENO;
static struct loglimit limit;

void log_set_level(enum log_level level)
{
	most = level;
}

void log_set_fd(int fd)
{
	out = fd;
}

uint64_t log_swallowed(void)
{
	return limit.swallowed;
}

/* Whether what we write to is the journal's own stream: the variable is inherited by those whose output goes elsewhere. */
static bool is_journal(const char *stream)
{
	struct stat st;
	char now[64];

	if (!stream || fstat(out, &st))
		return false;
	snprintf(now, sizeof(now), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return strcmp(now, stream) == 0 && access(JOURNAL_SOCKET, W_OK) == 0;
}

/* A peer's label must not make lines of its own. */
static void clean(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

static void write_line(enum log_level level, bool priority, const char *message, const struct log_fields *about)
{
	char line[LOG_LINE], tail[LOG_TAIL];
	int n;

	logfields_tail(about, tail, sizeof(tail));
	clean(tail);
	if (priority)
		n = snprintf(line, sizeof(line), "<%d>%s%s\n", logfields_priority(level), message, tail);
	else
		n = snprintf(line, sizeof(line), "shmallocd: %s: %s%s\n", level_name[level], message, tail);
	/* Nothing is to be done about a log that cannot be written. */
	ssize_t written = n > 0 ? write(out, line, (size_t)n) : 0;

	(void)written;
}

struct event {
	struct log_place place;
	enum log_level level;
	enum log_kind kind; /* LOG_KINDS: none */
	struct log_fields about;
	uint32_t swallowed; /* lines like it before */
};

__attribute__((format(printf, 2, 0))) static void write_event(
        const struct event *event, const char *format, va_list args)
{
	static struct logfields_entry entry;
	const char *stream = getenv("JOURNAL_STREAM");
	char message[LOG_LINE - LOG_TAIL - 32]; /* and what stands before it */
	size_t room = sizeof(message) - 48; /* for what follows */

	if (vsnprintf(message, room, format, args) < 0)
		return;
	clean(message);
	if (event->swallowed)
		snprintf(message + strlen(message), 48, " (%u more like this)", event->swallowed);
	if (is_journal(stream)) {
		logfields_entry(&entry, event->place, event->level, event->kind, &event->about, message);
		if (!sd_journal_sendv(entry.iov, (int)entry.n))
			return;
	}
	write_line(event->level, stream != NULL, message, &event->about);
}

void log_line_at(struct log_place place, enum log_level level, const char *format, ...)
{
	struct event event = {.place = place, .level = level, .kind = LOG_KINDS};
	va_list args;

	if (level > most)
		return;
	va_start(args, format);
	write_event(&event, format, args);
	va_end(args);
}

static bool admit(struct event *event)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return loglimit_admit(&limit, event->kind, event->about.known & LOG_HAS_PROCESS ? &event->about.uid : NULL,
	        (uint64_t)now.tv_sec + 1, &event->swallowed);
}

void log_event_at(struct log_place place, enum log_level level, enum log_kind kind, struct log_fields about,
        const char *format, ...)
{
	struct event event = {.place = place, .level = level, .kind = kind, .about = about};
	va_list args;

	if (level > most || !admit(&event))
		return;
	va_start(args, format);
	write_event(&event, format, args);
	va_end(args);
}
