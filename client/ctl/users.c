#include "client/ctl/figures.h"

#include <stdlib.h>

#define AT(field) offsetof(struct wire_user_row, field)

static const struct ctl_column columns[] = {
        {"UID", "uid", CTL_U32, 6, AT(uid), NULL},
        {"CLIENTS", "clients", CTL_U32, 7, AT(clients), NULL},
        {"SESSIONS", "sessions", CTL_U32, 8, AT(sessions), NULL},
        {"HELD", "held_bytes", CTL_BYTES, 11, AT(bytes), NULL},
        {"LIMIT", "limit_bytes", CTL_LIMIT, 11, AT(limit), NULL},
        {"SOFT", "soft_limit_bytes", CTL_LIMIT, 11, AT(soft_limit), NULL},
        {"GUARANTEED", "guaranteed_bytes", CTL_LIMIT, 11, AT(guaranteed), NULL},
        {"REQUESTS", "requests", CTL_U64, 9, AT(requests), NULL},
        {"REFUSED", "failed", CTL_U64, 8, AT(failed), NULL},
};

const struct ctl_table ctl_users_table = {.query = WIRE_Q_USERS,
        .reply = WIRE_USERS,
        .key = "users",
        .empty = "no users",
        .rows_at = offsetof(struct wire_users, rows),
        .row_size = sizeof(struct wire_user_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_sorted(ctl, &ctl_users_table);
}

const struct ctl_command ctl_users = {.name = "users",
        .summary = "who uses the heap, and what each user's clients hold",
        .help = "HELD are the pages of the spans that the user's clients hold together; LIMIT, SOFT and GUARANTEED "
                "what "
                "holds for\n"
                "the user: '-', and 0 in JSON, if there is none. SESSIONS are connections to the daemon.",
        .options = CTL_OPT_BYTES | CTL_OPT_SORT,
        .run = run};
