#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_name[LEVELS] = {"error", "warn", "info", "debug"};
static const int level_priority[LEVELS] = {3, 4, 6, 7}; /* syslog's */

static enum log_level most = LEVEL_INFO;
static int out = STDERR_FILENO;

static struct {
	uint32_t lines; /* let through since `since` */
	uint32_t swallowed;
	time_t since;
} kinds[LOG_KINDS];
static uint64_t all_swallowed;

bool log_level_parse(const char *name, enum log_level *level)
{
	for (int i = 0; i < LEVELS; i++)
		if (!strcmp(name, level_name[i])) {
			*level = (enum log_level)i;
			return true;
		}
	return false;
}

void log_set_level(enum log_level level)
{
	most = level;
}

void log_set_fd(int fd)
{
	out = fd;
}

__attribute__((format(printf, 3, 0))) static void write_line(
        enum log_level level, uint32_t swallowed, const char *format, va_list args)
{
	char line[1024], *at = line;
	const size_t room = sizeof(line) - 64; /* for the tail below */

	if (getenv("JOURNAL_STREAM"))
		at += snprintf(line, room, "<%d>", level_priority[level]);
	else
		at += snprintf(line, room, "shmallocd: %s: ", level_name[level]);
	int n = vsnprintf(at, room - (size_t)(at - line), format, args);

	if (n < 0)
		return;
	at = line + strlen(line);
	/* A peer's label must not make lines of its own. */
	for (char *c = line; c < at; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	if (swallowed)
		at += snprintf(at, 48, " (%u more like this)", swallowed);
	*at++ = '\n';
	/* Nothing is to be done about a log that cannot be written. */
	ssize_t written = write(out, line, (size_t)(at - line));

	(void)written;
}

void log_line(enum log_level level, const char *format, ...)
{
	va_list args;

	if (level > most)
		return;
	va_start(args, format);
	write_line(level, 0, format, args);
	va_end(args);
}

uint64_t log_swallowed(void)
{
	return all_swallowed;
}

/* Whether a line of this kind may be written now. */
static bool admit(enum log_kind kind)
{
	struct timespec now = {0};

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	time_t passed = now.tv_sec - kinds[kind].since;

	if (passed > 0) {
		kinds[kind].since = now.tv_sec;
		kinds[kind].lines = passed >= (time_t)kinds[kind].lines ? 0 : kinds[kind].lines - (uint32_t)passed;
	}
	if (kinds[kind].lines >= LOG_BURST) {
		kinds[kind].swallowed++;
		all_swallowed++;
		return false;
	}
	kinds[kind].lines++;
	return true;
}

void log_limited(enum log_level level, enum log_kind kind, const char *format, ...)
{
	va_list args;

	if (level > most || !admit(kind))
		return;
	va_start(args, format);
	write_line(level, kinds[kind].swallowed, format, args);
	va_end(args);
	kinds[kind].swallowed = 0;
}
