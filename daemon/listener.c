#include "daemon/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/log.h"
#include "daemon/policy.h"
#include "daemon/server.h"
#include "proto/chan.h"

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
	log_limited(LEVEL_WARN, LOG_ACCEPT, "refused pid %d: uid %u has too many connections", peer->pid, peer->uid);
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
	if (session_new(l->server, sock, &peer))
		server_session_came(l->server, peer.uid);
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
	struct stat st;
	const char *slash = strrchr(path, '/');

	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	if (mkdir(dir, mode) && errno != EEXIST)
		return -errno;
	if (lstat(dir, &st))
		return -errno;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 0022) ? 0 : -EPERM;
}

int listener_init(struct listener *l, struct server *server, const char *path, unsigned mode, unsigned dir_mode)
{
	*l = (struct listener){.server = server, .sock = -1};
	int error = dir_mode ? make_dir(path, dir_mode) : 0;

	if (!error)
		error = shmi_chan_listen(path, mode, BACKLOG, &l->sock);
	if (error)
		return error;
	snprintf(l->path, sizeof(l->path), "%s", path);
	l->acceptable = event_new(server->base, l->sock, EV_READ | EV_PERSIST, on_acceptable, l);
	if (!l->acceptable || timer_init(&l->retry, server->base, on_retry, l)) {
		listener_deinit(l);
		return -ENOMEM;
	}
	event_add(l->acceptable, NULL);
	return 0;
}

void listener_deinit(struct listener *l)
{
	if (l->acceptable)
		event_free(l->acceptable);
	timer_deinit(&l->retry);
	if (l->sock >= 0) {
		unlink(l->path);
		close(l->sock);
	}
	l->sock = -1;
	l->acceptable = NULL;
}
