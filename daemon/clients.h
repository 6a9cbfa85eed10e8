/* The client table: who is attached, in memory and, for the next daemon, in the state object.
 *
 * An entry of the state object is complete before its in_use is stored, and a client's spans and records are gone before it is
 * cleared: so every span in use has an owner who is in the table, or none.
 */
#ifndef DAEMON_CLIENTS_H
#define DAEMON_CLIENTS_H

#include "daemon/core.h"

/* Makes a client of `caller`, with its state entry and the process's own thread record. Consumes caller->peer.pidfd on success.
 * If the same process has become one with this nonce already, it is that one again. With a nonce of 0 one is made up. Returns
 * NULL with an error in core->reply. */
struct client *clients_add(struct core *core, struct caller *caller, uint64_t nonce);

/* Gives the client `id` to `caller`, if it knows the nonce and is the same process. Returns NULL likewise. */
struct client *clients_resume(struct core *core, struct caller *caller, uint32_t id, uint64_t nonce);

/* The client has been told that it is detached, and its connection is not its own any more; what is left is its children's. */
void clients_left(struct core *core, struct client *client);

/* The living client with that id; or NULL, with an error in core->reply: there is none, or it has ended. */
struct client *clients_find(struct core *core, uint32_t id);

/* Its process is to be refused from now on, by later daemons as well. */
void clients_evict(struct core *core, struct client *client);

/* An evicted client holds nothing any more: only who it was stays. */
void clients_bar(struct core *core, struct client *client);

/* Forgets a client that holds nothing any more. */
void clients_remove(struct core *core, struct client *client);

/* Finds the clients that an earlier daemon had: those that live are detached, the others are reclaimed. How many live. What
 * becomes of a request that was cut short: see daemon/journal.h. */
uint32_t clients_adopt(struct core *core);

/* Its entry in the state object. */
struct shmi_client_state *clients_entry(const struct core *core, const struct client *client);

/* Keeps the answer for a repeat of the request; the last serial is stored last. */
void clients_remember(struct core *core, struct client *client, uint64_t serial, const struct answer *answer);

/* Makes the charge of client `id` (SHMI_NOBODY: nothing happens) what the heap says it holds. */
void clients_settle(struct core *core, uint32_t id);

/* A request of the client (NULL: of nobody) has been refused. */
void clients_count_failure(struct client *client);

/* Pages were granted to it, and given back by it, or by it of whosever they were. */
void clients_count_grant(struct core *core, struct client *client, uint64_t pages);
void clients_count_given(struct core *core, uint64_t pages);

/* Closes the pidfd. */
void clients_unwatch(struct core *core, struct client *client);

#endif
