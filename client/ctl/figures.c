#include "client/ctl/figures.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_MAX (1u << 20) /* more than any heap has; a daemon that sends more makes no sense */

/* Adds the rows of a reply. All replies with rows begin alike. */
static int add_rows(
        struct ctl *ctl, const struct ctl_table *table, const struct wire_msg *reply, void **rows, uint32_t *n)
{
	uint32_t more = reply->u.clients.n_rows;
	void *longer = more && *n + more <= ROWS_MAX ? realloc(*rows, (*n + more) * table->row_size) : NULL;

	if (!more)
		return CTL_OK;
	if (!longer)
		return ctl_fail(ctl, CTL_FAILED, "the answers from %s have too many rows", ctl->socket);
	*rows = longer;
	memcpy((char *)*rows + *n * table->row_size, (const char *)&reply->u + table->rows_at, more * table->row_size);
	*n += more;
	return CTL_OK;
}

int ctl_rows(struct ctl *ctl, const struct ctl_table *table, uint64_t cursor, void **rows, uint32_t *n)
{
	const struct wire_msg *reply;

	*rows = NULL;
	*n = 0;
	do {
		int status = ctl_query(ctl, table->query, cursor, table->reply, &reply);

		if (status == CTL_OK)
			status = add_rows(ctl, table, reply, rows, n);
		if (status != CTL_OK)
			return status;
		if (reply->u.clients.next && reply->u.clients.next <= cursor)
			return ctl_fail(ctl, CTL_FAILED, "the answers from %s go round in circles", ctl->socket);
		cursor = reply->u.clients.next;
	} while (cursor);
	return CTL_OK;
}

/* A damaged heap has no classes to tell apart. */
int ctl_report_ask(struct ctl *ctl, struct report *report)
{
	void *clients = NULL, *users = NULL, *classes = NULL;
	const struct wire_msg *reply;

	*report = (struct report){.version = SHMALLOC_VERSION};
	int status = ctl_query(ctl, WIRE_Q_STATS, 0, WIRE_STATS, &reply);

	if (status != CTL_OK)
		return status;
	report->stats = reply->u.stats;
	uint64_t moment = report->stats.snapshot;

	status = ctl_rows(ctl, &ctl_clients_table, moment, &clients, &report->n_clients);
	if (status == CTL_OK)
		status = ctl_rows(ctl, &ctl_users_table, moment, &users, &report->n_users);
	if (status == CTL_OK && !report->stats.damaged)
		status = ctl_rows(ctl, &ctl_classes_table, moment, &classes, &report->n_classes);
	report->clients = clients;
	report->users = users;
	report->classes = classes;
	return status;
}

void ctl_report_free(struct report *report)
{
	free((void *)(uintptr_t)report->clients);
	free((void *)(uintptr_t)report->users);
	free((void *)(uintptr_t)report->classes);
}
