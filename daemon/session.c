#include "daemon/session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "daemon/policy.h"
#include "daemon/server.h"
#include "proto/chan.h"

struct session *session_of(struct caller *caller)
{
	return (struct session *)(void *)((char *)dialogue_of(caller) - offsetof(struct session, dialogue));
}

static void session_free(struct session *s)
{
	if (s->readable)
		event_free(s->readable);
	if (s->writable)
		event_free(s->writable);
	timer_deinit(&s->timer);
	dialogue_deinit(&s->dialogue);
	if (s->user)
		fair_leave(&s->server->fair, s->user);
	close(s->sock);
	free(s->pending);
	free(s);
}

static void end(struct session *s)
{
	struct server *server = s->server;

	LIST_REMOVE(s, link);
	session_free(s);
	server_session_gone(server);
}

/* Reads only what may come now: nothing while an answer is pending or a request under way. A hang-up is seen when all has been
 * read that the peer sent before it; the death of the process is seen at once, by its pidfd. */
static void listen_or_not(struct session *s)
{
	if (!s->pending && !s->paused && dialogue_listens(&s->dialogue))
		event_add(s->readable, NULL);
	else
		event_del(s->readable);
}

/* ---- sending ---- */

/* A new client gets its own descriptor of `data`. Who resumes has mapped one already, and closes what comes: any will do but the
 * daemon's own of `data`, on which locks would outlive the client (daemon/lease.h). */
static int try_send(struct session *s, const unsigned char *bytes, size_t len, bool descriptors)
{
	struct caller *caller = &s->dialogue.caller;
	int fds[WIRE_FDS];

	if (!descriptors)
		return shmi_chan_send(s->sock, bytes, len, NULL, 0);
	const struct served *served = served_of(s->dialogue.core);

	memcpy(fds, served->descriptors, sizeof(fds));
	if (served->core.leases.give)
		fds[WIRE_FDS - 1] = caller->lease >= 0 ? caller->lease : fds[0];
	int error = shmi_chan_send(s->sock, bytes, len, fds, WIRE_FDS);

	if (error != CHAN_E_AGAIN)
		core_drop_lease(caller); /* it is the client's now, or nobody's */
	return error;
}

/* What becomes of a dialogue whose answer was sent, or could not be. A peer that has closed does not want it, but what it has said
 * since stands: a client that leaves with a request unanswered has asked to be detached after it. */
static enum session_event sent(int error)
{
	return error && error != CHAN_E_CLOSED ? EVENT_HANGUP : EVENT_FLUSHED;
}

/* The answer is the socket's now. */
static void note_time(struct session *s)
{
	if (s->dialogue.refilling)
		histogram_add(&s->dialogue.core->served, timer_now_us() - s->came_us);
	s->dialogue.refilling = false;
}

/* Keeps what could not be sent. False if there is no memory for it. */
static bool keep(struct session *s, const struct move *move)
{
	s->pending = malloc(move->len);
	if (!s->pending)
		return false;
	memcpy(s->pending, move->bytes, move->len);
	s->pending_len = move->len;
	s->pending_descriptors = move->descriptors;
	event_add(s->writable, NULL);
	timer_start(&s->timer, POLICY_STUCK_MS);
	return true;
}

/* Does what the dialogue says. The session may be gone afterwards. */
static void act(struct session *s, struct move move)
{
	while (!move.drop && move.bytes) {
		int error = try_send(s, move.bytes, move.len, move.descriptors);

		if (error == CHAN_E_AGAIN && keep(s, &move))
			break;
		note_time(s);
		move = dialogue_event(&s->dialogue, sent(error));
	}
	if (move.drop) {
		end(s);
		return;
	}
	if (s->dialogue.state != SESSION_NEW && !s->pending)
		timer_stop(&s->timer);
	listen_or_not(s);
	server_wake(s->server);
}

void session_event(struct session *s, enum session_event event)
{
	act(s, dialogue_event(&s->dialogue, event));
}

/* Gathering figures is paid for by whoever has asked, once by each user. */
static void pay_for_figures(struct session *s)
{
	struct fair_user *user = s->user;
	uint64_t now_us = timer_now_us(), from_us = s->came_us > user->figures_us ? s->came_us : user->figures_us;

	if (s->figures) {
		fair_spend(&s->server->fair, user, now_us - from_us, now_us);
		user->figures_us = now_us;
	}
	s->figures = false;
}

void session_finished(struct session *s, const struct answer *answer, bool last)
{
	pay_for_figures(s);
	act(s, dialogue_finished(&s->dialogue, answer, last));
}

static void on_writable(evutil_socket_t fd, short what, void *ctx)
{
	struct session *s = ctx;
	int error = try_send(s, s->pending, s->pending_len, s->pending_descriptors);

	(void)fd;
	(void)what;
	if (error == CHAN_E_AGAIN) {
		event_add(s->writable, NULL);
		return;
	}
	note_time(s);
	free(s->pending);
	s->pending = NULL;
	timer_stop(&s->timer);
	session_event(s, sent(error));
}

/* ---- receiving ---- */

static void act_on(struct session *s, const unsigned char *packet, size_t len)
{
	struct move move = dialogue_packet(&s->dialogue, packet, len);

	s->figures = s->dialogue.caller.asking.wait.round != 0;
	act(s, move);
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
	static unsigned char packet[WIRE_MAX];
	struct session *s = ctx;
	struct server *server = s->server; /* the session may end here */
	struct fair_user *user = s->user;
	size_t len = 0;

	(void)what;
	if (!fair_within_rate(&server->fair, user, timer_now_us())) {
		event_del(s->readable);
		s->paused = true;
		server_pause(server);
		return;
	}
	if (!fair_has_share(&server->fair, user))
		return; /* it is still readable in the next turn */
	server_tick(server);
	int error = shmi_chan_recv(fd, packet, sizeof(packet), &len, NULL, NULL);

	if (error == CHAN_E_AGAIN)
		return;
	uint64_t came_us = s->came_us = timer_now_us();

	if (error && error != CHAN_E_TOO_LONG)
		session_event(s, EVENT_HANGUP);
	else
		act_on(s, error ? NULL : packet, len);
	uint64_t now_us = timer_now_us();

	fair_spend(&server->fair, user, now_us - came_us, now_us);
	awake_for_more(&server->awake);
}

void session_resume(struct session *s)
{
	if (!s->paused)
		return;
	s->paused = false;
	listen_or_not(s);
}

static void on_timer(void *ctx)
{
	struct session *s = ctx;

	session_event(s, s->pending ? EVENT_STUCK : EVENT_SILENT);
}

struct session *session_new(struct server *server, int sock, const struct peer *peer)
{
	struct peer_groups groups;
	struct session *s = calloc(1, sizeof(*s));

	if (!s) {
		struct peer lost = *peer;

		close(sock);
		peer_close(&lost);
		return NULL;
	}
	s->server = server;
	s->sock = sock;
	peer_groups_of_socket(sock, &groups);
	dialogue_init(&s->dialogue, &server->heaps, peer, &groups);
	s->user = fair_enter(&server->fair, peer->uid, timer_now_us());
	s->readable = event_new(server->base, sock, EV_READ | EV_PERSIST, on_readable, s);
	s->writable = event_new(server->base, sock, EV_WRITE, on_writable, s);
	if (!s->user || !s->readable || !s->writable || timer_init(&s->timer, server->base, on_timer, s)) {
		session_free(s);
		return NULL;
	}
	event_add(s->readable, NULL);
	timer_start(&s->timer, POLICY_HELLO_MS);
	LIST_INSERT_HEAD(&server->sessions, s, link);
	return s;
}
