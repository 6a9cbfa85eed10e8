/* A false floor for the thread cache: a heap in memory instead of a daemon. For one cache at a time, if answers come later. */
#ifndef TEST_GROUND_H
#define TEST_GROUND_H

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "client/tcache.h"
#include "shm/central.h"
#include "tests/lib/image.h"

#define PAGES 9000u
#define CLIENT 3u

struct ground {
	struct test_image *t;
	struct shmi_tc_env env;
	uint32_t messages, parts;
	uint32_t posts; /* of the messages: those whose sender went on */
	uint32_t waits; /* refills that had to wait for what was posted */
	uint64_t wanted[SHMI_SPAN_CLASSES]; /* spans */
	bool later; /* the answer to what is posted does not come at once ... */
	bool slow; /* ... but when it is waited for */
	bool owed; /* such an answer: */
	struct shmi_tc_ask ask;
	bool away; /* the daemon cannot be reached */
	uint32_t no_more; /* spans that there is still memory for */
};

static inline const struct shmi_class *class_at(const struct ground *g, shmi_sclass sclass)
{
	return &g->t->img.classes[shmi_sclass_size_class(sclass)];
}

static inline void grant_one(struct ground *g, struct shmi_tcache *tc, shmi_sclass sclass)
{
	shmi_page page = shmi_central_grant(&g->t->img, sclass, CLIENT);

	if (!page.i)
		page = test_image_span(g->t, class_at(g, sclass)->size, shmi_sclass_attrs(sclass), CLIENT);
	shmi_tcache_grant(tc, page.i, shmi_span_word(&g->t->img, page).generation, sclass,
	        shmi_slots_count(shmi_bitmap_at(&g->t->img, page), class_at(g, sclass)) == class_at(g, sclass)->slots);
}

static inline uint32_t grant_all(struct ground *g, struct shmi_tcache *tc, const struct shmi_tc_ask *ask)
{
	uint32_t given = 0;

	for (uint32_t i = 0; i < ask->n_wants; i++)
		for (uint32_t n = 0; n < ask->wants[i].spans && g->no_more; n++, given++, g->no_more--)
			grant_one(g, tc, (shmi_sclass){(uint16_t)ask->wants[i].sclass});
	return given;
}

/* The answer to what was posted. */
static inline void deliver(struct ground *g, struct shmi_tcache *tc)
{
	if (g->owed)
		(void)grant_all(g, tc, &g->ask);
	g->owed = tc->posted = false;
}

static inline void take_back_all(struct ground *g, struct shmi_tc_ask *ask)
{
	for (uint32_t i = 0; i < ask->n_returns; i++) {
		struct shmi_word word = shmi_span_word(&g->t->img, (shmi_page){ask->returns[i].page});

		cr_assert_eq(word.owner, CLIENT);
		if (word.state == SHMI_SPAN_SEIZED)
			shmi_pageheap_put(
			        &g->t->img, shmi_span_close(&g->t->img, (shmi_page){ask->returns[i].page}), 0);
		else
			shmi_central_accept(&g->t->img, (shmi_page){ask->returns[i].page}, 0);
	}
	for (uint32_t i = 0; i < ask->n_reports; i++)
		shmi_central_report(&g->t->img, (shmi_page){ask->reports[i]}, 0);
	ask->n_returns = ask->n_reports = 0;
}

static inline int false_refill(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait)
{
	struct ground *g = ctx;
	bool goes_on = g->later && !wait;

	if (g->owed && !wait)
		return EAGAIN;
	g->waits += g->owed;
	deliver(g, tc);
	if (ask->n_wants && wait && tc->ready[ask->wants[0].sclass].head)
		return 0;
	g->messages++;
	if (g->away)
		return EAGAIN;
	g->posts += !wait;
	for (uint32_t i = 0; i < ask->n_wants; i++)
		g->wanted[ask->wants[i].sclass] += ask->wants[i].spans;
	take_back_all(g, ask);
	if (goes_on) {
		g->ask = *ask;
		g->owed = tc->posted = true;
		return 0;
	}
	return ask->n_wants && !grant_all(g, tc, ask) ? ENOMEM : 0;
}

static inline void false_pool(void *ctx, struct shmi_tcache *tc, shmi_sclass sclass)
{
	struct ground *g = ctx;

	(void)sclass;
	if (!g->slow)
		deliver(g, tc);
}

static inline int false_part(void *ctx, struct shmi_tcache *tc, uint32_t attrs)
{
	struct ground *g = ctx;

	(void)tc;
	g->parts |= 1u << attrs;
	return g->away ? EAGAIN : 0;
}

static const struct shmi_tc_ops false_ops = {false_refill, false_pool, false_part};

static inline struct ground *ground_new(struct test_image *t)
{
	struct ground *g = calloc(1, sizeof(*g));

	cr_assert_not_null(g);
	g->t = t;
	g->no_more = UINT32_MAX;
	g->env.img = t->img;
	g->env.base = 0x100000000000;
	g->env.held = calloc(t->limit, sizeof(struct shmi_held));
	g->env.own_scoped = calloc(t->limit / 64 + 1, sizeof(shmi_a64));
	g->env.ops = &false_ops;
	g->env.ctx = g;
	return g;
}

static inline void ground_free(struct ground *g)
{
	free(g->env.held);
	free(g->env.own_scoped);
	free(g);
}

static inline struct shmi_tcache *cache_new(struct ground *g, uint32_t thread)
{
	struct shmi_tcache *tc = calloc(1, sizeof(*tc));

	cr_assert_not_null(tc);
	shmi_threadrec_at(&g->t->img, thread)->client = CLIENT;
	shmi_tcache_init(tc, &g->env, thread, 1);
	return tc;
}

static inline void *get(struct shmi_tcache *tc, uint32_t size, uint32_t attrs)
{
	shmi_sclass sclass = shmi_sclass_make(shmi_class_of(size), attrs);
	void *block;
	int error;

	return shmi_tcache_pop(tc, sclass, &block) ? block : shmi_tcache_refill(tc, sclass, false, &error);
}

static inline enum shmi_tc_free verdict(struct shmi_tcache *tc, void *block)
{
	return shmi_tcache_free(tc, (uint64_t)(uintptr_t)block - tc->env->base);
}

static inline void give(struct shmi_tcache *tc, void *block)
{
	if (!shmi_tcache_push(tc, block))
		cr_assert_eq(verdict(tc, block), SHMI_FREED);
}

/* Slots of all spans that are in no bitmap. */
static inline uint64_t slots_missing(const struct ground *g)
{
	uint64_t missing = 0;

	for (uint32_t p = 1; p < shmi_image_published(&g->t->img); p++) {
		struct shmi_word w = shmi_span_word(&g->t->img, (shmi_page){p});

		if (w.state == SHMI_SPAN_OWNED || w.state == SHMI_SPAN_CENTRAL)
			missing += shmi_span_at(&g->t->img, (shmi_page){p})->slots -
			           shmi_slots_count(shmi_bitmap_at(&g->t->img, (shmi_page){p}), class_at(g, w.sclass));
	}
	return missing;
}

#endif
