/* shmallocctl heapmap: as text it fits and says what the rows say; files are written whole or not at all. */
#include <sys/stat.h>
#include <unistd.h>

#include "client/ctl/heapmap.h"
#include "tests/client/ctl_run.h"

TestSuite(heapmap, .timeout = 60);

#define NOBODY 0xffffu

/* Rows in two pages, and a client. */
static enum fake_answer answer(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	static const struct wire_span_row rows[2][4] = {{{.page = 1, .pages = 7, .state = 1, .owner = NOBODY},
	                                                        {.page = 8, .pages = 8, .state = 2, .owner = NOBODY},
	                                                        {.page = 16,
	                                                                .pages = 16,
	                                                                .state = 5,
	                                                                .sclass = 16,
	                                                                .owner = 3,
	                                                                .slots = 2048,
	                                                                .slots_free = 1500},
	                                                        {.page = 32,
	                                                                .pages = 16,
	                                                                .state = 5,
	                                                                .sclass = 20,
	                                                                .owner = 4,
	                                                                .slots = 1024,
	                                                                .slots_free = 10}},
	        {{.page = 48, .pages = 8, .state = 4, .sclass = 16, .owner = NOBODY, .slots = 1024, .slots_free = 10},
	                {.page = 56, .pages = 64, .state = 6, .sclass = 400, .owner = 3, .slots = 1},
	                {.page = 120, .pages = 4, .state = 7, .sclass = 16, .owner = 3, .slots = 512},
	                {.page = 124,
	                        .pages = 4,
	                        .state = 8,
	                        .sclass = 16,
	                        .owner = 3,
	                        .slots = 512,
	                        .slots_free = 512}}};
	uint64_t cursor = request->u.query.cursor;

	(void)d;
	if (request->u.query.kind == WIRE_Q_CLIENTS) {
		reply->kind = WIRE_CLIENTS;
		reply->u.clients.n_rows = 1;
		reply->u.clients.next = 0;
		reply->u.clients.rows[0] = (struct wire_client_row){.client = 3, .pid = 77, .label = "web\x1b[1m"};
		return FAKE_SEND;
	}
	reply->kind = WIRE_SPAN_ROWS;
	reply->u.span_rows.n_rows = 4;
	reply->u.span_rows.next = cursor ? 0 : 48;
	memcpy(reply->u.span_rows.rows, rows[cursor != 0], sizeof(rows[0]));
	return FAKE_SEND;
}

static struct ctl_output map(fake_script script, const char *a, const char *b, const char *c, const char *d)
{
	struct fake_daemon *daemon = malloc(sizeof(*daemon));

	cr_assert_not_null(daemon);
	fake_daemon_start(daemon, script, NULL);
	struct ctl_output o = ctl_run("--socket", daemon->socket, "heapmap", a, b, c, d, NULL);

	fake_daemon_stop(daemon);
	free(daemon);
	return o;
}

static const char *const by_kind = "       0  -------........oooooooooooooooo\n"
                                   "    256K OOOOOOOOOOOOOOOOCCCCCCCCllllllll\n"
                                   "    512K llllllllllllllllllllllllllllllll\n"
                                   "    768K llllllllllllllllllllllllqqqqssss\n";

Test(heapmap, text_is_a_letter_for_each_page)
{
	setenv("COLUMNS", "41", 1);
	struct ctl_output o = map(answer, NULL, NULL, NULL, NULL);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	expect_has(o.out, by_kind);
	expect_has(o.out, "Heap default by kind; a cell is 8.0 KiB\n");
	expect_has(o.out, "- free                       56.0 KiB    5.5 %        1\n");
	expect_has(o.out, "l large                     512.0 KiB   50.4 %        1\n");
	expect_has(o.out, "published                  1016.0 KiB  100.0 %        8\n");
	expect_has(o.out, "Free: 120.0 KiB, longest stretch 120.0 KiB; outside it 0.0 % (external fragmentation)\n");
	expect_has(o.out, "Free slots in owned spans: 94.5 KiB, 36.9 % of them (internal); in central spans: 640 B\n");
	expect_lacks(o.out, "\x1b");
	ctl_drop(&o);
}

Test(heapmap, by_class_and_by_owner)
{
	setenv("COLUMNS", "41", 1);
	struct ctl_output o = map(answer, "--by", "class", NULL, NULL);

	expect_has(o.out, "bbbbbbbbbbbbbbbbaaaaaaaa########\n");
	expect_has(o.out, "aaaaaaaaaaaaaaaa\n");
	expect_has(o.out, "a 64 B                      192.0 KiB   18.9 %        2\n");
	ctl_drop(&o);
	o = map(answer, "-g", "owner", NULL, NULL);
	expect_has(o.out, "1111111111111111\n");
	expect_has(o.out, "2222222222222222cccccccc11111111\n");
	expect_has(o.out, "1 web\\x1b[1m (77)");
	expect_has(o.out, "2 client 4 ");
	expect_lacks(o.out, "\x1b");
	ctl_drop(&o);
}

/* No line is wider than the terminal, and a cell is as many pages as needed for a picture of at most 32 lines. */
Test(heapmap, fits_the_width)
{
	static const char *const widths[] = {"1", "30", "80", "121", "100000"};
	size_t limits[] = {56, 56, 80, 121, 521}; /* what is below the picture has a width of its own */

	for (size_t i = 0; i < 5; i++) {
		setenv("COLUMNS", widths[i], 1);
		struct ctl_output o = map(answer, NULL, NULL, NULL, NULL);
		size_t lines = 0;

		for (char *line = strtok(o.out, "\n"); line && strncmp(line, "Pages", 5);
		        line = strtok(NULL, "\n"), lines++)
			cr_assert_leq(strlen(line), limits[i], "COLUMNS=%s: %s", widths[i], line);
		cr_assert_leq(lines, 33);
		ctl_drop(&o);
	}
}

/* On paper that takes colours, a character has two cells. */
Test(heapmap, colours)
{
	static const char *const inks[] = {[CTL_256] = "\x1b[48;5;", [CTL_TRUECOLOR] = "\x1b[48;2;"};
	struct report_map *m = report_map_new(&(struct report_map_options){0});
	static const struct wire_span_row rows[] = {
	        {.page = 1, .pages = 40, .state = 1}, {.page = 41, .pages = 59, .state = 6}};

	cr_assert_eq(report_map_spans(m, rows, 2), 0);
	for (enum ctl_ink ink = CTL_256; ink <= CTL_TRUECOLOR; ink++) {
		struct ctl_paper paper = {.ink = ink, .columns = 41};
		struct report_map_look look = {.heap = "default"};
		size_t len, blocks = 0;
		char *text;
		FILE *to = open_memstream(&text, &len);

		ctl_heapmap_text(m, &look, &paper, to);
		fclose(to);
		expect_has(text, inks[ink]);
		for (const char *at = text; (at = strstr(at, "\xe2\x96\x80")); at++)
			blocks++;
		cr_assert_eq(blocks, 32 + 32 - 1, "%zu", blocks); /* 4 lines of cells, and there is no page 0 */
		free(text);
	}
	report_map_free(m);
}

static char *contents(const char *path)
{
	char *text = calloc(1, 1 << 20);
	FILE *from = fopen(path, "r");

	cr_assert(text && from);
	cr_assert_gt(fread(text, 1, (1 << 20) - 1, from), 0);
	fclose(from);
	return text;
}

Test(heapmap, svg_and_html)
{
	char path[] = "/tmp/heapmap-test.XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
	struct ctl_output o = map(answer, "--format", "svg", NULL, NULL),
	                  file = map(answer, "-fhtml", "-o", path, NULL);
	char *html = contents(path);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_eq(strncmp(o.out, "<svg ", 5), 0);
	expect_has(o.out, "<title>page 16, 16 pages (128.0 KiB): owned, blocks of 64 B, web\\x1b[1m (77), 548 of 2048 "
	                  "slots in use</title>");
	cr_assert_eq(file.status, CTL_OK, "%s", file.err);
	cr_assert_str_empty(file.out);
	cr_assert_eq(strncmp(html, "<!DOCTYPE html>", 15), 0);
	expect_has(html, "</html>");
	free(html);
	ctl_drop(&o);
	ctl_drop(&file);
	unlink(path);
}

/* ---- what goes wrong ---- */

static enum fake_answer hang_up(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)d, (void)request, (void)reply;
	return FAKE_HANG_UP;
}

static enum fake_answer circle(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	enum fake_answer how = answer(d, request, reply);

	reply->u.span_rows.next = 48;
	return how;
}

static enum fake_answer endless_run(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	enum fake_answer how = answer(d, request, reply);

	reply->u.span_rows.rows[3].pages = UINT32_MAX;
	return how;
}

Test(heapmap, a_file_is_kept_if_there_is_nothing_to_write)
{
	char path[] = "/tmp/heapmap-test.XXXXXX";
	int fd = mkstemp(path);

	cr_assert_eq(write(fd, "old", 3), 3);
	close(fd);
	struct ctl_output o = map(hang_up, "--output", path, NULL, NULL);
	char *text = contents(path);

	cr_assert_eq(o.status, CTL_UNREACHABLE);
	cr_assert_str_eq(text, "old");
	free(text);
	ctl_drop(&o);
	unlink(path);
}

Test(heapmap, refuses)
{
	static const struct {
		fake_script script;
		const char *option, *value;
		int status;
		const char *says;
	} cases[] = {{answer, "--by", "colour", CTL_USAGE, "--by is kind, class or owner, not 'colour'"},
	        {answer, "--format", "json", CTL_USAGE, "--format of heapmap is text|svg|html, not 'json'"},
	        {answer, "--format", "svg|html", CTL_USAGE, "not 'svg|html'"},
	        {answer, "--format", "", CTL_USAGE, "not ''"},
	        {answer, "--output", "/nowhere/map", CTL_FAILED, "cannot write /nowhere/map: No such file"},
	        {answer, "--output", "/dev/full", CTL_FAILED, "cannot write /dev/full: No space"},
	        {answer, "--bytes", NULL, CTL_USAGE, "heapmap has no option --bytes"},
	        {circle, NULL, NULL, CTL_FAILED, "makes no sense"},
	        {endless_run, NULL, NULL, CTL_FAILED, "makes no sense"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ctl_output o = map(cases[i].script, cases[i].option, cases[i].value, NULL, NULL);

		cr_assert_eq(o.status, cases[i].status, "case %zu: %d %s", i, o.status, o.err);
		expect_has(o.err, cases[i].says);
		ctl_drop(&o);
	}
}
