/* A report in the text format of Prometheus, version 0.0.4. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proto/report/report.h"

#define HEAP (REPORT_TEXT + 16) /* room for the label of a heap */
#define LABELS (4 * REPORT_TEXT) /* and for all of a sample */

/* ---- labels ---- */

/* A label's value: printable, and with what the format asks to be escaped. */
static void escape(const char *from, char *to, size_t room)
{
	char clean[REPORT_TEXT];
	size_t len = 0;

	report_clean(from, clean, sizeof(clean));
	for (const char *s = clean; *s && len + 3 <= room; s++) {
		if (*s == '\\' || *s == '"')
			to[len++] = '\\';
		to[len++] = *s;
	}
	to[len] = 0;
}

static void heap_labels(const struct report *report, char *to)
{
	char heap[REPORT_TEXT];

	escape(report->stats.heap, heap, sizeof(heap));
	snprintf(to, HEAP, "heap=\"%s\"", heap);
}

static void class_labels(const struct report *report, const struct wire_class_row *row, char *to)
{
	char name[REPORT_TEXT], heap[HEAP];

	heap_labels(report, heap);
	report_class_name(row, name, sizeof(name));
	snprintf(to, LABELS, "%s,class=\"%s\"", heap, name);
}

/* ---- samples ---- */

static double seconds(enum report_unit unit, uint64_t value)
{
	return (double)value / (unit == REPORT_MS ? 1e3 : 1e6);
}

static void print_sample(FILE *out, const struct report_metric *metric, const char *labels, uint64_t value)
{
	if (metric->unit == REPORT_MS || metric->unit == REPORT_US)
		fprintf(out, "%s{%s} %.9g\n", metric->name, labels, seconds(metric->unit, value));
	else
		fprintf(out, "%s{%s} %" PRIu64 "\n", metric->name, labels, value);
}

static void print_heap(FILE *out, const struct report_metric *metric, const struct report *report)
{
	char labels[LABELS];

	heap_labels(report, labels);
	print_sample(out, metric, labels, report_value(metric, &report->stats));
}

static void print_classes(FILE *out, const struct report_metric *metric, const struct report *report)
{
	char labels[LABELS];

	for (uint32_t i = 0; i < report->n_classes; i++) {
		class_labels(report, &report->classes[i], labels);
		print_sample(out, metric, labels, report_value(metric, &report->classes[i]));
	}
}

/* ---- clients and users: the biggest, and the rest ---- */

/* Rows of one kind, with the biggest ones first. */
struct ranking {
	const void **row;
	uint32_t n;
};

static int by_client_bytes(const void *a, const void *b)
{
	const struct wire_client_row *x = *(const struct wire_client_row *const *)a;
	const struct wire_client_row *y = *(const struct wire_client_row *const *)b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return x->client < y->client ? -1 : x->client > y->client;
}

static int by_user_bytes(const void *a, const void *b)
{
	const struct wire_user_row *x = *(const struct wire_user_row *const *)a;
	const struct wire_user_row *y = *(const struct wire_user_row *const *)b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? 1 : -1;
	return x->uid < y->uid ? -1 : x->uid > y->uid;
}

/* The rows of a client's or user's metric; false without memory. */
static bool rank(struct ranking *ranking, const struct report *report, bool clients)
{
	uint32_t n = clients ? report->n_clients : report->n_users;

	*ranking = (struct ranking){.row = calloc(n ? n : 1, sizeof(void *)), .n = n};
	if (!ranking->row)
		return false;
	for (uint32_t i = 0; i < n; i++)
		ranking->row[i] = clients ? (const void *)&report->clients[i] : (const void *)&report->users[i];
	qsort(ranking->row, n, sizeof(void *), clients ? by_client_bytes : by_user_bytes);
	return true;
}

static void row_labels(const struct report *report, const void *row, bool clients, char *to)
{
	char heap[HEAP], label[REPORT_TEXT];

	heap_labels(report, heap);
	if (!row && clients) {
		snprintf(to, LABELS, "%s,client=\"other\",label=\"other\"", heap);
	} else if (!row) {
		snprintf(to, LABELS, "%s,user=\"other\"", heap);
	} else if (clients) {
		const struct wire_client_row *client = row;

		escape(client->label, label, sizeof(label));
		snprintf(to, LABELS, "%s,client=\"%" PRIu32 "\",label=\"%s\"", heap, client->client, label);
	} else {
		snprintf(to, LABELS, "%s,user=\"%" PRIu32 "\"", heap, ((const struct wire_user_row *)row)->uid);
	}
}

static int print_ranked(FILE *out, const struct report_metric *metric, const struct report *report)
{
	bool clients = metric->part == REPORT_CLIENT;
	struct ranking ranking;
	char labels[LABELS];
	uint64_t rest = 0;

	if (!rank(&ranking, report, clients))
		return -ENOMEM;
	for (uint32_t i = 0; i < ranking.n; i++) {
		uint64_t value = report_value(metric, ranking.row[i]);

		if (i >= REPORT_EACH) {
			rest += value;
			continue;
		}
		row_labels(report, ranking.row[i], clients, labels);
		print_sample(out, metric, labels, value);
	}
	if (ranking.n > REPORT_EACH && !metric->single) {
		row_labels(report, NULL, clients, labels);
		print_sample(out, metric, labels, rest);
	}
	free((void *)ranking.row);
	return 0;
}

/* ---- families ---- */

static bool has_rows(const struct report *reports, size_t n, enum report_part part)
{
	for (size_t i = 0; i < n; i++)
		if (part == REPORT_HEAP || part == REPORT_COUNTER || (part == REPORT_CLASS && reports[i].n_classes) ||
		        (part == REPORT_CLIENT && reports[i].n_clients) || (part == REPORT_USER && reports[i].n_users))
			return true;
	return false;
}

static void print_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static int print_family(FILE *out, const struct report_metric *metric, const struct report *reports, size_t n)
{
	int error = 0;

	if (!has_rows(reports, n, metric->part))
		return 0;
	print_head(out, metric->name, metric->counter ? "counter" : "gauge", metric->help);
	for (size_t i = 0; i < n && !error; i++) {
		if (metric->part == REPORT_CLASS)
			print_classes(out, metric, &reports[i]);
		else if (metric->part == REPORT_CLIENT || metric->part == REPORT_USER)
			error = print_ranked(out, metric, &reports[i]);
		else
			print_heap(out, metric, &reports[i]);
	}
	return error;
}

static void print_histogram(FILE *out, const struct report_histogram *h, const struct report *report)
{
	const uint64_t *bucket = (const uint64_t *)(const void *)((const char *)&report->stats + h->buckets);
	uint64_t sum = *(const uint64_t *)(const void *)((const char *)&report->stats + h->sum), count = 0;
	char labels[LABELS];

	heap_labels(report, labels);
	for (uint32_t b = 0; b < WIRE_BUCKETS - 1; b++) {
		count += bucket[b];
		fprintf(out, "%s_bucket{%s,le=\"%.9g\"} %" PRIu64 "\n", h->name, labels,
		        seconds(REPORT_US, report_bound_us(b)), count);
	}
	count += bucket[WIRE_BUCKETS - 1];
	fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", h->name, labels, count);
	fprintf(out, "%s_sum{%s} %.9g\n", h->name, labels, seconds(REPORT_US, sum));
	fprintf(out, "%s_count{%s} %" PRIu64 "\n", h->name, labels, count);
}

size_t report_families(void)
{
	size_t n_metrics;

	(void)report_metrics(&n_metrics);
	return n_metrics + REPORT_HISTOGRAMS;
}

int report_prometheus_family(const struct report *reports, size_t n, size_t family, FILE *out)
{
	size_t n_metrics;
	const struct report_metric *metric = report_metrics(&n_metrics);

	if (family < n_metrics)
		return print_family(out, &metric[family], reports, n);
	const struct report_histogram *h = &report_histograms[family - n_metrics];

	if (n)
		print_head(out, h->name, "histogram", h->help);
	for (size_t i = 0; i < n; i++)
		print_histogram(out, h, &reports[i]);
	return 0;
}

int report_prometheus(const struct report *reports, size_t n, FILE *out)
{
	for (size_t i = 0; i < report_families(); i++) {
		int error = report_prometheus_family(reports, n, i, out);

		if (error)
			return error;
	}
	return ferror(out) ? -EIO : 0;
}
