#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/report/report.h"

/* A report of which every number is another one. */
static struct wire_stats stats = {.heap = "he\"ap\\one\n", .clients = 3, .threads = 5};
static struct wire_client_row clients[80];
static struct wire_user_row users[70];
static struct wire_class_row classes[2] = {
        {.sclass = 17, .size = 64, .bytes = 8192}, {.sclass = 300, .bytes = 1 << 20}};
static struct wire_heap_row heaps[1] = {{.name = "he\"ap\\one\n", .limit = 1 << 30, .allowed = 1}};
static struct report report = {.stats = {.limit = 0},
        .clients = clients,
        .n_clients = 80,
        .users = users,
        .n_users = 70,
        .classes = classes,
        .n_classes = 2,
        .heaps = heaps,
        .n_heaps = 1,
        .version = "1.2.3"};

static void fill(void)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);
	unsigned char *rows[REPORT_PARTS] = {(unsigned char *)&stats, (unsigned char *)&stats, (unsigned char *)classes,
	        (unsigned char *)clients, (unsigned char *)users};

	for (size_t i = 0; i < n; i++) {
		uint64_t value = 1000 + i;
		uint32_t narrow = (uint32_t)value;

		if (m[i].derive)
			continue;
		if (m[i].wide)
			memcpy(rows[m[i].part] + m[i].at, &value, sizeof(value));
		else
			memcpy(rows[m[i].part] + m[i].at, &narrow, sizeof(narrow));
	}
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		stats.served_us[b] = b + 1, stats.waited_us[b] = 2 * b;
	stats.served_sum_us = 2500000;
	for (uint32_t i = 1; i < 80; i++)
		clients[i] =
		        (struct wire_client_row){.client = i, .pid = 100 + i, .bytes = i, .requests = 7, .since_ms = 5};
	for (uint32_t i = 1; i < 70; i++)
		users[i] = (struct wire_user_row){.uid = i, .bytes = i, .requests = 3};
	snprintf(clients[79].label, sizeof(clients[79].label), "a \"b\" \\ \n\x1b[31m\xff");
	report.stats = stats;
}

static char *exposition(const struct report *reports, size_t n)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	cr_assert_eq(report_prometheus(reports, n, out), 0);
	fclose(out);
	return text;
}

/* The value of the sample that begins so; NULL if there is none. */
static const char *sample(const char *text, const char *head)
{
	size_t len = strlen(head);

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (strncmp(line, head, len) == 0)
			return line + len;
	return NULL;
}

static uint32_t count(const char *text, const char *what)
{
	uint32_t n = 0;

	for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
		n++;
	return n;
}

/* ---- the table ---- */

Test(report, every_figure_has_one_key_and_one_name)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);

	for (size_t i = 0; i < n; i++) {
		cr_expect(m[i].key && m[i].label && m[i].name && m[i].help, "%zu", i);
		cr_expect_eq(strncmp(m[i].name, "shmalloc_", 9), 0, "%s", m[i].name);
		size_t len = strlen(m[i].name);
		bool total = len > 6 && strcmp(m[i].name + len - 6, "_total") == 0;

		cr_expect_eq(total, m[i].counter, "%s", m[i].name);
		cr_expect_eq(report_metric(m[i].part, m[i].key), &m[i], "the key %s is there twice", m[i].key);
		for (size_t k = 0; k < i; k++) {
			cr_expect_str_neq(m[i].name, m[k].name);
			cr_expect(m[i].part != m[k].part || m[i].derive || m[k].derive || m[i].at != m[k].at,
			        "%s and %s are one number", m[i].key, m[k].key);
		}
	}
}

/* Every number of the messages is in the table. */
#define EXPECT_ALL(part_, struct_, from)                                                                               \
	do {                                                                                                           \
		for (size_t at = (from); at < sizeof(struct struct_); at += 4)                                         \
			cr_expect(is_known(part_, at), "struct " #struct_ ": what lies at %zu is in no metric", at);   \
	} while (0)

static bool covers(const struct report_metric *m, enum report_part part, size_t at)
{
	bool same = m->part == part || (part == REPORT_HEAP && m->part == REPORT_COUNTER);

	return same && !m->derive && at >= m->at && at < m->at + (m->wide ? 8 : 4);
}

static bool lies_in(size_t at, size_t from, size_t len)
{
	return at >= from && at < from + len;
}

/* What names a row, is in a histogram, is there twice, or lies between fields. */
static bool is_no_figure(enum report_part part, size_t at)
{
	switch (part) {
	case REPORT_HEAP:
		return lies_in(at, offsetof(struct wire_stats, heap), WIRE_NAME) ||
		       lies_in(at, offsetof(struct wire_stats, served_us),
		               2 * WIRE_BUCKETS * 8 + 24) /* and which moment it is */
		       || lies_in(at, offsetof(struct wire_stats, counters) + 13 * 8, 8) /* peak_backed, in pages */ ||
		       lies_in(at, offsetof(struct wire_stats, roots) + 4, 4) ||
		       lies_in(at, offsetof(struct wire_stats, damaged) + 4, 4);
	case REPORT_CLIENT:
		return at < offsetof(struct wire_client_row, threads) ||
		       lies_in(at, offsetof(struct wire_client_row, detached) + 4, 4) ||
		       lies_in(at, offsetof(struct wire_client_row, label), WIRE_NAME) ||
		       at >= offsetof(struct wire_client_row, evicted) + 4;
	case REPORT_USER:
		return at == 0 || at == offsetof(struct wire_user_row, sessions) + 4;
	case REPORT_CLASS:
		return at < offsetof(struct wire_class_row, spans_owned);
	default:
		return false;
	}
}

static bool is_known(enum report_part part, size_t at)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);

	if (is_no_figure(part, at))
		return true;
	for (size_t i = 0; i < n; i++)
		if (covers(&m[i], part, at))
			return true;
	return false;
}

Test(report, no_number_of_a_message_is_left_out)
{
	EXPECT_ALL(REPORT_HEAP, wire_stats, 0);
	EXPECT_ALL(REPORT_CLASS, wire_class_row, 0);
	EXPECT_ALL(REPORT_CLIENT, wire_client_row, 0);
	EXPECT_ALL(REPORT_USER, wire_user_row, 0);
}

/* The man page lists each figure with its key and what it means, and none besides. */
static char *read_page(void)
{
	static char page[1 << 18];
	FILE *file = fopen("client/ctl/shmallocctl.1", "r");

	cr_assert_not_null(file, "run me from the project's root");
	page[fread(page, 1, sizeof(page) - 1, file)] = 0;
	fclose(file);
	return page;
}

Test(report, the_man_page_has_them_all)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);
	char *page = read_page(), item[1024];
	uint32_t items = REPORT_HISTOGRAMS;

	for (size_t i = 0; i < n; i++) {
		snprintf(item, sizeof(item), ".It Va %s , %s\n%s\n", m[i].name, m[i].key, m[i].help);
		cr_expect_not_null(strstr(page, item), "missing:\n%s", item);
		items++;
	}
	for (uint32_t h = 0; h < REPORT_HISTOGRAMS; h++) {
		const struct report_histogram *histogram = &report_histograms[h];

		snprintf(item, sizeof(item), ".It Va %s , %s\n%s\n", histogram->name, histogram->key, histogram->help);
		cr_expect_not_null(strstr(page, item), "missing:\n%s", item);
	}
	cr_expect_eq(count(page, ".It Va shmalloc_"), items);
}

/* ---- JSON and Prometheus say the same ---- */

static json_t *json_row(json_t *json, enum report_part part)
{
	switch (part) {
	case REPORT_HEAP:
		return json_object_get(json, "stats");
	case REPORT_COUNTER:
		return json_object_get(json, "counters");
	case REPORT_CLASS:
		return json_array_get(json_object_get(json, "classes"), 0);
	case REPORT_CLIENT:
		return json_array_get(json_object_get(json, "clients"), 0);
	default:
		return json_array_get(json_object_get(json, "users"), 0);
	}
}

static const void *wire_row(enum report_part part)
{
	const void *rows[REPORT_PARTS] = {&report.stats, &report.stats, classes, clients, users};

	return rows[part];
}

static const char *labels_of(enum report_part part)
{
	static const char *const labels[REPORT_PARTS] = {"{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\"} ",
	        "{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\"} ",
	        "{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\",class=\"64 B scoped\"} ",
	        "{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\",client=\"0\",label=\"\"} ",
	        "{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\",user=\"0\"} "};

	return labels[part];
}

static double scale(enum report_unit unit)
{
	return unit == REPORT_MS ? 1e3 : unit == REPORT_US ? 1e6 : 1;
}

Test(report, every_figure_is_in_json_and_for_prometheus, .init = fill)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);
	json_t *json = report_json(&report);
	char *text = exposition(&report, 1), head[1024];

	for (size_t i = 0; i < n; i++) {
		json_t *value = json_object_get(json_row(json, m[i].part), m[i].key);
		uint64_t want = report_value(&m[i], wire_row(m[i].part));

		if (m[i].unit == REPORT_FLAG)
			cr_expect_eq(json_is_true(value), want != 0, "%s", m[i].key);
		else
			cr_expect_eq((uint64_t)json_integer_value(value), want, "%s", m[i].key);
		cr_expect(want != 0 || m[i].derive, "%s is not looked at", m[i].key);
		snprintf(head, sizeof(head), "%s%s", m[i].name, labels_of(m[i].part));
		const char *found = sample(text, head);

		cr_assert_not_null(found, "no sample %s", head);
		cr_expect_float_eq(strtod(found, NULL), (double)want / scale(m[i].unit), 1e-6, "%s", m[i].name);
		snprintf(head, sizeof(head), "# TYPE %s %s\n", m[i].name, m[i].counter ? "counter" : "gauge");
		cr_expect_eq(count(text, head), 1, "%s", head);
		snprintf(head, sizeof(head), "# HELP %s ", m[i].name);
		cr_expect_eq(count(text, head), 1, "%s", head);
	}
	json_decref(json);
	free(text);
}

Test(report, pages_become_bytes, .init = fill)
{
	report.stats.counters[16] = 3;
	report.stats.counters[15] = 2;
	cr_expect_eq(report_value(report_metric(REPORT_COUNTER, "granted_bytes"), &report.stats), 3 * 8192);
	cr_expect_eq(report_value(report_metric(REPORT_COUNTER, "mended_bytes"), &report.stats), 2 * 4096);
}

Test(report, what_follows_from_others)
{
	const struct wire_stats s = {.limit = 100,
	        .owned = 10,
	        .central = 5,
	        .free = 6,
	        .backed = 21,
	        .lazy = 3,
	        .returned = 4,
	        .moving = 2,
	        .seized = 7};
	const struct wire_client_row row = {.cached = 3, .slots_free = 4};

	cr_expect_eq(report_value(report_metric(REPORT_HEAP, "span_bytes"), &s), 18);
	cr_expect_eq(report_value(report_metric(REPORT_HEAP, "unpublished_bytes"), &s), 100 - 21 - 4 - 3 - 2 - 7);
	cr_expect_eq(report_value(report_metric(REPORT_CLIENT, "idle_bytes"), &row), 7);
}

Test(report, texts_of_json_are_fit_to_be_shown)
{
	static const struct {
		const char *text, *shown;
	} cases[] = {{"gr\xc3\xbc\xc3\x9f \\", "gr\xc3\xbc\xc3\x9f \\"}, {"a\n\x1b", "a\n\x1b"}, {"a\x7f", "a\\x7f"},
	        {"\xc2\x9b", "\\xc2\\x9b"}, {"\xff", "\\xff"}, {"\xe2\x80\xae<", "\\xe2\\x80\\xae<"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *json = report_json_text(cases[i].text);

		cr_expect_str_eq(json_string_value(json), cases[i].shown);
		json_decref(json);
	}
}

Test(report, texts_are_cut_between_characters)
{
	static const size_t fit[] = {0, 1, 2, 2, 4, 4, 4, 7, 7};

	for (size_t most = 0; most < sizeof(fit) / sizeof(fit[0]); most++)
		cr_expect_eq(report_fit("gr\xc3\xbc\xe2\x82\xac", most), fit[most], "%zu", most);
}

Test(report, json_is_versioned_and_has_all_parts, .init = fill)
{
	json_t *json = report_json(&report);

	cr_expect_eq(json_integer_value(json_object_get(json, "schema")), REPORT_SCHEMA);
	cr_expect_str_eq(json_string_value(json_object_get(json, "version")), "1.2.3");
	cr_expect_str_eq(json_string_value(json_object_get(json, "heap")), "he\"ap\\one\n");
	cr_expect_eq(json_array_size(json_object_get(json, "clients")), 80);
	cr_expect_eq(json_array_size(json_object_get(json, "users")), 70);
	cr_expect_eq(json_array_size(json_object_get(json, "classes")), 2);
	cr_expect_eq(json_array_size(json_object_get(json, "heaps")), 1);
	json_decref(json);
	json = report_json(&(struct report){.version = NULL});
	cr_expect(json_is_null(json_object_get(json, "version")));
	cr_expect_eq(json_array_size(json_object_get(json, "clients")), 0);
	json_decref(json);
}

/* ---- labels ---- */

Test(report, labels_are_bounded_and_the_rest_is_one_sum, .init = fill)
{
	char *text = exposition(&report, 1), head[256];
	const char *found;

	cr_expect_eq(count(text, "\nshmalloc_client_held_bytes{"), REPORT_EACH + 1);
	cr_expect_eq(count(text, "\nshmalloc_user_held_bytes{"), REPORT_EACH + 1);
	cr_expect_eq(count(text, "\nshmalloc_client_attached_seconds{"), REPORT_EACH, "of others there is no sum");
	snprintf(head, sizeof(head),
	        "shmalloc_client_held_bytes{heap=\"he\\\"ap\\\\\\\\one\\\\x0a\",client=\"other\",label=\"other\"} ");
	found = sample(text, head);
	cr_assert_not_null(found);
	/* client 0 has more than all others, which have their number */
	cr_expect_eq(strtoul(found, NULL, 10), 16 * 17 / 2);
	free(text);
}

Test(report, texts_of_clients_are_escaped, .init = fill)
{
	char *text = exposition(&report, 1);

	cr_expect_not_null(
	        strstr(text, "client=\"79\",label=\"a \\\"b\\\" \\\\\\\\ \\\\x0a\\\\x1b[31m\\\\xff\"} "), "%s", text);
	for (const char *at = text; *at; at++)
		cr_assert(*at == '\n' || ((unsigned char)*at >= 0x20 && (unsigned char)*at < 0x7f));
	free(text);
}

Test(report, several_heaps_share_the_heads, .init = fill)
{
	struct report two[2] = {report, report};
	char *text;

	snprintf(two[1].stats.heap, sizeof(two[1].stats.heap), "second");
	text = exposition(two, 2);
	cr_expect_eq(count(text, "# TYPE shmalloc_live_bytes gauge"), 1);
	cr_expect_eq(count(text, "\nshmalloc_live_bytes{"), 2);
	cr_expect_eq(count(text, "# TYPE shmalloc_refill_served_seconds histogram"), 1);
	cr_expect_not_null(sample(text, "shmalloc_live_bytes{heap=\"second\"} "));
	free(text);
	text = exposition(NULL, 0);
	cr_expect_str_eq(text, "");
	free(text);
}

/* ---- histograms ---- */

Test(report, buckets_are_cumulative_seconds, .init = fill)
{
	char *text, head[256];
	uint64_t last = 0;

	snprintf(report.stats.heap, sizeof(report.stats.heap), "h");
	text = exposition(&report, 1);
	cr_expect_eq(count(text, "\nshmalloc_refill_served_seconds_bucket{"), WIRE_BUCKETS);
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++) {
		uint64_t bound = report_bound_us(b);

		if (bound == UINT64_MAX)
			snprintf(head, sizeof(head), "shmalloc_refill_served_seconds_bucket{heap=\"h\",le=\"+Inf\"} ");
		else
			snprintf(head, sizeof(head), "shmalloc_refill_served_seconds_bucket{heap=\"h\",le=\"%.9g\"} ",
			        (double)bound / 1e6);
		const char *found = sample(text, head);

		cr_assert_not_null(found, "%s", head);
		last += b + 1;
		cr_expect_eq(strtoul(found, NULL, 10), last);
	}
	cr_expect_eq(strtoul(sample(text, "shmalloc_refill_served_seconds_count{heap=\"h\"} "), NULL, 10), last);
	cr_expect_float_eq(strtod(sample(text, "shmalloc_refill_served_seconds_sum{heap=\"h\"} "), NULL), 2.5, 1e-9);
	json_t *json = report_json(&report), *h = json_object_get(json_object_get(json, "histograms"), "refill_served");

	cr_expect_eq((uint64_t)json_integer_value(json_object_get(h, "count")), last);
	cr_expect_eq(json_integer_value(json_object_get(h, "sum_us")), 2500000);
	cr_expect_eq(json_array_size(json_object_get(h, "buckets")), WIRE_BUCKETS);
	json_decref(json);
	free(text);
}

/* ---- names ---- */

Test(report, names_of_classes)
{
	char name[REPORT_TEXT];

	report_class_name(&(struct wire_class_row){.sclass = 16, .size = 64}, name, sizeof(name));
	cr_expect_str_eq(name, "64 B");
	report_class_name(&(struct wire_class_row){.sclass = 19, .size = 64}, name, sizeof(name));
	cr_expect_str_eq(name, "64 B scoped noscan");
	report_class_name(&(struct wire_class_row){.sclass = 302}, name, sizeof(name));
	cr_expect_str_eq(name, "large noscan");
}

Test(report, a_full_disk_is_noticed, .init = fill)
{
	FILE *out = fopen("/dev/full", "w");

	cr_assert_not_null(out);
	setvbuf(out, NULL, _IONBF, 0);
	cr_expect_eq(report_prometheus(&report, 1, out), -EIO);
	fclose(out);
}
