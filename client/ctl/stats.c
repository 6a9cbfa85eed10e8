#include <errno.h>
#include <string.h>

#include "client/ctl/figures.h"

/* How the places where bytes can be add up. `sign` says how the lines of a part do; '=' is the sum so far. What each line is called
 * is in the table of figures (proto/report/report.h), as all else here. */
static const struct line {
	char sign;
	const char *key;
} lines[] = {
        {' ', "live_bytes"},
        {'+', "cached_bytes"},
        {'+', "slots_free_bytes"},
        {'+', "tail_bytes"},
        {'+', "written_off_bytes"},
        {'+', "quarantined_bytes"},
        {'=', "span_bytes"},
        {0, NULL},
        {' ', "owned_bytes"},
        {'+', "central_bytes"},
        {'+', "free_bytes"},
        {'=', "backed_bytes"},
        {'+', "returned_bytes"},
        {'+', "lazy_bytes"},
        {'+', "moving_bytes"},
        {'+', "seized_bytes"},
        {'+', "unpublished_bytes"},
        {'=', "limit_bytes"},
        {0, NULL},
};

#define N_LINES (sizeof(lines) / sizeof(lines[0]))

static void print_bytes(FILE *out, char sign, const struct report_metric *metric, const struct wire_stats *stats)
{
	uint64_t value = report_value(metric, stats);
	char human[32];

	report_human(value, human, sizeof(human));
	fprintf(out, "%c %16llu  (%10s)  %s\n", sign, (unsigned long long)value, human, metric->label);
}

static bool is_line(const struct report_metric *metric)
{
	for (size_t i = 0; i < N_LINES; i++)
		if (lines[i].key && metric->part == REPORT_HEAP && strcmp(lines[i].key, metric->key) == 0)
			return true;
	return false;
}

static void print_lines(FILE *out, const struct wire_stats *stats)
{
	for (size_t i = 0; i < N_LINES; i++) {
		if (lines[i].sign == '=')
			fputs("  ----------------\n", out);
		if (lines[i].key)
			print_bytes(out, lines[i].sign, report_metric(REPORT_HEAP, lines[i].key), stats);
		else
			fputc('\n', out);
	}
}

/* What else there is of bytes or, without, of other figures of the part. */
static void print_figures(FILE *out, enum report_part part, bool bytes, const struct wire_stats *stats)
{
	size_t n;
	const struct report_metric *m = report_metrics(&n);

	for (size_t i = 0; i < n; i++) {
		if (m[i].part != part || is_line(&m[i]) || (m[i].unit == REPORT_BYTES) != bytes)
			continue;
		if (bytes)
			print_bytes(out, ' ', &m[i], stats);
		else
			fprintf(out, "  %16llu  %s\n", (unsigned long long)report_value(&m[i], stats), m[i].label);
	}
}

/* ---- histograms ---- */

static void print_bucket(FILE *out, uint64_t bound, uint64_t count)
{
	if (bound == UINT64_MAX)
		fprintf(out, "  %16llu  longer\n", (unsigned long long)count);
	else
		fprintf(out, "  %16llu  within %llu us\n", (unsigned long long)count, (unsigned long long)bound);
}

static void print_histogram(FILE *out, const struct report_histogram *h, const struct wire_stats *stats)
{
	uint64_t bucket[WIRE_BUCKETS], sum, count = 0;

	memcpy(bucket, (const char *)stats + h->buckets, sizeof(bucket));
	memcpy(&sum, (const char *)stats + h->sum, sizeof(sum));
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		count += bucket[b];
	fprintf(out, "\nTimes of %s:\n\n", h->label);
	fprintf(out, "  %16llu  in all, which took %llu us together\n", (unsigned long long)count,
	        (unsigned long long)sum);
	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		if (bucket[b])
			print_bucket(out, report_bound_us(b), bucket[b]);
}

/* ---- the whole ---- */

static void print_table(struct ctl *ctl, const char *title, const struct ctl_table *table, const void *rows, uint32_t n)
{
	fprintf(ctl->out, "\n%s:\n\n", title);
	ctl_table_text(ctl, table, rows, n);
	if (!n)
		fprintf(ctl->out, "  %s\n", table->empty);
}

static void print_head(FILE *out, const struct wire_stats *stats)
{
	uint64_t s = stats->uptime_ms / 1000;
	char heap[CTL_CELL];

	report_clean(stats->heap, heap, sizeof(heap));
	fprintf(out, "Heap %s, daemon up %llu:%02llu:%02llu; bytes:\n\n", heap, (unsigned long long)(s / 3600),
	        (unsigned long long)(s / 60 % 60), (unsigned long long)(s % 60));
	if (stats->damaged)
		fputs("DAMAGED: a client has cut one of its objects short. Nothing is handed out any more, and what "
		      "lies in spans\n"
		      "cannot be told apart.\n\n",
		        out);
}

static int print_text(struct ctl *ctl, const struct report *report)
{
	FILE *out = ctl->out;

	print_head(out, &report->stats);
	print_lines(out, &report->stats);
	print_figures(out, REPORT_HEAP, true, &report->stats);
	fputs("\nNumbers:\n\n", out);
	print_figures(out, REPORT_HEAP, false, &report->stats);
	fputs("\nSince the heap was made:\n\n", out);
	print_figures(out, REPORT_COUNTER, false, &report->stats);
	for (uint32_t h = 0; h < REPORT_HISTOGRAMS; h++)
		print_histogram(out, &report_histograms[h], &report->stats);
	print_table(ctl, "Classes", &ctl_classes_table, report->classes, report->n_classes);
	print_table(ctl, "Clients", &ctl_clients_table, report->clients, report->n_clients);
	print_table(ctl, "Users", &ctl_users_table, report->users, report->n_users);
	return CTL_OK;
}

static int print_prometheus(struct ctl *ctl, const struct report *report)
{
	int error = report_prometheus(report, 1, ctl->out);

	return error == -ENOMEM ? ctl_fail(ctl, CTL_FAILED, "there is no memory") : CTL_OK; /* else seen at the end */
}

static int run(struct ctl *ctl)
{
	struct report report;
	int status = ctl_report_ask(ctl, &report);

	if (status == CTL_OK && ctl->json)
		status = ctl_json_print(ctl, report_json(&report));
	else if (status == CTL_OK && ctl->prometheus)
		status = print_prometheus(ctl, &report);
	else if (status == CTL_OK)
		status = print_text(ctl, &report);
	ctl_report_free(&report);
	return status;
}

const struct ctl_command ctl_stats = {.name = "stats",
        .summary = "where every byte of the heap is, and what has happened to it",
        .help = "One line for each place where bytes can be; the lines of a part add up to its sums, marked '='. "
                "Blocks that\n"
                "threads cache are not allocated: they are ready for the next allocation. Then counters, times of\n"
                "refills, and tables of classes, clients and users. All figures are of one moment.",
        .options = CTL_OPT_BYTES | CTL_OPT_WIDE,
        .formats = "text|json|prometheus",
        .run = run};
