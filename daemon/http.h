/* The HTTP listener, if there is one: figures of the heaps for a browser and for Prometheus, on the loopback or on a Unix socket.
 *
 *	/                             a page that shows all this, live
 *	/stats.json?heap=NAME         as shmallocctl --format json stats; without `heap`, of the first heap
 *	/map.json?heap=NAME&from=PAGE&to=PAGE
 *	/metrics                      of all heaps, for Prometheus
 *
 * GET and HEAD only, and no request changes anything. A request waits until its text has been made (daemon/feed.h), in steps between
 * which clients are served; replies are paced, so that no flood of requests takes the loop from them. Connections, heads and times
 * are bounded (policy.h); when all connections are taken the listening socket is not looked at until one ends.
 *
 * Anybody who can connect sees labels, pids and sizes: of a TCP peer nothing is known. The Host header must name the loopback or the
 * address of the listener, no other origin may read replies (there is no CORS), and the page runs its own script alone.
 *
 * libevent's evhttp says when a connection ends only if it is asked, and who asks needs a connection that has brought a request.
 * So a connection is got hold of just after it was accepted: see on_known in http.c.
 */
#ifndef DAEMON_HTTP_H
#define DAEMON_HTTP_H

#include <stdint.h>

#include "daemon/config.h"

struct server;
struct http;

/* Listens where config->http says, or on `passed` (-1: none), which it takes over. *http is NULL if neither says anything. Returns 0,
 * or a negative errno with the reason in words. */
int http_new(
        struct http **http, struct server *server, const struct config *config, int passed, char *why, size_t room);

/* The heaps are there: serves from now on. Returns 0 or -ENOMEM. `http` may be NULL, here and below. */
int http_start(struct http *http);

/* Ends all connections. */
void http_free(struct http *http);

#endif
