#include "client/ctl/show.h"
#include "shm/dump.h"
#include "shm/span.h"

#define AT(field) offsetof(struct wire_span_row, field)

static void state(const void *row, char *to, size_t room)
{
	const char *name = shmi_state_name(((const struct wire_span_row *)row)->state);
	size_t len = 0;

	for (; name[len] && len + 1 < room; len++)
		to[len] = name[len] >= 'A' && name[len] <= 'Z' ? (char)(name[len] - 'A' + 'a') : name[len];
	to[len] = 0;
}

static void class(const void *row, char *to, size_t room)
{
	const struct wire_span_row *span = row;

	if (shmi_state_in_use(span->state))
		ctl_class_name(span->sclass, to, room);
	else
		snprintf(to, room, "-");
}

static const struct ctl_column columns[] = {
        {"PAGE", "page", CTL_U32, 9, AT(page), NULL},
        {"PAGES", "pages", CTL_U32, 9, AT(pages), NULL},
        {"STATE", "state", CTL_TEXT, -10, 0, state},
        {NULL, "sclass", CTL_U32, 0, AT(sclass), NULL},
        {"BLOCKS OF", "class", CTL_TEXT, -22, 0, class},
        {"OWNER", "owner", CTL_CLIENT, 5, AT(owner), NULL},
        {"GENERATION", "generation", CTL_U32, 10, AT(generation), NULL},
        {"SLOTS", "slots", CTL_U32, 5, AT(slots), NULL},
        {"FREE", "free_slots", CTL_U32, 5, AT(slots_free), NULL},
};

static const struct ctl_table table = {.query = WIRE_Q_SPANS,
        .reply = WIRE_SPAN_ROWS,
        .key = "spans",
        .empty = "no pages yet",
        .rows_at = offsetof(struct wire_span_rows, rows),
        .row_size = sizeof(struct wire_span_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_show(ctl, &table);
}

const struct ctl_command ctl_spans = {.name = "spans",
        .summary = "every span and free run, in the order of addresses",
        .help = "Pages are of 8 KiB. States: owned and central are spans of blocks that a client holds or nobody; "
                "large is\n"
                "one block; free and returned are free runs, with memory and without; moving is being backed or "
                "returned;\n"
                "quarantine is never used again. The heap goes on while the rows are fetched, 128 at a time.",
        .run = run};
