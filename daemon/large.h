/* Large blocks: a span of its own for each, backed in steps before it is handed out.
 *
 * A run that has memory already, is short, or is to be backed on touch, is answered at once. Else the session waits while a job
 * backs 2 MiB in every turn of the loop. When the system has no memory left it waits until memory has been taken from clients that
 * sleep (daemon/seizer.h), and tries again, as long as something comes of it. If a step fails, or the client dies or gives the request up, what was backed is dropped
 * again and the run goes back: nothing has happened.
 */
#ifndef DAEMON_LARGE_H
#define DAEMON_LARGE_H

#include "daemon/core.h"

enum outcome large_alloc(struct core *core, struct caller *caller, const struct wire_msg *req);
enum outcome large_free(struct core *core, struct caller *caller, const struct wire_msg *req);

/* True if it was a large span of that generation and has been freed. */
bool large_free_one(struct core *core, struct wire_span span);

/* Frees what the request `serial` names. False, with the error as the reply, if something was no large span, and the client has not
 * asked for it before. */
bool large_free_all(struct core *core, const struct caller *caller, const struct wire_free *want, uint64_t serial);

/* Gives up the block that is being backed for this client, if there is one. */
void large_abort(struct core *core, struct client *client);

#endif
