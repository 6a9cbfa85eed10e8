/* Spans of blocks to and from a client: one message gives spans back, reports others and asks for more. */
#ifndef DAEMON_REFILL_H
#define DAEMON_REFILL_H

#include "daemon/core.h"

enum outcome refill_run(struct core *core, struct caller *caller, const struct wire_msg *req);

#endif
