#include "client/ctl/figures.h"

#define AT(field) offsetof(struct wire_class_row, field)

static void name(const void *row, char *to, size_t room)
{
	ctl_class_name(((const struct wire_class_row *)row)->sclass, to, room);
}

static void attrs(const void *row, char *to, size_t room)
{
	ctl_class_attrs(((const struct wire_class_row *)row)->sclass, to, room);
}

static const struct ctl_column columns[] = {
        {"CLASS", "sclass", CTL_U32, 5, AT(sclass), NULL},
        {"BLOCKS OF", "name", CTL_TEXT, -22, 0, name},
        {NULL, "size_bytes", CTL_U32, 0, AT(size), NULL},
        {NULL, "attributes", CTL_TEXT, 0, 0, attrs},
        {"OWNED", "spans_owned", CTL_U64, 7, AT(spans_owned), NULL},
        {"CENTRAL", "spans_central", CTL_U64, 7, AT(spans_central), NULL},
        {"BYTES", "bytes", CTL_BYTES, 11, AT(bytes), NULL},
        {"LIVE", "live_blocks", CTL_U64, 10, AT(live), NULL},
        {"CACHED", "cached_blocks", CTL_U64, 10, AT(cached), NULL},
        {"FREE", "free_slots", CTL_U64, 10, AT(slots_free), NULL},
};

const struct ctl_table ctl_classes_table = {.query = WIRE_Q_CLASSES,
        .reply = WIRE_CLASSES,
        .key = "classes",
        .empty = "no spans in use",
        .rows_at = offsetof(struct wire_classes, rows),
        .row_size = sizeof(struct wire_class_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_sorted(ctl, &ctl_classes_table);
}

const struct ctl_command ctl_classes = {.name = "classes",
        .summary = "span classes in use: spans, blocks allocated, cached and free",
        .help = "OWNED and CENTRAL are spans that clients hold and that nobody holds; BYTES their pages; LIVE, CACHED "
                "and FREE\n"
                "count blocks. In JSON, size_bytes is 0 for large blocks, which are spans of their own.",
        .options = CTL_OPT_BYTES | CTL_OPT_SORT,
        .run = run};
