#include "client/ctl/show.h"

#define AT(field) offsetof(struct wire_root, field)

static const struct ctl_column columns[] = {
        {"OFFSET", "offset", CTL_U64, 15, AT(off), NULL},
        {"SET BY", "client", CTL_CLIENT, 6, AT(client), NULL},
        {"NAME", "name", CTL_NAME, -1, AT(name), NULL},
};

static const struct ctl_table table = {.query = WIRE_Q_ROOTS,
        .reply = WIRE_ROOTS,
        .key = "roots",
        .empty = "no roots",
        .rows_at = offsetof(struct wire_roots, rows),
        .row_size = sizeof(struct wire_root),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_show(ctl, &table);
}

const struct ctl_command ctl_roots = {.name = "roots",
        .summary = "named roots: names, offsets, who set them",
        .help = "An offset counts from the heap's start. SET BY is the id that the client had then.",
        .run = run};
