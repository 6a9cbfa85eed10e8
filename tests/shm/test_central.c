#include "shm/central.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "shm/slots.h"
#include "tests/lib/image.h"
#include "tests/lib/random.h"
#include "tests/lib/stores.h"

TestSuite(central, .timeout = 30);

#define PAGES 9000u

static shmi_sclass class64(void)
{
	return shmi_sclass_make(shmi_class_of(64), 0);
}

static void take_all(struct test_image *t, shmi_page page)
{
	for (uint32_t w = 0; w < 8; w++)
		shmi_store(&shmi_bitmap_at(&t->img, page)[w], 0);
}

TEST_ON_IMAGES(central, a_partly_free_span_is_granted_again, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1);

	shmi_slots_take(shmi_bitmap_at(&t->img, page), 0, 1);
	cr_assert_not(shmi_central_accept(&t->img, page, 0));
	cr_assert_eq(shmi_span_word(&t->view, page).state, SHMI_SPAN_CENTRAL);
	cr_assert_eq(shmi_central_at(&t->view, class64())->free.count, 1);
	cr_assert_eq(shmi_load(&t->view.super->pages.central), 1);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, page.i);
	cr_assert_eq(shmi_span_word(&t->view, page).owner, 2);
	cr_assert_eq(shmi_central_at(&t->view, class64())->free.count, 0);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
}

/* ---- overwritten bitmaps ---- */

static void smear(struct test_image *t, shmi_page page)
{
	shmi_fetch_or(&shmi_bitmap_at(&t->img, page)[2], 1ull << 40); /* 128 slots: words 0 and 1 */
}

static void must_be_aside(struct test_image *t, shmi_page page, uint32_t pages)
{
	cr_assert_eq(shmi_span_word(&t->view, page).state, SHMI_SPAN_QUARANTINE);
	cr_assert_eq(shmi_span_word(&t->view, page).owner, SHMI_NOBODY);
	cr_assert_eq(shmi_load(&t->view.super->counters.quarantined_pages), pages);
	cr_assert_eq(shmi_load(&t->view.super->pages.central), pages);
}

/* An overwritten span is found wherever it is looked at, whatever else its bitmap says, and never comes back. */
TEST_ON_IMAGES(central, an_overwritten_span_that_comes_in, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1), empty = test_image_span(t, 64, 0, 1);

	shmi_slots_take(shmi_bitmap_at(&t->img, page), 0, 1);
	smear(t, page);
	smear(t, empty);
	cr_assert_not(shmi_central_accept(&t->img, page, 0));
	cr_assert_not(shmi_central_accept(&t->img, empty, 0));
	must_be_aside(t, page, 2);
	must_be_aside(t, empty, 2);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
	cr_assert_not(shmi_central_report(&t->img, page, 0));
	must_be_aside(t, page, 2);
}

TEST_ON_IMAGES(central, an_overwritten_span_that_is_reported, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1);

	take_all(t, page);
	shmi_central_accept(&t->img, page, 0);
	smear(t, page);
	cr_assert_not(shmi_central_report(&t->img, page, 0));
	must_be_aside(t, page, 1);
	cr_assert_eq(shmi_central_at(&t->view, class64())->full.count, 0);
}

TEST_ON_IMAGES(central, overwritten_spans_that_a_sweep_finds, PAGES)
{
	shmi_page page[4];

	for (int i = 0; i < 4; i++) {
		page[i] = test_image_span(t, 64, 0, 1);
		take_all(t, page[i]);
		shmi_central_accept(&t->img, page[i], 0);
	}
	for (int i = 0; i < 4; i++)
		smear(t, page[i]);
	cr_assert_eq(shmi_central_sweep(&t->img, class64(), 64, 0), 0);
	for (int i = 0; i < 4; i++)
		must_be_aside(t, page[i], 4);
	cr_assert_eq(shmi_central_at(&t->view, class64())->full.count, 0);
	cr_assert_eq(shmi_central_at(&t->view, class64())->cursor, 0);
}

TEST_ON_IMAGES(central, overwritten_spans_are_not_granted, PAGES)
{
	shmi_page good, bad[2];

	good = test_image_span(t, 64, 0, 1);
	for (int i = 0; i < 2; i++)
		bad[i] = test_image_span(t, 64, 0, 1);
	shmi_slots_take(shmi_bitmap_at(&t->img, good), 0, 1);
	shmi_central_accept(&t->img, good, 0);
	for (int i = 0; i < 2; i++) {
		shmi_slots_take(shmi_bitmap_at(&t->img, bad[i]), 0, 1);
		shmi_central_accept(&t->img, bad[i], 0);
	}
	smear(t, bad[0]);
	smear(t, bad[1]);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, good.i);
	cr_assert_eq(shmi_span_word(&t->view, bad[0]).state, SHMI_SPAN_QUARANTINE);
	cr_assert_eq(shmi_span_word(&t->view, bad[1]).state, SHMI_SPAN_QUARANTINE);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
}

/* However many there are, one grant looks at a few of them. */
TEST_ON_IMAGES(central, a_grant_does_not_look_for_ever, PAGES)
{
	shmi_page page[SHMI_GRANT_LOOKS + 4];

	for (uint32_t i = 0; i < SHMI_GRANT_LOOKS + 4; i++) {
		page[i] = test_image_span(t, 64, 0, 1);
		shmi_slots_take(shmi_bitmap_at(&t->img, page[i]), 0, 1);
		shmi_central_accept(&t->img, page[i], 0);
	}
	for (uint32_t i = 0; i < SHMI_GRANT_LOOKS + 4; i++)
		smear(t, page[i]);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
	cr_assert_eq(shmi_load(&t->view.super->counters.quarantined_pages), SHMI_GRANT_LOOKS);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
	cr_assert_eq(shmi_load(&t->view.super->counters.quarantined_pages), SHMI_GRANT_LOOKS + 4);
}

/* A hole in ctl reads as zeros: everything is allocated. */
TEST_ON_IMAGES(central, a_span_that_lost_its_bitmap_is_full, PAGES)
{
	shmi_page lost = test_image_span(t, 64, 0, 1), good = test_image_span(t, 64, 0, 1);

	shmi_slots_take(shmi_bitmap_at(&t->img, good), 0, 1);
	shmi_slots_take(shmi_bitmap_at(&t->img, lost), 0, 1);
	shmi_central_accept(&t->img, good, 0);
	shmi_central_accept(&t->img, lost, 0);
	take_all(t, lost);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, good.i);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
	cr_assert_eq(shmi_central_at(&t->view, class64())->full.count, 1);
	cr_assert_eq(shmi_span_word(&t->view, lost).state, SHMI_SPAN_CENTRAL);
}

TEST_ON_IMAGES(central, an_empty_span_is_free_pages, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1);
	uint64_t free = shmi_load(&t->img.super->pages.free);

	cr_assert(shmi_central_accept(&t->img, page, 0));
	cr_assert_not(shmi_state_in_use(shmi_span_word(&t->view, page).state));
	cr_assert_eq(shmi_load(&t->view.super->pages.free), free + 1);
}

TEST_ON_IMAGES(central, a_full_span_waits_for_a_report, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1);

	take_all(t, page);
	cr_assert_not(shmi_central_accept(&t->img, page, 0));
	cr_assert_eq(shmi_central_at(&t->view, class64())->full.count, 1);
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, 0);
	shmi_slots_put(shmi_bitmap_at(&t->img, page), 1, 1ull << 63);
	cr_assert_not(shmi_central_report(&t->img, page, 0));
	cr_assert_eq(shmi_central_grant(&t->img, class64(), 2).i, page.i);
}

TEST_ON_IMAGES(central, reports_of_anything_else_are_ignored, PAGES)
{
	shmi_page owned = test_image_span(t, 64, 0, 1);

	cr_assert_not(shmi_central_report(&t->img, owned, 0));
	cr_assert_not(shmi_central_report(&t->img, (shmi_page){0}, 0));
	cr_assert_not(shmi_central_report(&t->img, (shmi_page){owned.i + 1}, 0));
	cr_assert_not(shmi_central_report(&t->img, (shmi_page){UINT32_MAX}, 0));
	cr_assert_eq(shmi_span_word(&t->view, owned).owner, 1);
}

TEST_ON_IMAGES(central, sweeps_come_round_to_every_span, PAGES)
{
	shmi_page page[10];
	uint32_t found = 0;

	for (uint32_t i = 0; i < 10; i++) {
		page[i] = test_image_span(t, 64, 0, 1);
		take_all(t, page[i]);
		shmi_central_accept(&t->img, page[i], 0);
	}
	shmi_slots_put(shmi_bitmap_at(&t->img, page[0]), 0, 1);
	shmi_slots_put(shmi_bitmap_at(&t->img, page[5]), 0, 2);
	for (uint32_t i = 0; i < 4; i++) /* four sweeps of three: all ten are looked at */
		found += shmi_central_sweep(&t->img, class64(), 3, 0);
	cr_assert_eq(found, 2);
	cr_assert_eq(shmi_central_at(&t->view, class64())->free.count, 2);
	cr_assert_eq(shmi_central_at(&t->view, class64())->full.count, 8);
}

TEST_ON_IMAGES(central, slots_in_doubt_pin_their_span_until_one_is_freed, PAGES)
{
	shmi_page page = test_image_span(t, 64, 0, 1);
	struct shmi_span *span = shmi_span_at(&t->img, page);

	shmi_slots_take(shmi_bitmap_at(&t->img, page), 1, 0x7);
	span->written_off = 3;
	span->written_off_word = 1;
	span->written_off_bits = 0x7;
	cr_assert_not(shmi_central_accept(&t->img, page, 0), "a live block may be among them");
	cr_assert_eq(span->written_off, 3);
	shmi_slots_put(shmi_bitmap_at(&t->img, page), 1, 0x1);
	cr_assert_not(shmi_central_report(&t->img, page, 0));
	cr_assert_eq(span->written_off, 2, "somebody had that one; of the others nothing is known yet");
	cr_assert_eq(span->written_off_bits, 6);
	shmi_slots_put(shmi_bitmap_at(&t->img, page), 1, 0x6);
	cr_assert(shmi_central_report(&t->img, page, 0));
}

static void report(void *ctx)
{
	struct test_image *t = ctx;

	(void)shmi_central_report(&t->img, (shmi_page){shmi_central_at(&t->img, class64())->full.head}, 0);
}

/* Four slots are in doubt, one of which is known; it turns out to be free. Whatever store the daemon dies after, the next one
 * must not count it down again: then the span could be closed under blocks in use. */
Test(central, what_is_no_longer_in_doubt_is_counted_down_once)
{
	struct test_image *t = test_image_new(TEST_MEMFD, PAGES);
	const struct stores_range meta = {t->img.meta, t->meta_len};
	shmi_page page = test_image_span(t, 64, 0, 1);
	struct shmi_span *span = shmi_span_at(&t->img, page);
	struct stores log;
	const char *why;

	if (!stores_possible(&why)) {
		fprintf(stderr, "skipped: %s\n", why);
		test_image_free(t);
		return;
	}
	take_all(t, page);
	span->written_off = 4;
	span->written_off_word = 1;
	span->written_off_bits = 0x4;
	cr_assert_not(shmi_central_accept(&t->img, page, 0));
	shmi_slots_put(shmi_bitmap_at(&t->img, page), 1, 0x4);
	stores_init(&log);
	stores_record(&log, &meta, 1, report, t);
	cr_assert_eq(span->written_off, 3);
	cr_assert_geq(log.count, 2);
	for (size_t k = log.count; k-- > 0;) {
		stores_apply(&log, &meta, k + 1, k);
		cr_assert_geq(span->written_off - __builtin_popcountll(span->written_off_bits), 3, "store %zu", k);
	}
	stores_deinit(&log);
	test_image_free(t);
}

/* Spans go out, are taken from, put to by others and come back; a model knows how many slots of each are free. */
TEST_ON_IMAGES(central, random_walk, PAGES)
{
	enum { SPANS = 40 };
	struct test_random random = test_random_init("central lists");
	struct {
		shmi_page page;
		bool owned;
	} span[SPANS] = {0};
	const struct shmi_class *class = &t->img.classes[shmi_sclass_size_class(class64())];

	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t i = test_random_below(&random, SPANS), w = test_random_below(&random, class->words);
		uint64_t bits = test_random_next(&random) & shmi_slots_mask(class, w);
		shmi_a64 *bitmap = shmi_bitmap_at(&t->img, span[i].page);

		if (!span[i].page.i) {
			span[i].page = shmi_central_grant(&t->img, class64(), 1);
			for (uint32_t j = 0; j < SPANS; j++)
				if (j != i && span[i].page.i && span[j].page.i == span[i].page.i)
					span[j].page = SHMI_NO_PAGE;
			if (!span[i].page.i)
				span[i].page = test_image_span(t, 64, 0, 1);
			span[i].owned = true;
			cr_assert_gt(shmi_slots_count(shmi_bitmap_at(&t->img, span[i].page), class), 0u);
		} else if (span[i].owned && test_random_one_in(&random, 3)) {
			bool empty = shmi_slots_count(bitmap, class) == class->slots;

			cr_assert_eq(shmi_central_accept(&t->img, span[i].page, step), empty);
			span[i].owned = false;
			if (empty)
				span[i].page = SHMI_NO_PAGE;
		} else if (span[i].owned) {
			shmi_slots_take(bitmap, w, bits);
		} else {
			shmi_slots_put(bitmap, w, test_random_one_in(&random, 2) ? bits : shmi_slots_mask(class, w));
			bool empty = shmi_slots_count(bitmap, class) == class->slots;

			cr_assert_eq(shmi_central_report(&t->img, span[i].page, step), empty);
			if (empty)
				span[i].page = SHMI_NO_PAGE;
		}
		uint32_t owned = 0, central = 0;

		for (uint32_t j = 0; j < SPANS; j++) {
			owned += span[j].page.i && span[j].owned;
			central += span[j].page.i && !span[j].owned;
		}
		cr_assert_eq(shmi_load(&t->view.super->pages.owned), owned);
		cr_assert_eq(shmi_load(&t->view.super->pages.central), central);
		cr_assert_eq(shmi_central_at(&t->view, class64())->free.count +
		                     shmi_central_at(&t->view, class64())->full.count,
		        central);
	}
}
