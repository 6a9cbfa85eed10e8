#include "daemon/httpreply.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/random.h>

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#include "daemon/page.h"

/* What every reply says to a browser: it is data of its own, for nobody else, and of this moment. */
static void add_headers(struct evhttp_request *req, const char *type, const char *nonce)
{
	static const char *const headers[][2] = {{"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"},
	        {"Referrer-Policy", "no-referrer"}, {"X-Frame-Options", "DENY"},
	        {"Cross-Origin-Resource-Policy", "same-origin"}, {"Cross-Origin-Opener-Policy", "same-origin"}};
	struct evkeyvalq *out = evhttp_request_get_output_headers(req);
	char csp[256] = "default-src 'none'; frame-ancestors 'none'; sandbox";

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		evhttp_add_header(out, headers[i][0], headers[i][1]);
	if (nonce)
		snprintf(csp, sizeof(csp),
		        "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; img-src "
		        "data:; "
		        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		        nonce, nonce);
	evhttp_add_header(out, "Content-Security-Policy", csp);
	evhttp_add_header(out, "Content-Type", type);
}

/* Sends what is in `body`, which is consumed; NULL: there was no memory for it. */
static void send_reply(struct evhttp_request *req, int code, const char *reason, struct evbuffer *body)
{
	char len[24];

	if (!body) {
		evhttp_send_error(req, HTTP_SERVUNAVAIL, NULL);
		return;
	}
	if (evhttp_request_get_command(req) == EVHTTP_REQ_HEAD) {
		snprintf(len, sizeof(len), "%zu", evbuffer_get_length(body));
		evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Length", len);
		evbuffer_drain(body, evbuffer_get_length(body));
	}
	evhttp_send_reply(req, code, reason, body);
	evbuffer_free(body);
}

void http_refuse(struct evhttp_request *req, int code, const char *reason, const char *why)
{
	struct evbuffer *body = evbuffer_new();

	if (body)
		evbuffer_add_printf(body, "%s\n", why);
	add_headers(req, "text/plain; charset=utf-8", NULL);
	/* the connection ends: a flood of these is a flood of connections, of which one turn takes few */
	evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
	if (code == HTTP_BADMETHOD)
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET, HEAD");
	send_reply(req, code, reason, body);
}

static void free_bytes(const void *bytes, size_t len, void *ctx)
{
	(void)bytes;
	(void)len;
	free(ctx);
}

/* A piece has been sent. */
static void put_text(const void *bytes, size_t len, void *ctx)
{
	(void)bytes;
	(void)len;
	feed_put(ctx);
}

/* The body of a reply, which has the text until it has been sent; NULL without memory. */
static struct evbuffer *body_of(struct text *text)
{
	struct evbuffer *body = evbuffer_new();

	for (uint32_t i = 0; i < text->n_pieces && body; i++) {
		text->refs++;
		if (!evbuffer_add_reference(body, text->pieces[i].bytes, text->pieces[i].len, put_text, text))
			continue;
		feed_put(text);
		evbuffer_free(body);
		body = NULL;
	}
	feed_put(text);
	return body;
}

void http_send_page(struct evhttp_request *req)
{
	unsigned char random[PAGE_NONCE / 2] = {0};
	char nonce[PAGE_NONCE + 1];
	size_t len = 0;

	if (getrandom(random, sizeof(random), 0) != sizeof(random)) { /* before the system is up */
		http_refuse(req, HTTP_SERVUNAVAIL, NULL, "There is no nonce for the page yet.");
		return;
	}
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(nonce + 2 * i, 3, "%02x", random[i]);
	struct evbuffer *body = evbuffer_new();
	char *page = page_new(nonce, &len);

	if (!page || !body || evbuffer_add_reference(body, page, len, free_bytes, page)) {
		free(page);
		if (body)
			evbuffer_free(body);
		body = NULL;
	}
	add_headers(req, "text/html; charset=utf-8", nonce);
	send_reply(req, HTTP_OK, "OK", body);
}

void http_send_text(struct evhttp_request *req, enum feed_kind kind, struct text *text)
{
	static const char *const types[FEED_KINDS] = {[FEED_STATS] = "application/json",
	        [FEED_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
	        [FEED_MAP] = "application/json"};

	add_headers(req, types[kind], NULL);
	send_reply(req, HTTP_OK, "OK", body_of(text));
}
