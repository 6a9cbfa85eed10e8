/* Accepts connections, a few in each turn, within bounds for all and for each user.
 *
 * Out of descriptors it stops listening, since a pending connection would make the loop spin, and goes on when a session ends or
 * after a second. Peers beyond the bounds are accepted and closed at once: they see a refusal and not a silence.
 *
 * The socket is one that the service manager passed, which is its to keep and to remove, or one that we bind; then its file is
 * removed at the end, if it is still that file.
 */
#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/config.h"
#include "daemon/timer.h"

struct server;

struct listener {
	struct server *server;
	int sock;
	int http; /* passed for HTTP, and not taken yet; -1: none */
	char path[109];
	dev_t dev; /* of the socket file that we made; inode 0: none */
	ino_t inode;
	struct event *acceptable;
	struct timer retry;
	bool paused;
};

/* Takes the socket that was passed, or binds to config->socket. If config->dir_mode its directory is made if it is missing, and must
 * be ours alone to write to. From now on clients can connect, and wait. Returns 0 or a negative errno with the reason in words. */
int listener_init(
        struct listener *listener, struct server *server, const struct config *config, char *why, size_t room);

/* Changes the access rights of the socket file that listener_init made. Returns 0 or a negative errno; -ENOENT: there is none. */
int listener_set_mode(const struct listener *listener, unsigned mode);

/* Accepts from now on. */
void listener_start(struct listener *listener);

/* Closes, and removes the socket file that listener_init made. */
void listener_deinit(struct listener *listener);

/* A descriptor has become free. */
void listener_resume(struct listener *listener);

#endif
