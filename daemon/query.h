/* Questions about a heap: for whoever may connect, attached or not; they change nothing.
 *
 * Rows come WIRE_ROWS at a time; the cursor that is returned with them says where to go on. Rows of different messages are of
 * different moments.
 */
#ifndef DAEMON_QUERY_H
#define DAEMON_QUERY_H

#include "daemon/core.h"

enum outcome query_run(struct core *core, struct caller *caller, const struct wire_msg *req);

#endif
