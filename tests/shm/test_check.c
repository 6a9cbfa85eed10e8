#include "shm/check.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "shm/central.h"
#include "shm/roots.h"
#include "shm/seize.h"
#include "tests/lib/lived.h"

TestSuite(check, .timeout = 120);

#define ROOM 32u

static struct shmi_violation found[ROOM];

static uint32_t check(const struct test_image *t, const struct shmi_check_env *env, uint32_t passes)
{
	uint32_t n = shmi_check(&t->view, env, passes, found, ROOM);

	for (uint32_t i = 0; i < n && i < ROOM; i++)
		fprintf(stderr, "I%u: %s\n", found[i].invariant, found[i].text);
	return n;
}

/* The check finds this invariant broken, and no other. */
static void expect_env(const struct lived *h, uint32_t invariant, const struct shmi_check_env *env)
{
	for (uint32_t passes = 1; passes <= 3; passes += 2) {
		uint32_t n = check(h->t, env, passes);

		cr_assert_neq(n, 0, "nothing was found");
		for (uint32_t i = 0; i < n && i < ROOM; i++)
			cr_assert_eq(found[i].invariant, invariant, "I%u: %s", found[i].invariant, found[i].text);
	}
}

static void expect(const struct lived *h, uint32_t invariant)
{
	expect_env(h, invariant, NULL);
}

static void expect_nothing(const struct lived *h)
{
	cr_assert_eq(check(h->t, NULL, 1), 0);
	cr_assert_eq(check(h->t, NULL, 3), 0);
}

/* One breach in a heap that is otherwise valid: `body` makes it in `h`. */
#define BREACH(invariant, name)                                                                                        \
	static void breach_##invariant##_##name(struct lived *h);                                                      \
	TEST_ON_IMAGES(check, i##invariant##_##name, LIVED_LIMIT)                                                      \
	{                                                                                                              \
		struct lived h;                                                                                        \
                                                                                                                       \
		lived_init(&h, t);                                                                                     \
		expect_nothing(&h);                                                                                    \
		breach_##invariant##_##name(&h);                                                                       \
		expect(&h, invariant);                                                                                 \
	}                                                                                                              \
	static void breach_##invariant##_##name(struct lived *h)

static struct shmi_span *span(const struct lived *h, shmi_page page)
{
	return shmi_span_at(&h->t->img, page);
}

static void set_word(const struct lived *h, shmi_page page, struct shmi_word word)
{
	shmi_store(&span(h, page)->word, shmi_word_pack(word));
}

static uint64_t slot_off(shmi_page page, uint32_t size, uint32_t slot)
{
	return shmi_page_off(page).b + (uint64_t)size * slot;
}

/* ---- valid heaps ---- */

TEST_ON_IMAGES(check, valid_heaps, LIVED_LIMIT)
{
	struct lived h;

	cr_assert_eq(check(t, NULL, 1), 0);
	lived_init(&h, t);
	expect_nothing(&h);
}

TEST_ON_IMAGES(check, only_meta, LIVED_LIMIT)
{
	struct shmi_image img;
	struct lived h;

	lived_init(&h, t);
	img = t->view;
	img.ctl = NULL;
	cr_assert_eq(shmi_check(&img, NULL, 3, NULL, 0), 0);
}

/* Violations beyond the room are counted. */
TEST_ON_IMAGES(check, little_room, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	for (uint32_t i = 0; i < 5; i++)
		shmi_store(shmi_page_class_at(&t->img, (shmi_page){h.long_free.i + i}), 4);
	cr_assert_eq(shmi_check(&t->view, NULL, 1, found, 2), 5);
	cr_assert_eq(shmi_check(&t->view, NULL, 1, NULL, 0), 5);
}

/* ---- what a stopped thread may leave ---- */

TEST_ON_IMAGES(check, half_done_takes, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	struct shmi_magazine *mag = lived_magazine(&h, 0, 64, 0);
	uint32_t top = shmi_load(&mag->top);

	h.rec[0]->intent.group = lived_group(&h, h.held, 1, 0xf0);
	shmi_store(&h.rec[0]->intent.op, SHMI_INTENT_TAKE);
	expect_nothing(&h);
	shmi_slots_take(shmi_bitmap_at(&t->img, h.held), 1, 0xf0);
	expect_nothing(&h);
	for (uint32_t i = 0; i < 4; i++)
		shmi_store(&mag->entry[top + i], slot_off(h.held, 64, 71 - i));
	expect_nothing(&h);
	shmi_store(&mag->top, top + 4);
	expect_nothing(&h);
	h.rec[0]->intent.group.generation--; /* void */
	h.rec[0]->intent.group.word = 77;
	expect_nothing(&h);
	h.rec[0]->intent.group.span = h.long_free.i + 7;
	expect_nothing(&h);
}

TEST_ON_IMAGES(check, half_done_puts, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	struct shmi_magazine *mag = lived_magazine(&h, 0, 64, 0);
	uint32_t top = shmi_load(&mag->top);
	struct shmi_group groups[2] = {{0}};

	for (uint32_t i = 0; i < 20; i++) {
		uint64_t slot = (shmi_load(&mag->entry[i]) - shmi_page_off(h.held).b) / 64;

		groups[i % 2].bits |= 1ull << slot;
	}
	groups[0] = lived_group(&h, h.held, 0, groups[0].bits);
	groups[1] = lived_group(&h, h.held, 0, groups[1].bits);
	memcpy(h.rec[0]->spill, groups, sizeof(groups));
	shmi_store(&h.rec[0]->spill_top, 2); /* in both places */
	expect_nothing(&h);
	for (uint32_t i = 20; i < top; i++) { /* some stand twice */
		shmi_store(&mag->entry[i - 20], shmi_load(&mag->entry[i]));
		if (i % 13 == 0)
			expect_nothing(&h);
	}
	shmi_store(&mag->top, top - 20);
	expect_nothing(&h);
	h.rec[0]->intent.group = groups[1];
	shmi_store(&h.rec[0]->intent.op, SHMI_INTENT_PUT);
	expect_nothing(&h);
	shmi_slots_put(shmi_bitmap_at(&t->img, h.held), 0, groups[1].bits);
	expect_nothing(&h);
	lived_take(&h, 1, h.held, 0, groups[1].bits & -groups[1].bits); /* another thread has one of them by now */
	expect_nothing(&h);
	shmi_store(&h.rec[0]->spill_top, 1);
	expect_nothing(&h);
	shmi_store(&h.rec[0]->intent.op, SHMI_INTENT_NONE);
	expect_nothing(&h);
	shmi_threadrec_put(&t->img, h.rec[0], &groups[0]);
	expect_nothing(&h);
}

/* A record whose slots are going back is not looked at: they are in both places, and others may have them. */
static bool reclaiming(void *ctx, uint32_t thread)
{
	return thread == *(uint32_t *)ctx;
}

TEST_ON_IMAGES(check, record_being_reclaimed, LIVED_LIMIT)
{
	struct lived h;
	uint32_t thread = 1;
	struct shmi_check_env env = {.ctx = &thread, .reclaiming = reclaiming};

	lived_init(&h, t);
	shmi_slots_put(shmi_bitmap_at(&t->img, h.wide), 0, 6);
	expect(&h, 12);
	cr_assert_eq(check(t, &env, 3), 0);
}

/* ---- I16, I1, I2: what the others stand on ---- */

BREACH(16, layout_hash)
{
	h->t->img.super->layout_hash++;
}

BREACH(16, published_beyond_limit)
{
	shmi_store(&h->t->img.super->published_pages, LIVED_LIMIT + 1);
}

BREACH(16, foreign_ctl)
{
	((struct shmi_ctl_head *)(void *)h->t->img.ctl)->heap_id++;
}

BREACH(16, class_table)
{
	((struct shmi_class *)(void *)(h->t->img.meta + h->t->img.geo.classes))[5].slots++;
}

BREACH(16, geometry)
{
	h->t->img.super->geometry.roots += 64;
}

BREACH(1, page_zero)
{
	set_word(h, (shmi_page){0}, (struct shmi_word){.state = SHMI_SPAN_OWNED});
}

BREACH(1, run_too_long)
{
	span(h, h->wide)->pages = SHMI_ARENA_PAGES;
}

BREACH(1, run_of_no_pages)
{
	span(h, h->held)->pages = 0;
}

BREACH(1, run_too_short)
{
	span(h, h->long_free)->pages--;
}

BREACH(1, run_over_another)
{
	span(h, h->long_free)->pages += span(h, h->large)->pages;
}

BREACH(1, unknown_state)
{
	set_word(h, h->held, (struct shmi_word){.state = 9});
}

BREACH(2, class_of_state)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->held);

	word.sclass = shmi_sclass_make(SHMI_CLASS_LARGE, 0);
	set_word(h, h->held, word);
}

BREACH(2, class_beyond_table)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->odd);

	word.sclass.c = SHMI_SPAN_CLASSES + 3;
	set_word(h, h->odd, word);
}

BREACH(2, large_of_small_class)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->large);

	word.sclass = shmi_sclass_make(3, 0);
	set_word(h, h->large, word);
}

BREACH(2, owner_not_in_use)
{
	shmi_span_set_owner(&h->t->img, h->held, 7);
}

BREACH(2, central_with_owner)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->central_free);

	word.owner = 1;
	set_word(h, h->central_free, word);
}

BREACH(2, owned_by_nobody)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->wide);

	word.owner = SHMI_NOBODY;
	set_word(h, h->wide, word);
}

BREACH(2, generation_zero)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->large);

	word.generation = 0;
	set_word(h, h->large, word);
}

BREACH(2, slots)
{
	span(h, h->held)->slots = 100;
}

BREACH(2, written_off_without_count)
{
	span(h, h->held)->written_off_bits = 1;
}

BREACH(2, written_off_beyond_slots)
{
	span(h, h->wide)->written_off_bits = 1ull << h->wide_slots;
}

BREACH(2, lazy_blocks)
{
	span(h, h->held)->flags = SHMI_SPAN_LAZY;
}

BREACH(2, large_slots)
{
	span(h, h->large)->slots = 2;
}

BREACH(2, large_bytes)
{
	span(h, h->large)->bytes = 34 * SHMI_PAGE_SIZE;
}

BREACH(2, large_flags)
{
	span(h, h->large)->flags = 2;
}

/* ---- page arrays ---- */

BREACH(3, class_of_page_in_span)
{
	shmi_store(shmi_page_class_at(&h->t->img, (shmi_page){h->wide.i + 1}), 4);
}

BREACH(3, class_inside_large_block)
{
	shmi_store(
	        shmi_page_class_at(&h->t->img, (shmi_page){h->large.i + 5}), shmi_sclass_make(SHMI_CLASS_LARGE, 0).c);
}

BREACH(3, class_of_free_page)
{
	shmi_store(shmi_page_class_at(&h->t->img, h->short_free), 4);
}

BREACH(4, map_inside_span)
{
	shmi_store(shmi_page_span_at(&h->t->img, (shmi_page){h->central_full.i + 1}), 0);
}

BREACH(4, map_of_last_free_page)
{
	shmi_store(shmi_page_span_at(&h->t->img, (shmi_page){h->long_free.i + 149}), h->held.i);
}

BREACH(4, map_inside_large_block)
{
	shmi_store(shmi_page_span_at(&h->t->img, (shmi_page){h->large.i + 5}), h->large.i);
}

/* ---- lists ---- */

BREACH(5, count_of_owner)
{
	shmi_owner_at(&h->t->img, 1)->spans.count++;
}

BREACH(5, pages_of_owner)
{
	shmi_owner_at(&h->t->img, 2)->pages--;
}

BREACH(5, span_on_no_list)
{
	struct shmi_owner *owner = shmi_owner_at(&h->t->img, 1);

	shmi_list_remove(&h->t->img, &owner->spans, h->scoped);
	owner->pages--;
}

BREACH(5, span_of_another)
{
	shmi_list_remove(&h->t->img, &shmi_owner_at(&h->t->img, 1)->spans, h->scoped);
	shmi_list_push(&h->t->img, &shmi_owner_at(&h->t->img, 2)->spans, h->scoped);
}

BREACH(5, link_back)
{
	span(h, h->held)->prev = h->wide.i;
}

BREACH(5, ring)
{
	struct shmi_owner *owner = shmi_owner_at(&h->t->img, 1);
	uint32_t second = span(h, (shmi_page){owner->spans.head})->next;

	span(h, (shmi_page){second})->next = owner->spans.head;
}

BREACH(6, span_on_no_central_list)
{
	shmi_list_remove(&h->t->img,
	        &shmi_central_at(&h->t->img, shmi_span_word(&h->t->img, h->central_free).sclass)->free,
	        h->central_free);
}

BREACH(6, list_of_another_class)
{
	struct shmi_word word = shmi_span_word(&h->t->img, h->central_free);

	shmi_list_remove(&h->t->img, &shmi_central_at(&h->t->img, word.sclass)->free, h->central_free);
	word.sclass.c++;
	shmi_list_push(&h->t->img, &shmi_central_at(&h->t->img, word.sclass)->free, h->central_free);
}

BREACH(6, record_names_other_list)
{
	span(h, h->central_free)->list = SHMI_LIST_FULL;
}

BREACH(6, cursor)
{
	shmi_central_at(&h->t->img, shmi_span_word(&h->t->img, h->central_free).sclass)->cursor = h->central_free.i;
}

BREACH(7, listed_as_free)
{
	memset(shmi_bitmap_at(&h->t->img, h->central_free), 0, 64);
}

/* ---- free runs ---- */

BREACH(8, two_for_one)
{
	struct shmi_run run = {.first = h->long_free, .pages = {150}, .backed = true}, rest;
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(&h->t->img);

	run = test_image_run(h->t, 100); /* from h->long_free, the best fit */
	rest = shmi_pageheap_cut(&h->t->img, &run, (shmi_npages){30});
	for (uint32_t i = 0; i < 2; i++) { /* entered as the page heap does, but side by side */
		struct shmi_run one = i ? rest : run;

		shmi_list_push(&h->t->img, &heads->exact[0][one.pages.n], one.first);
		heads->nonempty[0][(one.pages.n - 1) / 64] |= 1ull << (one.pages.n - 1) % 64;
		shmi_store(shmi_page_span_at(&h->t->img, one.first), one.first.i);
		shmi_store(shmi_page_span_at(&h->t->img, (shmi_page){one.first.i + one.pages.n - 1}), one.first.i);
		shmi_span_set(&h->t->img, one.first, (struct shmi_word){.state = SHMI_SPAN_FREE, .owner = SHMI_NOBODY});
	}
}

BREACH(17, run_on_no_list)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(&h->t->img);

	shmi_list_remove(&h->t->img, &heads->exact[0][20], h->short_free);
	heads->nonempty[0][0] &= ~(1ull << 19);
}

BREACH(17, list_of_other_kind)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(&h->t->img);

	shmi_list_remove(&h->t->img, &heads->exact[1][10], h->short_returned);
	shmi_list_push(&h->t->img, &heads->exact[0][10], h->short_returned);
}

BREACH(17, bit)
{
	shmi_pageheap_at(&h->t->img)->nonempty[1][0] ^= 1ull << 9;
}

BREACH(18, tree_without_run)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(&h->t->img);

	heads->root[0] = 0;
	heads->tree_count[0] = 0;
}

BREACH(18, tree_count)
{
	shmi_pageheap_at(&h->t->img)->tree_count[1]++;
}

BREACH(18, tree_of_other_kind)
{
	struct shmi_pageheap_heads *heads = shmi_pageheap_at(&h->t->img);

	heads->root[1] = heads->root[0];
}

BREACH(18, parent_link)
{
	span(h, (shmi_page){shmi_pageheap_at(&h->t->img)->root[0]})->parent = h->held.i;
}

/* Three long runs in one tree, for the breaches below. */
static void three_in_tree(struct lived *h)
{
	struct shmi_run a = test_image_run(h->t, 300), b, c;

	test_image_run(h->t, 200); /* stay, MOVING, between them */
	b = test_image_run(h->t, 301);
	test_image_run(h->t, 200);
	c = test_image_run(h->t, 302);
	test_image_run(h->t, 200);
	shmi_pageheap_put(&h->t->img, a, 3);
	shmi_pageheap_put(&h->t->img, b, 3);
	shmi_pageheap_put(&h->t->img, c, 3);
	expect_nothing(h);
}

BREACH(18, tree_out_of_order)
{
	three_in_tree(h);
	struct shmi_span *root = span(h, (shmi_page){shmi_pageheap_at(&h->t->img)->root[0]});
	uint32_t left = root->next;

	root->next = root->prev;
	root->prev = left;
}

BREACH(18, tree_node_twice)
{
	three_in_tree(h);
	struct shmi_span *root = span(h, (shmi_page){shmi_pageheap_at(&h->t->img)->root[0]});

	if (root->next)
		root->prev = root->next;
	else
		root->next = root->prev;
}

BREACH(18, tree_child_is_root)
{
	three_in_tree(h);
	uint32_t page = shmi_pageheap_at(&h->t->img)->root[0], root = page;

	while (span(h, (shmi_page){page})->next)
		page = span(h, (shmi_page){page})->next;
	span(h, (shmi_page){page})->next = root;
}

/* ---- counts ---- */

BREACH(9, pages_by_state)
{
	struct shmi_page_counts *pages = &h->t->img.super->pages;

	shmi_bump(&pages->owned, -1ull);
	shmi_bump(&pages->central, 1);
}

BREACH(9, moving_pages)
{
	shmi_bump(&h->t->img.super->pages.moving, 1);
}

BREACH(23, spans_returned)
{
	shmi_store(&h->t->img.super->counters.spans_returned, 1);
}

BREACH(23, large_freed)
{
	shmi_store(&h->t->img.super->counters.large_freed, 1);
}

BREACH(23, peak)
{
	shmi_store(&h->t->img.super->counters.peak_backed_pages, 1);
}

BREACH(23, peak_beyond_limit)
{
	shmi_store(&h->t->img.super->counters.peak_backed_pages, LIVED_LIMIT + 1);
}

BREACH(23, written_off)
{
	shmi_store(&h->t->img.super->counters.slots_written_off, 0);
}

BREACH(23, quarantined)
{
	shmi_store(&h->t->img.super->counters.quarantined_pages, 0);
}

/* ---- clients, threads, roots ---- */

static bool only_first_lives(void *ctx, uint32_t client)
{
	(void)ctx;
	return client == 1;
}

TEST_ON_IMAGES(check, i19_client_is_gone, LIVED_LIMIT)
{
	const struct shmi_check_env env = {.client_lives = only_first_lives};
	struct lived h;

	lived_init(&h, t);
	expect_env(&h, 19, &env);
	cr_assert_eq(found[0].detail, 2);
}

BREACH(19, in_use_flag)
{
	shmi_owner_at(&h->t->img, 9)->in_use = 2;
}

BREACH(20, thread_of_no_client)
{
	*shmi_thread_slot_at(&h->t->img, 5) = (struct shmi_thread_slot){.client = 9, .head = 1};
	shmi_threadrec_at(&h->t->img, 5)->client = 9;
}

BREACH(20, parts_without_head)
{
	shmi_thread_slot_at(&h->t->img, 5)->parts = 1;
}

BREACH(20, thread_without_head)
{
	shmi_thread_slot_at(&h->t->img, 5)->client = 1;
}

/* A root does not keep its block alive, so one that names no block any more is nothing that the heap could help. */
TEST_ON_IMAGES(check, root_of_a_block_that_is_gone, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	shmi_roots_set(&t->img, "gone", shmi_page_off(h.long_free), 1);
	expect_nothing(&h);
}

BREACH(22, outside_the_heap)
{
	shmi_roots_set(&h->t->img, "wild", (shmi_off){1ull << 60}, 1);
}

BREACH(22, in_page_zero)
{
	shmi_roots_set(&h->t->img, "wild", (shmi_off){8191}, 1);
}

BREACH(22, without_a_name)
{
	shmi_store(&shmi_root_at(&h->t->img, 5)->off, shmi_page_off(h->large).b);
}

BREACH(22, same_name)
{
	*shmi_root_at(&h->t->img, 5) = *shmi_root_at(&h->t->img, 1);
}

/* ---- ctl ---- */

BREACH(15, bit_beyond_last_slot)
{
	shmi_slots_put(shmi_bitmap_at(&h->t->img, h->wide), 0, 1ull << h->wide_slots);
}

BREACH(14, magazine)
{
	shmi_store(&lived_magazine(h, 0, 8192, 0)->top, 17);
	for (uint32_t i = 0; i < 16; i++) { /* valid otherwise */
		shmi_page page = test_image_span(h->t, 8192, 0, 1);

		shmi_slots_take(shmi_bitmap_at(&h->t->img, page), 0, 1);
		shmi_store(&lived_magazine(h, 0, 8192, 0)->entry[i], shmi_page_off(page).b);
	}
}

BREACH(14, spill)
{
	uint32_t pages = SHMI_SPILL_MAX;

	shmi_store(&h->rec[1]->spill_top, 0);
	shmi_store(&h->rec[1]->spill_top, pages + 1);
	for (uint32_t i = 1; i < pages; i++) { /* void ones */
		h->rec[1]->spill[i] = h->rec[1]->spill[0];
		h->rec[1]->spill[i].span = h->long_free.i;
	}
}

BREACH(14, big)
{
	shmi_store(&h->rec[2]->big.top, SHMI_BIG_MAX + 1);
	for (uint32_t i = 1; i < SHMI_BIG_MAX; i++)
		shmi_store(&h->rec[2]->big.entry[i], h->long_free.i);
}

BREACH(13, unknown_intent)
{
	shmi_store(&h->rec[0]->intent.op, SHMI_INTENT_RECLAIM + 1);
}

static void intend(struct lived *h, struct shmi_group g)
{
	h->rec[0]->intent.group = g;
	shmi_store(&h->rec[0]->intent.op, SHMI_INTENT_TAKE);
}

BREACH(13, span_outside)
{
	struct shmi_group g = lived_group(h, h->held, 0, 1);

	g.span = LIVED_LIMIT;
	intend(h, g);
}

BREACH(13, word_outside)
{
	intend(h, lived_group(h, h->held, 2, 1));
}

BREACH(13, no_bits)
{
	intend(h, lived_group(h, h->held, 0, 0));
}

BREACH(13, other_class)
{
	struct shmi_group g = lived_group(h, h->held, 0, 1);

	g.sclass++;
	intend(h, g);
}

BREACH(13, take_from_another)
{
	intend(h, lived_group(h, h->wide, 0, 16));
}

BREACH(13, spill_group)
{
	h->rec[1]->spill[0].span = 0;
}

BREACH(13, record_of_another)
{
	h->rec[1]->client = 1;
}

BREACH(10, no_block_there)
{
	lived_push(lived_magazine(h, 0, 64, 0), shmi_page_off(h->long_free).b);
}

BREACH(10, inside_a_slot)
{
	lived_push(lived_magazine(h, 0, 64, 0), slot_off(h->held, 64, 3) + 16);
}

BREACH(10, outside_the_heap)
{
	lived_push(lived_magazine(h, 0, 64, 0), UINT64_MAX);
}

BREACH(10, behind_the_last_slot)
{
	lived_push(lived_magazine(h, 1, 2816, 0), slot_off(h->wide, 2816, h->wide_slots));
}

BREACH(10, large_block)
{
	lived_push(lived_magazine(h, 0, 64, 0), shmi_page_off(h->large).b);
}

BREACH(10, other_class)
{
	lived_push(lived_magazine(h, 0, 80, 0), slot_off(h->held, 64, 60));
}

BREACH(24, scoped_block_of_another)
{
	shmi_page page = test_image_span(h->t, 256, SHMI_SCOPED, 2);

	shmi_slots_take(shmi_bitmap_at(&h->t->img, page), 0, 1);
	lived_push(lived_magazine(h, 0, 256, SHMI_SCOPED), shmi_page_off(page).b);
}

static shmi_page seized(struct lived *h, uint32_t attrs)
{
	struct shmi_seizing note = {0};
	shmi_page page = test_image_span(h->t, 512, attrs, 1);

	cr_assert(shmi_seize(&h->t->img, page, &note));
	expect_nothing(h);
	return page;
}

BREACH(25, freed_into_a_seized_span)
{
	shmi_slots_put(shmi_bitmap_at(&h->t->img, seized(h, 0)), 0, 4);
}

BREACH(25, cached_of_a_seized_span)
{
	lived_push(lived_magazine(h, 0, 512, SHMI_SCOPED), slot_off(seized(h, SHMI_SCOPED), 512, 2));
}

BREACH(2, seized_from_nobody)
{
	shmi_page page = seized(h, 0);
	struct shmi_word word = shmi_span_word(&h->t->img, page);

	shmi_list_remove(&h->t->img, &shmi_owner_at(&h->t->img, 1)->spans, page);
	shmi_owner_at(&h->t->img, 1)->seized_pages = 0;
	word.owner = SHMI_NOBODY;
	set_word(h, page, word);
}

BREACH(5, seized_pages_are_counted_wrong)
{
	seized(h, 0);
	shmi_owner_at(&h->t->img, 1)->seized_pages++;
}

BREACH(9, seized_pages_are_counted_as_owned)
{
	uint32_t pages = shmi_span_at(&h->t->img, seized(h, 0))->pages;

	shmi_bump(&h->t->img.super->pages.seized, -(uint64_t)pages);
	shmi_bump(&h->t->img.super->pages.owned, pages);
}

BREACH(12, cached_and_free)
{
	lived_push(lived_magazine(h, 0, 64, 0), slot_off(h->held, 64, 100));
}

BREACH(12, spilled_and_free)
{
	shmi_slots_put(shmi_bitmap_at(&h->t->img, h->held), 0, h->rec[1]->spill[0].bits);
}

BREACH(11, twice_in_one_magazine)
{
	struct shmi_magazine *mag = lived_magazine(h, 0, 64, 0);

	lived_push(mag, shmi_load(&mag->entry[3]));
}

BREACH(11, in_two_magazines)
{
	lived_push(lived_magazine(h, 1, 64, 0), shmi_load(&lived_magazine(h, 0, 64, 0)->entry[3]));
}

BREACH(11, in_another_spill)
{
	uint32_t bit = (uint32_t)__builtin_ctzll(h->rec[1]->spill[0].bits);

	lived_push(lived_magazine(h, 0, 64, 0), slot_off(h->held, 64, bit));
}

BREACH(11, twice_in_a_spill)
{
	h->rec[1]->spill[1] = h->rec[1]->spill[0];
	shmi_store(&h->rec[1]->spill_top, 2);
}

BREACH(21, page_outside)
{
	shmi_store(&h->rec[2]->big.entry[0], 0);
}

static uint64_t big_entry(const struct lived *h, shmi_page page)
{
	return page.i | (uint64_t)shmi_span_word(&h->t->img, page).generation << 32;
}

BREACH(21, span_of_blocks)
{
	shmi_store(&h->rec[2]->big.entry[0], big_entry(h, h->held));
}

BREACH(21, in_two_caches)
{
	shmi_store(&h->rec[0]->big.entry[0], big_entry(h, h->cached_large));
	shmi_store(&h->rec[0]->big.top, 1);
}

TEST_ON_IMAGES(check, void_entry_of_big_cache, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	shmi_store(&h.rec[2]->big.entry[0], big_entry(&h, h.cached_large) + (1ull << 32));
	shmi_store(&h.rec[2]->big.entry[1], h.long_free.i + 3);
	shmi_store(&h.rec[2]->big.entry[2], big_entry(&h, h.cached_large)); /* closing up: twice */
	shmi_store(&h.rec[2]->big.entry[3], big_entry(&h, h.cached_large));
	shmi_store(&h.rec[2]->big.top, 4);
	expect_nothing(&h);
}

/* ---- hostile ctl ---- */

/* A record full of rubbish gives findings, but neither a crash nor more of them than are kept. */
TEST_ON_IMAGES(check, rubbish, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	memset(h.rec[0], 0xff, t->img.geo.record_bytes);
	cr_assert_gt(check(t, NULL, 3), 100);
	memset(h.rec[0], 0x01, t->img.geo.record_bytes);
	cr_assert_gt(check(t, NULL, 3), 100);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) /* one slot in all of them, as often as it goes */
		if (shmi_sclass_is_small((shmi_sclass){(uint16_t)s})) {
			struct shmi_magazine *mag = shmi_magazine_at(&t->img, h.rec[0], (shmi_sclass){(uint16_t)s});

			for (uint32_t i = 0; i < t->img.classes[s / SHMI_ATTRS].mag_cap; i++)
				shmi_store(&mag->entry[i], slot_off(h.held, 64, 1));
			shmi_store(&mag->top, UINT32_MAX);
		}
	cr_assert_gt(check(t, NULL, 3), 100);
}

/* ---- no memory ---- */

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void expect_no_memory(const struct lived *h, rlim_t bytes)
{
	struct rlimit old, none;

	getrlimit(RLIMIT_AS, &old);
	none = (struct rlimit){bytes, old.rlim_max};
	setrlimit(RLIMIT_AS, &none);
	uint32_t n = shmi_check(&h->t->view, NULL, 1, found, ROOM);

	setrlimit(RLIMIT_AS, &old);
	cr_assert_eq(n, 1);
	cr_assert_eq(found[0].invariant, 0);
}

/* It says that the check could not be made, not that the heap is sound. */
TEST_ON_IMAGES(check, no_memory, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	expect_no_memory(&h, 1);
	expect_nothing(&h);
}
#endif

/* ---- the sentences ---- */

Test(check, readme_has_the_sentences)
{
	static char readme[128 * 1024];
	FILE *file = fopen("shm/README.md", "r");
	char line[512];

	cr_assert_not_null(file);
	readme[fread(readme, 1, sizeof(readme) - 1, file)] = 0;
	fclose(file);
	for (uint32_t i = 1; i <= 25; i++) {
		cr_assert_not_null(shmi_check_sentence(i), "I%u", i);
		snprintf(line, sizeof(line), "- **I%u** %s\n", i, shmi_check_sentence(i));
		cr_assert_not_null(strstr(readme, line), "README.md lacks: %s", line);
	}
	cr_assert_not_null(shmi_check_sentence(0));
	cr_assert_null(shmi_check_sentence(26));
}
