#include "client/ctl/top/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop(struct top_rows *rows)
{
	free(rows->row);
	*rows = (struct top_rows){0};
}

void top_model_deinit(struct top_model *model)
{
	drop(&model->all);
	drop(&model->before);
	drop(&model->shown);
}

static bool make_room(struct top_rows *rows, uint32_t n)
{
	if (n <= rows->room)
		return true;
	struct top_row *row = realloc(rows->row, n * sizeof(*row));

	if (!row)
		return false;
	rows->row = row;
	rows->room = n;
	return true;
}

bool top_rows_add(struct top_rows *rows, const struct wire_client_row *from, uint32_t n)
{
	if (!make_room(rows, rows->n + n))
		return false;
	for (uint32_t i = 0; i < n; i++)
		rows->row[rows->n++] = (struct top_row){.is = from[i]};
	return true;
}

/* ---- rates ---- */

/* Both looks have their rows by rising id. */
static void rate(struct top_rows *rows, const struct top_rows *before, double seconds)
{
	for (uint32_t i = 0, j = 0; i < rows->n; i++) {
		struct top_row *row = &rows->row[i];

		while (j < before->n && before->row[j].is.client < row->is.client)
			j++;
		if (j == before->n)
			return;
		const struct wire_client_row *was = &before->row[j].is;

		row->rated = was->client == row->is.client && was->pid == row->is.pid &&
		             was->granted <= row->is.granted && was->requests <= row->is.requests;
		if (!row->rated)
			continue;
		row->granted_per_s = (double)(row->is.granted - was->granted) / seconds;
		row->requests_per_s = (double)(row->is.requests - was->requests) / seconds;
	}
}

bool top_model_look(struct top_model *model, const struct wire_stats *stats, struct top_rows *rows, int64_t now_ns)
{
	double seconds = (double)(now_ns - model->at_ns) / 1e9;
	bool twice = model->looked && seconds > 0;

	drop(&model->before);
	model->before = model->all;
	model->all = *rows;
	*rows = (struct top_rows){0};
	model->rated = twice && stats->requests >= model->stats.requests;
	model->requests_per_s = model->rated ? (double)(stats->requests - model->stats.requests) / seconds : 0;
	if (twice)
		rate(&model->all, &model->before, seconds);
	model->stats = *stats;
	model->at_ns = now_ns;
	model->looked = true;
	return top_model_arrange(model);
}

/* ---- order ---- */

uint64_t top_idle(const struct wire_client_row *row)
{
	return row->cached + row->slots_free;
}

const char *top_state(const struct wire_client_row *row)
{
	return row->evicted ? "evicted" : row->detached ? "detached" : "attached";
}

enum top_sort top_sort_find(const char *name)
{
	static const char *const sort_names[TOP_SORTS] = {"held", "rate", "idle", "name", "pid"};
	enum top_sort sort = TOP_HELD;

	while (sort < TOP_SORTS && strcmp(name, sort_names[sort]) != 0)
		sort++;
	return sort;
}

static int fewer(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* Amounts go down, names and numbers go up; what is equal stays in the order of ids. */
static int compare(const void *left, const void *right, void *ctx)
{
	const struct top_model *model = ctx;
	const struct top_row *a = left, *b = right;
	int order = 0;

	switch (model->sort) {
	case TOP_RATE:
		order = (a->granted_per_s < b->granted_per_s) - (a->granted_per_s > b->granted_per_s);
		if (!order)
			order = (a->requests_per_s < b->requests_per_s) - (a->requests_per_s > b->requests_per_s);
		break;
	case TOP_IDLE:
		order = fewer(top_idle(&b->is), top_idle(&a->is));
		break;
	case TOP_NAME:
		order = strcmp(a->is.label, b->is.label);
		break;
	case TOP_PID:
		order = fewer(a->is.pid, b->is.pid);
		break;
	default:
		order = fewer(b->is.bytes, a->is.bytes);
	}
	if (model->reverse)
		order = -order;
	return order ? order : fewer(a->is.client, b->is.client);
}

/* Part of the label, in any case, or of the pid. */
static bool passes(const struct top_model *model, const struct wire_client_row *row)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%u", row->pid);
	return !model->filter[0] || strcasestr(row->label, model->filter) || strstr(pid, model->filter);
}

bool top_model_arrange(struct top_model *model)
{
	if (!make_room(&model->shown, model->all.n))
		return false;
	model->shown.n = 0;
	for (uint32_t i = 0; i < model->all.n; i++)
		if (passes(model, &model->all.row[i].is))
			model->shown.row[model->shown.n++] = model->all.row[i];
	if (model->shown.n)
		qsort_r(model->shown.row, model->shown.n, sizeof(*model->shown.row), compare, model);
	return true;
}

/* ---- the selection ---- */

int64_t top_model_place(const struct top_model *model)
{
	for (uint32_t i = 0; i < model->shown.n; i++)
		if (model->shown.row[i].is.client == model->selected)
			return i;
	return -1;
}

void top_model_move(struct top_model *model, int64_t by)
{
	int64_t place = top_model_place(model), last = (int64_t)model->shown.n - 1;

	if (last < 0)
		return;
	place = place < 0 ? 0 : place + by;
	place = place < 0 ? 0 : place > last ? last : place;
	model->selected = model->shown.row[place].is.client;
}

const struct top_row *top_model_selected(const struct top_model *model)
{
	for (uint32_t i = 0; i < model->all.n; i++)
		if (model->all.row[i].is.client == model->selected)
			return &model->all.row[i];
	return NULL;
}
