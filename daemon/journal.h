/* The request under way, as the next daemon must find it: a note of each change that would not tell itself.
 *
 * A client repeats a request that was not answered, under its number. If the daemon that was killed had given it a result, the
 * client is sent that. Else the next daemon makes, at adoption and before it serves anybody, that the repeat takes effect
 * once:
 *
 *	spans granted, a large block     closed, or given back to the central list: the client has not heard of them
 *	a thread record made             dropped
 *	a root set or deleted            if it was, that is the result: somebody else may change the root before the repeat comes
 *	a client being detached          goes on; the client finds that it is not known any more, which is the answer
 *	spans given back, blocks freed   nothing to undo: they are named with their generations, so the repeat passes over
 *	                                 those that are gone (client->redo)
 *
 * A note is complete before what it says is done, and means nothing once the request has a result (last_serial). A dead client's
 * notes are not looked at: all that it has is taken back.
 */
#ifndef DAEMON_JOURNAL_H
#define DAEMON_JOURNAL_H

#include "daemon/core.h"

/* A numbered request is about to take effect. */
void journal_begin(struct core *core, struct client *client, uint64_t serial);

/* The span that begins at `page` is about to become the client's. A request notes at most SHMI_TAKEN_MAX of them. */
void journal_span(struct core *core, const struct client *client, shmi_page page);

/* Thread record `thread` is about to become the client's. */
void journal_thread(struct core *core, const struct client *client, uint32_t thread);

/* The root is about to get this offset; 0: to be deleted. Of a name that is legal. */
void journal_root(struct core *core, const struct client *client, const char *name, uint64_t off);

/* The client is about to be taken apart, as it has asked. */
void journal_leaving(struct core *core, const struct client *client);

/* After a restart, for a client that lives: deals with a request that was cut short. True if the client is to be detached. */
bool journal_settle(struct core *core, struct client *client);

#endif
