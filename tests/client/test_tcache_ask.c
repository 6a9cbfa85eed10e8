/* What the thread cache asks for, when, and whether it waits: on a false floor whose answers may come later. */
#include "tests/client/ground.h"

#include <unistd.h>

TestSuite(ask, .timeout = 60);

_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	(void)env, (void)off;
	_exit(40 + (int)what);
}

static shmi_sclass of(uint32_t size)
{
	return shmi_sclass_make(shmi_class_of(size), 0);
}

static struct ground *slow_ground(struct test_image *t)
{
	struct ground *g = ground_new(t);

	g->later = g->slow = true;
	return g;
}

/* All that is left goes back, and nothing is missing. */
static void end(struct ground *g, struct shmi_tcache *tc)
{
	shmi_tcache_trim(tc);
	cr_assert_not(tc->posted, "a trim waits for what is on its way, to give it back");
	cr_assert_eq(tc->ask.n_returns, 0);
	cr_assert_eq(slots_missing(g), 0);
	cr_assert_eq(shmi_load(&g->t->img.super->pages.owned), 0);
	free(tc);
	ground_free(g);
}

/* ---- ahead ---- */

TEST_ON_IMAGES(ask, who_grows_does_not_wait, PAGES)
{
	enum { N = 40000, WARM = 2000 };
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];
	uint32_t before = 0, asked = 0;

	g->later = true;
	for (uint32_t i = 0; i < N; i++) {
		if (i == WARM) {
			before = g->messages - g->posts;
			asked = g->posts;
		}
		cr_assert_not_null(block[i] = get(tc, 64, 0));
	}
	cr_assert_eq(g->messages - g->posts, before, "waited for %u answers", g->messages - g->posts - before);
	cr_assert_gt(g->posts, asked + 10);
	for (uint32_t i = 0; i < N; i++)
		give(tc, block[i]);
	end(g, tc);
}

/* A class that is dry before the answer has come waits for that, and does not ask once more. */
TEST_ON_IMAGES(ask, what_is_on_its_way_is_not_asked_for_again, PAGES)
{
	enum { N = 40000 };
	struct ground *g = slow_ground(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];
	uint64_t most = 0;

	for (uint32_t i = 0; i < N; i++) {
		uint32_t messages = g->messages, waits = g->waits;

		cr_assert_not_null(block[i] = get(tc, 64, 0));
		cr_assert(g->waits == waits || g->messages - messages <= 1, "at most the next one ahead");
	}
	cr_assert_gt(g->waits, 10);
	most = N / class_at(g, of(64))->slots;
	cr_assert_leq(
	        g->wanted[of(64).c], most + most / 8 + 8, "%u for %u", (uint32_t)g->wanted[of(64).c], (uint32_t)most);
	for (uint32_t i = 0; i < N; i++)
		give(tc, block[i]);
	end(g, tc);
}

TEST_ON_IMAGES(ask, who_gives_back_does_not_wait, PAGES)
{
	enum { N = 45000 }; /* more spans than one message names, and fewer than two */
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];

	for (uint32_t i = 0; i < N; i++)
		cr_assert_not_null(block[i] = get(tc, 64, 0));
	g->later = g->slow = true;
	uint32_t before = g->messages, posted = g->posts;

	for (uint32_t i = 0; i < N; i++)
		give(tc, block[i]);
	cr_assert_eq(g->waits, 0);
	cr_assert_eq(g->posts - posted, 1);
	cr_assert_eq(g->messages - before, 1);
	end(g, tc);
}

/* With an answer that does not come more is kept, up to what one message can name: then it is waited for. */
TEST_ON_IMAGES(ask, what_cannot_be_posted_is_kept_and_then_waited_for, PAGES)
{
	enum { N = 100000 };
	struct ground *g = slow_ground(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[N];

	for (uint32_t i = 0; i < N; i++)
		cr_assert_not_null(block[i] = get(tc, 64, 0));
	uint32_t before = g->waits;

	for (uint32_t i = 0; i < N; i++) {
		give(tc, block[i]);
		cr_assert_leq(tc->ask.n_returns, SHMI_TC_RETURNS);
	}
	cr_assert_gt(g->waits, before);
	end(g, tc);
}

TEST_ON_IMAGES(ask, a_thread_that_ends_waits_for_what_is_on_its_way, PAGES)
{
	struct ground *g = slow_ground(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[20000];
	uint32_t n = 0;

	while (!tc->posted)
		cr_assert_not_null(block[n++] = get(tc, 64, 0));
	while (n)
		give(tc, block[--n]);
	cr_assert(tc->posted);
	shmi_tcache_retire(tc, NULL, NULL); /* no span is left that could be handed over */
	end(g, tc);
}

/* With what goes out ahead classes are aged, which may empty the magazine that has just been filled: the block is out of it by then. */
TEST_ON_IMAGES(ask, a_class_that_is_aged_while_it_asks_has_its_block, PAGES)
{
	struct ground *g = slow_ground(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[20000];
	shmi_sclass large = of(32768);
	uint32_t n = 0;

	while (n < 20000)
		cr_assert_not_null(block[n++] = get(tc, 64, 0));
	void *first = get(tc, 32768, 0);

	tc->refills = 15; /* the clock comes by, and finds the class idle after it has been refilled */
	tc->age_clock = large.c;
	tc->peak_bytes = 0;
	tc->cls[large.c].rate = 2 * SHMI_TC_RATE_ONE;
	shmi_store(&tc->mag[large.c]->top, 0);
	void *second = get(tc, 32768, 0);

	cr_assert_not_null(second);
	cr_assert(tc->posted, "it has asked ahead");
	free(tc);
	ground_free(g);
	(void)first;
}

/* At the limit: what another class has been given meanwhile is not what this one needs. */
TEST_ON_IMAGES(ask, an_answer_for_another_class_is_not_enough, PAGES)
{
	struct ground *g = slow_ground(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[20000];
	uint32_t n = 0;

	while (n < 4000 || !tc->posted)
		cr_assert_not_null(block[n++] = get(tc, 64, 0));
	g->no_more = g->ask.wants[0].spans; /* that, and no more */
	while (n)
		give(tc, block[--n]);
	void *other = get(tc, 2048, 0);

	cr_assert_null(other, "there was memory for the other class alone");
	g->no_more = 1;
	cr_assert_not_null(other = get(tc, 2048, 0));
	give(tc, other);
	end(g, tc);
}

/* ---- how much ---- */

/* What a class began long ago says nothing: a class is asked for as it grows now. */
TEST_ON_IMAGES(ask, a_class_that_grows_no_more_is_not_asked_for, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);

	for (uint32_t i = 0; i < 40000; i++)
		cr_assert_not_null(get(tc, 64, 0));
	cr_assert_gt(shmi_tcache_expected(tc, of(64)), 0);
	for (uint32_t i = 0; i < 10000; i++)
		cr_assert_not_null(get(tc, 1024, 0));
	cr_assert_eq(shmi_tcache_expected(tc, of(64)), 0);
	uint64_t before = g->wanted[of(64).c];

	for (uint32_t i = 0; i < 10000; i++)
		cr_assert_not_null(get(tc, 1024, 0));
	cr_assert_eq(g->wanted[of(64).c], before);
	free(tc);
	ground_free(g);
}

/* Of two that grow the one that grows three times as fast gets three times as much. */
TEST_ON_IMAGES(ask, as_a_class_grows_so_it_is_given, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	uint64_t fast = 0, slow = 0;

	for (uint32_t i = 0; i < 40000; i++) {
		if (i == 20000) {
			fast = g->wanted[of(128).c];
			slow = g->wanted[of(112).c];
		}
		cr_assert_not_null(get(tc, 128, 0));
		if (i % 3 == 0)
			cr_assert_not_null(get(tc, 112, 0));
	}
	fast = (g->wanted[of(128).c] - fast) * class_at(g, of(128))->slots;
	slow = (g->wanted[of(112).c] - slow) * class_at(g, of(112))->slots;
	cr_assert(fast > slow * 2 && fast < slow * 4, "%u and %u blocks", (uint32_t)fast, (uint32_t)slow);
	free(tc);
	ground_free(g);
}

/* A class whose spans come and go does not seem to grow. */
TEST_ON_IMAGES(ask, spans_that_are_begun_again_are_no_growth, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[32];

	for (uint32_t round = 0; round < 500; round++) {
		for (uint32_t i = 0; i < 32; i++)
			cr_assert_not_null(block[i] = get(tc, 8192, 0));
		for (uint32_t i = 0; i < 32; i++)
			give(tc, block[i]);
	}
	cr_assert_leq(tc->cls[of(8192).c].begun, 32 / class_at(g, of(8192))->slots);
	free(tc);
	ground_free(g);
}

/* ---- from a larger class ---- */

/* Some free blocks of 80 bytes are at hand. */
static struct shmi_tcache *with_larger(struct ground *g)
{
	struct shmi_tcache *tc = cache_new(g, 0);
	void *block = get(tc, 80, 0);

	cr_assert_not_null(block);
	give(tc, block);
	return tc;
}

static uint32_t size_of(const struct ground *g, const void *block)
{
	shmi_page page = shmi_off_page((shmi_off){(uint64_t)(uintptr_t)block - g->env.base});

	return class_at(
	        g, shmi_span_word(&g->t->img, (shmi_page){shmi_load(shmi_page_span_at(&g->t->img, page))}).sclass)
	        ->size;
}

TEST_ON_IMAGES(ask, a_few_blocks_of_a_rare_class_cost_no_message, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = with_larger(g);
	static void *block[40];
	uint32_t before = g->messages, n = 0;

	while (g->messages == before)
		cr_assert_not_null(block[n++] = get(tc, 64, 0));
	cr_assert_eq(n, 17, "the daemon was asked for block %u", n);
	for (uint32_t i = 0; i < n; i++)
		cr_assert_eq(size_of(g, block[i]), i < 16 ? 80 : 64);
	for (uint32_t i = 0; i < n; i++)
		give(tc, block[i]);
	end(g, tc);
}

TEST_ON_IMAGES(ask, a_block_that_must_be_exact_is, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = with_larger(g);
	int error;
	void *block = shmi_tcache_refill(tc, of(64), true, &error);

	cr_assert_eq(size_of(g, block), 64);
	give(tc, block);
	end(g, tc);
}

/* Not from one that is more than a quarter larger, above 128 bytes, nor from one of other attributes. */
TEST_ON_IMAGES(ask, a_much_larger_block_is_not_taken, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	void *far = get(tc, 1536, 0), *other = get(tc, 1088, SHMI_SCOPED), *block = get(tc, 1024, 0);

	cr_assert_eq(size_of(g, block), 1024);
	give(tc, far);
	give(tc, other);
	give(tc, block);
	end(g, tc);
}

/* Whoever reallocs a block to the size that it was made with finds it where it is. */
TEST_ON_IMAGES(ask, what_is_taken_is_not_too_large_for_the_smallest_request, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);

	for (uint32_t c = 2; c < 40; c++) /* free blocks of all classes but the one before */
		for (uint32_t i = 0; i < 2; i++)
			give(tc, get(tc, t->img.classes[c].size, 0));
	for (uint32_t c = 2; c < 39; c++) {
		uint32_t smallest = t->img.classes[c - 1].size + 1, size;

		for (uint32_t i = 0; i < 64; i++) {
			size = size_of(g, get(tc, smallest, 0));
			cr_assert(size <= 32 || size <= smallest * 2, "%u for %u", size, smallest);
		}
	}
	free(tc);
	ground_free(g);
}

TEST_ON_IMAGES(ask, a_class_that_grows_takes_from_no_other, PAGES)
{
	struct ground *g = ground_new(t);
	struct shmi_tcache *tc = cache_new(g, 0);
	static void *block[4000];

	for (uint32_t i = 0; i < 2000; i++)
		cr_assert_not_null(block[i] = get(tc, 64, 0));
	void *larger = get(tc, 80, 0);

	give(tc, larger);
	for (uint32_t i = 2000; i < 4000; i++) {
		cr_assert_not_null(block[i] = get(tc, 64, 0));
		cr_assert_eq(size_of(g, block[i]), 64);
	}
	for (uint32_t i = 0; i < 4000; i++)
		give(tc, block[i]);
	end(g, tc);
}
