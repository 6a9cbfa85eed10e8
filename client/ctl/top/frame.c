#include "client/ctl/top/frame.h"

#include <stdlib.h>

#include "client/ctl/show.h"

#define LABEL_LEAST 10 /* columns that a label gets before others do */
#define BAR_MOST 60u /* columns of a bar in plain text */

/* ---- the head ---- */

void top_duration(uint64_t seconds, char *to, size_t room)
{
	unsigned s = (unsigned)(seconds % 60), m = (unsigned)(seconds / 60 % 60), h = (unsigned)(seconds / 3600 % 24);
	unsigned long long days = seconds / 86400;

	if (seconds < 60)
		snprintf(to, room, "%u s", s);
	else if (seconds < 3600)
		snprintf(to, room, "%u:%02u", m, s);
	else if (!days)
		snprintf(to, room, "%u:%02u:%02u", h, m, s);
	else
		snprintf(to, room, "%llu d %02u h", days, h);
}

void top_title(const struct top_model *model, const char *heap, char *to, size_t room)
{
	char name[CTL_CELL], up[32];

	report_clean(heap, name, sizeof(name));
	top_duration(model->stats.uptime_ms / 1000, up, sizeof(up));
	if (model->looked)
		snprintf(to, room, "Heap %s, daemon up %s%s", name, up, model->stats.damaged ? ", DAMAGED" : "");
	else
		snprintf(to, room, "Heap %s", name);
}

void top_numbers(const struct top_model *model, char *to, size_t room)
{
	static const char *const pressures[] = {"memory is not short", "MEMORY IS SHORT", "MEMORY IS VERY SHORT"};
	const struct wire_stats *s = &model->stats;
	char rate[32] = "-";

	if (model->rated)
		snprintf(rate, sizeof(rate), "%.0f", model->requests_per_s);
	snprintf(to, room, "%u clients, %u threads, %u connections; %s requests/s; %s", s->clients, s->threads,
	        s->sessions, rate, pressures[s->pressure < 2 ? s->pressure : 2]);
}

void top_bars(const struct top_model *model, struct top_bar bars[TOP_BARS])
{
	const struct wire_stats *s = &model->stats;

	bars[0] = (struct top_bar){"live", s->live, s->published};
	bars[1] = (struct top_bar){"cached", s->cached, s->published};
	bars[2] = (struct top_bar){"free slots", s->slots_free, s->published};
	bars[3] = (struct top_bar){"free", s->free, s->published};
	bars[4] = (struct top_bar){"returned", s->returned, s->published};
}

void top_bar_amount(const struct top_bar *bar, char *to, size_t room)
{
	char size[32];

	report_human(bar->bytes, size, sizeof(size));
	snprintf(to, room, "%10s %5.1f %%", size, bar->whole ? 100.0 * (double)bar->bytes / (double)bar->whole : 0.0);
}

uint32_t top_bar_full(const struct top_bar *bar, uint32_t width)
{
	if (bar->bytes >= bar->whole)
		return bar->whole ? width : 0;
	return (uint32_t)((double)bar->bytes / (double)bar->whole * width + 0.5);
}

/* ---- columns ---- */

static void number(uint64_t n, char *to, size_t room)
{
	snprintf(to, room, "%llu", (unsigned long long)n);
}

static void id(const struct top_row *row, char *to, size_t room)
{
	number(row->is.client, to, room);
}

static void pid(const struct top_row *row, char *to, size_t room)
{
	number(row->is.pid, to, room);
}

static void uid(const struct top_row *row, char *to, size_t room)
{
	number(row->is.uid, to, room);
}

static void state(const struct top_row *row, char *to, size_t room)
{
	snprintf(to, room, "%s", top_state(&row->is));
}

static void held(const struct top_row *row, char *to, size_t room)
{
	report_human(row->is.bytes, to, room);
}

static void granted_per_s(const struct top_row *row, char *to, size_t room)
{
	if (row->rated) /* 2^64 and more are of a daemon that makes no sense */
		report_human(row->granted_per_s < 0x1p64 ? (uint64_t)row->granted_per_s : UINT64_MAX, to, room);
	else
		snprintf(to, room, "-");
}

static void requests_per_s(const struct top_row *row, char *to, size_t room)
{
	if (row->rated)
		snprintf(to, room, row->requests_per_s < 10 ? "%.1f" : "%.0f", row->requests_per_s);
	else
		snprintf(to, room, "-");
}

static void idle(const struct top_row *row, char *to, size_t room)
{
	report_human(top_idle(&row->is), to, room);
}

static void live(const struct top_row *row, char *to, size_t room)
{
	report_human(row->is.live, to, room);
}

static void since(const struct top_row *row, char *to, size_t room)
{
	top_duration(row->is.since_ms / 1000, to, room);
}

static void label(const struct top_row *row, char *to, size_t room)
{
	report_clean(row->is.label, to, room);
}

static const struct top_column columns[TOP_COLUMNS] = {
        {"ID", 4, 7, TOP_SORTS, id},
        {"PID", 7, 1, TOP_PID, pid},
        {"UID", 5, 5, TOP_SORTS, uid},
        {"STATE", -8, 3, TOP_SORTS, state},
        {"HELD", 10, 0, TOP_HELD, held},
        {"GRANTED/s", 10, 2, TOP_RATE, granted_per_s},
        {"REQ/s", 7, 4, TOP_SORTS, requests_per_s},
        {"IDLE", 10, 2, TOP_IDLE, idle},
        {"LIVE", 10, 6, TOP_SORTS, live},
        {"SINCE", 9, 5, TOP_SORTS, since},
        {"LABEL", -LABEL_LEAST, 0, TOP_NAME, label},
};

uint32_t top_columns(uint32_t width, const struct top_column *chosen[TOP_COLUMNS])
{
	uint32_t n = TOP_COLUMNS, used = TOP_COLUMNS - 1;

	for (uint32_t i = 0; i < TOP_COLUMNS; i++) {
		chosen[i] = &columns[i];
		used += (uint32_t)abs(columns[i].width);
	}
	while (used > width) {
		uint32_t out = 0;

		for (uint32_t i = 1; i < n; i++)
			if (chosen[i]->rank >= chosen[out]->rank)
				out = i;
		if (!chosen[out]->rank)
			break;
		used -= (uint32_t)abs(chosen[out]->width) + 1;
		n--;
		for (uint32_t i = out; i < n; i++)
			chosen[i] = chosen[i + 1];
	}
	return n;
}

/* ---- one client ---- */

enum { AS_NUMBER, AS_BYTES, AS_LIMIT };

const char *top_detail(const struct top_row *row, uint32_t index, char *to, size_t room)
{
	const struct wire_client_row *c = &row->is;
	const struct {
		const char *name;
		uint64_t n;
		int as;
		void (*text)(const struct top_row *row, char *to, size_t room);
	} details[] = {
	        {"label", 0, 0, label},
	        {"client", c->client, AS_NUMBER, NULL},
	        {"pid", c->pid, AS_NUMBER, NULL},
	        {"uid", c->uid, AS_NUMBER, NULL},
	        {"state", 0, 0, state},
	        {"attached for", 0, 0, since},
	        {"threads", c->threads, AS_NUMBER, NULL},
	        {"spans", c->spans, AS_NUMBER, NULL},
	        {"held", c->bytes, AS_BYTES, NULL},
	        {"in allocated blocks", c->live, AS_BYTES, NULL},
	        {"cached", c->cached, AS_BYTES, NULL},
	        {"in free slots", c->slots_free, AS_BYTES, NULL},
	        {"behind last slots", c->tail, AS_BYTES, NULL},
	        {"written off", c->written_off, AS_BYTES, NULL},
	        {"limit", c->limit, AS_LIMIT, NULL},
	        {"soft limit", c->soft_limit, AS_LIMIT, NULL},
	        {"guaranteed", c->guaranteed, AS_LIMIT, NULL},
	        {"granted so far", c->granted, AS_BYTES, NULL},
	        {"granted per second", 0, 0, granted_per_s},
	        {"requests", c->requests, AS_NUMBER, NULL},
	        {"requests per second", 0, 0, requests_per_s},
	        {"requests refused", c->failed, AS_NUMBER, NULL},
	};

	if (index >= sizeof(details) / sizeof(details[0]))
		return NULL;
	if (details[index].text)
		details[index].text(row, to, room);
	else if (details[index].as == AS_LIMIT && !details[index].n)
		snprintf(to, room, "none");
	else if (details[index].as == AS_NUMBER)
		number(details[index].n, to, room);
	else
		report_human(details[index].n, to, room);
	return details[index].name;
}

/* ---- plain text ---- */

static void print_row(const struct top_column *const chosen[], uint32_t n, const struct top_row *row, FILE *to)
{
	char text[TOP_LINE];

	for (uint32_t i = 0; i < n; i++) {
		if (row)
			chosen[i]->text(row, text, sizeof(text));
		fprintf(to, "%*s%c", i == n - 1 ? 0 : chosen[i]->width, row ? text : chosen[i]->head,
		        i == n - 1 ? '\n' : ' ');
	}
}

static void print_bar(const struct top_bar *bar, uint32_t width, FILE *to)
{
	uint32_t full = top_bar_full(bar, width);
	char amount[64];

	top_bar_amount(bar, amount, sizeof(amount));
	fprintf(to, "%-11s[", bar->name);
	for (uint32_t i = 0; i < width; i++)
		fputc(i < full ? '#' : ' ', to);
	fprintf(to, "] %s\n", amount);
}

void top_print(const struct top_model *model, const char *heap, uint32_t width, FILE *to)
{
	const struct top_column *chosen[TOP_COLUMNS];
	uint32_t n = top_columns(width, chosen), bar = width > 42 ? width - 42 : 10;
	struct top_bar bars[TOP_BARS];
	char line[TOP_LINE];

	top_title(model, heap, line, sizeof(line));
	fprintf(to, "%s\n", line);
	top_numbers(model, line, sizeof(line));
	fprintf(to, "%s\n", line);
	top_bars(model, bars);
	for (uint32_t i = 0; i < TOP_BARS; i++)
		print_bar(&bars[i], bar < BAR_MOST ? bar : BAR_MOST, to);
	fputc('\n', to);
	print_row(chosen, n, NULL, to);
	for (uint32_t i = 0; i < model->shown.n; i++)
		print_row(chosen, n, &model->shown.row[i], to);
	if (!model->shown.n)
		fputs(model->all.n ? "no client passes the filter\n" : "no clients\n", to);
}
