#include "daemon/listener.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/log.h"
#include "daemon/notify.h"
#include "daemon/policy.h"
#include "daemon/server.h"
#include "proto/chan.h"
#include "proto/ourdir.h"

#define BACKLOG 256
#define RETRY_MS 1000

static void pause_listening(struct listener *l, const char *why)
{
	l->paused = true;
	event_del(l->acceptable);
	timer_start(&l->retry, RETRY_MS);
	log_limited(LEVEL_WARN, LOG_ACCEPT, "no new connections for now: %s", why);
}

void listener_resume(struct listener *l)
{
	if (!l->paused)
		return;
	l->paused = false;
	timer_stop(&l->retry);
	event_add(l->acceptable, NULL);
}

static void on_retry(void *ctx)
{
	listener_resume(ctx);
}

/* Whether the peer may have a session; if so it is known who it is. A negative errno ends the batch. */
static int identify(struct listener *l, int sock, struct peer *peer)
{
	int error = peer_of_socket(sock, peer);

	if (error)
		return error;
	if (server_admits(l->server, peer->uid))
		return 0;
	log_event(LEVEL_WARN, LOG_ACCEPT,
	        ((struct log_fields){.known = LOG_HAS_PROCESS, .pid = peer->pid, .uid = peer->uid}),
	        "refused pid %d: uid %u has too many connections", peer->pid, peer->uid);
	peer_close(peer);
	return PEER_E_GONE;
}

/* Returns false when there is nothing more to accept now. */
static bool accept_one(struct listener *l)
{
	struct peer peer;
	int sock = accept4(l->sock, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			pause_listening(l, strerror(errno));
		return errno == ECONNABORTED || errno == EINTR;
	}
	int error = identify(l, sock, &peer);

	if (error) {
		close(sock);
		if (error < 0)
			pause_listening(l, strerror(-error));
		return error > 0;
	}
	(void)session_new(l->server, sock, &peer);
	return true;
}

static void on_acceptable(evutil_socket_t fd, short what, void *ctx)
{
	(void)fd;
	(void)what;
	for (unsigned i = 0; i < POLICY_ACCEPT_BATCH; i++)
		if (!accept_one(ctx))
			return;
}

/* Makes the socket's directory. In /tmp anybody could have made it before us. */
static int make_dir(const char *path, unsigned mode)
{
	char dir[108];
	const char *slash = strrchr(path, '/');

	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (mkdir(dir, mode) && errno != EEXIST)
		return -errno;
	return shmi_dir_is_ours(dir) ? 0 : -EPERM;
}

/* Binds to the path, and remembers which file that made: another may lie there one day. */
static int bind_path(struct listener *l, const struct config *config)
{
	struct stat st;
	int error = config->dir_mode ? make_dir(config->socket, config->dir_mode) : 0;

	if (!error)
		error = shmi_chan_listen(config->socket, config->socket_mode, BACKLOG, &l->sock);
	if (error)
		return error;
	snprintf(l->path, sizeof(l->path), "%s", config->socket);
	if (!lstat(l->path, &st) && S_ISSOCK(st.st_mode)) {
		l->dev = st.st_dev;
		l->inode = st.st_ino;
	}
	return 0;
}

static void name_passed(struct listener *l)
{
	struct sockaddr_un address = {0};
	socklen_t len = sizeof(address);

	if (getsockname(l->sock, (struct sockaddr *)&address, &len) || len <= offsetof(struct sockaddr_un, sun_path))
		return;
	snprintf(l->path, sizeof(l->path), "%.*s", (int)sizeof(address.sun_path), address.sun_path);
}

int listener_init(struct listener *l, struct server *server, const struct config *config, char *why, size_t room)
{
	*l = (struct listener){.server = server};
	int error = notify_sockets(&l->sock, &l->http, why, room);

	if (error)
		return error;
	if (l->sock >= 0)
		name_passed(l);
	else
		error = bind_path(l, config);
	if (!error) {
		l->acceptable = event_new(server->base, l->sock, EV_READ | EV_PERSIST, on_acceptable, l);
		error = l->acceptable ? timer_init(&l->retry, server->base, on_retry, l) : -ENOMEM;
	}
	if (error == -EADDRINUSE)
		snprintf(why, room, "somebody listens on %s already", config->socket);
	else if (error)
		snprintf(why, room, "cannot listen on %s: %s", config->socket, strerror(-error));
	if (error)
		listener_deinit(l);
	return error;
}

void listener_start(struct listener *l)
{
	event_add(l->acceptable, NULL);
}

/* The file that we made still has its name. */
static bool is_own(const struct listener *l)
{
	struct stat st;

	return l->inode && !lstat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->inode;
}

int listener_set_mode(const struct listener *l, unsigned mode)
{
	if (!is_own(l))
		return -ENOENT;
	return chmod(l->path, mode) ? -errno : 0;
}

void listener_deinit(struct listener *l)
{
	if (l->acceptable)
		event_free(l->acceptable);
	timer_deinit(&l->retry);
	if (l->sock >= 0) {
		if (is_own(l))
			unlink(l->path);
		close(l->sock);
	}
	l->sock = -1;
	l->inode = 0;
	l->acceptable = NULL;
}
