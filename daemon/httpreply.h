/* What the HTTP listener says: headers, bodies and refusals. Each function answers the request, which is libevent's again. */
#ifndef DAEMON_HTTPREPLY_H
#define DAEMON_HTTPREPLY_H

#include "daemon/feed.h"

struct evhttp_request;

/* A line of text that says `why`, and the connection's end. `reason` may be NULL: the usual words for the code. */
void http_refuse(struct evhttp_request *req, int code, const char *reason, const char *why);

/* The page, with a nonce that no one can have guessed. */
void http_send_page(struct evhttp_request *req);

/* A text of the feed, which is given back when it has been sent. */
void http_send_text(struct evhttp_request *req, enum feed_kind kind, struct text *text);

#endif
