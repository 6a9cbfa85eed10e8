#include <string.h>

#include "client/ctl/cgroup.h"
#include "client/ctl/figures.h"

#define AT(field) offsetof(struct wire_client_row, field)
#define CGROUP_WIDTH 20u /* of what is shown of a control group in a wide table: its end */
#define LABEL_WIDTH 14u

static void state(const void *row, char *to, size_t room)
{
	const struct wire_client_row *client = row;

	snprintf(to, room, "%s", client->evicted ? "evicted" : client->detached ? "detached" : "attached");
}

static void since(const void *row, char *to, size_t room)
{
	uint64_t s = ((const struct wire_client_row *)row)->since_ms / 1000;

	if (s < 86400)
		snprintf(to, room, "%u:%02u:%02u", (unsigned)(s / 3600), (unsigned)(s / 60 % 60), (unsigned)(s % 60));
	else
		snprintf(to, room, "%llud %02u:%02u", (unsigned long long)(s / 86400), (unsigned)(s / 3600 % 24),
		        (unsigned)(s / 60 % 60));
}

static void cgroup(const void *row, char *to, size_t room)
{
	ctl_cgroup(((const struct wire_client_row *)row)->pid, to, room);
}

/* The end says more than the beginning. */
static void cgroup_end(const void *row, char *to, size_t room)
{
	char whole[CTL_CELL];

	cgroup(row, whole, sizeof(whole));
	size_t len = strlen(whole);

	if (len <= CGROUP_WIDTH) {
		snprintf(to, room, "%s", whole);
		return;
	}
	const char *at = whole + len - (CGROUP_WIDTH - 3);

	while ((*at & 0xc0) == 0x80) /* the rest of a character */
		at++;
	snprintf(to, room, "...%s", at);
}

/* So much of it that the columns behind it stay where they are. */
static void short_label(const void *row, char *to, size_t room)
{
	char whole[CTL_CELL];

	report_clean(((const struct wire_client_row *)row)->label, whole, sizeof(whole));
	snprintf(to, room, "%.*s", (int)report_fit(whole, LABEL_WIDTH), whole);
}

static const struct ctl_column columns[] = {
        {"ID", "client", CTL_U32, 4, AT(client), NULL},
        {"PID", "pid", CTL_U32, 7, AT(pid), NULL},
        {"UID", "uid", CTL_U32, 5, AT(uid), NULL},
        {"STATE", "state", CTL_TEXT, -8, 0, state},
        {"THR", "threads", CTL_U32 | CTL_WIDE, 3, AT(threads), NULL},
        {NULL, "spans", CTL_U64, 0, AT(spans), NULL},
        {"HELD", "held_bytes", CTL_BYTES, 10, AT(bytes), NULL},
        {"LIVE", "live_bytes", CTL_BYTES, 10, AT(live), NULL},
        {"IDLE", "idle_bytes", CTL_BYTES_OF_TWO, 10, CTL_TWO(AT(cached), AT(slots_free)), NULL},
        {NULL, "cached_bytes", CTL_U64, 0, AT(cached), NULL},
        {NULL, "slots_free_bytes", CTL_U64, 0, AT(slots_free), NULL},
        {NULL, "tail_bytes", CTL_U64, 0, AT(tail), NULL},
        {NULL, "written_off_bytes", CTL_U64, 0, AT(written_off), NULL},
        {"LIMIT", "limit_bytes", CTL_LIMIT, 10, AT(limit), NULL},
        {"SOFT", "soft_limit_bytes", CTL_LIMIT | CTL_WIDE, 10, AT(soft_limit), NULL},
        {"GUARANTEED", "guaranteed_bytes", CTL_LIMIT | CTL_WIDE, 10, AT(guaranteed), NULL},
        {NULL, "granted_bytes", CTL_U64, 0, AT(granted), NULL},
        {"REQUESTS", "requests", CTL_U64 | CTL_WIDE, 8, AT(requests), NULL},
        {"REFUSED", "failed", CTL_U64, 7, AT(failed), NULL},
        {"SINCE", NULL, CTL_TEXT, 8, 0, since},
        {NULL, "since_ms", CTL_U64, 0, AT(since_ms), NULL},
        {NULL, "detached", CTL_FLAG, 0, AT(detached), NULL},
        {NULL, "evicted", CTL_FLAG, 0, AT(evicted), NULL},
        {"LABEL", NULL, CTL_TEXT | CTL_WIDE, -(int)LABEL_WIDTH, 0, short_label},
        {"LABEL", "label", CTL_NAME | CTL_NARROW, -1, AT(label), NULL},
        {"CGROUP", NULL, CTL_TEXT | CTL_WIDE, -(int)CGROUP_WIDTH, 0, cgroup_end},
        {NULL, "cgroup", CTL_TEXT, 0, 0, cgroup},
};

const struct ctl_table ctl_clients_table = {.query = WIRE_Q_CLIENTS,
        .reply = WIRE_CLIENTS,
        .key = "clients",
        .empty = "no clients",
        .rows_at = offsetof(struct wire_clients, rows),
        .row_size = sizeof(struct wire_client_row),
        .columns = columns,
        .n_columns = sizeof(columns) / sizeof(columns[0])};

static int run(struct ctl *ctl)
{
	return ctl_table_sorted(ctl, &ctl_clients_table);
}

const struct ctl_command ctl_clients = {.name = "clients",
        .summary = "who is attached, and what each holds",
        .help = "HELD are the pages of the spans that a client holds; of these LIVE is allocated and IDLE lies free, "
                "in "
                "caches or\n"
                "in the spans. LIMIT is how much it may hold, SOFT what it is told to trim beyond, GUARANTEED what is "
                "kept\n"
                "free for it: '-', and 0 in JSON, if there is none. A detached client lives, but its connection is "
                "gone; "
                "it\n"
                "keeps what it holds. An evicted one keeps what it has until its process ends, and is granted nothing. "
                "With --wide the lines fit 160 "
                "columns; "
                "they\n"
                "and the JSON have the control group, '-' if it may not be read.",
        .options = CTL_OPT_BYTES | CTL_OPT_SORT | CTL_OPT_WIDE,
        .run = run};
