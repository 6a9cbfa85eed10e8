/* What must hold after a hostile death: see havoc.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/scavenger.h"
#include "shm/check.h"
#include "shm/walk.h"
#include "tests/lib/havoc.h"

__attribute__((format(printf, 2, 3))) static const char *wrong(struct havoc *h, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(h->wrong, sizeof(h->wrong), format, args);
	va_end(args);
	return h->wrong;
}

static bool client_lives(void *ctx, uint32_t client)
{
	const struct havoc *h = ctx;

	return client < SHMI_MAX_CLIENTS && h->core.client[client].state != CLIENT_FREE;
}

static const char *judge_meta(struct havoc *h)
{
	const struct shmi_check_env env = {.ctx = h, .client_lives = client_lives};
	struct shmi_image img = h->heap.img;
	struct shmi_walk walk = shmi_walk_start(&img);
	struct shmi_violation found;

	img.ctl = NULL;
	if (shmi_check(&img, &env, 1, &found, 1))
		return wrong(h, "I%u, page %u: %s", found.invariant, found.page, found.text);
	while (shmi_walk_next(&img, &walk)) {
		if (!shmi_span_is_backed(&img, walk.page))
			continue;
		for (uint32_t i = 0; i < walk.pages.n; i++)
			if (!h->backed[walk.page.i + i])
				return wrong(h, "page %u is in use and not backed", walk.page.i + i);
	}
	return NULL;
}

/* A span that a client who behaves holds is as it was granted. */
static const char *judge_held(struct havoc *h)
{
	for (uint32_t i = 0; i < HAVOC_CLIENTS; i++) {
		const struct havoc_client *c = &h->client[i];

		for (uint32_t s = 0; c->attached && s < c->n_held; s++) {
			struct shmi_word word = shmi_span_word(&h->heap.img, (shmi_page){c->held[s].page});

			if (word.state != SHMI_SPAN_OWNED || word.owner != c->caller.client->id ||
			        word.generation != c->held[s].generation)
				return wrong(h, "the span at page %u is no longer client %u's: state %u, owner %u",
				        c->held[s].page, c->caller.client->id, word.state, word.owner);
		}
	}
	return NULL;
}

/* The pages that belong to somebody: those of spans that have an owner, and of all whose blocks are not a matter of bitmaps. */
static void note_taken(const struct havoc *h, uint8_t *taken)
{
	struct shmi_walk walk = shmi_walk_start(&h->heap.img);

	memset(taken, 0, h->heap.img.geo.limit_pages);
	while (shmi_walk_next(&h->heap.img, &walk))
		if (walk.word.state == SHMI_SPAN_OWNED || walk.word.state == SHMI_SPAN_LARGE ||
		        walk.word.state == SHMI_SPAN_QUARANTINE)
			memset(taken + walk.page.i, 1, walk.pages.n);
}

static const char *claim(struct havoc *h, uint8_t *taken, uint32_t page)
{
	uint32_t pages = shmi_span_at(&h->heap.img, (shmi_page){page})->pages;

	if (!page || page >= h->heap.img.geo.limit_pages || pages > h->heap.img.geo.limit_pages - page)
		return wrong(h, "granted %u pages from page %u, which are not there", pages, page);
	for (uint32_t i = page; i < page + pages; i++) {
		if (taken[i])
			return wrong(h, "page %u was handed out twice", i);
		taken[i] = 1;
	}
	return NULL;
}

/* A client comes, asks for this and that, and goes. That may fence the heap: its own record is the first look at a ctl that
 * was cut. */
static const char *judge_grants(struct havoc *h)
{
	static uint8_t taken[SHMI_ARENA_PAGES];
	const char *fault = NULL;

	note_taken(h, taken);
	if (!havoc_attach(h, HAVOC_FRESH, 1, 1))
		return wrong(h, "a fresh client cannot attach: %s", h->reply.u.error.text);
	for (uint32_t i = 0; i < 6 && !fault; i++) {
		uint32_t sclass = SHMI_ATTRS * (1 + test_random_below(h->random, 40)) + test_random_below(h->random, 4);
		uint32_t first = h->client[HAVOC_FRESH].n_held;

		havoc_refill(h, HAVOC_FRESH, sclass, 1 + test_random_below(h->random, 3));
		for (; first < h->client[HAVOC_FRESH].n_held && !fault; first++)
			fault = claim(h, taken, h->client[HAVOC_FRESH].held[first].page);
	}
	uint32_t page = fault ? 0 : havoc_large(h, HAVOC_FRESH, 1 + test_random_below(h->random, 20), 0, false);

	if (page)
		fault = claim(h, taken, page);
	havoc_die(h, HAVOC_FRESH);
	return fault ? fault : havoc_run(h);
}

const char *havoc_judge(struct havoc *h)
{
	const char *fault = NULL;

	(void)scavenger_turn(&h->core, 0);
	if (h->heap.fenced)
		return havoc_attach(h, HAVOC_FRESH, 0, 0) || h->reply.u.error.code != WIRE_E_DAMAGED
		               ? wrong(h, "a fenced heap was handed out")
		               : NULL;
	fault = judge_meta(h);
	if (!fault)
		fault = judge_held(h);
	if (!fault)
		fault = judge_grants(h);
	return fault || h->heap.fenced ? fault : judge_meta(h);
}
