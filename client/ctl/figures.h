/* The figures of a heap, fetched whole: what `stats`, `clients`, `users` and `classes` show.
 *
 * Rows come in pages, all of one snapshot, and are put together here; so they can be sorted, and all parts of a report add up.
 */
#ifndef CLIENT_CTL_FIGURES_H
#define CLIENT_CTL_FIGURES_H

#include "client/ctl/show.h"
#include "proto/report/report.h"

/* All rows of the table's query, from `cursor` on (0: of now), into *rows, which the caller frees. Returns the exit status. */
int ctl_rows(struct ctl *ctl, const struct ctl_table *table, uint64_t cursor, void **rows, uint32_t *n);

/* Stats and all rows of one moment. ctl_report_free is due in any case. Returns the exit status. */
int ctl_report_ask(struct ctl *ctl, struct report *report);
void ctl_report_free(struct report *report);

/* The tables of the commands. */
extern const struct ctl_table ctl_clients_table, ctl_users_table, ctl_classes_table;

#endif
