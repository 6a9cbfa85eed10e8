/* The thread cache on a false floor. What it asks for, and when: test_tcache_ask.c. */
#include "tests/client/ground.h"

#include <string.h>
#include <unistd.h>

#include "tests/lib/random.h"

TestSuite(tcache, .timeout = 60);

_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	(void)env, (void)off;
	_exit(40 + (int)what);
}

TEST_ON_IMAGES(tcache, blocks_are_disjoint_and_come_back, PAGES)
{
	enum { N = 3000 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];
	struct test_random random = test_random_init("tcache blocks");
	uint8_t *used = calloc(t->limit, SHMI_PAGE_SIZE / 16);

	for (uint32_t step = 0; step < 200000; step++) {
		uint32_t i = test_random_below(&random, N), size = test_random_length(&random, 3000);

		if (block[i]) {
			used[((uintptr_t)block[i] - g->env.base) / 16] = 0;
			give(tc, block[i]);
			block[i] = NULL;
		} else {
			block[i] = get(tc, size, 0);
			cr_assert_not_null(block[i]);
			cr_assert_eq(used[((uintptr_t)block[i] - g->env.base) / 16], 0, "given out twice");
			used[((uintptr_t)block[i] - g->env.base) / 16] = 1;
		}
	}
	for (uint32_t i = 0; i < N; i++)
		if (block[i])
			give(tc, block[i]);
	shmi_tcache_trim(tc);
	cr_assert_eq(slots_missing(g), 0);
	cr_assert_eq(shmi_load(&t->img.super->pages.owned), 0, "all spans are wholly free, so all went back");
	cr_assert_lt(g->messages, 200000u / 200);
	free(used);
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, a_warm_working_set_sends_no_message, PAGES)
{
	enum { N = 5000 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];
	struct test_random random = test_random_init("tcache warm");
	uint32_t before = 0;

	for (uint32_t i = 0; i < N; i++)
		block[i] = get(tc, test_random_length(&random, 512), 0);
	for (uint32_t step = 0; step < 400000; step++) {
		uint32_t i = test_random_below(&random, N);

		if (step == 200000)
			before = g->messages;
		give(tc, block[i]);
		block[i] = get(tc, test_random_length(&random, 512), 0);
	}
	cr_assert_leq(g->messages - before, 2, "%u messages", g->messages - before);
	free(tc);
	ground_free(g);
}

/* The spans that the consumer empties are of the very class that the producer is about to ask for. */
TEST_ON_IMAGES(tcache, a_warm_ring_sends_no_message, PAGES)
{
	enum { RING = 1024 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *producer = cache_new(g, 0), *consumer = cache_new(g, 1);
	struct test_random random = test_random_init("tcache ring");
	static void *ring[RING];
	uint32_t before = 0, head = 0, tail = 0;

	for (uint32_t i = 0; i < 20000; i++) /* spans without free slots that lie between those of the ring */
		cr_assert_not_null(get(producer, 64, 0));
	for (uint32_t round = 0; round < 20000; round++) {
		if (round == 10000)
			before = g->messages;
		for (uint32_t n = test_random_below(&random, RING - (head - tail) + 1); n; n--)
			ring[head++ % RING] = get(producer, 64, 0);
		for (uint32_t n = test_random_below(&random, head - tail + 1); n; n--)
			give(consumer, ring[tail++ % RING]);
	}
	cr_assert_eq(g->messages, before, "%u messages", g->messages - before);
	free(producer);
	free(consumer);
	ground_free(g);
}

/* One that runs dry asks for all that soon will. */
TEST_ON_IMAGES(tcache, classes_that_grow_together_share_messages, PAGES)
{
	enum { CLASSES = 12 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	uint64_t spans = 0, asked;
	uint32_t before = 0;

	for (uint32_t i = 0; i < 4000; i++) {
		if (i == 2000) {
			before = g->messages;
			spans = shmi_load(&t->img.super->pages.owned);
		}
		for (uint32_t c = 0; c < CLASSES; c++)
			cr_assert_not_null(get(tc, 16 + 16 * c, 0));
	}
	asked = shmi_load(&t->img.super->pages.owned) - spans;
	cr_assert_lt(
	        (g->messages - before) * 8, asked, "%u messages for %u spans", g->messages - before, (uint32_t)asked);
	free(tc);
	ground_free(g);
}

/* Large blocks take a part of the budget that small ones could use; what each class may hold at least is not part of it. */
TEST_ON_IMAGES(tcache, magazines_of_many_classes_stay_useful, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[256];
	uint32_t refills;

	for (uint32_t round = 0; round < 20; round++)
		for (uint32_t c = 1; c < SHMI_CLASS_LARGE; c++)
			for (uint32_t n = 0; n < 64 && t->img.classes[c].size * n <= 65536; n++)
				give(tc, get(tc, t->img.classes[c].size, 0));
	refills = tc->refills;
	for (uint32_t round = 0; round < 1000; round++) {
		for (uint32_t i = 0; i < 256; i++)
			block[i] = get(tc, 16 + i % 64 * 16, 0);
		for (uint32_t i = 0; i < 256; i++)
			give(tc, block[i]);
	}
	cr_assert_lt(tc->refills - refills, 2000, "%u refills for 256,000 blocks", tc->refills - refills);
	shmi_tcache_trim(tc);
	cr_assert_eq(slots_missing(g), 0);
	free(tc);
	ground_free(g);
}

/* Classes that are filled and emptied in turn: what each gives back too early it learns to keep. */
TEST_ON_IMAGES(tcache, waves_in_several_classes_get_quiet, PAGES)
{
	static const struct {
		uint32_t size, blocks;
	} waves[] = {{40 * 1024, 32}, {1024, 1024}, {64, 4000}, {100 * 1024, 8}};
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[4000];
	uint32_t before = 0;

	for (uint32_t round = 0; round < 60; round++) {
		if (round == 40)
			before = g->messages;
		for (uint32_t w = 0; w < sizeof(waves) / sizeof(*waves); w++) {
			for (uint32_t i = 0; i < waves[w].blocks; i++)
				block[i] = get(tc, waves[w].size, 0);
			for (uint32_t i = 0; i < waves[w].blocks; i++)
				give(tc, block[i]);
		}
	}
	cr_assert_leq(g->messages - before, 4, "%u messages in 20 rounds", g->messages - before);
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, no_memory_is_null_and_passes, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[10000];
	uint32_t n = 0;
	int error = 0;

	g->no_more = 5;
	while ((block[n] = get(tc, 1024, 0)) != NULL)
		n++;
	cr_assert_eq(n, 40);
	cr_assert_null(shmi_tcache_refill(tc, shmi_sclass_make(shmi_class_of(64), 0), false, &error));
	cr_assert_eq(error, ENOMEM);
	give(tc, block[--n]);
	cr_assert_not_null(get(tc, 1024, 0));
	g->away = true;
	cr_assert_null(shmi_tcache_refill(tc, shmi_sclass_make(shmi_class_of(64), 0), false, &error));
	cr_assert_eq(error, EAGAIN);
	g->away = false;
	g->no_more = 1;
	cr_assert_not_null(get(tc, 64, 0));
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, blocks_freed_by_another_thread_are_used_again, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *producer = cache_new(g, 0), *consumer = cache_new(g, 1);
	uint64_t peak;

	for (uint32_t i = 0; i < 50000; i++)
		give(consumer, get(producer, 64, 0));
	peak = shmi_load(&t->img.super->pages.owned);
	for (uint32_t i = 0; i < 500000; i++)
		give(consumer, get(producer, 64, 0));
	cr_assert_leq(
	        shmi_load(&t->img.super->pages.owned), peak + peak / 4 + 4, "the heap grew though nothing was live");
	free(producer);
	free(consumer);
	ground_free(g);
}

/* The old spans stay full for good; what is freed lies behind them in the queue. */
TEST_ON_IMAGES(tcache, a_stream_beside_a_large_live_set_does_not_grow_the_heap, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *producer = cache_new(g, 0), *consumer = cache_new(g, 1);
	uint64_t before;

	for (uint32_t i = 0; i < 100000; i++)
		cr_assert_not_null(get(producer, 64, 0));
	before = shmi_load(&t->img.super->pages.owned);
	for (uint32_t i = 0; i < 1000000; i++)
		give(consumer, get(producer, 64, 0));
	cr_assert_leq(shmi_load(&t->img.super->pages.owned), before + before / 2);
	free(producer);
	free(consumer);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, spans_taken_back_wait_for_no_message, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	void *block[4];
	uint32_t before = 0;

	for (uint32_t round = 0; round < 200; round++) {
		if (round == 100)
			before = g->messages;
		for (uint32_t i = 0; i < 4; i++)
			block[i] = get(tc, 256 * 1024, 0);
		for (uint32_t i = 0; i < 4; i++)
			give(tc, block[i]);
	}
	cr_assert_eq(g->messages, before);
	free(tc);
	ground_free(g);
}

static void kept(void *ctx, uint32_t page, shmi_sclass sclass)
{
	(void)page, (void)sclass;
	++*(uint32_t *)ctx;
}

TEST_ON_IMAGES(tcache, a_retired_cache_keeps_only_what_is_live, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	void *live = get(tc, 100, 0);
	uint32_t spans = 0;

	give(tc, get(tc, 5000, 0));
	give(tc, get(tc, 16, 0));
	shmi_tcache_retire(tc, kept, &spans);
	cr_assert_eq(spans, 1, "the span with the live block");
	cr_assert_eq(slots_missing(g), 1);
	give(tc, live);
	shmi_tcache_retire(tc, kept, &spans);
	cr_assert_eq(spans, 1);
	cr_assert_eq(slots_missing(g), 0);
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, foreign_scoped_blocks_go_straight_back, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	shmi_page page = test_image_span(t, 64, SHMI_SCOPED, CLIENT + 1);
	void *own = get(tc, 64, SHMI_SCOPED);
	struct shmi_magazine *mag = tc->mag[shmi_sclass_make(shmi_class_of(64), SHMI_SCOPED).c];
	uint32_t top = shmi_load(&mag->top);

	cr_assert_eq(g->parts, 1u << SHMI_SCOPED, "the part was asked for");
	shmi_slots_take(shmi_bitmap_at(&t->img, page), 0, 0x6);
	give(tc, (void *)(uintptr_t)(g->env.base + shmi_page_off(page).b + 64));
	cr_assert_eq(shmi_load(shmi_bitmap_at(&t->img, page)), ~0x4ull);
	cr_assert_eq(shmi_load(&mag->top), top);
	give(tc, own);
	cr_assert_eq(shmi_load(&mag->top), top + 1);
	free(tc);
	ground_free(g);
}

/* A put sees at once that a span of its own has slots again, or nothing but free ones: nobody has to look for it later. */
TEST_ON_IMAGES(tcache, whole_spans_are_named_as_they_come_free, PAGES)
{
	enum { N = 8192 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	uint32_t sclass = shmi_sclass_of(64).c;
	static void *block[N];

	for (uint32_t i = 0; i < N; i++)
		block[i] = get(tc, 64, 0);
	cr_assert_geq(tc->full[sclass].count, 60);
	uint32_t before = g->messages;

	for (uint32_t i = 0; i < N; i++)
		give(tc, block[i]);
	cr_assert_eq(g->messages, before, "they go with the next message");
	cr_assert_geq(tc->ask.n_returns, 32, "%u", tc->ask.n_returns);
	cr_assert_geq(tc->whole[sclass], 1, "some are kept");
	cr_assert_leq(tc->full[sclass].count, 16, "those of what is cached: %u", tc->full[sclass].count);
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(tcache, a_put_to_a_central_span_is_reported, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	shmi_page page = test_image_span(t, 64, 0, CLIENT + 1);
	shmi_sclass sclass = shmi_sclass_make(shmi_class_of(64), 0);

	shmi_slots_take(shmi_bitmap_at(&t->img, page), 0, ~0ull);
	shmi_slots_take(shmi_bitmap_at(&t->img, page), 1, ~0ull);
	shmi_central_accept(&t->img, page, 0);
	cr_assert_eq(shmi_central_at(&t->img, sclass)->free.count, 0);
	give(tc, (void *)(uintptr_t)(g->env.base + shmi_page_off(page).b + 64));
	shmi_tcache_trim(tc);
	cr_assert_eq(shmi_central_at(&t->img, sclass)->free.count, 1, "the trim's message told the daemon");
	free(tc);
	ground_free(g);
}

/* Is the block's slot set in its bitmap, or its span gone, because all were? */
static bool is_put(const struct ground *g, const void *block)
{
	uint64_t off = (uint64_t)(uintptr_t)block - g->env.base;
	shmi_page page = shmi_off_page((shmi_off){off}), first = {shmi_load(shmi_page_span_at(&g->t->img, page))};

	if (!first.i || shmi_span_word(&g->t->img, first).owner != CLIENT)
		return true;
	uint32_t size = class_at(g, shmi_span_word(&g->t->img, first).sclass)->size;
	uint32_t slot = (uint32_t)(off - shmi_page_off(first).b) / size;

	return shmi_load(&shmi_bitmap_at(&g->t->img, first)[slot / 64]) >> slot % 64 & 1;
}

enum { ORDERS = 5, BLOCKS = 1500 };

/* Puts the indices of BLOCKS blocks in one of the orders in which blocks are freed. */
static void arrange(uint32_t *index, uint32_t order, struct test_random *random)
{
	for (uint32_t i = 0; i < BLOCKS; i++)
		index[i] = order == 1   ? BLOCKS - 1 - i /* the other way round */
		           : order == 2 ? i * 2 % BLOCKS + i * 2 / BLOCKS /* every other one */
		           : order == 3 ? i ^ 3 /* down, and on by leaps */
		                        : i;
	for (uint32_t i = BLOCKS - 1; order == 4 && i > 0; i--) {
		uint32_t j = test_random_below(random, i + 1), was = index[i];

		index[i] = index[j];
		index[j] = was;
	}
}

/* Frees some blocks in the given order and empties the magazine: exactly their slots are set then. */
static void free_some(struct ground *g, struct shmi_tcache *tc, shmi_sclass sclass, void **block, const uint32_t *index)
{
	static bool gone[BLOCKS];

	memset(gone, 0, sizeof(gone));
	for (uint32_t i = 0; i < BLOCKS; i++)
		if (i % 37 != 5) {
			give(tc, block[index[i]]);
			gone[index[i]] = true;
		}
	shmi_tcache_put_oldest(tc, sclass, shmi_load(&tc->mag[sclass.c]->top));
	for (uint32_t i = 0; i < BLOCKS; i++)
		cr_assert_eq(is_put(g, block[i]), gone[i], "size %u, block %u", class_at(g, sclass)->size, i);
	for (uint32_t i = 0; i < BLOCKS; i++)
		if (!gone[i])
			give(tc, block[i]);
	shmi_tcache_put_oldest(tc, sclass, shmi_load(&tc->mag[sclass.c]->top));
}

/* Spans of one word and of many, of slots that fill their last word and of such that do not. */
TEST_ON_IMAGES(tcache, what_is_freed_in_any_order_is_put_once, PAGES)
{
	static const uint32_t sizes[] = {16, 48, 64, 112, 1024, 9216};
	static void *block[BLOCKS];
	static uint32_t index[BLOCKS];
	struct test_random random = test_random_init("tcache orders");
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);

	for (uint32_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
		for (uint32_t order = 0; order < ORDERS; order++) {
			for (uint32_t i = 0; i < BLOCKS; i++)
				cr_assert_not_null(block[i] = get(tc, sizes[s], 0));
			arrange(index, order, &random);
			free_some(g, tc, shmi_sclass_make(shmi_class_of(sizes[s]), 0), block, index);
			cr_assert_eq(slots_missing(g), 0, "size %u, order %u", sizes[s], order);
		}
	shmi_tcache_trim(tc);
	cr_assert_eq(shmi_load(&t->img.super->pages.owned), 0);
	free(tc);
	ground_free(g);
}

/* A page that a fork wipes reads as zeros: both fast paths must decline. */
Test(tcache, a_wiped_cache_declines)
{
	static struct shmi_tcache wiped;
	void *block;

	cr_assert_not(shmi_tcache_pop(&wiped, shmi_sclass_make(5, 0), &block));
	cr_assert_not(shmi_tcache_push(&wiped, (void *)0x100000002000));
	cr_assert_not(shmi_tcache_push(&wiped, NULL));
}

TEST_ON_IMAGES(tcache, misuse_is_recognised, PAGES)
{
	struct ground *g = ground_new(t);

	g->env.harden = true;
	struct shmi_tcache *tc = cache_new(g, 0);
	char *block = get(tc, 100, 0);

	cr_assert_eq(verdict(tc, block + 16), SHMI_FREE_INSIDE);
	cr_assert_eq(verdict(tc, block + 8192 * 100), SHMI_FREE_NOTHING);
	cr_assert_eq(verdict(tc, (char *)tc->env->base), SHMI_FREE_OUTSIDE);
	cr_assert_eq(verdict(tc, (char *)tc->env->base - 16), SHMI_FREE_OUTSIDE);
	cr_assert_eq(verdict(tc, block), SHMI_FREED);
	cr_assert_eq(verdict(tc, block), SHMI_FREE_TWICE);
	shmi_tcache_trim(tc);
	cr_assert_not_null(get(tc, 100, 0));
	free(tc);
	ground_free(g);
}

/* Without hardening misuse is seen when the magazine is put. */
Test(tcache, double_free_is_seen_at_the_put, .exit_code = 40 + SHMI_FREE_TWICE)
{
	struct shmi_tcache *tc = cache_new(ground_new(test_image_new(TEST_MALLOC, PAGES)), 0);
	void *block = get(tc, 64, 0);

	give(tc, block);
	give(tc, block);
	shmi_tcache_trim(tc);
}

Test(tcache, double_free_of_what_was_put_back_is_seen_at_the_put, .exit_code = 40 + SHMI_FREE_TWICE)
{
	struct shmi_tcache *tc = cache_new(ground_new(test_image_new(TEST_MALLOC, PAGES)), 0);
	void *block = get(tc, 64, 0), *other = get(tc, 64, 0);

	cr_assert_not_null(other); /* the span stays */
	give(tc, block);
	shmi_tcache_trim(tc);
	give(tc, block);
	shmi_tcache_trim(tc);
}

/* Freed again among its neighbours, on the way up and on the way down. */
static void twice_in_a_run(uint32_t first, uint32_t last, uint32_t again)
{
	struct shmi_tcache *tc = cache_new(ground_new(test_image_new(TEST_MALLOC, PAGES)), 0);
	char *block[16];

	for (uint32_t i = 0; i < 16; i++)
		block[i] = get(tc, 64, 0);
	for (uint32_t i = first; i != last; i = first < last ? i + 1 : i - 1)
		give(tc, block[i]);
	give(tc, block[again]);
	if (again)
		give(tc, block[again - 1]);
	shmi_tcache_trim(tc);
}

Test(tcache, double_free_behind_a_run_is_seen_at_the_put, .exit_code = 40 + SHMI_FREE_TWICE)
{
	twice_in_a_run(0, 12, 5);
}

Test(tcache, double_free_behind_a_run_downwards_is_seen_at_the_put, .exit_code = 40 + SHMI_FREE_TWICE)
{
	twice_in_a_run(12, 2, 3);
}

Test(tcache, an_inner_pointer_is_seen_at_the_put, .exit_code = 40 + SHMI_FREE_INSIDE)
{
	struct shmi_tcache *tc = cache_new(ground_new(test_image_new(TEST_MALLOC, PAGES)), 0);
	char *block = get(tc, 64, 0);

	give(tc, block + 16);
	shmi_tcache_trim(tc);
}
