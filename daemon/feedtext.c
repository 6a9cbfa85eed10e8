#include "daemon/feedtext.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/policy.h"

struct feed_writer {
	FILE *out; /* the piece that is being written: */
	struct piece piece;
	struct text *text; /* those that are complete */
	uint32_t part; /* list of rows, or family */
	uint32_t next; /* row or cell of it */
	bool failed;
};

/* Without the last character. `json` is consumed. */
static void print_json(struct feed_writer *w, json_t *json, bool open)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

	if (text)
		fwrite(text, 1, strlen(text) - open, w->out);
	else
		w->failed = true;
	free(text);
	json_decref(json);
}

/* ---- the figures of a heap ---- */

static json_t *class_row(const struct report *report, uint32_t i)
{
	return report_json_class(&report->classes[i]);
}

static json_t *client_row(const struct report *report, uint32_t i)
{
	return report_json_client(&report->clients[i]);
}

static json_t *user_row(const struct report *report, uint32_t i)
{
	return report_json_user(&report->users[i]);
}

/* Rows that can be many are written a few at a time; all else is report_json's. */
static const struct list {
	const char *key;
	json_t *(*row)(const struct report *report, uint32_t i);
	size_t count; /* offset in struct report */
} lists[] = {
        {"classes", class_row, offsetof(struct report, n_classes)},
        {"clients", client_row, offsetof(struct report, n_clients)},
        {"users", user_row, offsetof(struct report, n_users)},
};

#define LISTS (sizeof(lists) / sizeof(lists[0]))

static void print_head(struct feed_writer *w, const struct report *report)
{
	struct report head = *report;

	head.n_clients = head.n_users = head.n_classes = 0;
	json_t *json = report_json(&head);

	for (size_t i = 0; i < LISTS; i++)
		(void)json_object_del(json, lists[i].key);
	print_json(w, json, true);
}

static bool stats_step(struct feed_writer *w, const struct feed *feed)
{
	const struct report *report = &feed->reports[feed->now.heap];

	if (!w->part++) {
		print_head(w, report);
		return false;
	}
	const struct list *list = &lists[w->part - 2];
	uint32_t n = *(const uint32_t *)(const void *)((const char *)report + list->count);

	if (!w->next)
		fprintf(w->out, ",\"%s\":[", list->key);
	for (uint32_t end = w->next + POLICY_HTTP_ROWS; w->next < n && w->next < end; w->next++) {
		if (w->next)
			fputc(',', w->out);
		print_json(w, list->row(report, w->next), false);
	}
	if (w->next < n) {
		w->part--;
		return false;
	}
	fputc(']', w->out);
	w->next = 0;
	if (w->part <= LISTS)
		return false;
	fputs("}\n", w->out);
	return true;
}

/* ---- metrics ---- */

static bool metrics_step(struct feed_writer *w, const struct feed *feed)
{
	w->failed |= report_prometheus_family(feed->reports, feed->n_heaps, w->part, w->out) != 0;
	return ++w->part == report_families();
}

/* ---- the map ---- */

static void print_map_head(struct feed_writer *w, const struct feed *feed)
{
	const struct report_map *map = feed->drawing;
	const struct core *core = feed->heaps[feed->now.heap].core;
	json_t *json = json_object(), *kinds = json_array(), *sizes = json_array();

	for (int k = 0; k < REPORT_KINDS; k++)
		json_array_append_new(kinds, json_string(report_kind_name((enum report_kind)k)));
	for (uint32_t c = 0; c < SHMI_CLASSES; c++)
		json_array_append_new(sizes, json_integer(core->heap->img.classes[c].size));
	json_object_set_new(json, "heap", json_string(core->heap->name));
	json_object_set_new(json, "page_bytes", json_integer(REPORT_PAGE_BYTES));
	json_object_set_new(json, "published", json_integer(shmi_image_published(&core->heap->img)));
	json_object_set_new(json, "end", json_integer(map->end));
	json_object_set_new(json, "kinds", kinds);
	json_object_set_new(json, "class_bytes", sizes);
	print_json(w, json, true);
	fputs(",\"columns\":[\"page\",\"pages\",\"kind\",\"runs\",\"main_pages\",\"sclass\",\"owner\",\"run_pages\","
	      "\"slots\",\"slots_free\",\"live\"],\"cells\":[",
	        w->out);
}

/* `live` is in hundredths of a page. */
static void print_cell(FILE *out, const struct report_cell *cell)
{
	fprintf(out,
	        "[%" PRIu32 ",%" PRIu32 ",%u,%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32
	        ",%" PRIu32 ",%.0f]",
	        cell->page, cell->pages, (unsigned)cell->kind, cell->runs, cell->main_pages, cell->sclass, cell->owner,
	        cell->run_pages, cell->slots, cell->slots_free, (double)cell->live * 100);
}

static bool map_step(struct feed_writer *w, const struct feed *feed)
{
	const struct report_map *map = feed->drawing;

	if (!w->part) {
		print_map_head(w, feed);
		w->next = 0;
	}
	for (uint32_t end = w->next + POLICY_HTTP_CELLS_STEP; w->next < map->n_cells && w->next < end; w->next++) {
		const struct report_cell *cell = &map->cells[w->next];

		if (cell->page + cell->pages <= feed->now.from) /* nobody has looked there */
			continue;
		if (w->part++)
			fputc(',', w->out);
		print_cell(w->out, cell);
	}
	w->part += !w->part;
	if (w->next < map->n_cells)
		return false;
	fputs("]}\n", w->out);
	return true;
}

/* ---- all of them ---- */

static bool begin_piece(struct feed_writer *w)
{
	w->piece = (struct piece){0};
	w->out = open_memstream(&w->piece.bytes, &w->piece.len);
	return w->out;
}

/* What has been written is a piece of the text. */
static bool end_piece(struct feed_writer *w)
{
	struct text *text = w->text;
	struct piece *pieces = realloc(text->pieces, (text->n_pieces + 1) * sizeof(*pieces));
	bool good = !ferror(w->out);

	good = fclose(w->out) == 0 && good && pieces;
	w->out = NULL;
	if (pieces)
		text->pieces = pieces;
	if (good)
		text->pieces[text->n_pieces++] = w->piece;
	else
		free(w->piece.bytes);
	return good;
}

struct feed_writer *feedtext_new(void)
{
	struct feed_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->text = calloc(1, sizeof(*w->text));
	if (w->text && begin_piece(w)) {
		w->text->refs = 1;
		return w;
	}
	free(w->text);
	free(w);
	return NULL;
}

void feedtext_free(struct feed_writer *writer)
{
	if (!writer)
		return;
	if (writer->out) {
		fclose(writer->out);
		free(writer->piece.bytes);
	}
	feed_put(writer->text);
	free(writer);
}

bool feedtext_step(struct feed_writer *writer, const struct feed *feed)
{
	static bool (*const steps[FEED_KINDS])(struct feed_writer *, const struct feed *) = {
	        [FEED_STATS] = stats_step, [FEED_METRICS] = metrics_step, [FEED_MAP] = map_step};
	bool last = steps[feed->now.kind](writer, feed);

	if (last || fflush(writer->out) || writer->piece.len >= POLICY_HTTP_PIECE)
		writer->failed |= !end_piece(writer) || (!last && !begin_piece(writer));
	return last || writer->failed;
}

struct text *feedtext_take(struct feed_writer *writer)
{
	struct text *text = writer->text;

	if (writer->failed)
		return NULL;
	writer->text = NULL; /* the caller's now */
	return text;
}
