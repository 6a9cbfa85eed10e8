/* What shmallocctl prints: the lines of the text add up, the JSON says the same, hostile names do nothing to a terminal. */
#include <ctype.h>
#include <jansson.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/cgroup.h"
#include "client/ctl/figures.h"
#include "shm/check.h"
#include "tests/client/ctl_run.h"
#include "tests/lib/lived.h"

TestSuite(ctl_output, .timeout = 60);

#define MIB (1024 * 1024ull)

static struct wire_stats sample_stats(void)
{
	struct wire_stats s = {.heap = "default",
	        .limit = 1024 * MIB,
	        .published = 64 * MIB,
	        .owned = 20 * MIB,
	        .central = 5 * MIB,
	        .free = 7 * MIB,
	        .backed = 32 * MIB,
	        .returned = 27 * MIB,
	        .lazy = 3 * MIB,
	        .moving = MIB - 8192,
	        .seized = MIB,
	        .peak_backed = 40 * MIB,
	        .live = 11 * MIB + 16,
	        .live_blocks = 1234,
	        .cached = 6 * MIB,
	        .slots_free = 9 * MIB,
	        .tail = MIB - 16,
	        .written_off = 64,
	        .quarantined = MIB - 64,
	        .metadata = 3456789,
	        .clients = 3,
	        .threads = 8,
	        .roots = 2,
	        .requests = 777,
	        .uptime_ms = 3661001};

	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		s.counters[i] = 1000 + i;
	s.served_us[3] = 2;
	s.served_us[WIRE_BUCKETS - 1] = 1;
	s.served_sum_us = 4000;
	s.snapshot = 5ull << 32;
	return s;
}

/* Answers each query with what the test has put there: one reply for each page of rows. */
struct script {
	struct wire_msg replies[4];
	struct wire_msg also; /* to a query for rows, if the next of these is of another kind */
	uint32_t given;
	struct wire_msg last;
	struct wire_evict evicted;
	uint64_t cursor[WIRE_Q_HEAPS + 1]; /* of the last query of each kind */
};

static enum fake_answer play(struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	static const enum wire_kind rows[] = {
	        [WIRE_Q_CLIENTS] = WIRE_CLIENTS, [WIRE_Q_CLASSES] = WIRE_CLASSES, [WIRE_Q_USERS] = WIRE_USERS};
	struct script *script = d->ctx;
	uint64_t serial = reply->serial;
	uint32_t query = request->kind == WIRE_QUERY ? request->u.query.kind : 0;
	enum wire_kind kind = query < sizeof(rows) / sizeof(rows[0]) ? rows[query] : WIRE_NONE;

	script->last = *request;
	if (request->kind == WIRE_EVICT)
		script->evicted = request->u.evict;
	script->cursor[query] = request->kind == WIRE_QUERY ? request->u.query.cursor : 0;
	*reply = script->replies[script->given % 4];
	if (kind != WIRE_NONE && reply->kind != kind) { /* none of these are there */
		*reply = (struct wire_msg){.kind = kind};
		if (kind == script->also.kind)
			*reply = script->also;
	} else {
		script->given++;
	}
	reply->serial = serial;
	return FAKE_SEND;
}

static struct ctl_output ask(struct script *script, const char *command, const char *option, const char *value)
{
	struct fake_daemon *d = malloc(sizeof(*d));

	cr_assert_not_null(d);
	fake_daemon_start(d, play, script);
	struct ctl_output o = ctl_run("--socket", d->socket, command, option, value, NULL);

	fake_daemon_stop(d);
	free(d);
	return o;
}

static struct script *new_script(enum wire_kind kind)
{
	struct script *script = calloc(1, sizeof(*script));

	cr_assert_not_null(script);
	for (uint32_t i = 0; i < 4; i++)
		script->replies[i].kind = kind;
	return script;
}

static json_t *parse(struct ctl_output *o)
{
	json_error_t error;
	json_t *json = json_loads(o->out, 0, &error);

	cr_assert_not_null(json, "%s in\n%s", error.text, o->out);
	cr_assert_eq(json_integer_value(json_object_get(json, "version")), CTL_FORMAT_VERSION);
	return json;
}

/* The JSON of stats has a schema. */
static json_t *parse_report(struct ctl_output *o)
{
	json_error_t error;
	json_t *json = json_loads(o->out, 0, &error);

	cr_assert_not_null(json, "%s in\n%s", error.text, o->out);
	cr_assert_eq(json_integer_value(json_object_get(json, "schema")), REPORT_SCHEMA);
	cr_assert_str_eq(json_string_value(json_object_get(json, "version")), SHMALLOC_VERSION);
	return json;
}

static uint64_t number(const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	cr_assert(json_is_integer(value), "%s", key);
	return (uint64_t)json_integer_value(value);
}

/* ---- stats ---- */

/* Every part of the text: the lines with '+' or nothing before them add up to the line with '='. */
static uint32_t add_up(const char *text)
{
	uint64_t sum = 0, value;
	uint32_t sums = 0;

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
		char sign = *line;

		if (*line == '\n')
			sum = 0;
		if ((sign != ' ' && sign != '+' && sign != '=') || sscanf(line + 1, "%lu (", &value) != 1)
			continue;
		if (sign == '=') {
			cr_assert_eq(sum, value, "the lines add up to %lu, not %lu", sum, value);
			sums++;
		} else {
			sum += value;
		}
	}
	return sums;
}

Test(ctl_output, stats_text_adds_up)
{
	struct script *script = new_script(WIRE_STATS);

	script->replies[0].u.stats = sample_stats();
	struct ctl_output o = ask(script, "stats", NULL, NULL);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_eq(add_up(o.out), 3);
	expect_has(o.out, "Heap default, daemon up 1:01:01");
	expect_has(o.out, "         11534352  (  11.0 MiB)  in allocated blocks\n");
	expect_has(o.out, "=         33554432  (  32.0 MiB)  backed by memory\n");
	expect_has(o.out, "=       1073741824  (   1.0 GiB)  limit of the heap\n");
	expect_has(o.out, "              1000  requests for spans granted\n");
	expect_has(o.out, "           8323072  bytes of spans and large blocks granted\n");
	expect_has(o.out, "                 3  in all, which took 4000 us together\n");
	expect_has(o.out, "                 2  within 8 us\n");
	expect_has(o.out, "                 1  longer\n");
	expect_lacks(o.out, "DAMAGED");
	ctl_drop(&o);
	free(script);
}

/* Every number that stands alone in the text is a value of the JSON. */
static bool json_has(json_t *json, uint64_t n)
{
	const char *key;
	json_t *value;
	size_t i;

	if (json_is_integer(json))
		return (uint64_t)json_integer_value(json) == n;
	json_array_foreach(json, i, value) if (json_has(value, n)) return true;
	json_object_foreach(json, key, value) if (json_has(value, n)) return true;
	return false;
}

/* Rows whose numbers are found nowhere else. */
static void fill_rows(struct script *script)
{
	struct wire_users *users = &script->also.u.users;

	script->also.kind = WIRE_USERS;
	users->n_rows = 1;
	users->rows[0] = (struct wire_user_row){.uid = 4242,
	        .clients = 71,
	        .sessions = 72,
	        .bytes = 7001,
	        .limit = 7002,
	        .soft_limit = 7003,
	        .guaranteed = 7004,
	        .requests = 7005,
	        .failed = 7006};
}

static struct script *new_stats(void)
{
	struct script *script = new_script(WIRE_STATS);

	for (uint32_t i = 0; i < 4; i++)
		script->replies[i].u.stats = sample_stats();
	return script;
}

Test(ctl_output, stats_json_says_the_same)
{
	struct script *script = new_stats();

	fill_rows(script);
	struct ctl_output o = ask(script, "stats", "--format", "json"), text = ask(script, "stats", "--bytes", NULL);
	json_t *json = parse_report(&o), *stats = json_object_get(json, "stats");
	uint64_t n, numbers = 0;
	size_t metrics;
	const struct report_metric *m = report_metrics(&metrics);

	cr_assert_str_eq(json_string_value(json_object_get(json, "heap")), "default");
	cr_assert_eq(number(stats, "owned_bytes") + number(stats, "central_bytes") + number(stats, "free_bytes"),
	        number(stats, "backed_bytes"));
	cr_assert_eq(number(stats, "backed_bytes") + number(stats, "returned_bytes") + number(stats, "lazy_bytes") +
	                     number(stats, "moving_bytes") + number(stats, "seized_bytes") +
	                     number(stats, "unpublished_bytes"),
	        number(stats, "limit_bytes"));
	cr_assert_eq(number(stats, "live_bytes"), 11 * MIB + 16);
	cr_assert_eq(number(stats, "metadata_bytes"), 3456789);
	cr_assert_eq(number(stats, "clients"), 3);
	cr_assert_eq(number(stats, "uptime_ms"), 3661001);
	cr_assert(json_is_false(json_object_get(stats, "damaged")));
	cr_assert_eq(number(json_object_get(json, "counters"), "deaths"), 1009);
	for (const char *line = strchr(text.out, '\n'); line; line = strchr(line + 1, '\n'))
		if (line[1] != '\n' && (sscanf(line + 1, " %lu", &n) == 1 || sscanf(line + 1, "%*[+=] %lu", &n) == 1)) {
			cr_assert(n <= 1 || json_has(json, n), "%lu is not in the JSON", n);
			numbers++;
		}
	uint64_t want = 2 + 2 + 1; /* histograms: sums, buckets that have any; a user */

	for (size_t i = 0; i < metrics; i++)
		want += m[i].part == REPORT_HEAP || m[i].part == REPORT_COUNTER;
	cr_assert_eq(numbers, want);
	json_decref(json);
	ctl_drop(&o);
	ctl_drop(&text);
	free(script);
}

/* Rows are asked for of the moment that the sums are of. */
Test(ctl_output, stats_are_of_one_moment)
{
	struct script *script = new_stats();
	struct ctl_output o = ask(script, "stats", NULL, NULL);

	cr_assert_eq(script->cursor[WIRE_Q_STATS], 0);
	cr_assert_eq(script->cursor[WIRE_Q_CLIENTS], 5ull << 32);
	cr_assert_eq(script->cursor[WIRE_Q_CLASSES], 5ull << 32);
	cr_assert_eq(script->cursor[WIRE_Q_USERS], 5ull << 32);
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, stats_for_prometheus)
{
	struct script *script = new_stats();

	fill_rows(script);
	struct ctl_output o = ask(script, "stats", "--format", "prometheus");

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	expect_has(o.out, "# TYPE shmalloc_live_bytes gauge\nshmalloc_live_bytes{heap=\"default\"} 11534352\n");
	expect_has(o.out, "shmalloc_refills_total{heap=\"default\"} 1000\n");
	expect_has(o.out, "shmalloc_uptime_seconds{heap=\"default\"} 3661.001\n");
	expect_has(o.out, "shmalloc_user_held_bytes{heap=\"default\",user=\"4242\"} 7001\n");
	expect_has(o.out, "shmalloc_refill_served_seconds_count{heap=\"default\"} 3\n");
	ctl_drop(&o);
	free(script);
}

/* Every figure that a table shows is in the table of metrics under the key that it has in JSON. */
static void expect_known(const struct ctl_table *table, enum report_part part)
{
	static const char *const names[] = {"client", "pid", "uid", "sclass", "size_bytes"};

	for (uint32_t i = 0; i < table->n_columns; i++) {
		const struct ctl_column *column = &table->columns[i];
		enum ctl_kind kind = (enum ctl_kind)(column->kind & ~(CTL_WIDE | CTL_NARROW));
		bool name = kind == CTL_TEXT || kind == CTL_NAME;

		cr_assert(name || column->key, "%s is not in the JSON", column->head);
		for (size_t k = 0; !name && k < sizeof(names) / sizeof(names[0]); k++)
			name = strcmp(column->key, names[k]) == 0;
		cr_assert(name || report_metric(part, column->key), "%s is no metric", column->key);
	}
}

Test(ctl_output, tables_show_what_is_measured)
{
	expect_known(&ctl_clients_table, REPORT_CLIENT);
	expect_known(&ctl_users_table, REPORT_USER);
	expect_known(&ctl_classes_table, REPORT_CLASS);
}

Test(ctl_output, stats_of_a_damaged_heap)
{
	struct script *script = new_script(WIRE_STATS);

	for (uint32_t i = 0; i < 4; i++) {
		script->replies[i].u.stats = sample_stats();
		script->replies[i].u.stats.damaged = 1;
		script->replies[i].u.stats.limit = 5; /* less than its parts, and more than JSON has */
		script->replies[i].u.stats.metadata = UINT64_MAX;
		snprintf(script->replies[i].u.stats.heap, WIRE_NAME, "a\001b\\");
	}
	struct ctl_output o = ask(script, "stats", NULL, NULL);

	cr_assert_eq(o.status, CTL_OK);
	expect_has(o.out, "Heap a\\x01b\\\\, daemon");
	expect_has(o.out, "DAMAGED");
	ctl_drop(&o);
	o = ask(script, "stats", "--format", "json");
	json_t *json = parse_report(&o), *stats = json_object_get(json, "stats");

	cr_assert(json_is_true(json_object_get(stats, "damaged")));
	cr_assert_eq(number(stats, "unpublished_bytes"), 0);
	cr_assert_eq(number(stats, "metadata_bytes"), INT64_MAX);
	cr_assert_str_eq(json_string_value(json_object_get(json, "heap")), "a\001b\\");
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

/* ---- tables ---- */

static void fill_clients(struct script *script)
{
	struct wire_clients *first = &script->replies[0].u.clients, *second = &script->replies[1].u.clients;

	first->n_rows = 2;
	first->next = 7;
	first->rows[0] = (struct wire_client_row){.client = 1,
	        .pid = 4711,
	        .uid = 1000,
	        .threads = 4,
	        .spans = 12,
	        .bytes = 3 * MIB / 2,
	        .live = 500000,
	        .cached = 1000,
	        .slots_free = 24,
	        .limit = 1024 * MIB,
	        .requests = 99,
	        .failed = 3,
	        .since_ms = 90061000,
	        .label = "a label that is long"};
	first->rows[1] = (struct wire_client_row){.client = 2, .detached = 1, .bytes = 9, .label = "evil\033[2J\n\xff"};
	second->n_rows = 1;
	second->rows[0] = (struct wire_client_row){
	        .client = 9, .evicted = 1, .bytes = 5, .since_ms = 3661000, .label = "gr\xc3\xbc\xc3\x9f"};
}

/* A table's columns begin at the same place in every line. */
static void expect_aligned(const char *text, const char *head, const char *const *cells, uint32_t n)
{
	const char *at = strstr(text, head);
	size_t column;

	cr_assert_not_null(at);
	column = (size_t)(at - text) + strlen(head);
	for (uint32_t i = 0; i < n; i++) {
		const char *cell = strstr(text, cells[i]), *line = cell;

		cr_assert_not_null(cell, "%s in\n%s", cells[i], text);
		while (line > text && line[-1] != '\n')
			line--;
		cr_assert_eq((size_t)(cell - line) + strlen(cells[i]), column, "%s in\n%s", cells[i], text);
	}
}

Test(ctl_output, clients)
{
	struct script *script = new_script(WIRE_CLIENTS);

	fill_clients(script);
	struct ctl_output o = ask(script, "clients", NULL, NULL);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	expect_aligned(o.out, "HELD", (const char *const[]){"    1.5 MiB"}, 1);
	expect_aligned(o.out, "IDLE", (const char *const[]){"     1.0 KiB"}, 1);
	expect_has(o.out, "evil\\x1b[2J\\x0a\\xff\n");
	expect_has(o.out, "gr\xc3\xbc\xc3\x9f\n");
	expect_has(o.out, "detached         9 B         0 B         0 B           -        0   0:00:00  evil");
	expect_has(o.out, "evicted          5 B         0 B         0 B           -        0   1:01:01  gr");
	expect_has(o.out, "      3  1d 01:01  a label that is long\n");
	ctl_drop(&o);

	script->given = 0;
	o = ask(script, "clients", "--bytes", NULL);
	expect_has(o.out, "   1572864      500000        1024  1073741824        3  1d 01:01  a label that is long\n");
	ctl_drop(&o);

	script->given = 0;
	o = ask(script, "clients", "--wide", NULL);
	expect_has(o.out, " a label that i ");
	expect_has(o.out, " evil\\x1b[2J\\x0 -\n"); /* there is no process 0 */
	for (const char *line = o.out; *line; line = strchr(line, '\n') + 1)
		cr_assert_leq(strcspn(line, "\n"), 164, "%s", line); /* characters of two bytes */
	ctl_drop(&o);

	script->given = 0;
	o = ask(script, "clients", "--sort", "-held_bytes");
	cr_assert(strstr(o.out, "gr\xc3") < strstr(o.out, "evil") && strstr(o.out, "evil") < strstr(o.out, "a label"));
	ctl_drop(&o);
	script->given = 0;
	o = ask(script, "clients", "--sort", "label");
	cr_assert(strstr(o.out, "gr\xc3") < strstr(o.out, "evil") && strstr(o.out, "evil") < strstr(o.out, "a label"));
	ctl_drop(&o);
	script->given = 0;
	o = ask(script, "clients", "--sort", "size");
	cr_assert_eq(o.status, CTL_USAGE);
	expect_has(o.err, "there is no key 'size' to sort by");
	ctl_drop(&o);

	script->given = 0;
	o = ask(script, "clients", "--format", "json");
	json_t *json = parse(&o), *rows = json_object_get(json, "clients");

	cr_assert_eq(json_array_size(rows), 3);
	cr_assert_eq(number(json_array_get(rows, 0), "held_bytes"), 3 * MIB / 2);
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(rows, 1), "state")), "detached");
	cr_assert_str_eq(
	        json_string_value(json_object_get(json_array_get(rows, 1), "label")), "evil\\x1b[2J\\x0a\\xff");
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(rows, 2), "label")), "gr\xc3\xbc\xc3\x9f");
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, classes)
{
	struct script *script = new_script(WIRE_CLASSES);
	struct wire_classes *rows = &script->replies[0].u.classes;

	rows->n_rows = 3;
	rows->rows[0] = (struct wire_class_row){.sclass = 16,
	        .size = 64,
	        .spans_owned = 3,
	        .spans_central = 1,
	        .bytes = 4 * 8192,
	        .live = 100,
	        .cached = 28,
	        .slots_free = 384};
	rows->rows[1] = (struct wire_class_row){.sclass = 16 + SHMI_SCOPED + SHMI_NOSCAN, .size = 64};
	rows->rows[2] =
	        (struct wire_class_row){.sclass = SHMI_CLASS_LARGE * SHMI_ATTRS + SHMI_SCOPED, .spans_owned = 2};
	script->replies[1] = script->replies[0];
	struct ctl_output o = ask(script, "classes", NULL, NULL);

	expect_has(o.out,
	        "   16  64 B                          3        1     32.0 KiB         100          28         384\n");
	expect_has(o.out, "   19  64 B scoped noscan ");
	expect_has(o.out, "  305  large scoped ");
	ctl_drop(&o);
	o = ask(script, "classes", "-f", "json");
	json_t *json = parse(&o), *row = json_array_get(json_object_get(json, "classes"), 1);

	cr_assert_eq(number(row, "size_bytes"), 64);
	cr_assert_str_eq(json_string_value(json_object_get(row, "attributes")), "scoped noscan");
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, spans)
{
	struct script *script = new_script(WIRE_SPAN_ROWS);
	struct wire_span_rows *rows = &script->replies[0].u.span_rows;

	rows->n_rows = 4;
	rows->rows[0] = (struct wire_span_row){1, 1, SHMI_SPAN_OWNED, 16, 3, 7, 128, 100};
	rows->rows[1] = (struct wire_span_row){2, 40, SHMI_SPAN_LARGE, SHMI_CLASS_LARGE * 4, SHMI_NOBODY, 8, 1, 0};
	rows->rows[2] = (struct wire_span_row){42, 8000, SHMI_SPAN_RETURNED, 0, SHMI_NOBODY, 0, 0, 0};
	rows->rows[3] = (struct wire_span_row){9000, 1, SHMI_SPAN_QUARANTINE, 4000, SHMI_NOBODY, 0, 0, 0};
	script->replies[1] = script->replies[0];
	struct ctl_output o = ask(script, "spans", NULL, NULL);

	expect_has(
	        o.out, "        1          1  owned       64 B                        3           7    128    100\n");
	expect_has(
	        o.out, "        2         40  large       large                       -           8      1      0\n");
	expect_has(
	        o.out, "       42       8000  returned    -                           -           0      0      0\n");
	expect_has(o.out, "     9000          1  quarantine  ? ");
	ctl_drop(&o);
	o = ask(script, "spans", "-f", "json");
	json_t *json = parse(&o);
	const json_t *all = json_object_get(json, "spans");

	cr_assert_eq(number(json_array_get(all, 0), "owner"), 3);
	cr_assert(json_is_null(json_object_get(json_array_get(all, 1), "owner")));
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(all, 2), "state")), "returned");
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, roots)
{
	struct script *script = new_script(WIRE_ROOTS);
	struct wire_roots *rows = &script->replies[0].u.roots;

	rows->n_rows = 2;
	rows->rows[0] = (struct wire_root){"jobs", 8192, 3, false};
	rows->rows[1] = (struct wire_root){"\xe2\x80\xae"
	                                   "drawkcab",
	        1ull << 40, SHMI_NOBODY, false};
	script->replies[1] = script->replies[0];
	struct ctl_output o = ask(script, "roots", NULL, NULL);

	expect_has(o.out, "           8192       3  jobs\n");
	expect_has(
	        o.out, "  1099511627776       -  \\xe2\\x80\\xaedrawkcab\n"); /* text that turns its neighbours about */
	ctl_drop(&o);
	o = ask(script, "roots", "-f", "json");
	json_t *json = parse(&o);

	cr_assert_eq(number(json_array_get(json_object_get(json, "roots"), 1), "offset"), 1ull << 40);
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, empty_tables)
{
	static const struct {
		const char *command, *words;
		enum wire_kind kind;
	} tables[] = {{"clients", "no clients\n", WIRE_CLIENTS}, {"classes", "no spans in use\n", WIRE_CLASSES},
	        {"spans", "no pages yet\n", WIRE_SPAN_ROWS}, {"roots", "no roots\n", WIRE_ROOTS},
	        {"users", "no users\n", WIRE_USERS}};

	for (size_t i = 0; i < 5; i++) {
		struct script *script = new_script(tables[i].kind);
		struct ctl_output o = ask(script, tables[i].command, NULL, NULL);

		cr_assert_eq(o.status, CTL_OK);
		cr_assert_str_eq(o.out, tables[i].words);
		ctl_drop(&o);
		o = ask(script, tables[i].command, "--format", "json");
		json_t *json = parse(&o);

		cr_assert_eq(json_array_size(json_object_get(json, tables[i].command)), 0);
		json_decref(json);
		ctl_drop(&o);
		free(script);
	}
}

/* A daemon whose pages never end is left. */
Test(ctl_output, cursor_that_goes_back)
{
	struct script *script = new_script(WIRE_ROOTS);

	for (uint32_t i = 0; i < 4; i++) {
		script->replies[i].u.roots.n_rows = 1;
		script->replies[i].u.roots.rows[0] = (struct wire_root){"again", 16, 1, false};
		script->replies[i].u.roots.next = i == 2 ? 5 : 5 + i;
	}
	struct ctl_output o = ask(script, "roots", NULL, NULL);

	cr_assert_eq(o.status, CTL_FAILED);
	expect_has(o.err, "go round in circles");
	ctl_drop(&o);
	free(script);
}

/* ---- trim, check ---- */

Test(ctl_output, trim)
{
	struct script *script = new_script(WIRE_TRIM_OK);

	for (uint32_t i = 0; i < 4; i++)
		script->replies[i].u.trim_ok.bytes = 3 * MIB;
	struct ctl_output o = ask(script, "trim", "--all", NULL);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_str_eq(o.out, "3145728 bytes (3.0 MiB) returned to the system\n");
	cr_assert(script->last.u.trim.all && !script->last.u.trim.one);
	cr_assert_str_eq(script->last.u.trim.heap, "default");
	ctl_drop(&o);
	o = ask(script, "trim", "7", NULL);
	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert(!script->last.u.trim.all && script->last.u.trim.one && script->last.u.trim.client == 7);
	ctl_drop(&o);
	o = ask(script, "trim", "-f", "json");
	json_t *json = parse(&o);

	cr_assert_eq(number(json, "returned_bytes"), 3 * MIB);
	cr_assert(!script->last.u.trim.all && !script->last.u.trim.one);
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

/* ---- evict ---- */

/* What the client's row says before the eviction and after it. */
static struct script *an_eviction(uint32_t pid_before, uint32_t pid_after)
{
	struct script *script = new_script(WIRE_CLIENTS);

	for (uint32_t i = 0; i < 4; i += 2) {
		struct wire_clients *clients = &script->replies[i].u.clients;

		clients->n_rows = 2;
		clients->rows[0] = (struct wire_client_row){
		        .client = 7, .pid = i ? pid_after : pid_before, .bytes = 5 * MIB, .evicted = i != 0};
		clients->rows[1] = (struct wire_client_row){.client = 8, .pid = 99};
	}
	script->replies[1].kind = WIRE_TRIM_OK;
	script->replies[1].u.trim_ok.bytes = 3 * MIB;
	return script;
}

Test(ctl_output, evict)
{
	struct script *script = an_eviction(123, 123);
	struct ctl_output o = ask(script, "evict", "7", NULL);

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	cr_assert_str_eq(o.out,
	        "client 7 (pid 123) is evicted: 3145728 bytes returned to the system, 5242880 bytes (5.0 MiB) "
	        "stay its own until its process ends\n");
	cr_assert_eq(script->given, 3);
	cr_assert_eq(script->evicted.client, 7);
	cr_assert_str_eq(script->evicted.heap, "default");
	ctl_drop(&o);
	script->given = 0;
	setenv("SHMALLOC_HEAP", "another", 1);
	o = ask(script, "evict", "7", "-fjson");
	json_t *json = parse(&o);

	cr_assert(number(json, "client") == 7 && number(json, "pid") == 123);
	cr_assert(number(json, "returned_bytes") == 3 * MIB && number(json, "held_bytes") == 5 * MIB);
	cr_assert(json_is_false(json_object_get(json, "killed")));
	cr_assert_str_eq(script->evicted.heap, "another");
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

static void expect_refused(struct script *script, const char *client, const char *option, const char *why)
{
	struct ctl_output o = ask(script, "evict", client, option);

	cr_assert_eq(o.status, CTL_FAILED);
	expect_has(o.err, why);
	cr_assert_str_eq(o.out, "");
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, evict_of_nobody)
{
	expect_refused(an_eviction(123, 123), "6", NULL, "there is no client 6");
}

Test(ctl_output, evict_of_who_has_become_another)
{
	expect_refused(an_eviction(123, 124), "7", NULL, "client 7 was pid 123 and is pid 124 now");
}

Test(ctl_output, evict_is_refused)
{
	struct script *script = an_eviction(123, 123);

	script->replies[1].kind = WIRE_ERROR;
	script->replies[1].u.error = (struct wire_error){.code = WIRE_E_ACCESS, .text = "only root\x1b[2J"};
	expect_refused(script, "7", NULL, "the daemon refuses: only root\\x1b[2J");
}

/* ---- evict --kill ---- */

static pid_t start_sleeper(void)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static bool lives(pid_t pid)
{
	return waitpid(pid, NULL, WNOHANG) == 0;
}

static void end_sleeper(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* The daemon has another client in its place by the time that it is asked: nobody is killed. */
Test(ctl_output, who_is_not_the_client_any_more_is_not_killed)
{
	pid_t pid = start_sleeper();

	expect_refused(an_eviction((uint32_t)pid, (uint32_t)pid + 1), "7", "--kill", "is pid");
	cr_assert(lives(pid));
	struct script *script = an_eviction((uint32_t)pid, (uint32_t)pid);

	script->replies[1].kind = WIRE_ERROR;
	script->replies[1].u.error =
	        (struct wire_error){.code = WIRE_E_NOT_FOUND, .text = "client 7 has ended already"};
	expect_refused(script, "7", "--kill", "has ended already");
	cr_assert(lives(pid));
	end_sleeper(pid);
}

/* After the kill the row is asked for until it is gone. */
Test(ctl_output, evict_and_kill)
{
	pid_t pid = start_sleeper();
	struct script *script = an_eviction((uint32_t)pid, (uint32_t)pid);
	struct ctl_output o = ask(script, "evict", "7", "--kill");
	int status;

	cr_assert_eq(o.status, CTL_OK, "%s", o.err);
	expect_has(o.out,
	        "is evicted and has ended: 3145728 bytes returned to the system, 5242880 bytes (5.0 MiB) taken back");
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cr_assert_eq(script->given, 4, "and its row was asked for once more");
	ctl_drop(&o);
	free(script);
}

Test(ctl_output, check)
{
	struct script *script = new_script(WIRE_CHECK);
	struct wire_check *check = &script->replies[2].u.check;

	check->violations = 500;
	check->n_rows = 3;
	check->rows[0] = (struct wire_check_row){11, 7, 3, "slot 3 of page 7 is cached by thread 1 and by 2"};
	check->rows[1] = (struct wire_check_row){11, 7, 4, "slot 4\n of page 7"};
	check->rows[2] = (struct wire_check_row){99, 0, 0, "?"};
	script->replies[3] = script->replies[2];
	struct ctl_output o = ask(script, "check", NULL, NULL);

	cr_assert_eq(o.status, CTL_OK);
	cr_assert_str_eq(o.out, "heap default: clean\n");
	ctl_drop(&o);
	o = ask(script, "check", "-f", "json");
	json_t *json = parse(&o);

	cr_assert(json_is_true(json_object_get(json, "clean")));
	json_decref(json);
	ctl_drop(&o);

	o = ask(script, "check", NULL, NULL);
	cr_assert_eq(o.status, CTL_FOUND);
	expect_has(o.out, "I11: No slot is cached twice.\n  I11 page 7, detail 3: slot 3 of page 7 is cached by thread "
	                  "1 and by 2\n"
	                  "  I11 page 7, detail 4: slot 4\\x0a of page 7\nI99: (not known to this program)\n");
	expect_has(o.out, "and 497 more\nheap default: 500 violations\n");
	ctl_drop(&o);
	o = ask(script, "check", "-f", "json");
	cr_assert_eq(o.status, CTL_FOUND);
	json = parse(&o);
	cr_assert_eq(number(json, "violations"), 500);
	cr_assert_eq(number(json_array_get(json_object_get(json, "rows"), 0), "invariant"), 11);
	json_decref(json);
	ctl_drop(&o);
	free(script);
}

/* ---- saved images ---- */

static void save(const char *path, const void *bytes, uint64_t len, uint64_t whole)
{
	FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes, 1, len, file), len);
	fclose(file);
	cr_assert_eq(truncate(path, (off_t)whole), 0);
}

Test(ctl_output, saved_images)
{
	struct test_image *t = test_image_new(TEST_MEMFD, LIVED_LIMIT);
	char dir[] = "/tmp/ctlsaved.XXXXXX", meta[64], ctl[64];
	struct ctl_output o;
	struct lived h;

	cr_assert_not_null(mkdtemp(dir));
	snprintf(meta, sizeof(meta), "%s/meta", dir);
	snprintf(ctl, sizeof(ctl), "%s/ctl", dir);
	lived_init(&h, t);
	save(meta, t->img.meta, t->meta_len, t->meta_len);
	save(ctl, t->img.ctl, t->ctl_len, t->img.geo.ctl_bytes);
	o = ctl_run("check", "--image", meta, ctl, NULL);
	cr_assert_eq(o.status, CTL_OK, "%s%s", o.out, o.err);
	cr_assert_str_eq(o.out, "heap test: clean\n");
	ctl_drop(&o);
	o = ctl_run("dump", "--image", meta, ctl, NULL);
	cr_assert_eq(o.status, CTL_OK);
	expect_has(o.out, "  magazine 16 (64 B): 54\n");
	ctl_drop(&o);

	lived_push(lived_magazine(&h, 1, 64, 0), shmi_load(&lived_magazine(&h, 0, 64, 0)->entry[3]));
	save(ctl, t->img.ctl, t->ctl_len, t->img.geo.ctl_bytes);
	o = ctl_run("check", "--image", meta, ctl, NULL);
	cr_assert_eq(o.status, CTL_FOUND);
	expect_has(o.out, "I11: No slot is cached twice.\n");
	expect_has(o.out, "heap test: 1 violations\n");
	ctl_drop(&o);
	o = ctl_run("check", "--image", meta, NULL);
	cr_assert_eq(o.status, CTL_OK);
	ctl_drop(&o);

	cr_assert_eq(truncate(meta, 100000), 0);
	o = ctl_run("check", "--image", meta, ctl, NULL);
	cr_assert_eq(o.status, CTL_FAILED);
	expect_has(o.err, "it is shorter than its header says");
	ctl_drop(&o);
	save(meta, "rubbish", 7, 8192);
	o = ctl_run("dump", "--image", meta, NULL);
	cr_assert_eq(o.status, CTL_FAILED);
	expect_has(o.err, "it is not an object of shmalloc");
	ctl_drop(&o);
	cr_assert_eq(truncate(meta, 0), 0);
	o = ctl_run("check", "--image", meta, NULL);
	expect_has(o.err, "it is empty");
	ctl_drop(&o);
	o = ctl_run("check", "--image", "/dev/null", NULL);
	cr_assert_eq(o.status, CTL_FAILED);
	ctl_drop(&o);
	unlink(meta);
	unlink(ctl);
	rmdir(dir);
	test_image_free(t);
}

/* ---- pieces ---- */

Test(ctl_output, human)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536 * 1024, "1.5 MiB"}, {MIB - 1, "1.0 MiB"},
	        {1ull << 40, "1.0 TiB"}, {UINT64_MAX, "16.0 EiB"}};
	char text[32];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		report_human(cases[i].bytes, text, sizeof(text));
		cr_assert_str_eq(text, cases[i].text);
	}
}

Test(ctl_output, clean)
{
	static const struct {
		const char *from, *to;
	} cases[] = {{"", ""}, {"plain", "plain"}, {"a\\b", "a\\\\b"}, {"\t\r\n\x7f", "\\x09\\x0d\\x0a\\x7f"},
	        {"\xc2\x9b"
	         "1m",
	                "\\xc2\\x9b1m"}, /* a C1 control */
	        {"\xc0\xaf", "\\xc0\\xaf"}, /* overlong */
	        {"\xe2\x82\xac", "\xe2\x82\xac"}, /* a euro sign */
	        {"\xe2\x82", "\\xe2\\x82"}, /* cut */
	        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* a surrogate */
	        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}, /* four bytes */
	        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond Unicode */
	        {"\x80", "\\x80"}};
	char text[64];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		report_clean(cases[i].from, text, sizeof(text));
		cr_assert_str_eq(text, cases[i].to);
	}
	report_clean("abcdefgh", text, 8);
	cr_assert_str_eq(text, "abcd"); /* cut where an escape might not fit */
}

/* ---- control groups ---- */

static const char *cgroup_of(const char *text)
{
	static char copy[1024];

	snprintf(copy, sizeof(copy), "%s", text);
	return ctl_cgroup_parse(copy);
}

Test(ctl_output, control_groups)
{
	char text[CTL_CELL];

	cr_assert_str_eq(cgroup_of("0::/system.slice/a.service\n"), "/system.slice/a.service");
	cr_assert_str_eq(cgroup_of("3:cpu:/x\n1:name=systemd:/user.slice/s\n0::/\n"), "/user.slice/s");
	cr_assert_str_eq(cgroup_of("1:name=systemd:/user.slice/s\n0::/deep\n"), "/deep");
	cr_assert_str_eq(cgroup_of("0::/\n"), "/");
	cr_assert_null(cgroup_of("3:cpu:/x\n"));
	cr_assert_null(cgroup_of(""));
	ctl_cgroup(0, text, sizeof(text));
	cr_assert_str_eq(text, "-", "there is no such process");
}
