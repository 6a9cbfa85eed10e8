/* The thread records of clients: where each thread's magazines and ready spans lie in ctl, backed by the parts that it needs. A record's
 * pages count as its client's memory. */
#ifndef DAEMON_RECORDS_H
#define DAEMON_RECORDS_H

#include "daemon/core.h"

#define RECORDS_E_FULL 2
#define RECORDS_E_LIMIT 3

/* Gives the client a thread record with these parts. Returns 0, or SHMI_E_NOMEM, or RECORDS_E_FULL, or RECORDS_E_LIMIT. */
int records_add(struct core *core, struct client *client, uint32_t parts, uint32_t *thread);

/* Backs more parts of a record that the client has. Returns likewise. */
int records_grow(struct core *core, struct client *client, uint32_t thread, uint32_t parts);

/* Drops a record that has been reclaimed. */
void records_drop(struct core *core, struct client *client, uint32_t thread);

/* After a restart: counts the records that each client has according to meta. */
void records_count(struct core *core);

#endif
