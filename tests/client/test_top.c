/* shmallocctl top without its screen: rates, order, filter and selection of the model; columns; keys; looks from a daemon that goes
 * away and comes back; frames as text. tests/system/screen.sh has the screen. */
#include <curses.h>
#include <poll.h>
#include <unistd.h>

#include "client/ctl/top/feed.h"
#include "client/ctl/top/frame.h"
#include "client/ctl/top/keys.h"
#include "proto/chan.h"
#include "tests/client/ctl_run.h"

TestSuite(top, .timeout = 60);

#define S 1000000000ll

static bool look(
        struct top_model *model, const struct wire_client_row *from, uint32_t n, uint64_t requests, int64_t now_ns)
{
	struct wire_stats stats = {.requests = requests, .clients = n};
	struct top_rows rows = {0};

	cr_assert(top_rows_add(&rows, from, n));
	return top_model_look(model, &stats, &rows, now_ns);
}

static const struct top_row *of(const struct top_model *model, uint32_t client)
{
	for (uint32_t i = 0; i < model->shown.n; i++)
		if (model->shown.row[i].is.client == client)
			return &model->shown.row[i];
	return NULL;
}

/* ---- rates ---- */

Test(top, rates_are_differences)
{
	struct top_model model = {.selected = TOP_NOBODY};
	struct wire_client_row rows[] = {{.client = 1, .pid = 10, .granted = 1000, .requests = 5},
	        {.client = 2, .pid = 20, .granted = 7000, .requests = 100},
	        {.client = 4, .pid = 40, .granted = 1, .requests = 1}};

	cr_assert(look(&model, rows, 3, 50, 5 * S));
	cr_assert(!model.rated && !of(&model, 1)->rated);
	rows[0].granted += 3000, rows[0].requests += 1;
	rows[2] = (struct wire_client_row){.client = 5, .pid = 50, .granted = 1 << 20}; /* 4 has gone, 5 has come */
	cr_assert(look(&model, rows, 3, 90, 7 * S));
	cr_assert(model.rated);
	cr_assert_float_eq(model.requests_per_s, 20, 1e-9);
	cr_assert_float_eq(of(&model, 1)->granted_per_s, 1500, 1e-9);
	cr_assert_float_eq(of(&model, 1)->requests_per_s, 0.5, 1e-9);
	cr_assert(of(&model, 2)->rated);
	cr_assert_float_eq(of(&model, 2)->granted_per_s, 0, 1e-9);
	cr_assert(!of(&model, 5)->rated, "there is nothing to compare it with");
	cr_assert_null(of(&model, 4));
	top_model_deinit(&model);
}

/* What no heap has: more bytes in a second than there are numbers for, and a part that is more than the whole. */
Test(top, figures_that_make_no_sense)
{
	struct top_model model = {.selected = TOP_NOBODY};
	struct wire_client_row row = {.client = 1, .pid = 10};
	const struct top_bar bar = {"live", UINT64_MAX, 1}, half = {"live", 1, 2}, none = {"live", 1, 0};
	const char *name;
	char text[TOP_LINE];

	cr_assert(look(&model, &row, 1, 0, S));
	row.granted = UINT64_MAX;
	cr_assert(look(&model, &row, 1, 0, S + S / 2));
	for (uint32_t i = 0; (name = top_detail(of(&model, 1), i, text, sizeof(text))); i++)
		if (strcmp(name, "granted per second") == 0)
			cr_assert_str_eq(text, "16.0 EiB");
	cr_assert_eq(top_bar_full(&bar, 40), 40);
	cr_assert_eq(top_bar_full(&half, 40), 20);
	cr_assert_eq(top_bar_full(&none, 40), 0);
	top_model_deinit(&model);
}

/* A new daemon counts from the start; an id may go to another process. */
Test(top, no_rate_from_counters_of_another)
{
	struct top_model model = {.selected = TOP_NOBODY};
	struct wire_client_row rows[] = {{.client = 1, .pid = 10, .granted = 1000, .requests = 500},
	        {.client = 2, .pid = 20, .granted = 10, .requests = 5}};

	cr_assert(look(&model, rows, 2, 5000, S));
	rows[0].granted = 10;
	rows[1] = (struct wire_client_row){.client = 2, .pid = 21, .granted = 99, .requests = 9};
	cr_assert(look(&model, rows, 2, 7, 2 * S));
	cr_assert(!model.rated && !of(&model, 1)->rated && !of(&model, 2)->rated);
	cr_assert(look(&model, rows, 2, 8, 3 * S));
	cr_assert(model.rated && of(&model, 1)->rated && of(&model, 2)->rated);
	top_model_deinit(&model);
}

/* ---- order, filter, selection ---- */

static const struct wire_client_row four[] = {
        {.client = 1, .pid = 300, .bytes = 500, .cached = 1, .label = "web", .granted = 1},
        {.client = 2, .pid = 200, .bytes = 900, .cached = 5, .slots_free = 5, .label = "batch"},
        {.client = 5, .pid = 400, .bytes = 500, .cached = 9, .label = "Webster"},
        {.client = 9, .pid = 100, .bytes = 100, .slots_free = 2, .label = "db"}};

static void expect_order(const struct top_model *model, const char *order)
{
	char got[32] = "";

	for (uint32_t i = 0; i < model->shown.n; i++)
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%u", model->shown.row[i].is.client);
	cr_assert_str_eq(got, order, "%s by %d%s: '%s', not '%s'", model->filter, (int)model->sort,
	        model->reverse ? ", reversed" : "", got, order);
}

Test(top, sorts)
{
	static const struct {
		const char *sort, *order, *reversed;
	} cases[] = {{"held", "2159", "9152"}, {"idle", "2591", "1952"}, {"name", "5291", "1925"},
	        {"pid", "9215", "5129"}, {"rate", "5129", "1295"}};
	struct top_model model = {.selected = TOP_NOBODY};
	struct wire_client_row later[4];

	memcpy(later, four, sizeof(later));
	later[2].granted += 100; /* 5 */
	cr_assert(look(&model, four, 4, 1, S) && look(&model, later, 4, 1, 2 * S));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		model.sort = top_sort_find(cases[i].sort);
		cr_assert_lt(model.sort, TOP_SORTS);
		model.reverse = false;
		cr_assert(top_model_arrange(&model));
		expect_order(&model, cases[i].order);
		model.reverse = true;
		cr_assert(top_model_arrange(&model));
		expect_order(&model, cases[i].reversed);
	}
	cr_assert_eq(top_sort_find("size"), TOP_SORTS);
	top_model_deinit(&model);
}

Test(top, filters)
{
	static const char *const cases[][2] = {
	        {"", "2159"}, {"web", "15"}, {"WEBS", "5"}, {"00", "2159"}, {"20", "2"}, {"nobody", ""}};
	struct top_model model = {.selected = TOP_NOBODY};

	cr_assert(look(&model, four, 4, 1, S));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(model.filter, sizeof(model.filter), "%s", cases[i][0]);
		cr_assert(top_model_arrange(&model));
		expect_order(&model, cases[i][1]);
	}
	top_model_deinit(&model);
}

/* The selection is a client, not a line: it stays when the order changes. */
Test(top, the_selection_stays_with_its_client)
{
	struct top_model model = {.selected = TOP_NOBODY};
	struct wire_client_row later[4];

	top_model_move(&model, 1);
	cr_assert_eq(model.selected, TOP_NOBODY);
	cr_assert(look(&model, four, 4, 1, S));
	cr_assert_eq(top_model_place(&model), -1);
	top_model_move(&model, 1);
	cr_assert_eq(model.selected, 2, "the first press selects the first row");
	top_model_move(&model, 2);
	cr_assert_eq(model.selected, 5);
	memcpy(later, four, sizeof(later));
	later[2].bytes = 1000000;
	cr_assert(look(&model, later, 4, 1, 2 * S));
	cr_assert_eq(top_model_place(&model), 0);
	top_model_move(&model, -5);
	cr_assert_eq(top_model_place(&model), 0);
	top_model_move(&model, INT32_MAX);
	cr_assert_eq(model.selected, 9);
	snprintf(model.filter, sizeof(model.filter), "web");
	cr_assert(top_model_arrange(&model));
	cr_assert_eq(top_model_place(&model), -1);
	cr_assert_not_null(top_model_selected(&model), "it is there, and only not shown");
	cr_assert(look(&model, later, 3, 1, 3 * S));
	cr_assert_null(top_model_selected(&model));
	top_model_deinit(&model);
}

/* ---- columns and words ---- */

Test(top, columns_that_fit)
{
	const struct top_column *chosen[TOP_COLUMNS];
	uint32_t before = 0;

	for (uint32_t width = 1; width <= 200; width++) {
		uint32_t n = top_columns(width, chosen), sum = n - 1;

		for (uint32_t i = 0; i < n; i++)
			sum += (uint32_t)abs(chosen[i]->width);
		cr_assert(sum <= width || n == 2, "%u columns have %u of %u", n, sum, width);
		cr_assert_geq(n, before, "less room for more columns");
		cr_assert_str_eq(chosen[n - 1]->head, "LABEL");
		before = n;
	}
	cr_assert_eq(before, TOP_COLUMNS);
	cr_assert_eq(top_columns(40, chosen), 4);
	cr_assert_str_eq(chosen[0]->head, "PID");
	cr_assert_str_eq(chosen[1]->head, "HELD");
}

Test(top, durations)
{
	static const struct {
		uint64_t s;
		const char *text;
	} cases[] = {{0, "0 s"}, {59, "59 s"}, {60, "1:00"}, {3599, "59:59"}, {3600, "1:00:00"}, {86399, "23:59:59"},
	        {90000, "1 d 01 h"}};
	char text[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		top_duration(cases[i].s, text, sizeof(text));
		cr_assert_str_eq(text, cases[i].text);
	}
}

Test(top, details_have_every_figure)
{
	/* numbers that no other field has, below 1024, so that they are printed as they are */
	struct top_row row = {.is = {.client = 101,
	                              .pid = 102,
	                              .uid = 103,
	                              .threads = 104,
	                              .spans = 105,
	                              .bytes = 106,
	                              .cached = 107,
	                              .limit = 108,
	                              .requests = 109,
	                              .label = "label110",
	                              .live = 111,
	                              .slots_free = 112,
	                              .tail = 113,
	                              .written_off = 114,
	                              .soft_limit = 115,
	                              .guaranteed = 116,
	                              .granted = 117,
	                              .failed = 118,
	                              .since_ms = 119000,
	                              .evicted = 1},
	        .rated = true,
	        .granted_per_s = 121,
	        .requests_per_s = 122};
	char all[4096] = "", value[TOP_LINE], number[8];
	const char *name;

	for (uint32_t i = 0; (name = top_detail(&row, i, value, sizeof(value))); i++)
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s=%s\n", name, value);
	for (unsigned n = 101; n <= 122; n++) {
		snprintf(number, sizeof(number), "%u", n);
		if (n != 119 && n != 120)
			expect_has(all, number);
	}
	expect_has(all, "attached for=1:59\n");
	expect_has(all, "state=evicted\n");
}

/* ---- keys ---- */

static void press(struct top_screen *screen, struct top_model *model, const char *keys)
{
	for (; *keys; keys++)
		cr_assert(top_key(screen, model, (unsigned char)*keys));
}

Test(top, keys)
{
	struct top_screen screen = {.interval_ms = 1000};
	struct top_model model = {.selected = TOP_NOBODY};

	cr_assert(look(&model, four, 4, 1, S));
	press(&screen, &model, "p");
	expect_order(&model, "9215");
	press(&screen, &model, "R");
	expect_order(&model, "5129");
	press(&screen, &model, "nhRi");
	expect_order(&model, "2591");
	press(&screen, &model, "h/wexq");
	cr_assert(screen.typing && !screen.leave);
	expect_order(&model, "");
	cr_assert(top_key(&screen, &model, KEY_BACKSPACE) && top_key(&screen, &model, 127));
	press(&screen, &model, "b\r");
	cr_assert(!screen.typing);
	expect_order(&model, "15");
	press(&screen, &model, "\x1b");
	expect_order(&model, "2159");
	press(&screen, &model, "/d\x1b");
	cr_assert(!screen.typing && !model.filter[0]);
	press(&screen, &model, "/\xc3\xa9");
	cr_assert(top_key(&screen, &model, KEY_BACKSPACE));
	cr_assert_str_empty(model.filter, "half of a character is left");
	press(&screen, &model, "\r ");
	cr_assert(screen.paused);
	press(&screen, &model, " ");
	cr_assert(!screen.paused);
	press(&screen, &model, "\r");
	cr_assert(screen.view == TOP_DETAILS && model.selected == 2);
	press(&screen, &model, "\r?");
	cr_assert_eq(screen.view, TOP_HELP);
	press(&screen, &model, "?q");
	cr_assert(screen.view == TOP_LIST && screen.leave);
	top_model_deinit(&model);
}

Test(top, intervals)
{
	struct top_screen screen = {.interval_ms = 1700};
	struct top_model model = {0};

	press(&screen, &model, "+");
	cr_assert_eq(screen.interval_ms, 2000);
	press(&screen, &model, "--");
	cr_assert_eq(screen.interval_ms, 500);
	press(&screen, &model, "----------------");
	cr_assert_eq(screen.interval_ms, TOP_INTERVAL_LEAST_MS);
	press(&screen, &model, "++++++++++++++++");
	cr_assert_eq(screen.interval_ms, TOP_INTERVAL_MOST_MS);
}

/* Every key that does something is in the help. */
Test(top, help_names_the_keys)
{
	char all[4096] = "";

	for (uint32_t i = 0; top_key_help(i); i++)
		snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s\n", top_key_help(i));
	for (int key = 33; key < 127; key++) {
		struct top_screen screen = {.interval_ms = 1000};
		struct top_model model = {.selected = TOP_NOBODY, .sort = TOP_SORTS};
		char named[4] = {' ', (char)key, ' ', 0};

		cr_assert(top_key(&screen, &model, key));
		bool does = screen.typing || screen.leave || screen.view != TOP_LIST || screen.interval_ms != 1000 ||
		            model.reverse || model.sort != TOP_SORTS;

		cr_assert(!does || key == '=' || strstr(all, named), "'%c' is not in the help", key);
		top_model_deinit(&model);
	}
}

/* ---- looks ---- */

enum how { FINE, CIRCLE, WRONG_KIND, REFUSE, MUTE };

struct play {
	unsigned looks;
	enum how how;
};

/* 200 clients in two pages. */
static enum fake_answer answer(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	struct play *play = d->ctx;
	struct wire_clients *out = &reply->u.clients;
	uint32_t from = (uint32_t)request->u.query.cursor;

	if (play->how == MUTE)
		return FAKE_SILENCE;
	if (play->how == REFUSE) {
		reply->kind = WIRE_ERROR;
		reply->u.error = (struct wire_error){.code = WIRE_E_NO_HEAP, .text = "there is no heap\x1b here"};
		return FAKE_SEND;
	}
	if (request->u.query.kind == WIRE_Q_STATS) {
		reply->kind = play->how == WRONG_KIND ? WIRE_ROOTS : WIRE_STATS;
		if (reply->kind == WIRE_STATS)
			reply->u.stats = (struct wire_stats){.heap = "default",
			        .published = 64 << 20,
			        .live = 32 << 20,
			        .clients = 200,
			        .requests = 100 * ++play->looks,
			        .pressure = 1};
		return FAKE_SEND;
	}
	reply->kind = WIRE_CLIENTS;
	out->n_rows = from ? 72 : WIRE_ROWS;
	out->next = from && play->how != CIRCLE ? 0 : WIRE_ROWS;
	for (uint32_t i = 0; i < out->n_rows; i++) {
		out->rows[i] = (struct wire_client_row){.client = from + i,
		        .pid = 1000 + from + i,
		        .bytes = (uint64_t)(from + i) << 20,
		        .requests = play->looks * 7};
		snprintf(out->rows[i].label, sizeof(out->rows[i].label), "worker-%u", from + i);
	}
	return FAKE_SEND;
}

/* Until the look is complete or the feed is away. */
static bool take_look(struct top_feed *feed, int64_t give_up_ns)
{
	top_feed_begin(feed, shmi_chan_now_ns());
	while (top_feed_busy(feed)) {
		struct pollfd p = {.fd = feed->sock, .events = POLLIN};

		if (poll(&p, 1, 100) > 0 && top_feed_read(feed, shmi_chan_now_ns()))
			return true;
		if (give_up_ns)
			top_feed_expire(feed, give_up_ns);
	}
	return false;
}

Test(top, looks_from_a_daemon_that_goes_and_comes)
{
	static struct fake_daemon d;
	struct play play = {0};
	struct ctl ctl = {.heap = "default", .timeout_s = 5};
	struct top_feed feed;

	cr_assert(top_feed_init(&feed, &ctl));
	snprintf(ctl.socket, sizeof(ctl.socket), "/nowhere/sock");
	cr_assert(!take_look(&feed, 0));
	cr_assert_str_eq(feed.why, "nobody listens there");
	fake_daemon_start(&d, answer, &play);
	snprintf(ctl.socket, sizeof(ctl.socket), "%s", d.socket);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert(take_look(&feed, 0), "%s", feed.why);
		cr_assert_eq(feed.rows.n, 200);
		cr_assert_eq(feed.rows.row[199].is.client, 199);
		cr_assert_eq(feed.stats.requests, 100 * i);
	}
	fake_daemon_stop(&d);
	cr_assert(!take_look(&feed, 0));
	cr_assert_eq(feed.phase, TOP_AWAY);
	cr_assert_eq(feed.sock, -1);
	fake_daemon_start(&d, answer, &play);
	snprintf(ctl.socket, sizeof(ctl.socket), "%s", d.socket);
	cr_assert(take_look(&feed, 0), "%s", feed.why);
	fake_daemon_stop(&d);
	top_feed_deinit(&feed);
}

Test(top, answers_that_make_no_sense)
{
	static const struct {
		enum how how;
		const char *why;
	} cases[] = {{CIRCLE, "its answers have no end"}, {WRONG_KIND, "its answer is to another question"},
	        {REFUSE, "it refuses: there is no heap\\x1b here"}, {MUTE, "it has not answered for 5 s"}};
	static struct fake_daemon d;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct play play = {.how = cases[i].how};
		struct ctl ctl = {.heap = "default", .timeout_s = 5};
		struct top_feed feed;

		fake_daemon_start(&d, answer, &play);
		snprintf(ctl.socket, sizeof(ctl.socket), "%s", d.socket);
		cr_assert(top_feed_init(&feed, &ctl));
		cr_assert(!take_look(&feed, cases[i].how == MUTE ? shmi_chan_now_ns() + 6 * S : 0));
		cr_assert_str_eq(feed.why, cases[i].why);
		fake_daemon_stop(&d);
		top_feed_deinit(&feed);
	}
}

/* ---- the command ---- */

static struct ctl_output run_top(const char *a, const char *b, const char *c, const char *e)
{
	static struct fake_daemon d;
	struct play play = {0};

	fake_daemon_start(&d, answer, &play);
	struct ctl_output o = ctl_run("--socket", d.socket, "top", "--interval", "0.1", a, b, c, e, NULL);

	fake_daemon_stop(&d);
	return o;
}

static uint32_t count(const char *text, const char *part)
{
	uint32_t n = 0;

	for (; (text = strstr(text, part)); text++)
		n++;
	return n;
}

Test(top, frames_as_text)
{
	setenv("COLUMNS", "120", 1);
	struct ctl_output one = run_top("--once", "--sort", "pid", NULL), three = run_top("-n", "3", "-r", NULL);

	cr_assert_eq(one.status, CTL_OK, "%s", one.err);
	cr_assert_eq(count(one.out, "Heap default, daemon up 0 s\n"), 1);
	cr_assert_eq(count(one.out, " worker-"), 200);
	expect_has(one.out, "; MEMORY IS SHORT\n");
	expect_lacks(one.out, "; - requests/s"); /* the first look is not shown */
	expect_has(one.out,
	        "live       [##############################                              ]   32.0 MiB  50.0 %\n");
	cr_assert_lt(strstr(one.out, "worker-5\n"), strstr(one.out, "worker-6\n"));
	cr_assert_eq(three.status, CTL_OK, "%s", three.err);
	cr_assert_eq(count(three.out, "Heap default,"), 3);
	cr_assert_lt(strstr(three.out, "worker-0\n"), strstr(three.out, "worker-199\n"), "the least held first");
	expect_lacks(three.out, "\x1b");
	ctl_drop(&one);
	ctl_drop(&three);
}

Test(top, refuses)
{
	static const struct {
		const char *option, *value, *says;
	} cases[] = {{"--sort", "size", "--sort is held, rate, idle, name or pid, not 'size'"},
	        {"--interval", "0", "0.1 to 3600 seconds"}, {"--interval", "nan", "0.1 to 3600 seconds"},
	        {"--interval", "1s", "0.1 to 3600 seconds"}, {"--frames", "0", "a number from 1"},
	        {"--frames", "-1", "a number from 1"}, {"--format", "json", "--format of top is text"},
	        {"--by", "kind", "top has no option --by"}, {"--reverse", NULL, "top needs a terminal: use --once"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ctl_output o = run_top(cases[i].option, cases[i].value, NULL, NULL);

		cr_assert_eq(o.status, CTL_USAGE, "%s: %d", cases[i].option, o.status);
		expect_has(o.err, cases[i].says);
		ctl_drop(&o);
	}
}
