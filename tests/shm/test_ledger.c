/* The ledger of a heap says what a walk over all of it says, and adds up whatever happens between two looks. */
#include "shm/ledger.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "shm/central.h"
#include "shm/stats.h"
#include "shm/walk.h"
#include "tests/lib/lived.h"
#include "tests/lib/random.h"

TestSuite(ledger, .timeout = 60);

static struct shmi_ledger *open_on(struct shmi_image *img)
{
	struct shmi_ledger *ledger = calloc(1, sizeof(*ledger));
	struct shmi_counted *counted = calloc(img->geo.limit_pages, sizeof(*counted));

	cr_assert(ledger && counted);
	shmi_ledger_open(ledger, img, counted);
	return ledger;
}

static void drop(struct shmi_image *img, struct shmi_ledger *ledger)
{
	img->ledger = NULL;
	free(ledger->counted);
	free(ledger);
}

static void see_record(const struct shmi_image *img, uint32_t thread)
{
	const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, thread);
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);

	if (slot->client == SHMI_NOBODY)
		return;
	for (uint32_t i = 0; i < shmi_load(&rec->spill_top); i++)
		shmi_ledger_see_group(img, &rec->spill[i]);
	for (uint32_t i = 0; i < shmi_load(&rec->big.top); i++)
		shmi_ledger_see_large(img, shmi_load(&rec->big.entry[i]));
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		shmi_sclass sclass = {(uint16_t)s};

		if (!shmi_sclass_is_small(sclass) || !(slot->parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		struct shmi_magazine *mag = shmi_magazine_at(img, rec, sclass);

		for (uint32_t i = 0; i < shmi_load(&mag->top); i++)
			shmi_ledger_see(img, sclass, shmi_load(&mag->entry[i]));
	}
}

static void see_all(const struct shmi_image *img)
{
	for (uint32_t thread = 0; thread < TEST_IMAGE_THREADS; thread++)
		see_record(img, thread);
}

static void count_all(const struct shmi_image *img)
{
	struct shmi_walk walk = shmi_walk_start(img);

	while (shmi_walk_next(img, &walk))
		shmi_ledger_count(img, walk.page);
}

static void must_add_up(const struct shmi_image *img)
{
	const struct shmi_ledger *ledger = img->ledger;
	const struct shmi_page_counts *pages = &img->super->pages;
	struct shmi_holding sum = shmi_ledger_sum(ledger);
	struct shmi_stock all = {0};
	uint64_t in_spans = shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->lazy);

	cr_assert_eq(sum.bytes, in_spans * SHMI_PAGE_SIZE);
	cr_assert_eq(sum.bytes, sum.live + sum.cached + sum.slots_free + sum.tail + sum.written_off + sum.quarantined);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		const struct shmi_stock *stock = &ledger->stock[s];

		all.spans_owned += stock->spans_owned;
		all.spans_central += stock->spans_central;
		all.bytes += stock->bytes;
		all.live += stock->live;
	}
	cr_assert_eq(all.bytes + sum.quarantined, sum.bytes);
	cr_assert_eq(all.spans_owned + all.spans_central, sum.spans);
	cr_assert_eq(all.spans_central, ledger->nobody.spans);
	cr_assert_eq(all.live, sum.live_blocks);
	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++) {
		const struct shmi_holding *h = &ledger->owner[c];

		cr_assert_eq(h->bytes, (uint64_t)shmi_owner_at(img, c)->pages * SHMI_PAGE_SIZE);
		cr_assert_eq(h->bytes, h->live + h->cached + h->slots_free + h->tail + h->written_off);
	}
}

/* At rest, a round brings what a walk finds. */
static void must_be_as_walked(const struct shmi_image *img)
{
	static struct shmi_class_stats rows[SHMI_SPAN_CLASSES];
	struct shmi_holding sum;
	struct shmi_heap_stats st;

	see_all(img);
	count_all(img);
	must_add_up(img);
	sum = shmi_ledger_sum(img->ledger);
	shmi_stats_heap(img, &st);
	shmi_stats_classes(img, rows);
	cr_assert_eq(sum.live, st.live);
	cr_assert_eq(sum.live_blocks, st.live_blocks);
	cr_assert_eq(sum.cached, st.cached);
	cr_assert_eq(sum.slots_free, st.slots_free);
	cr_assert_eq(sum.tail, st.tail);
	cr_assert_eq(sum.written_off, st.written_off);
	cr_assert_eq(sum.quarantined, st.quarantined);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		cr_assert_eq(img->ledger->stock[s].live, rows[s].live);
		cr_assert_eq(img->ledger->stock[s].cached, rows[s].cached);
		cr_assert_eq(img->ledger->stock[s].slots_free, rows[s].slots_free);
		cr_assert_eq(img->ledger->stock[s].spans_owned, rows[s].spans_owned);
		cr_assert_eq(img->ledger->stock[s].spans_central, rows[s].spans_central);
	}
}

TEST_ON_IMAGES(ledger, of_a_heap_that_was_there, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	struct shmi_ledger *ledger = open_on(&t->img);

	must_add_up(&t->img);
	must_be_as_walked(&t->img);
	must_be_as_walked(&t->img); /* a round leaves nothing behind for the next */
	drop(&t->img, ledger);
}

TEST_ON_IMAGES(ledger, as_things_happen, LIVED_LIMIT)
{
	struct lived h;

	test_image_publish(t, 1);
	struct shmi_ledger *ledger = open_on(&t->img);

	(void)h;
	shmi_page a = test_image_span(t, 64, 0, 1), b = test_image_span(t, 2816, SHMI_SCOPED, 2);
	struct shmi_run run = test_image_run(t, 40);

	shmi_span_open_large(&t->img, run, 0, 1, 40 * SHMI_PAGE_SIZE - 5, false);
	must_add_up(&t->img);
	cr_assert_eq(ledger->owner[1].spans, 2);
	cr_assert_eq(ledger->owner[1].live, 40 * SHMI_PAGE_SIZE);
	cr_assert_eq(ledger->owner[1].slots_free, SHMI_PAGE_SIZE);
	shmi_slots_take(shmi_bitmap_at(&t->img, a), 0, 7);
	cr_assert_eq(ledger->owner[1].live, 40 * SHMI_PAGE_SIZE, "nobody has looked yet");
	shmi_ledger_count(&t->img, a);
	cr_assert_eq(ledger->owner[1].live, 40 * SHMI_PAGE_SIZE + 3 * 64);
	shmi_central_accept(&t->img, a, 1);
	must_add_up(&t->img);
	cr_assert_eq(ledger->owner[1].spans, 1);
	cr_assert_eq(ledger->nobody.live, 3 * 64);
	shmi_central_give(&t->img, a, 2);
	must_add_up(&t->img);
	cr_assert_eq(ledger->owner[2].live, 3 * 64, "what was counted goes with the span");
	shmi_span_set_owner(&t->img, run.first, SHMI_NOBODY);
	cr_assert_eq(ledger->nobody.live, 40 * SHMI_PAGE_SIZE);
	shmi_span_close(&t->img, run.first);
	shmi_span_close(&t->img, a);
	must_add_up(&t->img);
	cr_assert_eq(shmi_ledger_sum(ledger).live, 0);
	shmi_span_quarantine(&t->img, b);
	must_add_up(&t->img);
	cr_assert_eq(ledger->nobody.quarantined, shmi_span_at(&t->img, b)->pages * SHMI_PAGE_SIZE);
	cr_assert_eq(ledger->owner[2].bytes, 0);
	drop(&t->img, ledger);
}

/* A cached block counts for the owner of its span, and no more is cached than there is. */
TEST_ON_IMAGES(ledger, what_lies_in_caches, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	struct shmi_ledger *ledger = open_on(&t->img);

	see_all(&t->img);
	count_all(&t->img);
	cr_assert_eq(ledger->owner[1].cached, 57 * 64 + 30 * 256 + 40 * SHMI_PAGE_SIZE,
	        "3 of the blocks are in a cache of client 2");
	cr_assert_eq(ledger->owner[2].cached, 2 * 2816);
	for (uint32_t i = 0; i < 1000; i++) /* a hostile cache */
		shmi_ledger_see(&t->img, shmi_span_word(&t->img, h.held).sclass, shmi_page_off(h.held).b);
	count_all(&t->img);
	must_add_up(&t->img);
	cr_assert_eq(ledger->owner[1].cached, 64 * 64, "as many as are not free");
	drop(&t->img, ledger);
}

/* A span that closes while a round is on takes with it what was seen of it. */
TEST_ON_IMAGES(ledger, a_span_that_closes_in_the_middle_of_a_round, LIVED_LIMIT)
{
	struct lived h;

	lived_init(&h, t);
	struct shmi_ledger *ledger = open_on(&t->img);
	uint32_t pages = shmi_span_at(&t->img, h.wide)->pages;
	shmi_sclass sclass = shmi_span_word(&t->img, h.wide).sclass;

	see_all(&t->img);
	struct shmi_run run = shmi_span_close(&t->img, h.wide);

	must_add_up(&t->img);
	shmi_span_open(&t->img, run, sclass, 1);
	count_all(&t->img);
	must_add_up(&t->img);
	cr_assert_eq(ledger->counted[h.wide.i].cached, 0);
	cr_assert_eq(ledger->owner[1].tail, pages * SHMI_PAGE_SIZE - h.wide_slots * 2816);
	drop(&t->img, ledger);
}

/* What makes no sense in a cache is passed over. */
TEST_ON_IMAGES(ledger, nonsense, LIVED_LIMIT)
{
	static const uint64_t offs[] = {0, 1, 8191, 8192, 1ull << 40, UINT64_MAX, ((uint64_t)LIVED_LIMIT << 13) - 1};
	struct lived h;

	lived_init(&h, t);
	struct shmi_ledger *ledger = open_on(&t->img);
	struct shmi_holding before = shmi_ledger_sum(ledger);
	struct test_random r = test_random_init("nonsense");

	for (size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++)
		shmi_ledger_see(&t->img, (shmi_sclass){16}, offs[i]);
	for (int i = 0; i < 20000; i++) {
		struct shmi_group group = {.bits = test_random_next(&r),
		        .span = test_random_below(&r, 2 * LIVED_LIMIT),
		        .word = test_random_below(&r, 80),
		        .sclass = test_random_below(&r, 2 * SHMI_SPAN_CLASSES)};

		if (group.span == h.held.i || group.span == h.scoped.i || group.span == h.wide.i)
			continue;
		shmi_ledger_see_group(&t->img, &group);
		shmi_ledger_see_large(&t->img, test_random_next(&r) % (4 * (uint64_t)LIVED_LIMIT));
	}
	count_all(&t->img);
	must_add_up(&t->img);
	cr_assert_eq(shmi_ledger_sum(ledger).bytes, before.bytes);
	drop(&t->img, ledger);
}
