#include "shm/span.h"

#include "shm/pagemap.h"
#include "shm/slots.h"
#include "tests/lib/image.h"
#include "tests/lib/pagemodel.h"

#include <criterion/criterion.h>

TestSuite(span, .timeout = 60);

#define CLASS_48 3u

static void expect_counts(const struct test_image *t, uint64_t owned, uint64_t central, uint64_t lazy, uint64_t moving)
{
	const struct shmi_page_counts *pages = &t->view.super->pages;

	cr_assert_eq(shmi_load(&pages->owned), owned, "owned %lu", shmi_load(&pages->owned));
	cr_assert_eq(shmi_load(&pages->central), central, "central %lu", shmi_load(&pages->central));
	cr_assert_eq(shmi_load(&pages->lazy), lazy, "lazy %lu", shmi_load(&pages->lazy));
	cr_assert_eq(shmi_load(&pages->moving), moving, "moving %lu", shmi_load(&pages->moving));
	cr_assert_eq(owned + central + lazy + moving + shmi_load(&pages->free) + shmi_load(&pages->returned) +
	                     shmi_load(&pages->unpublished),
	        t->limit);
}

static void expect_owner(const struct test_image *t, uint32_t client, uint32_t count, uint32_t pages)
{
	const struct shmi_owner *owner = shmi_owner_at(&t->view, client);

	cr_assert_eq(owner->spans.count, count, "client %u has %u spans", client, owner->spans.count);
	cr_assert_eq(owner->pages, pages, "client %u has %u pages", client, owner->pages);
	cr_assert_eq(owner->spans.head != 0, count != 0);
}

Test(span, word_packs_every_field)
{
	struct shmi_word w = {.state = 5, .sclass = {0xabc}, .owner = 0x1234, .generation = 0xdeadbeef};
	struct shmi_word back = shmi_word_unpack(shmi_word_pack(w));

	cr_assert_eq(shmi_word_pack(w), 0xdeadbeef1234abc5ull);
	cr_assert(back.state == 5 && back.sclass.c == 0xabc && back.owner == 0x1234 && back.generation == 0xdeadbeef);
	cr_assert_eq(shmi_word_pack((struct shmi_word){0}), 0, "zeroed memory is no run");
	for (uint32_t state = 0; state < 16; state++)
		cr_assert_eq(shmi_state_in_use(state), state >= 4 && state <= 8);
}

TEST_ON_IMAGES(span, blocks_open_and_close, 4096)
{
	uint32_t class = shmi_class_of(8192);
	const struct shmi_class *c = &t->img.classes[class];
	shmi_sclass sclass = shmi_sclass_make(class, SHMI_SCOPED);
	struct shmi_run run = test_image_run(t, c->pages);

	cr_assert_gt(c->pages, 1);
	expect_counts(t, 0, 0, 0, c->pages);
	uint32_t generation = shmi_span_open(&t->img, run, sclass, 7);
	struct shmi_word word = shmi_span_word(&t->view, run.first);
	const struct shmi_span *span = shmi_span_at(&t->view, run.first);

	cr_assert(word.state == SHMI_SPAN_OWNED && word.sclass.c == sclass.c && word.owner == 7);
	cr_assert(word.generation == generation && generation != 0);
	cr_assert(span->pages == c->pages && span->slots == c->slots && !span->flags && !span->bytes && !span->list);
	for (uint32_t i = 0; i < c->pages; i++) {
		cr_assert_eq(shmi_load(shmi_page_class_at(&t->view, (shmi_page){run.first.i + i})), sclass.c);
		cr_assert_eq(shmi_pagemap_get(&t->view, (shmi_page){run.first.i + i}).i, run.first.i);
	}
	cr_assert_eq(shmi_slots_count(shmi_bitmap_at(&t->view, run.first), c), c->slots);
	cr_assert_eq(shmi_load(shmi_holder_at(&t->view, run.first)), SHMI_NO_THREAD);
	expect_counts(t, c->pages, 0, 0, 0);
	expect_owner(t, 7, 1, c->pages);

	struct shmi_run closed = shmi_span_close(&t->img, run.first);

	cr_assert(closed.first.i == run.first.i && closed.pages.n == c->pages && closed.backed);
	expect_counts(t, 0, 0, 0, c->pages);
	expect_owner(t, 7, 0, 0);
	for (uint32_t i = 0; i < c->pages; i++) {
		cr_assert_eq(shmi_load(shmi_page_class_at(&t->view, (shmi_page){run.first.i + i})), 0);
		cr_assert_eq(shmi_pagemap_get(&t->view, (shmi_page){run.first.i + i}).i, 0);
	}
	cr_assert_eq(shmi_word_pack(shmi_span_word(&t->view, run.first)), 0xffff0003, "MOVING, of nobody");
}

/* What an earlier span left in the record is not there in the next. */
TEST_ON_IMAGES(span, record_is_made_anew, 4096)
{
	shmi_page page = test_image_span(t, 48, 0, 1);
	struct shmi_span *span = shmi_span_at(&t->img, page);

	span->written_off = 3;
	span->written_off_bits = 7;
	span->written_off_word = 2;
	span->parent = 9;
	span->stamp = 9;
	shmi_slots_take(shmi_bitmap_at(&t->img, page), 0, ~0ull);
	struct shmi_run run = shmi_span_close(&t->img, page);
	uint32_t first = shmi_span_open(&t->img, run, shmi_sclass_make(CLASS_48, 0), 1);

	cr_assert(!span->written_off && !span->written_off_bits && !span->written_off_word && !span->parent);
	cr_assert_eq(span->stamp, 0);
	cr_assert_eq(shmi_slots_count(shmi_bitmap_at(&t->view, page), &t->img.classes[CLASS_48]),
	        t->img.classes[CLASS_48].slots);
	run = shmi_span_close(&t->img, page);
	cr_assert_neq(
	        shmi_span_open(&t->img, run, shmi_sclass_make(CLASS_48, 0), 1), first, "a generation is one life");
}

TEST_ON_IMAGES(span, generation_is_never_zero, 4096)
{
	struct shmi_run run = test_image_run(t, t->img.classes[CLASS_48].pages);

	shmi_store(&t->img.super->generations, UINT32_MAX);
	cr_assert_eq(shmi_span_open(&t->img, run, shmi_sclass_make(CLASS_48, 0), 1), 1);
}

TEST_ON_IMAGES(span, large_open_and_close, 4096)
{
	struct shmi_run run = test_image_run(t, 40);
	shmi_page last = {run.first.i + 39};
	uint32_t sclass = shmi_sclass_make(SHMI_CLASS_LARGE, SHMI_NOSCAN).c;

	shmi_span_open_large(&t->img, run, SHMI_NOSCAN, 2, 320000, true);
	cr_assert_eq(shmi_span_at(&t->view, run.first)->flags, 0, "a backed run is not lazy");
	cr_assert_eq(shmi_span_at(&t->view, run.first)->bytes, 320000);
	cr_assert_eq(shmi_span_at(&t->view, run.first)->slots, 1);
	cr_assert_eq(shmi_span_word(&t->view, run.first).state, SHMI_SPAN_LARGE);
	cr_assert_eq(shmi_load(shmi_page_class_at(&t->view, run.first)), sclass);
	for (uint32_t i = 1; i < 40; i++)
		cr_assert_eq(shmi_load(shmi_page_class_at(&t->view, (shmi_page){run.first.i + i})), 0);
	cr_assert_eq(shmi_pagemap_get(&t->view, run.first).i, run.first.i);
	cr_assert_eq(shmi_pagemap_get(&t->view, (shmi_page){run.first.i + 1}).i, 0);
	cr_assert_eq(shmi_pagemap_get(&t->view, last).i, run.first.i);
	expect_counts(t, 40, 0, 0, 0);
	expect_owner(t, 2, 1, 40);

	shmi_span_set_owner(&t->img, run.first, SHMI_NOBODY);
	cr_assert_eq(shmi_span_word(&t->view, run.first).state, SHMI_SPAN_LARGE, "LARGE stays LARGE");
	expect_counts(t, 0, 40, 0, 0);
	expect_owner(t, 2, 0, 0);

	cr_assert(shmi_span_close(&t->img, run.first).backed);
	cr_assert_eq(shmi_load(shmi_page_class_at(&t->view, run.first)), 0);
	cr_assert_eq(shmi_pagemap_get(&t->view, last).i, 0);
	expect_counts(t, 0, 0, 0, 40);
}

TEST_ON_IMAGES(span, lazy_is_counted_apart, 4096)
{
	struct shmi_run run;

	cr_assert_eq(shmi_pageheap_alloc(&t->img, &t->floor, (shmi_npages){50}, (shmi_npages){1}, true, 0, &run), 0);
	cr_assert_not(run.backed);
	shmi_span_open_large(&t->img, run, 0, 2, 1, true);
	cr_assert_eq(shmi_span_at(&t->view, run.first)->flags, SHMI_SPAN_LAZY);
	expect_counts(t, 0, 0, 50, 0);
	expect_owner(t, 2, 1, 50);
	shmi_span_set_owner(&t->img, run.first, SHMI_NOBODY);
	expect_counts(t, 0, 0, 50, 0);
	cr_assert_eq(shmi_load(&t->view.super->counters.peak_backed_pages), 0);
	run = shmi_span_close(&t->img, run.first);
	cr_assert_not(run.backed);
	cr_assert_eq(shmi_span_at(&t->view, run.first)->flags, 0);
	expect_counts(t, 0, 0, 0, 50);
}

TEST_ON_IMAGES(span, changes_hands, 4096)
{
	uint32_t pages = t->img.classes[CLASS_48].pages;
	shmi_page a = test_image_span(t, 48, 0, 1), b = test_image_span(t, 48, 0, 1), c = test_image_span(t, 48, 0, 2);
	uint64_t generation = shmi_span_word(&t->view, a).generation;

	expect_owner(t, 1, 2, 2 * pages);
	shmi_span_set_owner(&t->img, a, 2);
	expect_owner(t, 1, 1, pages);
	expect_owner(t, 2, 2, 2 * pages);
	cr_assert(shmi_span_word(&t->view, a).owner == 2 && shmi_span_word(&t->view, a).generation == generation);
	shmi_span_set_owner(&t->img, a, SHMI_NOBODY);
	cr_assert_eq(shmi_span_word(&t->view, a).state, SHMI_SPAN_CENTRAL);
	expect_counts(t, 2 * pages, pages, 0, 0);
	shmi_span_set_owner(&t->img, a, 1);
	cr_assert_eq(shmi_span_word(&t->view, a).state, SHMI_SPAN_OWNED);
	expect_counts(t, 3 * pages, 0, 0, 0);
	cr_assert_eq(shmi_owner_at(&t->view, 1)->spans.head, a.i);
	cr_assert_eq(shmi_span_at(&t->view, a)->next, b.i);
	cr_assert_eq(shmi_span_at(&t->view, b)->prev, a.i);

	shmi_span_quarantine(&t->img, c);
	cr_assert_eq(shmi_span_word(&t->view, c).state, SHMI_SPAN_QUARANTINE);
	cr_assert_eq(shmi_span_word(&t->view, c).owner, SHMI_NOBODY);
	cr_assert_eq(shmi_load(&t->view.super->counters.quarantined_pages), pages);
	cr_assert_eq(shmi_pagemap_get(&t->view, c).i, c.i, "its blocks stay where they are");
	expect_counts(t, 2 * pages, pages, 0, 0);
	expect_owner(t, 2, 0, 0);
}

/* The peak is of owned, central and free pages together, and stays. */
TEST_ON_IMAGES(span, peak_is_kept, 4096)
{
	struct shmi_run run = test_image_run(t, 100);

	cr_assert_eq(shmi_load(&t->view.super->counters.peak_backed_pages), 0, "pages on their way do not count");
	shmi_span_open_large(&t->img, run, 0, 2, 1, false);
	cr_assert_eq(shmi_load(&t->view.super->counters.peak_backed_pages), 100);
	shmi_pageheap_put(&t->img, shmi_span_close(&t->img, run.first), 0);
	test_image_span(t, 48, 0, SHMI_NOBODY);
	cr_assert_eq(shmi_load(&t->view.super->counters.peak_backed_pages), 100);
}

TEST_ON_IMAGES(span, list_takes_out_anywhere, 4096)
{
	struct shmi_list list = {0};

	for (uint32_t i = 1; i <= 5; i++)
		shmi_list_push(&t->img, &list, (shmi_page){i});
	static const uint32_t order[] = {3, 5, 1, 2, 4}; /* middle, head, tail, tail, only */
	static const uint32_t heads[] = {5, 4, 4, 4, 0};

	for (uint32_t i = 0; i < 5; i++) {
		uint32_t seen = 0, before = 0;

		shmi_list_remove(&t->img, &list, (shmi_page){order[i]});
		cr_assert_eq(list.head, heads[i]);
		cr_assert_eq(list.count, 4 - i);
		for (uint32_t at = list.head; at; at = shmi_span_at(&t->view, (shmi_page){at})->next) {
			cr_assert_eq(shmi_span_at(&t->view, (shmi_page){at})->prev, before);
			before = at;
			seen++;
		}
		cr_assert_eq(seen, list.count);
	}
}
