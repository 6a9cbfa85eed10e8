/* The daemon takes wholly free spans from a thread that sleeps, and tells it that it is to trim: the cache as it wakes. */
#include "tests/client/ground.h"

#include <string.h>
#include <unistd.h>

#include "shm/check.h"
#include "shm/seize.h"
#include "tests/lib/random.h"

TestSuite(seized, .timeout = 60);

#define C512 shmi_sclass_make(shmi_class_of(512), 0)

_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	(void)env, (void)off;
	_exit(40 + (int)what);
}

/* A cache whose daemon has something to say. */
static struct ground *open_ground(struct test_image *t, struct shmi_tcache **tc)
{
	struct ground *g = ground_new(t);

	g->env.owner = shmi_owner_at(&t->img, CLIENT);
	shmi_owner_at(&t->img, CLIENT)->in_use = 1;
	*tc = cache_new(g, 0);
	return g;
}

static void close_ground(struct ground *g, struct shmi_tcache *tc)
{
	free(tc);
	ground_free(g);
}

/* What daemon/seizer.c does with a client. How many spans. */
static uint32_t seize_all(struct ground *g)
{
	struct shmi_owner *owner = shmi_owner_at(&g->t->img, CLIENT);
	struct shmi_seizing note = {0};
	uint32_t n = 0, next;

	for (uint32_t page = owner->spans.head; page; page = next) {
		next = shmi_span_at(&g->t->img, (shmi_page){page})->next;
		if (shmi_seize(&g->t->img, (shmi_page){page}, &note)) {
			test_image_return(g->t, (shmi_page){page},
			        (shmi_npages){shmi_span_at(&g->t->img, (shmi_page){page})->pages});
			n++;
		}
	}
	shmi_bump(&owner->seizures, n != 0);
	return n;
}

static uint32_t seized_pages(const struct ground *g)
{
	return shmi_owner_at(&g->t->img, CLIENT)->seized_pages;
}

static void check(const struct ground *g)
{
	struct shmi_violation found;

	cr_assert_eq(shmi_check(&g->t->view, NULL, 1, &found, 1), 0, "I%u: %s", found.invariant, found.text);
}

/* Many blocks of the class, all freed and back in their bitmaps; the thread has the spans. */
static void hold_free_spans(struct ground *g, struct shmi_tcache *tc, uint32_t blocks)
{
	void **block = calloc(blocks, sizeof(*block));

	for (uint32_t i = 0; i < blocks; i++)
		cr_assert_not_null(block[i] = get(tc, 512, 0));
	tc->keep[C512.c] = 1000; /* none goes back by itself */
	for (uint32_t i = 0; i < blocks; i++)
		give(tc, block[i]);
	shmi_tcache_put_oldest(tc, C512, shmi_load(&tc->mag[C512.c]->top));
	cr_assert_gt(shmi_owner_at(&g->t->img, CLIENT)->spans.count, 10);
	free(block);
}

/* Blocks that it is given lie in pages that are backed and are no other's. */
static void use_some(struct ground *g, struct shmi_tcache *tc, uint32_t blocks)
{
	void **block = calloc(blocks, sizeof(*block));

	for (uint32_t i = 0; i < blocks; i++) {
		cr_assert_not_null(block[i] = get(tc, 512, 0), "block %u", i);
		shmi_page page = shmi_off_page((shmi_off){(uint64_t)(uintptr_t)block[i] - g->env.base});
		uint32_t first = shmi_load(shmi_page_span_at(&g->t->img, page));

		cr_assert_eq(shmi_span_word(&g->t->img, (shmi_page){first}).state, SHMI_SPAN_OWNED);
		cr_assert(g->t->backed[page.i]);
	}
	for (uint32_t i = 0; i < blocks; i++)
		give(tc, block[i]);
	free(block);
}

TEST_ON_IMAGES(seized, the_thread_goes_on, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);

	hold_free_spans(g, tc, 500);
	uint32_t held = shmi_owner_at(&t->img, CLIENT)->spans.count;

	cr_assert_eq(seize_all(g), held);
	cr_assert_eq(shmi_owner_at(&t->img, CLIENT)->pages, 0);
	use_some(g, tc, 500);
	cr_assert_eq(seized_pages(g), 0, "what was taken from it has gone back");
	cr_assert_eq(tc->held_bytes, (uint64_t)shmi_owner_at(&t->img, CLIENT)->pages << SHMI_PAGE_SHIFT);
	shmi_tcache_trim(tc);
	cr_assert_eq(shmi_owner_at(&t->img, CLIENT)->spans.count, 0);
	check(g);
	close_ground(g, tc);
}

/* What makes room for a request that has failed, and shma_trim, give them back as well. */
TEST_ON_IMAGES(seized, a_trim_gives_them_back, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);

	hold_free_spans(g, tc, 500);
	cr_assert_gt(seize_all(g), 10);
	shmi_tcache_trim(tc);
	cr_assert_eq(seized_pages(g), 0);
	cr_assert_eq(tc->held_bytes, 0);
	check(g);
	close_ground(g, tc);
}

/* No bit says that a block is free when the daemon has them all. */
TEST_ON_IMAGES(seized, a_double_free_is_seen, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);
	const char *block = get(tc, 512, 0);
	uint64_t off = (uint64_t)(uintptr_t)block - g->env.base;

	hold_free_spans(g, tc, 500);
	cr_assert_eq(shmi_tcache_free(tc, off), SHMI_FREED);
	shmi_tcache_put_oldest(tc, C512, shmi_load(&tc->mag[C512.c]->top));
	cr_assert_gt(seize_all(g), 10);
	g->env.harden = true;
	cr_assert_eq(shmi_tcache_free(tc, off), SHMI_FREE_TWICE);
	close_ground(g, tc);
}

/* Blocks in use, or cached, keep their spans. */
TEST_ON_IMAGES(seized, what_is_in_use_stays, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);
	char *used = get(tc, 512, 0), *cached = get(tc, 2048, 0);

	hold_free_spans(g, tc, 500);
	give(tc, cached);
	uint32_t held = shmi_owner_at(&t->img, CLIENT)->spans.count;

	cr_assert_eq(seize_all(g), held - 2);
	cr_assert_eq(get(tc, 2048, 0), cached);
	give(tc, used);
	use_some(g, tc, 300);
	cr_assert_eq(seized_pages(g), 0);
	close_ground(g, tc);
}

/* Stopped between the daemon's grant and the first take: the next span is asked for, and the malloc does not fail. */
static bool seize_at_grant;

static int refill_and_seize(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait)
{
	struct ground *g = ctx;
	int error = false_refill(ctx, tc, ask, wait);

	if (seize_at_grant)
		cr_assert_gt(seize_all(g), 0);
	seize_at_grant = false;
	return error;
}

TEST_ON_IMAGES(seized, before_the_first_take, PAGES)
{
	static const struct shmi_tc_ops ops = {refill_and_seize, false_pool, false_part};
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);

	g->env.ops = &ops;
	seize_at_grant = true;
	cr_assert_not_null(get(tc, 512, 0));
	cr_assert_not(seize_at_grant);
	shmi_tcache_trim(tc);
	cr_assert_eq(seized_pages(g), 0);
	check(g);
	close_ground(g, tc);
}

/* A span that waits for the next message is not taken back into use once the daemon has it. */
TEST_ON_IMAGES(seized, while_it_was_to_be_given_back, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);
	shmi_sclass sclass = C512;

	give(tc, get(tc, 512, 0));
	shmi_tcache_put_oldest(tc, sclass, shmi_load(&tc->mag[sclass.c]->top));
	shmi_tcache_give_back(tc, tc->ready[sclass.c].head);
	cr_assert_eq(tc->ask.n_returns, 1);
	cr_assert_eq(seize_all(g), 1);
	use_some(g, tc, 5);
	cr_assert_eq(seized_pages(g), 0);
	close_ground(g, tc);
}

/* Granted to a thread that has heard of the seizure already: an answer that came late. */
TEST_ON_IMAGES(seized, an_answer_that_comes_late, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);
	shmi_page page = test_image_span(t, 512, 0, CLIENT);

	cr_assert_eq(seize_all(g), 1);
	shmi_tcache_catch_up(tc);
	shmi_tcache_grant(tc, page.i, shmi_span_word(&t->img, page).generation, C512, false);
	use_some(g, tc, 20);
	shmi_tcache_trim(tc);
	cr_assert_eq(seized_pages(g), 0);
	check(g);
	close_ground(g, tc);
}

/* With the daemon away they stay, and go back when it is there again. */
TEST_ON_IMAGES(seized, the_daemon_is_away, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);

	hold_free_spans(g, tc, 16 * (SHMI_TC_RETURNS + 20));
	cr_assert_gt(seize_all(g), SHMI_TC_RETURNS);
	g->away = true;
	shmi_tcache_catch_up(tc);
	cr_assert_gt(seized_pages(g), 0);
	g->away = false;
	shmi_tcache_catch_up(tc);
	shmi_tcache_trim(tc);
	cr_assert_eq(seized_pages(g), 0);
	cr_assert_eq(tc->held_bytes, 0);
	check(g);
	close_ground(g, tc);
}

TEST_ON_IMAGES(seized, at_random, PAGES)
{
	enum { N = 2000 };
	static void *block[N];
	struct test_random random = test_random_init("seized at random");
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);
	uint32_t seized = 0;

	memset(block, 0, sizeof(block));
	for (uint32_t step = 0; step < 60000; step++) {
		uint32_t i = test_random_below(&random, N);

		if (test_random_one_in(&random, 300))
			seized += seize_all(g);
		if (block[i]) {
			give(tc, block[i]);
			block[i] = NULL;
		} else if (step / 5000 % 2 == 0) { /* it empties every now and then */
			cr_assert_not_null(block[i] = get(tc, 16 + test_random_below(&random, 3000), 0));
		}
	}
	cr_assert_gt(seized, 20);
	for (uint32_t i = 0; i < N; i++)
		if (block[i])
			give(tc, block[i]);
	shmi_tcache_catch_up(tc);
	shmi_tcache_trim(tc);
	cr_assert_eq(slots_missing(g), 0);
	cr_assert_eq(shmi_owner_at(&t->img, CLIENT)->spans.count, 0);
	cr_assert_eq(tc->held_bytes, 0);
	check(g);
	close_ground(g, tc);
}

/* ---- told to trim ---- */

TEST_ON_IMAGES(seized, told_to_trim, PAGES)
{
	struct shmi_tcache *tc;
	struct ground *g = open_ground(t, &tc);

	hold_free_spans(g, tc, 500);
	use_some(g, tc, 1);
	uint32_t held = shmi_owner_at(&t->img, CLIENT)->spans.count;

	cr_assert_gt(held, 10, "nobody has told it");
	shmi_bump(&shmi_owner_at(&t->img, CLIENT)->trim_wanted, 1);
	cr_assert_not_null(get(tc, 2048, 0)); /* a slow path */
	cr_assert_lt(shmi_owner_at(&t->img, CLIENT)->spans.count, 4);
	uint32_t messages = g->messages;

	shmi_tcache_catch_up(tc);
	cr_assert_eq(g->messages, messages, "once");
	close_ground(g, tc);
}
