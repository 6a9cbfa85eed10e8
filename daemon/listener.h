/* Accepts connections, a few in each turn, within bounds for all and for each user.
 *
 * Out of descriptors it stops listening, since a pending connection would make the loop spin, and goes on when a session ends or
 * after a second. Peers beyond the bounds are accepted and closed at once: they see a refusal and not a silence.
 */
#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/timer.h"

struct server;

struct listener {
	struct server *server;
	int sock;
	char path[108];
	struct event *acceptable;
	struct timer retry;
	bool paused;
};

/* Binds to `path`, with access rights `mode`. With `dir_mode` its directory is made if it is missing, and must be ours alone to
 * write to (-EPERM). Returns 0 or a negative errno; -EADDRINUSE: somebody listens there. */
int listener_init(struct listener *listener, struct server *server, const char *path, unsigned mode, unsigned dir_mode);

/* Closes and removes the socket file. */
void listener_deinit(struct listener *listener);

/* A descriptor has become free. */
void listener_resume(struct listener *listener);

#endif
