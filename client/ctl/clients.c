#include "client/ctl/show.h"

#define AT(field) offsetof(struct wire_client_row, field)

static void state(const void *row, char *to, size_t room)
{
	const struct wire_client_row *client = row;

	snprintf(to, room, "%s", client->evicted ? "evicted" : client->detached ? "detached" : "attached");
}

static const struct ctl_column columns[] = {
        {"ID", "client", CTL_U32, 4, AT(client), NULL},
        {"PID", "pid", CTL_U32, 7, AT(pid), NULL},
        {"UID", "uid", CTL_U32, 5, AT(uid), NULL},
        {"STATE", "state", CTL_TEXT, -8, 0, state},
        {"THREADS", "threads", CTL_U32, 7, AT(threads), NULL},
        {"SPANS", "spans", CTL_U64, 7, AT(spans), NULL},
        {"HELD", "held_bytes", CTL_BYTES, 11, AT(bytes), NULL},
        {"CACHED", "cached_bytes", CTL_BYTES, 11, AT(cached), NULL},
        {"LIMIT", "limit_bytes", CTL_LIMIT, 11, AT(limit), NULL},
        {"REQUESTS", "requests", CTL_U64, 9, AT(requests), NULL},
        {"LABEL", "label", CTL_NAME, -1, AT(label), NULL},
};

static const struct ctl_table table = {.query = WIRE_Q_CLIENTS,
        .reply = WIRE_CLIENTS,
        .key = "clients",
        .empty = "no clients",
        .rows_at = offsetof(struct wire_clients, rows),
        .row_size = sizeof(struct wire_client_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_show(ctl, &table);
}

const struct ctl_command ctl_clients = {.name = "clients",
        .summary = "who is attached, and what each holds",
        .help = "HELD are the pages of the spans that a client holds, CACHED what lies free in its caches, LIMIT how "
                "much\n"
                "it may hold: '-', and 0 in JSON, if it has no limit of its own. A detached client lives, but its\n"
                "connection is gone; it keeps what it holds. So does an evicted one, until its process ends.",
        .options = CTL_OPT_BYTES,
        .run = run};
