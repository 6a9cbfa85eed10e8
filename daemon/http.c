#include "daemon/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "daemon/address.h"
#include "daemon/feed.h"
#include "daemon/httpreply.h"
#include "daemon/httpwish.h"
#include "daemon/policy.h"
#include "daemon/server.h"

#define BACKLOG 64
#define RETRY_MS 1000

/* A connection, or room for one. */
struct conn {
	TAILQ_ENTRY(conn) link; /* in `waiting`, if it has a request */
	struct http *http;
	struct bufferevent *bev; /* NULL: not in use */
	struct evhttp_connection *evcon; /* NULL: not known yet */
	struct evhttp_request *req; /* that waits for its text; NULL: none */
	struct feed_ask ask;
	struct event *known;
	struct timer deadline;
};

TAILQ_HEAD(conn_queue, conn);

struct http {
	struct server *server;
	struct bound bound;
	bool any_host; /* --http-remote */
	struct evhttp *evhttp;
	struct evconnlistener *listener;
	struct timer retry;
	struct timer pace; /* replies */
	bool paced; /* it is running */
	rlim_t most_fd; /* descriptors from here on are for clients */
	struct feed feed;
	struct conn conns[POLICY_HTTP_CONNECTIONS];
	uint32_t n_conns;
	struct conn_queue waiting;
};

/* ---- connections ---- */

static void pause_listening(struct http *http, const char *why)
{
	evconnlistener_disable(http->listener);
	timer_start(&http->retry, RETRY_MS);
	log_limited(LEVEL_WARN, LOG_HTTP, "no new HTTP connections for now: %s", why);
}

static void resume_listening(struct http *http)
{
	if (http->n_conns < POLICY_HTTP_CONNECTIONS)
		evconnlistener_enable(http->listener);
}

static void on_retry(void *ctx)
{
	resume_listening(ctx);
}

/* Out of descriptors or memory. libevent brings the evhttp here, and nothing of ours. */
static struct http *serving;

static void on_accept_error(struct evconnlistener *listener, void *evhttp)
{
	(void)listener;
	(void)evhttp;
	if (serving)
		pause_listening(serving, strerror(errno));
}

static void forget(struct conn *c)
{
	struct http *http = c->http;

	if (c->req)
		TAILQ_REMOVE(&http->waiting, c, link);
	timer_stop(&c->deadline);
	c->req = NULL;
	c->bev = NULL;
	c->evcon = NULL;
	http->n_conns--;
	if (http->listener)
		resume_listening(http);
}

static void on_closed(struct evhttp_connection *evcon, void *ctx)
{
	(void)evcon;
	forget(ctx);
}

static void on_deadline(void *ctx)
{
	struct conn *c = ctx;

	evhttp_connection_free(c->evcon); /* and so on_closed */
}

/* The connection as evhttp has it is what the callbacks of its bufferevent are given. This runs before any event of it can, so all that
 * may have happened to it is that evhttp had no memory for it and has dropped the bufferevent, of which we hold a reference. */
static void on_known(evutil_socket_t fd, short what, void *ctx)
{
	struct conn *c = ctx;
	bufferevent_event_cb used = NULL;
	void *evcon = NULL;

	(void)fd;
	(void)what;
	int sock = bufferevent_getfd(c->bev);

	bufferevent_getcb(c->bev, NULL, NULL, &used, &evcon);
	bufferevent_decref(c->bev);
	if (!used) {
		forget(c);
		return;
	}
	c->evcon = evcon;
	evhttp_connection_set_closecb(c->evcon, on_closed, c);
	timer_start(&c->deadline, POLICY_HTTP_REQUEST_MS);
	if ((rlim_t)sock < c->http->most_fd)
		return;
	pause_listening(c->http, "the descriptors that are left are for clients");
	evhttp_connection_free(c->evcon);
}

/* A connection has been accepted. The last one for which there is room ends the listening: the next ones wait with the kernel. */
static struct bufferevent *on_accepted(struct event_base *base, void *ctx)
{
	struct http *http = ctx;
	struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	struct conn *c = http->conns;

	while (c->bev)
		c++;
	if (++http->n_conns == POLICY_HTTP_CONNECTIONS)
		evconnlistener_disable(http->listener);
	if (!bev) {
		http->n_conns--;
		return NULL; /* evhttp tries for itself, and has no memory either */
	}
	bufferevent_incref(bev);
	c->bev = bev;
	event_active(c->known, EV_TIMEOUT, 0);
	return bev;
}

static struct conn *conn_of(struct http *http, const struct evhttp_connection *evcon)
{
	for (struct conn *c = http->conns; c < http->conns + POLICY_HTTP_CONNECTIONS; c++)
		if (c->bev && c->evcon == evcon)
			return c;
	return NULL;
}

static void on_complete(struct evhttp_request *req, void *ctx)
{
	struct conn *c = ctx;

	(void)req;
	timer_start(&c->deadline, POLICY_HTTP_IDLE_MS);
}

/* ---- who waits ---- */

static void answer_soon(struct http *http, int ms)
{
	if (!http->paced)
		timer_start(&http->pace, ms);
	http->paced = true;
}

/* Takes the request off the list: whoever calls answers it. */
static struct evhttp_request *unwait(struct conn *c)
{
	struct evhttp_request *req = c->req;

	TAILQ_REMOVE(&c->http->waiting, c, link);
	c->req = NULL;
	return req;
}

/* True if it has been answered. */
static bool answer(struct conn *c)
{
	bool failed;
	struct text *text = feed_get(&c->http->feed, &c->ask, &failed);

	if (text)
		http_send_text(unwait(c), c->ask.kind, text);
	else if (failed)
		http_refuse(unwait(c), HTTP_SERVUNAVAIL, "Service Unavailable", "There is no memory for this now.");
	return text || failed;
}

/* Some that can be answered; who cannot yet keeps its place. */
static void on_pace(void *ctx)
{
	struct http *http = ctx;
	struct conn *c, *next;
	uint32_t left = POLICY_HTTP_REPLIES;

	http->paced = false;
	server_tick(http->server);
	for (c = TAILQ_FIRST(&http->waiting); c && left; c = next) {
		next = TAILQ_NEXT(c, link);
		left -= answer(c);
	}
	if (c)
		answer_soon(http, POLICY_HTTP_PAUSE_MS);
	server_wake(http->server);
}

/* A text has been made. */
static void on_made(void *ctx)
{
	answer_soon(ctx, 0);
}

/* ---- requests ---- */

static void on_request(struct evhttp_request *req, void *ctx)
{
	struct http *http = ctx;
	struct conn *c = conn_of(http, evhttp_request_get_connection(req));
	struct http_wish wish = http_wish(req, &http->feed, http->any_host ? NULL : &http->bound.address);

	timer_start(&c->deadline, POLICY_HTTP_REPLY_MS);
	evhttp_request_set_on_complete_cb(req, on_complete, c);
	if (wish.why) {
		http_refuse(req, wish.code, wish.reason, wish.why);
	} else if (wish.page) {
		http_send_page(req);
	} else {
		c->ask = wish.ask;
		c->req = req;
		TAILQ_INSERT_TAIL(&http->waiting, c, link);
		answer_soon(http, 0);
	}
}

/* ---- start and end ---- */

static int open_conns(struct http *http)
{
	TAILQ_INIT(&http->waiting);
	for (uint32_t i = 0; i < POLICY_HTTP_CONNECTIONS; i++) {
		struct conn *c = &http->conns[i];

		c->http = http;
		c->known = event_new(http->server->base, -1, 0, on_known, c);
		if (!c->known || timer_init(&c->deadline, http->server->base, on_deadline, c))
			return -ENOMEM;
	}
	return 0;
}

static int open_evhttp(struct http *http)
{
	struct event_base *base = http->server->base;
	struct rlimit files = {.rlim_cur = RLIM_INFINITY};

	(void)getrlimit(RLIMIT_NOFILE, &files);
	http->most_fd = files.rlim_cur > POLICY_HTTP_RESERVE ? files.rlim_cur - POLICY_HTTP_RESERVE : 0;
	http->evhttp = evhttp_new(base);
	if (!http->evhttp || timer_init(&http->retry, base, on_retry, http) ||
	        timer_init(&http->pace, base, on_pace, http))
		return -ENOMEM;
	evhttp_set_max_headers_size(http->evhttp, POLICY_HTTP_HEAD);
	evhttp_set_max_body_size(http->evhttp, 0);
	evhttp_set_allowed_methods(http->evhttp, UINT16_MAX); /* those that are refused get our answer */
	evhttp_set_bevcb(http->evhttp, on_accepted, http);
	evhttp_set_gencb(http->evhttp, on_request, http);
	return open_conns(http);
}

static int open_socket(struct http *http, const struct config *config, int passed)
{
	struct address address;

	if (passed >= 0)
		return address_adopt(passed, &http->bound);
	return address_parse(config->http, &address)
	               ? address_listen(&address, config->http_mode, BACKLOG, &http->bound)
	               : -EINVAL;
}

int http_new(struct http **http, struct server *server, const struct config *config, int passed, char *why, size_t room)
{
	*http = NULL;
	if (passed < 0 && !*config->http)
		return 0;
	struct http *h = calloc(1, sizeof(*h));

	if (!h) {
		snprintf(why, room, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	*h = (struct http){.server = server, .bound.sock = -1, .any_host = config->http_remote};
	int error = open_socket(h, config, passed);

	if (!error)
		error = open_evhttp(h);
	if (!error) {
		*http = h;
		return 0;
	}
	snprintf(why, room, "cannot serve HTTP on %s: %s", *config->http ? config->http : "the socket passed",
	        error == -EADDRINUSE ? "somebody listens there already" : strerror(-error));
	http_free(h);
	return error;
}

static void say_where(const struct http *http)
{
	char text[ADDRESS_TEXT];

	address_text(&http->bound.address, text);
	log_line(LEVEL_INFO, "HTTP is served on %s%s", http->bound.address.at.ss_family == AF_UNIX ? "" : "http://",
	        text);
	if (!address_is_local(&http->bound.address))
		log_line(LEVEL_WARN,
		        "other machines can connect to %s and see labels, pids and sizes of all clients: nobody is "
		        "asked "
		        "who they are",
		        text);
}

int http_start(struct http *http)
{
	if (!http)
		return 0;
	struct feed_source sources[CONFIG_HEAPS_MAX];
	const struct config *config = http->server->config;
	uint32_t n = 0;

	for (uint32_t i = 0; i < config->heaps; i++) /* those that could not be opened have no figures */
		if (http->server->served[i].open)
			sources[n++] = (struct feed_source){.core = &http->server->served[i].core,
			        .backing = http->server->served[i].objects.sealed};
	int error = feed_init(&http->feed, sources, n, on_made, http);

	if (error)
		return error;
	http->listener = evconnlistener_new(http->server->base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, http->bound.sock);
	if (!http->listener)
		return -ENOMEM;
	evconnlistener_set_error_cb(http->listener, on_accept_error);
	if (!evhttp_bind_listener(http->evhttp, http->listener))
		return -ENOMEM;
	serving = http;
	say_where(http);
	return 0;
}

void http_free(struct http *http)
{
	if (!http)
		return;
	serving = NULL;
	http->listener = NULL; /* evhttp's */
	if (http->evhttp)
		evhttp_free(http->evhttp);
	for (uint32_t i = 0; i < POLICY_HTTP_CONNECTIONS; i++) {
		struct conn *c = &http->conns[i];

		if (c->bev && !c->evcon) /* on_known has not come to it */
			bufferevent_decref(c->bev);
		if (c->known)
			event_free(c->known);
		timer_deinit(&c->deadline);
	}
	timer_deinit(&http->retry);
	timer_deinit(&http->pace);
	if (http->feed.n_heaps)
		feed_deinit(&http->feed);
	address_close(&http->bound);
	free(http);
}
