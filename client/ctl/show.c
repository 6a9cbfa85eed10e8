#include "client/ctl/show.h"

#include <stdlib.h>
#include <string.h>

#include "client/ctl/figures.h"
#include "proto/report/report.h"
#include "shm/layout.h"

/* ---- texts ---- */

void ctl_class_attrs(uint32_t sclass, char *to, size_t room)
{
	static const char *const names[SHMI_ATTRS] = {"-", "scoped", "noscan", "scoped noscan"};

	snprintf(to, room, "%s", names[sclass % SHMI_ATTRS]);
}

void ctl_class_name(uint32_t sclass, char *to, size_t room)
{
	struct shmi_class table[SHMI_CLASSES];
	uint32_t class = sclass / SHMI_ATTRS;
	char attrs[32] = "";

	shmi_class_table(table);
	if (sclass % SHMI_ATTRS)
		ctl_class_attrs(sclass, attrs, sizeof(attrs));
	const char *gap = attrs[0] ? " " : "";

	if (class == SHMI_CLASS_LARGE)
		snprintf(to, room, "large%s%s", gap, attrs);
	else if (class == SHMI_CLASS_NONE || class > SHMI_CLASS_LARGE)
		snprintf(to, room, "?");
	else
		snprintf(to, room, "%u B%s%s", table[class].size, gap, attrs);
}

/* ---- JSON ---- */

json_t *ctl_json_new(const struct ctl *ctl)
{
	json_t *json = json_object();

	json_object_set_new(json, "version", json_integer(CTL_FORMAT_VERSION));
	json_object_set_new(json, "heap", report_json_text(ctl->heap));
	return json;
}

int ctl_json_print(struct ctl *ctl, json_t *json)
{
	int error = json ? json_dumpf(json, ctl->out, JSON_INDENT(2)) : -1;

	json_decref(json);
	if (error)
		return ctl_fail(ctl, CTL_FAILED, "the output could not be written");
	fputc('\n', ctl->out);
	return CTL_OK;
}

/* ---- tables ---- */

static enum ctl_kind kind_of(const struct ctl_column *column)
{
	return (enum ctl_kind)(column->kind & ~(CTL_WIDE | CTL_NARROW));
}

static uint64_t number_at(const struct ctl_column *column, const unsigned char *row)
{
	uint32_t n32;
	uint64_t n64, more = 0;

	if (kind_of(column) == CTL_U32 || kind_of(column) == CTL_CLIENT || kind_of(column) == CTL_FLAG) {
		memcpy(&n32, row + column->at, sizeof(n32));
		return n32;
	}
	memcpy(&n64, row + (column->at & 0xffff), sizeof(n64));
	if (kind_of(column) == CTL_BYTES_OF_TWO)
		memcpy(&more, row + (column->at >> 16), sizeof(more));
	return n64 + more;
}

static void cell_text(const struct ctl *ctl, const struct ctl_column *column, const unsigned char *row, char *to)
{
	if (kind_of(column) == CTL_TEXT)
		column->text(row, to, CTL_CELL);
	else if (kind_of(column) == CTL_NAME)
		report_clean((const char *)row + column->at, to, CTL_CELL);
	else if ((kind_of(column) == CTL_CLIENT && number_at(column, row) == SHMI_NOBODY) ||
	         (kind_of(column) == CTL_LIMIT && !number_at(column, row)))
		snprintf(to, CTL_CELL, "-");
	else if ((kind_of(column) == CTL_BYTES || kind_of(column) == CTL_BYTES_OF_TWO ||
	                 kind_of(column) == CTL_LIMIT) &&
	         !ctl->bytes)
		report_human(number_at(column, row), to, CTL_CELL);
	else
		snprintf(to, CTL_CELL, "%llu", (unsigned long long)number_at(column, row));
}

static json_t *cell_json(const struct ctl_column *column, const unsigned char *row)
{
	char text[CTL_CELL];

	switch (kind_of(column)) {
	case CTL_TEXT:
		column->text(row, text, sizeof(text));
		return json_string(text);
	case CTL_NAME:
		return report_json_text((const char *)row + column->at);
	case CTL_FLAG:
		return json_boolean(number_at(column, row) != 0);
	case CTL_CLIENT:
		return number_at(column, row) == SHMI_NOBODY ? json_null() : report_json_number(number_at(column, row));
	default:
		return report_json_number(number_at(column, row));
	}
}

static bool is_shown(const struct ctl *ctl, const struct ctl_column *column)
{
	return column->head && !(column->kind & (ctl->wide ? CTL_NARROW : CTL_WIDE));
}

/* The last column that is shown. */
static uint32_t last_shown(const struct ctl *ctl, const struct ctl_table *table)
{
	uint32_t last = 0;

	for (uint32_t i = 0; i < table->n_columns; i++)
		if (is_shown(ctl, &table->columns[i]))
			last = i;
	return last;
}

static void print_cells(struct ctl *ctl, const struct ctl_table *table, const unsigned char *row)
{
	uint32_t last = last_shown(ctl, table);
	const char *gap = "";
	char text[CTL_CELL];

	for (uint32_t i = 0; i <= last; i++) {
		const struct ctl_column *column = &table->columns[i];

		if (!is_shown(ctl, column))
			continue;
		if (row)
			cell_text(ctl, column, row, text);
		fprintf(ctl->out, "%s%*s", gap, i == last && column->width < 0 ? 0 : column->width,
		        row ? text : column->head);
		gap = ctl->wide ? " " : "  ";
	}
	fputc('\n', ctl->out);
}

void ctl_table_text(struct ctl *ctl, const struct ctl_table *table, const void *rows, uint32_t n)
{
	if (n)
		print_cells(ctl, table, NULL);
	for (uint32_t i = 0; i < n; i++)
		print_cells(ctl, table, (const unsigned char *)rows + i * table->row_size);
}

static void print_object(struct ctl *ctl, const struct ctl_table *table, const unsigned char *row, bool first)
{
	json_t *json = json_object();

	for (uint32_t i = 0; i < table->n_columns; i++)
		if (table->columns[i].key)
			json_object_set_new(json, table->columns[i].key, cell_json(&table->columns[i], row));
	fputs(first ? "\n    " : ",\n    ", ctl->out);
	if (json_dumpf(json, ctl->out, JSON_COMPACT) != 0)
		fputs("null", ctl->out);
	json_decref(json);
}

/* The object is opened by hand, since its rows are printed as they come: there may be more than one would hold in memory. */
static void begin(struct ctl *ctl, const struct ctl_table *table)
{
	if (!ctl->json)
		return;
	json_t *heap = report_json_text(ctl->heap);

	fprintf(ctl->out, "{\n  \"version\": %d,\n  \"heap\": ", CTL_FORMAT_VERSION);
	json_dumpf(heap, ctl->out, JSON_ENCODE_ANY);
	fprintf(ctl->out, ",\n  \"%s\": [", table->key);
	json_decref(heap);
}

static void end(struct ctl *ctl, const struct ctl_table *table, uint64_t rows)
{
	if (ctl->json)
		fprintf(ctl->out, "%s]\n}\n", rows ? "\n  " : "");
	else if (!rows)
		fprintf(ctl->out, "%s\n", table->empty);
}

int ctl_table_show(struct ctl *ctl, const struct ctl_table *table)
{
	uint64_t cursor = 0, rows = 0;

	do {
		const struct wire_msg *reply;
		int status = ctl_query(ctl, table->query, cursor, table->reply, &reply);

		if (status != CTL_OK)
			return status;
		if (!cursor)
			begin(ctl, table);
		/* All replies with rows begin alike. */
		const unsigned char *row = (const unsigned char *)&reply->u + table->rows_at;
		uint32_t n = reply->u.clients.n_rows;

		if (reply->u.clients.next && reply->u.clients.next <= cursor)
			return ctl_fail(ctl, CTL_FAILED, "the answers from %s go round in circles", ctl->socket);
		cursor = reply->u.clients.next;
		for (uint32_t i = 0; i < n; i++, row += table->row_size, rows++) {
			if (ctl->json) {
				print_object(ctl, table, row, !rows);
				continue;
			}
			if (!rows)
				print_cells(ctl, table, NULL);
			print_cells(ctl, table, row);
		}
	} while (cursor);
	end(ctl, table, rows);
	return CTL_OK;
}

/* ---- sorted ---- */

/* What qsort's function has to know. */
static struct {
	const struct ctl_column *column;
	bool ascending;
} order;

static int by_order(const void *a, const void *b)
{
	const struct ctl_column *column = order.column;
	char x[CTL_CELL], y[CTL_CELL];
	int less;

	if (kind_of(column) == CTL_NAME) {
		less = strcmp((const char *)a + column->at, (const char *)b + column->at);
	} else if (kind_of(column) == CTL_TEXT) {
		column->text(a, x, sizeof(x));
		column->text(b, y, sizeof(y));
		less = strcmp(x, y);
	} else {
		uint64_t m = number_at(column, a), n = number_at(column, b);

		less = m < n ? -1 : m > n;
	}
	return order.ascending ? less : -less;
}

static int sort_rows(struct ctl *ctl, const struct ctl_table *table, void *rows, uint32_t n)
{
	const char *key = ctl->sort;

	if (!key)
		return CTL_OK;
	order.ascending = *key == '-';
	key += order.ascending;
	order.column = NULL;
	for (uint32_t i = 0; i < table->n_columns; i++)
		if (table->columns[i].key && strcmp(table->columns[i].key, key) == 0)
			order.column = &table->columns[i];
	if (!order.column)
		return ctl_fail(ctl, CTL_USAGE, "there is no key '%s' to sort by: see what --format json has", key);
	if (n)
		qsort(rows, n, table->row_size, by_order);
	return CTL_OK;
}

int ctl_table_sorted(struct ctl *ctl, const struct ctl_table *table)
{
	void *rows = NULL;
	uint32_t n = 0;
	int status = ctl_rows(ctl, table, 0, &rows, &n);

	if (status == CTL_OK)
		status = sort_rows(ctl, table, rows, n);
	if (status == CTL_OK) {
		begin(ctl, table);
		if (!ctl->json)
			ctl_table_text(ctl, table, rows, n);
		for (uint32_t i = 0; i < n && ctl->json; i++)
			print_object(ctl, table, (const unsigned char *)rows + i * table->row_size, !i);
		end(ctl, table, n);
	}
	free(rows);
	return status;
}
