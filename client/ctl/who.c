#include "client/ctl/who.h"

#include <stdlib.h>

#include "shm/layout.h"

int ctl_who(struct ctl *ctl, const char *arg, uint32_t *id)
{
	char *end;
	unsigned long n = strtoul(arg, &end, 10);

	if (*arg < '0' || *arg > '9' || *end || n >= SHMI_MAX_CLIENTS)
		return ctl_fail(ctl, CTL_USAGE, "a client is a number below %u, as 'shmallocctl clients' shows it",
		        SHMI_MAX_CLIENTS);
	*id = (uint32_t)n;
	return CTL_OK;
}

/* Rows come in the order of the ids: what is sought is the first one from there on, or is not there. */
int ctl_who_row(struct ctl *ctl, uint32_t id, struct wire_client_row *row, bool *found)
{
	const struct wire_msg *reply;
	int status = ctl_query(ctl, WIRE_Q_CLIENTS, id, WIRE_CLIENTS, &reply);

	*found = status == CTL_OK && reply->u.clients.n_rows && reply->u.clients.rows[0].client == id;
	if (*found)
		*row = reply->u.clients.rows[0];
	return status;
}
