/* Taking wholly free spans from their holders. The orders of steps, and deaths at each: tests/interleave. */
#include "shm/seize.h"

#include <criterion/criterion.h>

#include "shm/check.h"
#include "shm/slots.h"
#include "tests/lib/image.h"

TestSuite(seize, .timeout = 60);

#define PAGES 9000u
#define CLIENT 5u

static const struct shmi_class *class_at(const struct test_image *t, shmi_page page)
{
	return &t->img.classes[shmi_sclass_size_class(shmi_span_word(&t->view, page).sclass)];
}

static shmi_a64 *bitmap(const struct test_image *t, shmi_page page)
{
	return shmi_bitmap_at(&t->img, page);
}

static uint32_t free_slots(const struct test_image *t, shmi_page page)
{
	return shmi_slots_count(bitmap(t, page), class_at(t, page));
}

static shmi_page open_span(struct test_image *t, uint32_t size)
{
	shmi_owner_at(&t->img, CLIENT)->in_use = 1;
	return test_image_span(t, size, 0, CLIENT);
}

static void check(const struct test_image *t)
{
	struct shmi_violation found;

	cr_assert_eq(shmi_check(&t->view, NULL, 1, &found, 1), 0, "I%u: %s", found.invariant, found.text);
}

static uint64_t count(const struct test_image *t, const shmi_a64 *which)
{
	(void)t;
	return shmi_load(which);
}

TEST_ON_IMAGES(seize, a_wholly_free_span, PAGES)
{
	shmi_page page = open_span(t, 16), other = open_span(t, 2816);
	struct shmi_owner *owner = shmi_owner_at(&t->img, CLIENT);
	uint32_t pages = shmi_span_at(&t->view, page)->pages, rest = owner->pages - pages;
	uint32_t generation = shmi_span_word(&t->view, page).generation;
	uint64_t owned = count(t, &t->img.super->pages.owned);
	struct shmi_seizing note = {0};

	cr_assert(shmi_seize(&t->img, page, &note));
	cr_assert_eq(shmi_load(&note.step), 0, "no note is left");
	cr_assert_eq(shmi_span_word(&t->view, page).state, SHMI_SPAN_SEIZED);
	cr_assert_eq(shmi_span_word(&t->view, page).generation, generation);
	cr_assert_eq(shmi_span_word(&t->view, page).owner, CLIENT);
	cr_assert_eq(free_slots(t, page), 0, "its holder finds nothing");
	cr_assert_eq(owner->pages, rest);
	cr_assert_eq(owner->seized_pages, pages);
	cr_assert_eq(owner->spans.count, 2, "it is on its owner's list still");
	cr_assert_eq(count(t, &t->img.super->pages.seized), pages);
	cr_assert_eq(count(t, &t->img.super->pages.owned), owned - pages);
	check(t);
	cr_assert(shmi_seize(&t->img, other, &note), "of several words and pages");
	cr_assert_not(shmi_seize(&t->img, page, &note), "once");
	check(t);

	struct shmi_run run = shmi_span_close(&t->img, page);

	cr_assert_not(run.backed);
	cr_assert_eq(owner->seized_pages, shmi_span_at(&t->view, other)->pages);
	cr_assert_eq(owner->pages, 0);
	shmi_pageheap_put(&t->img, run, 1);
	check(t);
}

/* Whatever slot is out, of whatever word, the span stays as it is. */
TEST_ON_IMAGES(seize, one_slot_is_out, PAGES)
{
	shmi_page page = open_span(t, 16);
	const struct shmi_class *class = class_at(t, page);
	struct shmi_seizing note = {0};

	for (uint32_t slot = 0; slot < class->slots; slot += 61) {
		cr_assert_eq(shmi_slots_take(bitmap(t, page), slot / 64, 1ull << slot % 64), 1ull << slot % 64);
		cr_assert_not(shmi_seize(&t->img, page, &note), "slot %u is out", slot);
		cr_assert_eq(free_slots(t, page), class->slots - 1);
		cr_assert_eq(shmi_span_word(&t->view, page).state, SHMI_SPAN_OWNED);
		shmi_slots_put(bitmap(t, page), slot / 64, 1ull << slot % 64);
	}
	check(t);
	cr_assert(shmi_seize(&t->img, page, &note));
}

TEST_ON_IMAGES(seize, nothing_else, PAGES)
{
	shmi_page central = test_image_span(t, 64, 0, SHMI_NOBODY), odd = open_span(t, 112), large;
	struct shmi_run run = test_image_run(t, 40);
	struct shmi_seizing note = {0};

	shmi_span_open_large(&t->img, run, 0, CLIENT, 300000, false);
	large = run.first;
	shmi_store(&bitmap(t, odd)[1], ~0ull); /* 73 slots */
	cr_assert_not(shmi_seize(&t->img, central, &note));
	cr_assert_not(shmi_seize(&t->img, large, &note));
	cr_assert_not(shmi_seize(&t->img, odd, &note), "a bit beyond the last slot");
	cr_assert_eq(shmi_load(&bitmap(t, odd)[1]), ~0ull, "nothing was touched");
}

/* ---- what a daemon that died on the way left ---- */

struct left {
	const char *what;
	uint32_t taken; /* words that it had */
	uint32_t in_doubt; /* word that the note names */
	bool took; /* that one as well */
	uint32_t written_off; /* slots, afterwards */
};

static void leave(const struct test_image *t, shmi_page page, const struct left *left, struct shmi_seizing *note)
{
	const struct shmi_class *class = class_at(t, page);

	for (uint32_t w = 0; w < left->taken; w++)
		cr_assert(shmi_slots_take_all(bitmap(t, page), class, w));
	if (left->took)
		cr_assert(shmi_slots_take_all(bitmap(t, page), class, left->in_doubt));
	*note = (struct shmi_seizing){.span = page.i, .generation = shmi_span_word(&t->view, page).generation};
	shmi_store(&note->step, left->in_doubt + 1);
}

TEST_ON_IMAGES(seize, cut_short, PAGES)
{
	static const struct left cases[] = {{"before the first word", 0, 0, false, 0},
	        {"the first word", 0, 0, true, 64}, {"before the third", 2, 2, false, 0}, {"the third", 2, 2, true, 64},
	        {"all", 8, 8, false, 0}, {"the last, in doubt", 7, 7, true, 64}};

	for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		shmi_page page = open_span(t, 16);
		struct shmi_seizing note;

		cr_assert_eq(class_at(t, page)->words, 8);
		leave(t, page, &cases[i], &note);
		cr_assert_eq(shmi_seize_settle(&t->img, &note), cases[i].written_off, "%s", cases[i].what);
		cr_assert_eq(shmi_load(&note.step), 0);
		cr_assert_eq(shmi_span_at(&t->view, page)->written_off, cases[i].written_off, "%s", cases[i].what);
		cr_assert_eq(free_slots(t, page), 512 - cases[i].written_off, "%s", cases[i].what);
		check(t);
	}
	cr_assert_eq(count(t, &t->img.super->counters.slots_written_off), 3 * 64);
}

/* Slots that the holder took from the word in doubt are its: one that is free says that the word was not the daemon's. */
TEST_ON_IMAGES(seize, a_part_of_the_word_is_out, PAGES)
{
	shmi_page page = open_span(t, 16);
	struct shmi_seizing note;

	shmi_slots_take(bitmap(t, page), 3, ~1ull);
	leave(t, page, &(struct left){"", 3, 3, false, 0}, &note);
	cr_assert_eq(shmi_seize_settle(&t->img, &note), 0);
	cr_assert_eq(shmi_load(&bitmap(t, page)[3]), 1, "what is out stays out");
	cr_assert_eq(free_slots(t, page), 512 - 63);
	check(t);
}

/* The next daemon is killed as well, with the word in doubt being written off: once is enough. */
TEST_ON_IMAGES(seize, cut_short_again, PAGES)
{
	shmi_page page = open_span(t, 16);
	struct shmi_seizing note;

	leave(t, page, &(struct left){"", 2, 2, true, 0}, &note);
	note.written_off = 64;
	note.counter = 64;
	shmi_store(&note.step, 3 | SHMI_SEIZING_DOUBT);
	for (uint32_t i = 0; i < 2; i++) {
		cr_assert_eq(shmi_seize_settle(&t->img, &note), 0, "they were counted before");
		cr_assert_eq(shmi_span_at(&t->view, page)->written_off, 64);
		cr_assert_eq(count(t, &t->img.super->counters.slots_written_off), 64);
		cr_assert_eq(free_slots(t, page), 512 - 64);
		check(t);
	}
}

/* The state word was stored, and the note not yet closed. Or the span is another one by now: neither is anything to do. */
TEST_ON_IMAGES(seize, a_note_that_is_void, PAGES)
{
	shmi_page page = open_span(t, 16), other = open_span(t, 16);
	struct shmi_seizing note = {0};

	cr_assert(shmi_seize(&t->img, page, &note));
	note.span = page.i;
	shmi_store(&note.step, 9);
	cr_assert_eq(shmi_seize_settle(&t->img, &note), 0);
	cr_assert_eq(free_slots(t, page), 0);
	cr_assert_eq(shmi_load(&note.step), 0);
	shmi_slots_take(bitmap(t, other), 0, ~0ull);
	note.span = other.i;
	note.generation = shmi_span_word(&t->view, other).generation - 1;
	shmi_store(&note.step, 1);
	cr_assert_eq(shmi_seize_settle(&t->img, &note), 0);
	cr_assert_eq(shmi_span_at(&t->view, other)->written_off, 0);
	check(t);
}
