#include "daemon/httpwish.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/http.h>
#include <event2/keyvalq_struct.h>

/* A page as a number; false if the text is none. */
static bool parse_page(const char *text, uint32_t *page)
{
	char *end;

	if (!text)
		return true;
	unsigned long number = strtoul(text, &end, 10);

	*page = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
	return *text >= '0' && *text <= '9' && !*end;
}

static const char *parse_query(const struct feed *feed, const char *query, struct feed_ask *ask)
{
	struct evkeyvalq params = {0};
	const char *why = NULL;
	int heap;

	ask->to = UINT32_MAX;
	if (evhttp_parse_query_str(query ? query : "", &params))
		return "The query makes no sense.";
	heap = feed_heap(feed, evhttp_find_header(&params, "heap"));
	if (heap < 0)
		why = "There is no such heap.";
	else if (!parse_page(evhttp_find_header(&params, "from"), &ask->from) ||
	         !parse_page(evhttp_find_header(&params, "to"), &ask->to) || ask->from >= ask->to)
		why = "from and to are numbers of pages.";
	ask->heap = (uint32_t)heap;
	evhttp_clear_headers(&params);
	return why;
}

/* A refusal of whatever path, if there is a reason for one. */
static struct http_wish objection(struct evhttp_request *req, const struct address *here)
{
	enum evhttp_cmd_type method = evhttp_request_get_command(req);
	const char *host = evhttp_find_header(evhttp_request_get_input_headers(req), "Host");

	if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD)
		return (struct http_wish){.why = "GET and HEAD are all there is.", .code = HTTP_BADMETHOD};
	if (*evhttp_request_get_uri(req) != '/')
		return (struct http_wish){.why = "This is no proxy.", .code = HTTP_BADREQUEST};
	if (!host && here)
		return (struct http_wish){.why = "A request says which host it is for.", .code = HTTP_BADREQUEST};
	if (here && !address_is_host(here, host))
		return (struct http_wish){
		        .why = "This is not the host that the request is for (shmallocd --http-remote lets it be any).",
		        .code = 421,
		        .reason = "Misdirected Request"};
	return (struct http_wish){0};
}

static const struct route {
	const char *path;
	bool page;
	enum feed_kind kind;
} routes[] = {
        {"/", true, FEED_KINDS},
        {"/stats.json", false, FEED_STATS},
        {"/map.json", false, FEED_MAP},
        {"/metrics", false, FEED_METRICS},
};

static const struct route *route_of(const char *path)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
		if (path && !strcmp(path, routes[i].path))
			return &routes[i];
	return NULL;
}

struct http_wish http_wish(struct evhttp_request *req, const struct feed *feed, const struct address *here)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
	const struct route *route = route_of(evhttp_uri_get_path(uri));
	struct http_wish wish = objection(req, here);

	if (wish.why)
		return wish;
	wish.code = HTTP_NOTFOUND;
	if (!route) {
		wish.why = "There is /, /stats.json, /map.json and /metrics.";
		return wish;
	}
	wish.page = route->page;
	wish.ask.kind = route->kind;
	wish.why = parse_query(feed, evhttp_uri_get_query(uri), &wish.ask);
	return wish;
}
