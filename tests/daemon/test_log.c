/* The log: levels, one line per event, no flood, no forged lines. */
#include "daemon/log.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int out;
static char text[65536];

static void begin(void)
{
	unsetenv("JOURNAL_STREAM");
	out = memfd_create("log", MFD_CLOEXEC);
	log_set_fd(out);
}

static const char *said(void)
{
	ssize_t n = pread(out, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	return text;
}

static unsigned lines(void)
{
	unsigned n = 0;

	for (const char *c = said(); *c; c++)
		n += *c == '\n';
	return n;
}

Test(log, levels)
{
	enum log_level level;

	begin();
	log_set_level(LEVEL_WARN);
	log_line(LEVEL_ERROR, "a %d", 1);
	log_line(LEVEL_WARN, "b");
	log_line(LEVEL_INFO, "c");
	cr_assert_str_eq(said(), "shmallocd: error: a 1\nshmallocd: warn: b\n");
	cr_assert(log_level_parse("debug", &level) && level == LEVEL_DEBUG);
	cr_assert_not(log_level_parse("Debug", &level));
	cr_assert_not(log_level_parse("", &level));
}

Test(log, priorities_for_the_journal)
{
	begin();
	setenv("JOURNAL_STREAM", "8:1", 1);
	log_line(LEVEL_ERROR, "a");
	log_line(LEVEL_INFO, "b");
	cr_assert_str_eq(said(), "<3>a\n<6>b\n");
}

Test(log, a_flood_is_cut_short)
{
	begin();
	for (int i = 0; i < 5000; i++)
		log_limited(LEVEL_WARN, LOG_PROTOCOL, "flood");
	cr_assert_geq(lines(), LOG_BURST);
	cr_assert_leq(lines(), LOG_BURST + 5, "%u lines", lines());
	log_limited(LEVEL_WARN, LOG_LIMIT, "other kinds are not affected");
	cr_assert(strstr(said(), "other kinds"));
	/* Some time later another line gets through, and says how many did not. */
	time_t limit = time(NULL) + 10;

	while (!strstr(said(), "more like this)") && time(NULL) < limit)
		log_limited(LEVEL_WARN, LOG_PROTOCOL, "flood");
	cr_assert(strstr(said(), "more like this)"));
}

Test(log, no_forged_lines)
{
	begin();
	log_line(LEVEL_WARN, "label '%s'", "x\nshmallocd: error: forged\033[2J");
	cr_assert_eq(lines(), 1);
	cr_assert_null(strchr(said(), '\033'));
}

Test(log, long_lines_are_cut)
{
	char big[5000];

	begin();
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_line(LEVEL_WARN, "%s", big);
	cr_assert_eq(lines(), 1);
	cr_assert_lt(strlen(said()), 1100);
}
