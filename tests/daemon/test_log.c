/* The log: levels, one line per event, no flood, no forged lines. */
#include "daemon/logfields.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/loglimit.h"

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
	begin();
	log_set_level(LEVEL_WARN);
	log_line(LEVEL_ERROR, "a %d", 1);
	log_line(LEVEL_WARN, "b");
	log_line(LEVEL_INFO, "c");
	cr_assert_str_eq(said(), "shmallocd: error: a 1\nshmallocd: warn: b\n");
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

/* ---- fields ---- */

static const struct log_fields all = {.known = LOG_HAS_CLIENT | LOG_HAS_PROCESS | LOG_HAS_BYTES,
        .client = 3,
        .pid = 123,
        .uid = 1000,
        .bytes = 8192,
        .heap = "default"};

Test(log, what_is_known_stands_behind_the_line)
{
	begin();
	log_event(LEVEL_WARN, LOG_LIMIT, all, "at its limit");
	log_event(LEVEL_WARN, LOG_LIMIT, ((struct log_fields){.heap = "x"}), "a");
	log_event(LEVEL_WARN, LOG_LIMIT, ((struct log_fields){.known = LOG_HAS_PROCESS, .pid = 7}), "b");
	log_limited(LEVEL_WARN, LOG_LIMIT, "c");
	cr_assert_str_eq(said(), "shmallocd: warn: at its limit client=3 pid=123 uid=1000 heap=default bytes=8192\n"
	                         "shmallocd: warn: a heap=x\n"
	                         "shmallocd: warn: b pid=7 uid=0\n"
	                         "shmallocd: warn: c\n");
}

Test(log, fields_forge_no_lines_and_are_not_cut_off)
{
	struct log_fields about = all;
	char big[5000];

	begin();
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	about.heap = "h\nshmallocd: error: forged";
	log_event(LEVEL_WARN, LOG_LIMIT, about, "%s", big);
	cr_assert_eq(lines(), 1);
	cr_assert(strstr(said(), " client=3 pid=123 uid=1000 heap=h?shmallocd: error: forged bytes=8192\n"));
}

/* The entry's fields, one a line. */
static const char *fields_of(
        enum log_level level, enum log_kind kind, const struct log_fields *about, const char *message)
{
	static struct logfields_entry entry;
	static char list[4096];
	const struct log_place place = {"daemon/x.c", "f", 12};
	size_t len = 0;

	logfields_entry(&entry, place, level, kind, about, message);
	for (unsigned i = 0; i < entry.n; i++) {
		memcpy(list + len, entry.iov[i].iov_base, entry.iov[i].iov_len);
		len += entry.iov[i].iov_len;
		list[len++] = '\n';
	}
	list[len] = 0;
	return list;
}

Test(log, an_entry_of_the_journal)
{
	cr_assert_str_eq(fields_of(LEVEL_INFO, LOG_EVICTED, &all, "gone"),
	        "MESSAGE=gone\nPRIORITY=6\nSYSLOG_IDENTIFIER=shmallocd\nMESSAGE_ID=1136a67a78c946fb93cd64bb0e6af7c7\n"
	        "SHMALLOC_CLIENT=3\nSHMALLOC_PID=123\nSHMALLOC_UID=1000\nSHMALLOC_BYTES=8192\n"
	        "SHMALLOC_HEAP=default\nCODE_FILE=daemon/x.c\nCODE_FUNC=f\nCODE_LINE=12\n");
	cr_assert_str_eq(fields_of(LEVEL_ERROR, LOG_KINDS, &(struct log_fields){0}, "a=b"),
	        "MESSAGE=a=b\nPRIORITY=3\nSYSLOG_IDENTIFIER=shmallocd\nCODE_FILE=daemon/x.c\nCODE_FUNC=f\n"
	        "CODE_LINE=12\n",
	        "a line that is no event");
}

Test(log, an_entry_keeps_within_its_room)
{
	struct log_fields about = all;
	char message[LOG_LINE], heap[3000];

	memset(message, 'm', sizeof(message) - 1);
	message[sizeof(message) - 1] = 0;
	memset(heap, 'h', sizeof(heap) - 1);
	heap[sizeof(heap) - 1] = 0;
	about.heap = heap;
	const char *list = fields_of(LEVEL_WARN, LOG_LIMIT, &about, message);

	cr_assert(strstr(list, message) && strstr(list, "\nSHMALLOC_UID=1000\n") && strstr(list, "\nCODE_LINE=12\n"));
	cr_assert_null(strstr(list, "SHMALLOC_HEAP"), "what does not fit is left out");
}

/* They are promised in shmallocd(8): who filters by one must find it again. */
Test(log, message_ids_stay_as_they_are)
{
	static const struct {
		enum log_kind kind;
		const char *id;
	} ids[] = {{LOG_DEATH, "4302031f12e9474f92711d1ef4bbe5cc"}, {LOG_LIMIT, "0a00b84a46344f97b8c37af3b9c447b2"},
	        {LOG_EVICTED, "1136a67a78c946fb93cd64bb0e6af7c7"}, {LOG_FENCED, "dfd48962b3c44b0792960f84bfb3f80f"},
	        {LOG_ASIDE, "e55e482a6b1a492ca32c39e95850f20e"}, {LOG_PRESSURE, "0c56deda63fd48e0b451a7a355e045c6"},
	        {LOG_RECOVERED, "b48cdee03ce543609f56adce52bbcb44"}};
	unsigned found = 0;

	for (unsigned i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
		cr_expect_str_eq(logfields_message_id(ids[i].kind), ids[i].id);
	for (int kind = 0; kind < LOG_KINDS; kind++)
		found += logfields_message_id((enum log_kind)kind) != NULL;
	cr_expect_eq(found, sizeof(ids) / sizeof(ids[0]), "each of them is in the list above");
	cr_expect_null(logfields_message_id(LOG_KINDS));
}

/* What only seems to be the journal's stream gets lines: the variable is inherited, the stream may be another. */
Test(log, another_file_is_not_the_journal)
{
	struct stat st;
	char stream[64];

	begin();
	fstat(out, &st);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_event(LEVEL_WARN, LOG_LIMIT, all, "a");
	cr_assert_str_eq(said(), "<4>a client=3 pid=123 uid=1000 heap=default bytes=8192\n");
}

/* ---- limits ---- */

static struct loglimit limit;

static uint32_t let_through(enum log_kind kind, uint32_t uid, uint64_t now, uint32_t tries)
{
	uint32_t n = 0, swallowed;

	while (tries--)
		n += loglimit_admit(&limit, kind, &uid, now, &swallowed);
	return n;
}

Test(log, one_user_takes_no_line_from_another)
{
	uint32_t swallowed;

	cr_expect_eq(let_through(LOG_PROTOCOL, 1000, 1, 5000), LOG_BURST);
	cr_expect_eq(let_through(LOG_PROTOCOL, 1001, 1, 5), 5);
	cr_expect_eq(let_through(LOG_LIMIT, 1000, 1, 5), 5, "other kinds of the same user are not affected");
	cr_expect(loglimit_admit(&limit, LOG_PROTOCOL, NULL, 1, &swallowed), "nor are lines about nobody");
	cr_expect_eq(limit.swallowed, 5000 - LOG_BURST);
}

Test(log, then_one_a_second)
{
	uint32_t uid = 1000, swallowed = 7;

	let_through(LOG_PROTOCOL, uid, 10, 50);
	cr_expect_eq(let_through(LOG_PROTOCOL, uid, 10, 1), 0);
	cr_expect(loglimit_admit(&limit, LOG_PROTOCOL, &uid, 11, &swallowed));
	cr_expect_eq(swallowed, 50 - LOG_BURST + 1, "%u", swallowed);
	cr_expect_eq(let_through(LOG_PROTOCOL, uid, 11, 50), 0);
	cr_expect_eq(let_through(LOG_PROTOCOL, uid, 14, 50), 3);
	cr_expect_eq(let_through(LOG_PROTOCOL, uid, 14 + LOG_BURST, 50), LOG_BURST);
}

/* Somebody with very many users, by way of a user namespace say. */
Test(log, many_users_share_what_is_left)
{
	uint32_t n = 0;

	for (uint32_t uid = 0; uid < 10000; uid++)
		n += let_through(LOG_PROTOCOL, uid, 1, 50);
	cr_expect_eq(n, (LOG_USERS + 1) * LOG_BURST, "%u", n);
	cr_expect_eq(let_through(LOG_PROTOCOL, 3, 2, 50), 1, "who has a place keeps it");
	for (uint32_t uid = 0; uid < LOG_USERS; uid++)
		let_through(LOG_PROTOCOL, uid, LOG_BURST, 1);
	cr_expect_eq(let_through(LOG_PROTOCOL, 20000, LOG_BURST + 1, 1), 1, "the shared allowance grows as well");
	cr_expect_eq(let_through(LOG_PROTOCOL, 20000, LOG_BURST + 1, 50), LOG_BURST - 1);
	cr_expect_eq(let_through(LOG_PROTOCOL, 20001, 2 * LOG_BURST, 50), LOG_BURST, "quiet users make place");
}

/* A second less than LOG_BURST later no place is anybody else's yet. */
Test(log, a_place_is_kept_while_it_says_something)
{
	for (uint32_t uid = 0; uid < LOG_USERS; uid++)
		let_through(LOG_PROTOCOL, uid, 1, 50);
	cr_expect_eq(let_through(LOG_PROTOCOL, 1000, 1, 50), LOG_BURST);
	cr_expect_eq(let_through(LOG_PROTOCOL, 2000, LOG_BURST, 50), LOG_BURST - 1);
	cr_expect_eq(let_through(LOG_PROTOCOL, 5, LOG_BURST, 50), LOG_BURST - 1);
}

Test(log, what_is_left_out_is_counted)
{
	uint64_t before = log_swallowed();

	begin();
	for (unsigned i = 0; i < LOG_BURST + 30; i++)
		log_event(LEVEL_WARN, LOG_REFUSED, all, "flood");
	cr_expect_geq(log_swallowed() - before, 28, "%llu", (unsigned long long)(log_swallowed() - before));
	cr_expect_eq(log_swallowed() - before + lines(), LOG_BURST + 30);
}
