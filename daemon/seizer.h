/* Memory of wholly free spans is taken back from clients that sleep, without their help (shm/seize.h).
 *
 * A client sleeps when it has asked for nothing for POLICY_SLEEP_MS: it may be stopped, swapped out, in a debugger, or wait for
 * something. A round goes through all clients that sleep, the one that holds most first, and through the list of each; it ends
 * when as much as was wanted has been taken, or nobody is left. A step looks at POLICY_TURN_SPANS spans and drops about
 * POLICY_TURN_PAGES pages.
 *
 * What is gained is memory, at once, and what the client is charged with. The address space of a seized span is gained when its
 * client gives it back: at its next message after it has seen that struct shmi_owner, seizures, has changed. So a heap that is
 * full to its limit has no more room by this, until the sleeper wakes.
 */
#ifndef DAEMON_SEIZER_H
#define DAEMON_SEIZER_H

#include "daemon/core.h"

/* Begins a round that is to bring `pages`, or lets the one that is under way bring so many more. */
void seizer_start(struct core *core, uint64_t pages);

/* Some steps of a round at once, for a request that cannot wait. How many pages were taken. */
uint64_t seizer_now(struct core *core, uint64_t pages);

/* All wholly free spans of this client, whether it sleeps or not. */
void seizer_client(struct core *core, struct client *client);

bool seizer_is_running(const struct core *core);

/* Ends a span that was seized: its client has given it back, or is gone. */
void seizer_close(struct core *core, shmi_page page);

/* Settles what an earlier daemon was in the middle of, before anybody is served. Under the guard. */
void seizer_settle(struct core *core);

#endif
