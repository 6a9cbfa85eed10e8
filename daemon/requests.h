/* What each request does: a table from the kind of a message to a short function over the core and the caller.
 *
 * Requests that change something for a client are numbered: a client whose reply was lost sends the request again under its old
 * serial, to this daemon or to the next one, and is sent the stored reply; it takes effect once. A serial lower than the last one
 * is an error. If the daemon was killed in the middle of a request, the next one takes back what it had brought (clients_adopt), and
 * the repeat does not stumble over what it had given away. Queries, trims and the requests before an attach may simply be repeated.
 *
 * Whether a request is in order is not decided here: see daemon/session_fsm.h; nor of which heap it is, and whether the peer may
 * attach to that: see daemon/heaps.h.
 */
#ifndef DAEMON_REQUESTS_H
#define DAEMON_REQUESTS_H

#include "daemon/core.h"

/* Carries out `req`, which has been decoded and is a request. */
void requests_run(struct core *core, struct caller *caller, const struct wire_msg *req, struct answer *answer);

/* Answers with an error in place of a request that cannot be read or is out of order. */
void requests_refuse(
        struct core *core, uint64_t serial, enum wire_error_code code, const char *text, struct answer *answer);

#endif
