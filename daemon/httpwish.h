/* What a request of the HTTP listener wants: by its method, host, path and query. */
#ifndef DAEMON_HTTPWISH_H
#define DAEMON_HTTPWISH_H

#include "daemon/address.h"
#include "daemon/feed.h"

struct evhttp_request;

struct http_wish {
	const char *why; /* it is refused with this line ... */
	int code; /* ... this status ... */
	const char *reason; /* ... and these words for it; NULL: the usual ones */
	bool page; /* else: the page, or a text of the feed */
	struct feed_ask ask;
};

/* `here` is where one listens: only requests for that host are good; NULL: for any. */
struct http_wish http_wish(struct evhttp_request *req, const struct feed *feed, const struct address *here);

#endif
