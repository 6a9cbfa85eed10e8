/* Histories for the suites that kill the daemon (tests/lib/deaths.h): what clients have done before the deed. */
#ifndef TESTS_DAEMON_HISTORY_H
#define TESTS_DAEMON_HISTORY_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/slots.h"
#include "shm/threadrec.h"
#include "tests/lib/deaths.h"

#define SHARED(class) ((class) * SHMI_ATTRS)
#define SCOPED(class) ((class) * SHMI_ATTRS + SHMI_SCOPED)
#define C16 1u
#define C64 4u
#define C128 8u
#define SMALL 320u /* pages: a heap with room for what happens here */

static const struct death_plan sample = {.deaths = {150, 30}, .deeper = {2}, .orphans = true};
static const struct death_plan sample_recovery = {.deaths = {1, 200, 30}, .deeper = {1, 2}};
static const struct death_plan soak = {.deaths = {UINT32_MAX, UINT32_MAX, 40}, .deeper = {80, 1}, .orphans = true};
static const struct death_plan soak_recovery = {.deaths = {1, UINT32_MAX, 400}, .deeper = {1, 100}};

static inline void run(const struct death_case *c)
{
	bool full = getenv("SHMALLOC_SOAK") != NULL;
	const struct death_plan *plan = c->recovery ? (full ? &soak_recovery : &sample_recovery)
	                                : full      ? &soak
	                                            : &sample;
	const char *why;

	if (!stores_possible(&why)) {
		fprintf(stderr, "skipped: %s\n", why);
		return;
	}
	alarm(full ? 14400 : 600); /* not Criterion's own limit, which cannot depend on the environment */
	cr_assert_eq(deaths_run(c, plan), 0);
}

#define DEATHS_IN(id, pages, ...)                                                                                      \
	Test(deaths, id)                                                                                               \
	{                                                                                                              \
		static const struct death_case c = {.name = #id, .limit = (pages), __VA_ARGS__};                       \
		run(&c);                                                                                               \
	}
#define DEATHS(id, ...) DEATHS_IN(id, SMALL, __VA_ARGS__)

/* ---- what clients do ---- */

static inline struct shmi_image *image(struct deaths *d)
{
	return &d->t->heap.img;
}

static inline struct shmi_word word(struct deaths *d, uint32_t page)
{
	return shmi_span_word(image(d), (shmi_page){page});
}

static inline uint32_t span(struct deaths *d, struct death_client *client, uint32_t sclass)
{
	cr_assert_eq(test_core_refill(d->t, client->dialogue, sclass, 1), 1);
	return d->t->reply.u.refill_ok.grants[0].page;
}

static inline struct wire_span named(struct deaths *d, uint32_t page)
{
	return (struct wire_span){.page = page, .generation = word(d, page).generation};
}

/* Blocks of the span that somebody uses. */
static inline void use(struct deaths *d, uint32_t page, uint32_t w, uint64_t bits)
{
	shmi_slots_take(shmi_bitmap_at(image(d), (shmi_page){page}), w, bits);
}

static inline uint32_t record(struct deaths *d, struct death_client *client, uint32_t parts)
{
	d->t->req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = parts}};
	cr_assert_eq(test_core_ask(d->t, client->dialogue), WIRE_THREAD_OK);
	return d->t->reply.u.thread_ok.thread;
}

static inline struct shmi_magazine *magazine(struct deaths *d, uint32_t thread, uint32_t page)
{
	return shmi_magazine_at(image(d), shmi_threadrec_at(image(d), thread), word(d, page).sclass);
}

/* The thread takes these slots into its magazine, and `alloc` of them out of it. */
static inline void cache(struct deaths *d, uint32_t thread, uint32_t page, uint32_t w, uint64_t bits, uint32_t alloc)
{
	struct shmi_group group = {.bits = bits,
	        .span = page,
	        .generation = word(d, page).generation,
	        .word = w,
	        .sclass = word(d, page).sclass.c};
	struct shmi_magazine *mag = magazine(d, thread, page);

	shmi_threadrec_take(image(d), shmi_threadrec_at(image(d), thread), mag, &group);
	shmi_store(&mag->top, shmi_load(&mag->top) - alloc);
}

static inline void give_back(struct deaths *d, struct death_client *client, uint32_t page)
{
	d->t->req = (struct wire_msg){.kind = WIRE_REFILL};
	d->t->req.u.refill.n_returns = 1;
	d->t->req.u.refill.returns[0] = named(d, page);
	cr_assert_eq(test_core_ask(d->t, client->dialogue), WIRE_REFILL_OK);
}

static inline void set_root(struct deaths *d, struct death_client *client, const char *name, uint32_t page)
{
	d->t->req = (struct wire_msg){.kind = WIRE_ROOT_SET};
	strcpy(d->t->req.u.root.name, name);
	d->t->req.u.root.off = shmi_page_off((shmi_page){page}).b;
	cr_assert_eq(test_core_ask(d->t, client->dialogue), WIRE_OK);
}

/* ---- a history ---- */

static uint32_t others_span, others_empty, central_span, full_span, own_span, own_empty, own_scoped;

/* Two clients that live, spans of all kinds, free runs between them, a root. */
static inline void history(struct deaths *d)
{
	d->asker = deaths_attach(d, world_living(0));
	d->other = deaths_attach(d, world_living(1000));
	record(d, &d->asker, 1 | 1 << SHMI_SCOPED);
	uint32_t gone = span(d, &d->other, SHARED(C128));

	own_span = span(d, &d->asker, SHARED(C64));
	use(d, own_span, 0, 0xf0f);
	uint32_t gone_too = span(d, &d->other, SHARED(C64));

	own_scoped = span(d, &d->asker, SCOPED(C64));
	use(d, own_scoped, 0, 3);
	own_empty = span(d, &d->asker, SHARED(C128));
	others_span = span(d, &d->other, SHARED(C64));
	use(d, others_span, 1, 0xff);
	others_empty = span(d, &d->other, SHARED(C64));
	central_span = span(d, &d->other, SHARED(C64));
	use(d, central_span, 0, 7);
	full_span = span(d, &d->other, SHARED(C128));
	use(d, full_span, 0, ~0ull);
	give_back(d, &d->other, central_span);
	give_back(d, &d->other, full_span);
	set_root(d, &d->other, "kept", others_span);
	cr_assert_neq(test_core_large(d->t, d->other.dialogue, 9, 0, false), 0);
	cr_assert_neq(test_core_large(d->t, d->other.dialogue, 5, 0, true), 0);
	give_back(d, &d->other, gone);
	give_back(d, &d->other, gone_too);
}

static inline struct wire_msg *request(struct deaths *d, enum wire_kind kind)
{
	d->req = (struct wire_msg){.kind = kind, .serial = ++d->t->serial};
	return &d->req;
}

static inline struct wire_refill *refill(struct deaths *d)
{
	return &request(d, WIRE_REFILL)->u.refill;
}

static inline void want(struct wire_refill *r, uint32_t sclass, uint32_t spans)
{
	r->wants[r->n_wants++] = (struct wire_want){.sclass = sclass, .spans = spans};
}

static inline void large(struct deaths *d, uint32_t pages, bool lazy, uint32_t attrs)
{
	history(d);
	request(d, WIRE_LARGE)->u.large = (struct wire_large){.bytes = (uint64_t)pages << SHMI_PAGE_SHIFT,
	        .pages = pages,
	        .align_pages = 1,
	        .attrs = attrs,
	        .lazy = lazy};
}

#endif
