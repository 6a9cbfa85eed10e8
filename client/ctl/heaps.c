#include "client/ctl/show.h"

#define AT(field) offsetof(struct wire_heap_row, field)

static void backing(const void *row, char *to, size_t room)
{
	snprintf(to, room, "%s", ((const struct wire_heap_row *)row)->backing ? "memfd" : "shm");
}

static void state(const void *row, char *to, size_t room)
{
	snprintf(to, room, "%s", ((const struct wire_heap_row *)row)->damaged ? "DAMAGED" : "good");
}

static void access_right(const void *row, char *to, size_t room)
{
	snprintf(to, room, "%s", ((const struct wire_heap_row *)row)->allowed ? "yes" : "no");
}

static const struct ctl_column columns[] = {
        {"HEAP", "name", CTL_NAME, -16, AT(name), NULL},
        {"LIMIT", "limit_bytes", CTL_BYTES, 11, AT(limit), NULL},
        {"BACKED", "backed_bytes", CTL_BYTES, 11, AT(backed), NULL},
        {"CLIENTS", "clients", CTL_U32, 7, AT(clients), NULL},
        {"BACKING", "backing", CTL_TEXT, -7, 0, backing},
        {"STATE", "state", CTL_TEXT, -7, 0, state},
        {"ALLOWED", "allowed", CTL_TEXT, -7, 0, access_right},
};

static const struct ctl_table table = {.query = WIRE_Q_HEAPS,
        .reply = WIRE_HEAPS,
        .key = "heaps",
        .empty = "no heaps",
        .rows_at = offsetof(struct wire_heaps, rows),
        .row_size = sizeof(struct wire_heap_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_show(ctl, &table);
}

const struct ctl_command ctl_heaps = {.name = "heaps",
        .summary = "the heaps of the daemon, and whether you may attach to them",
        .help = "BACKED is the memory that a heap has, BACKING what it is made of; ALLOWED says whether you may "
                "attach.\n"
                "A heap that could not be opened, or of which a client has cut an object short, is DAMAGED.",
        .options = CTL_OPT_BYTES,
        .run = run};
