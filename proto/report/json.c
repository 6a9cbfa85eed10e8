/* A report as JSON. */
#include "proto/report/report.h"

json_t *report_json_number(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* Is there what is not to be shown, and what JSON would leave as it is? It escapes the controls below the space itself. */
static bool is_unfit(const char *text)
{
	size_t n;

	for (; *text; text += n) {
		n = *text > 0 && *text < ' ' ? 1 : report_char(text);
		if (!n)
			return true;
	}
	return false;
}

json_t *report_json_text(const char *text)
{
	char clean[REPORT_TEXT];
	json_t *json = is_unfit(text) ? NULL : json_string(text);

	if (json)
		return json;
	report_clean(text, clean, sizeof(clean));
	return json_string(clean);
}

static json_t *figure(const struct report_metric *metric, const void *row)
{
	uint64_t value = report_value(metric, row);

	return metric->unit == REPORT_FLAG ? json_boolean(value != 0) : report_json_number(value);
}

/* Adds all figures of the part to `json`, which may be NULL. */
static json_t *add_figures(json_t *json, enum report_part part, const void *row)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);

	for (size_t i = 0; i < n; i++)
		if (m[i].part == part)
			json_object_set_new(json, m[i].key, figure(&m[i], row));
	return json;
}

static json_t *histogram(const struct report_histogram *h, const struct wire_stats *stats)
{
	const uint64_t *bucket = (const uint64_t *)(const void *)((const char *)stats + h->buckets);
	json_t *json = json_object(), *list = json_array();
	uint64_t count = 0;

	for (uint32_t b = 0; b < WIRE_BUCKETS; b++) {
		json_t *one = json_object();
		uint64_t bound = report_bound_us(b);

		json_object_set_new(one, "up_to_us", bound == UINT64_MAX ? json_null() : report_json_number(bound));
		json_object_set_new(one, "count", report_json_number(bucket[b]));
		json_array_append_new(list, one);
		count += bucket[b];
	}
	json_object_set_new(json, "count", report_json_number(count));
	json_object_set_new(
	        json, "sum_us", report_json_number(*(const uint64_t *)(const void *)((const char *)stats + h->sum)));
	json_object_set_new(json, "buckets", list);
	return json;
}

static json_t *histograms(const struct wire_stats *stats)
{
	json_t *json = json_object();

	for (uint32_t i = 0; i < REPORT_HISTOGRAMS; i++)
		json_object_set_new(json, report_histograms[i].key, histogram(&report_histograms[i], stats));
	return json;
}

/* ---- rows ---- */

json_t *report_json_class(const struct wire_class_row *row)
{
	char name[REPORT_TEXT];
	json_t *json = json_object();

	report_class_name(row, name, sizeof(name));
	json_object_set_new(json, "sclass", report_json_number(row->sclass));
	json_object_set_new(json, "name", json_string(name));
	json_object_set_new(json, "size_bytes", report_json_number(row->size));
	return add_figures(json, REPORT_CLASS, row);
}

json_t *report_json_client(const struct wire_client_row *row)
{
	json_t *json = json_object();

	json_object_set_new(json, "client", report_json_number(row->client));
	json_object_set_new(json, "pid", report_json_number(row->pid));
	json_object_set_new(json, "uid", report_json_number(row->uid));
	json_object_set_new(json, "label", report_json_text(row->label));
	return add_figures(json, REPORT_CLIENT, row);
}

json_t *report_json_user(const struct wire_user_row *row)
{
	json_t *json = json_object();

	json_object_set_new(json, "uid", report_json_number(row->uid));
	return add_figures(json, REPORT_USER, row);
}

static json_t *heap_row(const struct wire_heap_row *row)
{
	json_t *json = json_object();

	json_object_set_new(json, "name", report_json_text(row->name));
	json_object_set_new(json, "limit_bytes", report_json_number(row->limit));
	json_object_set_new(json, "backed_bytes", report_json_number(row->backed));
	json_object_set_new(json, "clients", report_json_number(row->clients));
	json_object_set_new(json, "backing", json_string(row->backing ? "memfd" : "shm"));
	json_object_set_new(json, "damaged", json_boolean(row->damaged != 0));
	json_object_set_new(json, "allowed", json_boolean(row->allowed != 0));
	return json;
}

#define ROWS(json, report, part, function)                                                                             \
	do {                                                                                                           \
		json_t *list_ = json_array();                                                                          \
                                                                                                                       \
		for (uint32_t i_ = 0; i_ < (report)->n_##part; i_++)                                                   \
			json_array_append_new(list_, function(&(report)->part[i_]));                                   \
		json_object_set_new(json, #part, list_);                                                               \
	} while (0)

json_t *report_json(const struct report *report)
{
	json_t *json = json_object();

	if (!json)
		return NULL;
	json_object_set_new(json, "schema", json_integer(REPORT_SCHEMA));
	json_object_set_new(json, "version", report->version ? report_json_text(report->version) : json_null());
	json_object_set_new(json, "heap", report_json_text(report->stats.heap));
	json_object_set_new(json, "stats", add_figures(json_object(), REPORT_HEAP, &report->stats));
	json_object_set_new(json, "counters", add_figures(json_object(), REPORT_COUNTER, &report->stats));
	json_object_set_new(json, "histograms", histograms(&report->stats));
	ROWS(json, report, classes, report_json_class);
	ROWS(json, report, clients, report_json_client);
	ROWS(json, report, users, report_json_user);
	ROWS(json, report, heaps, heap_row);
	return json;
}
