/* How numbers, names and tables are shown, as text and as JSON. A table is described once, by its columns, for both. */
#ifndef CLIENT_CTL_SHOW_H
#define CLIENT_CTL_SHOW_H

#include <jansson.h>
#include <stddef.h>

#include "client/ctl/ctl.h"
#include "proto/report/report.h"

#define CTL_CELL 512u /* bytes of a cell: a name of WIRE_NAME bytes, all of them escaped, and more */

/* An object with `version` and `heap`. NULL without memory. */
json_t *ctl_json_new(const struct ctl *ctl);

/* Prints and frees it. Returns CTL_OK or CTL_FAILED. */
int ctl_json_print(struct ctl *ctl, json_t *json);

enum ctl_kind {
	CTL_U32,
	CTL_U64,
	CTL_BYTES, /* uint64_t */
	CTL_LIMIT, /* the same; 0, which is none, is '-' in text */
	CTL_NAME, /* char array: any bytes */
	CTL_FLAG, /* uint32_t: true or false in JSON */
	CTL_CLIENT, /* uint32_t, SHMI_NOBODY is '-' and null */
	CTL_BYTES_OF_TWO, /* bytes: the sum of the two at `at`, which is CTL_TWO of their offsets */
	CTL_TEXT /* what `text` makes of the row; JSON only if `key` is given */
};

#define CTL_TWO(a, b) ((a) | (b) << 16)

/* Beside a kind: text has the column only with --wide, or only without. */
#define CTL_WIDE 64u
#define CTL_NARROW 128u

struct ctl_column {
	const char *head; /* text: its headline; NULL: only in JSON */
	const char *key; /* JSON; NULL: only in text */
	uint32_t kind; /* enum ctl_kind, and when it is shown */
	int width; /* text: at least; negative: to the left */
	size_t at; /* offset in the row */
	void (*text)(const void *row, char *to, size_t room);
};

/* The rows that a query brings, in pages. */
struct ctl_table {
	enum wire_query_kind query;
	enum wire_kind reply;
	const char *key; /* JSON: of the array */
	const char *empty; /* text: what to say when there is none */
	size_t rows_at, row_size;
	const struct ctl_column *columns;
	uint32_t n_columns;
};

/* Asks for all rows and prints them as they come. Returns the exit status. */
int ctl_table_show(struct ctl *ctl, const struct ctl_table *table);

/* Asks for all rows, of one moment, sorts them as --sort says, and prints them. Returns the exit status. */
int ctl_table_sorted(struct ctl *ctl, const struct ctl_table *table);

/* Prints rows as text, with a headline if there is any. */
void ctl_table_text(struct ctl *ctl, const struct ctl_table *table, const void *rows, uint32_t n);

/* "64 B scoped", "large"; "scoped noscan", "-". */
void ctl_class_name(uint32_t sclass, char *to, size_t room);
void ctl_class_attrs(uint32_t sclass, char *to, size_t room);

#endif
