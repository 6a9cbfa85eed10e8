#include "shm/adopt.h"

#include "shm/central.h"
#include "shm/freeruns.h"
#include "shm/slots.h"
#include "tests/lib/heapwalk.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(adopt, .timeout = 60);

#define WALK_PAGES 9000u

/* ---- what must not change ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
	return (hash ^ value) * 0x100000001b3ull;
}

/* All that a live client reads: of spans in use the word, what describes the blocks, the page map and the classes; roots. */
static uint64_t client_sees(const struct shmi_image *img)
{
	const unsigned char *roots = (const unsigned char *)shmi_root_at(img, 0);
	uint64_t hash = 1;

	for (uint32_t i = 1; i < shmi_image_published(img); i++) {
		const struct shmi_span *span = shmi_span_at(img, (shmi_page){i});
		struct shmi_word word = shmi_span_word(img, (shmi_page){i});

		if (!shmi_state_in_use(word.state))
			continue;
		hash = mix(mix(mix(hash, i), shmi_word_pack(word)), span->pages);
		hash = mix(mix(mix(hash, span->slots), span->bytes), span->flags | (uint64_t)span->written_off << 32);
		for (uint32_t p = i; p < i + span->pages; p++) {
			hash = mix(hash, shmi_load(shmi_page_class_at(img, (shmi_page){p})));
			hash = mix(hash, shmi_load(shmi_page_span_at(img, (shmi_page){p})));
			hash = mix(hash, shmi_load(shmi_bitmap_at(img, (shmi_page){p})));
		}
	}
	for (uint32_t i = 0; i < SHMI_MAX_ROOTS * sizeof(struct shmi_root); i++)
		hash = mix(hash, roots[i]);
	return hash;
}

/* ---- adoption of a model ---- */

static void punch(void *ctx, struct shmi_run run)
{
	struct heapwalk *walk = ctx;

	cr_assert_not(run.backed);
	test_image_return(walk->t, run.first, run.pages);
	pagemodel_set(walk->model, run, MODEL_RETURNED);
}

/* MOVING runs of the walk are nobody's after an adoption. */
static void forget_moving(struct heapwalk *walk)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < walk->count; i++)
		if (walk->model->page[walk->runs[i].first.i].kind == MODEL_USED)
			walk->runs[kept++] = walk->runs[i];
	walk->count = kept;
}

/* Adopts, and compares with the model, which hears of the free runs through the callback alone. */
static void adopt(struct heapwalk *walk)
{
	struct test_image *t = walk->t;
	uint32_t generation = shmi_load(&t->img.super->generation);
	uint64_t before = client_sees(&t->view);
	shmi_page where;

	forget_moving(walk);
	cr_assert_eq(shmi_adopt(&t->img, walk->now, punch, walk, &where), 0, "page %u is to blame", where.i);
	cr_assert_eq(client_sees(&t->view), before, "adoption changed what a client reads");
	cr_assert_eq(shmi_load(&t->view.super->generation), generation + 1);
	const char *wrong = pagemodel_compare(walk->model, &t->view);

	cr_assert_null(wrong, "after adoption: %s", wrong);
	for (uint32_t i = 1; i < walk->model->published; i++)
		cr_assert_neq(walk->model->page[i].kind, MODEL_MOVING, "page %u was lost", i);
}

static void walk_for(struct heapwalk *walk, uint32_t steps)
{
	for (uint32_t i = 0; i < steps; i++) {
		const char *wrong = heapwalk_step(walk);

		cr_assert_null(wrong, "step %u: %s", i, wrong);
	}
}

TEST_ON_IMAGES(adopt, after_random_walks, WALK_PAGES)
{
	struct test_random random = test_random_init("adopt walk");
	struct heapwalk walk;

	heapwalk_init(&walk, t, &random);
	adopt(&walk); /* a heap without an arena */
	for (uint32_t i = 0; i < 20; i++) {
		walk_for(&walk, 300);
		adopt(&walk);
	}
	adopt(&walk); /* nothing happened meanwhile */
	heapwalk_drain(&walk);
	adopt(&walk);
	cr_assert_eq(shmi_pageheap_longest(&t->view, false).n, WALK_PAGES - 1);
	heapwalk_deinit(&walk);
}

/* Whatever a death between two stores may have left in derived structures and in the pages of free runs. */
static void scribble(struct heapwalk *walk)
{
	struct shmi_image *img = &walk->t->img;

	for (uint32_t i = 1; i < walk->model->published; i++) {
		if (walk->model->page[i].kind == MODEL_USED)
			continue;
		shmi_store(
		        &shmi_span_at(img, (shmi_page){i})->word, test_random_below(walk->random, SHMI_SPAN_CENTRAL));
		shmi_span_at(img, (shmi_page){i})->pages = test_random_below(walk->random, 5000);
		shmi_store(shmi_page_class_at(img, (shmi_page){i}), (uint16_t)test_random_below(walk->random, 300));
		shmi_store(shmi_page_span_at(img, (shmi_page){i}), test_random_below(walk->random, WALK_PAGES));
	}
	for (uint32_t i = 0; i < walk->count; i++) {
		struct shmi_span *span = shmi_span_at(img, walk->runs[i].first);

		span->next = span->prev = span->parent = test_random_below(walk->random, WALK_PAGES);
		span->list = 1;
	}
	memset(shmi_pageheap_at(img), 0x5a, sizeof(struct shmi_pageheap_heads));
	memset(shmi_central_at(img, (shmi_sclass){0}), 0x5a, SHMI_SPAN_CLASSES * sizeof(struct shmi_central_lists));
	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++)
		shmi_owner_at(img, c)->spans = (struct shmi_list){77, 78};
	memset(&img->super->pages, 0x5a, sizeof(img->super->pages));
}

TEST_ON_IMAGES(adopt, of_scribbled_derived_structures, WALK_PAGES)
{
	struct test_random random = test_random_init("adopt scribbled");
	struct heapwalk walk;

	heapwalk_init(&walk, t, &random);
	for (uint32_t i = 0; i < 10; i++) {
		walk_for(&walk, 200);
		forget_moving(&walk);
		scribble(&walk);
		adopt(&walk);
	}
	heapwalk_deinit(&walk);
}

/* A daemon dies inside shmi_arena_publish: before the store of published_pages, after all else. */
TEST_ON_IMAGES(adopt, publishing_cut_short, 2 * SHMI_ARENA_PAGES)
{
	struct test_random random = test_random_init("adopt publish");
	struct heapwalk walk;

	heapwalk_init(&walk, t, &random);
	for (uint32_t arena = 0; arena < 2; arena++) {
		test_image_publish(t, 1);
		shmi_store(&t->img.super->published_pages, arena * SHMI_ARENA_PAGES);
		adopt(&walk);
		test_image_publish(t, 1);
		const char *wrong = pagemodel_compare(walk.model, &t->view);

		cr_assert_null(wrong, "arena %u: %s", arena, wrong);
	}
	cr_assert_eq(shmi_pageheap_longest(&t->view, false).n, 2 * SHMI_ARENA_PAGES - 1);
	heapwalk_deinit(&walk);
}

/* The same behind backed pages, which the new arena joins only after the adoption. */
TEST_ON_IMAGES(adopt, publishing_cut_short_behind_backed_pages, 2 * SHMI_ARENA_PAGES)
{
	struct test_random random = test_random_init("adopt publish");
	struct heapwalk walk;

	heapwalk_init(&walk, t, &random);
	shmi_pageheap_put(&t->img, test_image_run(t, SHMI_ARENA_PAGES - 1), 0);
	test_image_publish(t, 1);
	shmi_store(&t->img.super->published_pages, SHMI_ARENA_PAGES);
	adopt(&walk);
	test_image_publish(t, 1);
	const char *wrong = pagemodel_compare(walk.model, &t->view);

	cr_assert_null(wrong, "%s", wrong);
	heapwalk_deinit(&walk);
}

/* ---- central lists ---- */

static void take_all(struct test_image *t, shmi_page page)
{
	const struct shmi_class *class = &t->img.classes[shmi_sclass_size_class(shmi_span_word(&t->img, page).sclass)];

	for (uint32_t w = 0; w < class->words; w++)
		shmi_slots_take(shmi_bitmap_at(&t->view, page), w, shmi_slots_mask(class, w));
}

TEST_ON_IMAGES(adopt, files_central_spans, 4096)
{
	shmi_sclass sclass = shmi_sclass_make(shmi_class_of(1024), SHMI_NOSCAN);
	shmi_page some = test_image_span(t, 1024, SHMI_NOSCAN, SHMI_NOBODY);
	shmi_page none = test_image_span(t, 1024, SHMI_NOSCAN, SHMI_NOBODY);
	shmi_page held = test_image_span(t, 1024, SHMI_NOSCAN, 3), where;
	shmi_page bad = test_image_span(t, 1024, SHMI_NOSCAN, SHMI_NOBODY);
	const struct shmi_central_lists *lists = shmi_central_at(&t->view, sclass);

	shmi_span_quarantine(&t->img, bad);
	take_all(t, none);
	cr_assert_eq(shmi_adopt(&t->img, 0, NULL, NULL, &where), 0);
	cr_assert_eq(lists->free.head, some.i);
	cr_assert_eq(lists->free.count, 1);
	cr_assert_eq(lists->full.head, none.i);
	cr_assert_eq(lists->full.count, 1);
	cr_assert_eq(shmi_owner_at(&t->view, 3)->spans.head, held.i);
	cr_assert_eq(shmi_owner_at(&t->view, 3)->pages, t->img.classes[shmi_class_of(1024)].pages);
	cr_assert_eq(shmi_span_word(&t->view, bad).state, SHMI_SPAN_QUARANTINE);

	cr_assert_eq(shmi_central_grant(&t->img, sclass, 5).i, some.i, "the lists are good for use");
	cr_assert_eq(shmi_central_grant(&t->img, sclass, 5).i, 0);

	struct shmi_image blind = t->img;

	blind.ctl = NULL;
	cr_assert_eq(shmi_adopt(&blind, 0, NULL, NULL, &where), 0);
	cr_assert_eq(lists->free.head, none.i, "without ctl nobody knows better");
	cr_assert_eq(lists->full.count, 0);
}

/* ---- damage ---- */

struct victims {
	shmi_page blocks, large, lazy, central, free;
};

/* What is done to a heap with one span of each sort, and which page is to blame. */
struct damage {
	const char *name;
	void (*inflict)(struct shmi_image *img, const struct victims *v);
	uint32_t (*blame)(const struct shmi_image *img, const struct victims *v);
};

#define DAMAGE(name, victim, action)                                                                                   \
	static void inflict_##name(struct shmi_image *img, const struct victims *v)                                    \
	{                                                                                                              \
		struct shmi_span *span = shmi_span_at(img, v->victim);                                                 \
		struct shmi_word word = shmi_span_word(img, v->victim);                                                \
		action;                                                                                                \
		shmi_store(&span->word, shmi_word_pack(word));                                                         \
	}                                                                                                              \
	static uint32_t blame_##name(const struct shmi_image *img, const struct victims *v)                            \
	{                                                                                                              \
		(void)img;                                                                                             \
		return v->victim.i;                                                                                    \
	}

#define PLUS(by) ((shmi_page){(uint32_t)(span - shmi_span_at(img, (shmi_page){0})) + (by)})

DAMAGE(too_long, blocks, span->pages++)
DAMAGE(too_short, central, span->pages--)
DAMAGE(no_pages, large, span->pages = 0)
DAMAGE(beyond_the_heap, large, span->pages = 1u << 31)
DAMAGE(wrapping, large, span->pages = UINT32_MAX)
DAMAGE(large_too_short, large, span->pages--)
DAMAGE(slots, blocks, span->slots++)
DAMAGE(large_slots, large, span->slots = 2)
DAMAGE(large_bytes, large, span->bytes = ((uint64_t)span->pages << SHMI_PAGE_SHIFT) + 1)
DAMAGE(large_flags, large, span->flags = 2)
DAMAGE(blocks_flags, blocks, span->flags = SHMI_SPAN_LAZY)
DAMAGE(written_off, blocks, span->written_off = (uint16_t)(span->slots + 1))
DAMAGE(owner_out_of_range, blocks, word.owner = SHMI_MAX_CLIENTS)
DAMAGE(owned_by_nobody, blocks, word.owner = SHMI_NOBODY)
DAMAGE(central_with_owner, central, word.owner = 1)
DAMAGE(quarantine_with_owner, blocks, word.state = SHMI_SPAN_QUARANTINE)
DAMAGE(large_as_owned, large, word.state = SHMI_SPAN_OWNED)
DAMAGE(blocks_as_large, blocks, word.state = SHMI_SPAN_LARGE)
DAMAGE(unknown_state, blocks, word.state = 9)
DAMAGE(seized_from_nobody, blocks, word.state = SHMI_SPAN_SEIZED; word.owner = SHMI_NOBODY)
DAMAGE(large_as_seized, large, word.state = SHMI_SPAN_SEIZED)
DAMAGE(no_class, blocks, word.sclass.c = 0)
DAMAGE(class_out_of_range, blocks, word.sclass.c = SHMI_SPAN_CLASSES)
DAMAGE(other_attributes, blocks, word.sclass.c ^= SHMI_SCOPED)
DAMAGE(page_class, central, shmi_store(shmi_page_class_at(img, PLUS(1)), 0))
DAMAGE(large_inner_class, lazy, shmi_store(shmi_page_class_at(img, PLUS(1)), word.sclass.c))
DAMAGE(page_map, blocks, shmi_store(shmi_page_span_at(img, PLUS(0)), 2))
DAMAGE(large_page_map_end, large, shmi_store(shmi_page_span_at(img, PLUS(span->pages - 1)), 0))
DAMAGE(overlap, large, *shmi_span_at(img, PLUS(7)) = *shmi_span_at(img, v->blocks))
DAMAGE(span_from_nowhere, free, word.state = SHMI_SPAN_OWNED; word.owner = 1)

static void inflict_odd_published(struct shmi_image *img, const struct victims *v)
{
	(void)v;
	shmi_store(&img->super->published_pages, 5000);
}

static void inflict_published_beyond_limit(struct shmi_image *img, const struct victims *v)
{
	(void)v;
	shmi_store(&img->super->published_pages, 2 * SHMI_ARENA_PAGES);
}

static uint32_t blame_published(const struct shmi_image *img, const struct victims *v)
{
	(void)v;
	return shmi_image_published(img);
}

#define ROW(name)                                                                                                      \
	{                                                                                                              \
#name, inflict_##name, blame_##name                                                                    \
	}

static const struct damage damages[] = {ROW(too_long), ROW(too_short), ROW(no_pages), ROW(beyond_the_heap),
        ROW(wrapping), ROW(large_too_short), ROW(slots), ROW(large_slots), ROW(large_bytes), ROW(large_flags),
        ROW(blocks_flags), ROW(written_off), ROW(owner_out_of_range), ROW(owned_by_nobody), ROW(central_with_owner),
        ROW(quarantine_with_owner), ROW(large_as_owned), ROW(blocks_as_large), ROW(unknown_state),
        ROW(seized_from_nobody), ROW(large_as_seized), ROW(no_class), ROW(class_out_of_range), ROW(other_attributes),
        ROW(page_class), ROW(large_inner_class), ROW(page_map), ROW(large_page_map_end), ROW(overlap),
        ROW(span_from_nowhere), {"odd_published", inflict_odd_published, blame_published},
        {"published_beyond_limit", inflict_published_beyond_limit, blame_published}};

static struct victims make_victims(struct test_image *t)
{
	struct victims v = {
	        .blocks = test_image_span(t, 1000, 0, 2), .central = test_image_span(t, 8192, 0, SHMI_NOBODY)};
	struct shmi_run run = test_image_run(t, 300);

	v.large = run.first;
	shmi_span_open_large(&t->img, run, 0, 2, 300 * SHMI_PAGE_SIZE, false);
	cr_assert_eq(shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){400}, (shmi_npages){1}, true, 0, &run), 0);
	v.lazy = run.first;
	shmi_span_open_large(&t->img, run, 0, 2, 400 * SHMI_PAGE_SIZE, true);
	v.free = (shmi_page){shmi_pageheap_at(&t->img)->root[SHMI_RETURNED]};
	return v;
}

TEST_ON_IMAGES(adopt, refuses_damage_and_touches_nothing, 9000)
{
	struct victims v = make_victims(t);
	unsigned char *sound = malloc(t->meta_len), *damaged = malloc(t->meta_len);
	shmi_page where;

	cr_assert(sound && damaged && t->img.classes[shmi_class_of(8192)].pages > 1);
	memcpy(sound, t->img.meta, t->meta_len);
	for (size_t i = 0; i < sizeof(damages) / sizeof(*damages); i++) {
		damages[i].inflict(&t->img, &v);
		memcpy(damaged, t->img.meta, t->meta_len);
		cr_assert_neq(memcmp(sound, damaged, t->meta_len), 0, "%s: no damage was done", damages[i].name);
		cr_assert_eq(shmi_adopt(&t->img, 0, NULL, NULL, &where), SHMI_E_ADOPT_DAMAGED, "%s", damages[i].name);
		cr_assert_eq(where.i, damages[i].blame(&t->img, &v), "%s: page %u", damages[i].name, where.i);
		cr_assert_eq(memcmp(damaged, t->view.meta, t->meta_len), 0, "%s: was written to", damages[i].name);
		memcpy(t->img.meta, sound, t->meta_len);
	}
	cr_assert_eq(shmi_adopt(&t->img, 0, NULL, NULL, &where), 0);
	free(sound);
	free(damaged);
}
