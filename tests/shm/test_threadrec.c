/* Taking, putting, and what a death between any two stores leaves. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "shm/reclaim.h"
#include "tests/lib/image.h"
#include "tests/lib/random.h"

TestSuite(threadrec, .timeout = 60);

#define PAGES 9000u

/* A dying thread (record 1 of client 1), a holder of another client's span, and a model of who has each slot of two spans. */
struct scene {
	struct test_image *t;
	struct shmi_threadrec *rec;
	struct shmi_magazine *mag;
	shmi_page own, other;
	shmi_sclass sclass;
	const struct shmi_class *class;
};

static struct scene set_scene(struct test_image *t)
{
	struct scene s = {.t = t, .sclass = shmi_sclass_make(shmi_class_of(64), 0)};

	s.own = test_image_span(t, 64, 0, 1);
	s.other = test_image_span(t, 64, 0, 2);
	s.rec = shmi_threadrec_at(&t->img, 1);
	s.mag = shmi_magazine_at(&t->img, s.rec, s.sclass);
	memset(s.rec, 0, sizeof(*s.rec));
	s.rec->client = 1;
	shmi_store(&s.mag->top, 0);
	s.class = &t->img.classes[shmi_sclass_size_class(s.sclass)];
	return s;
}

static struct shmi_group group_of(const struct scene *s, shmi_page page, uint32_t word, uint64_t bits)
{
	return (struct shmi_group){.bits = bits,
	        .span = page.i,
	        .generation = shmi_span_word(&s->t->img, page).generation,
	        .word = word,
	        .sclass = s->sclass.c};
}

static uint64_t word_of(const struct scene *s, shmi_page page, uint32_t word)
{
	return shmi_load(&shmi_bitmap_at(&s->t->view, page)[word]);
}

/* Runs the reclaim over a snapshot, as the daemon does, in small steps. */
static struct shmi_reclaim reclaim(const struct scene *s)
{
	struct shmi_threadrec *copy = aligned_alloc(64, s->t->img.geo.record_bytes);
	struct shmi_reclaim r;

	cr_assert_not_null(copy);
	memcpy(copy, s->rec, s->t->img.geo.record_bytes);
	shmi_reclaim_init(&r, 1, 1, 1);
	while (!shmi_reclaim_step(&s->t->img, &r, copy, 10)) {
	}
	free(copy);
	return r;
}

/* As if another client's thread had taken slots of `other` and the dying thread had freed them. */
static void push_other(const struct scene *s, uint32_t word, uint64_t bits)
{
	shmi_slots_take(shmi_bitmap_at(&s->t->img, s->other), word, bits);
	for (; bits; bits &= bits - 1) {
		uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits), top = shmi_load(&s->mag->top);

		shmi_store(&s->mag->entry[top], shmi_page_off(s->other).b + slot * 64ull);
		shmi_store_release(&s->mag->top, top + 1);
	}
}

TEST_ON_IMAGES(threadrec, take_gives_each_slot_once_lowest_first, PAGES)
{
	struct scene s = set_scene(t);
	struct shmi_group g = group_of(&s, s.own, 1, 0xf00f);

	cr_assert_eq(shmi_threadrec_take(&t->img, s.rec, s.mag, &g), 8);
	cr_assert_eq(shmi_load(&s.mag->top), 8);
	cr_assert_eq(shmi_load(&s.mag->entry[7]), shmi_page_off(s.own).b + 64 * 64);
	cr_assert_eq(shmi_load(&s.mag->entry[0]), shmi_page_off(s.own).b + (64 + 15) * 64);
	cr_assert_eq(word_of(&s, s.own, 1), ~0xf00full);
	cr_assert_eq(shmi_load(&s.rec->intent.op), SHMI_INTENT_NONE);
}

TEST_ON_IMAGES(threadrec, put_closes_the_magazine_up_from_the_front, PAGES)
{
	struct scene s = set_scene(t);
	struct shmi_group groups[2] = {group_of(&s, s.own, 0, 0x7), group_of(&s, s.own, 1, 0x1)}, done;
	struct shmi_group all = group_of(&s, s.own, 0, 0xff), more = group_of(&s, s.own, 1, 0x1);

	shmi_threadrec_take(&t->img, s.rec, s.mag, &more);
	shmi_threadrec_take(&t->img, s.rec, s.mag, &all);
	/* oldest first: slot 64, then 7, 6, ... 0 */
	groups[0].bits = 0xe0;
	shmi_threadrec_spill(s.rec, s.mag, 4, groups, 2);
	cr_assert_eq(shmi_load(&s.mag->top), 5);
	cr_assert_eq(shmi_load(&s.mag->entry[0]), shmi_page_off(s.own).b + 4 * 64);
	cr_assert_eq(shmi_load(&s.mag->entry[4]), shmi_page_off(s.own).b);
	cr_assert_eq(shmi_threadrec_put(&t->img, s.rec, &done), 0);
	cr_assert_eq(done.word, 1);
	cr_assert_eq(shmi_threadrec_put(&t->img, s.rec, &done), 0);
	cr_assert_eq(shmi_load(&s.rec->spill_top), 0);
	cr_assert_eq(word_of(&s, s.own, 0), ~0x1full);
	cr_assert_eq(word_of(&s, s.own, 1), ~0ull);
}

/* However many stay behind however many that go. */
TEST_ON_IMAGES(threadrec, what_stays_keeps_its_order, PAGES)
{
	for (uint32_t go = 1; go < 10; go++)
		for (uint32_t stay = 0; stay < 20; stay++) {
			struct scene s = set_scene(t);
			struct shmi_group all = group_of(&s, s.own, 0, (1ull << (go + stay)) - 1), done;
			struct shmi_group oldest = group_of(&s, s.own, 0, all.bits & ~((1ull << stay) - 1));

			shmi_threadrec_take(&t->img, s.rec, s.mag, &all);
			shmi_threadrec_spill(s.rec, s.mag, go, &oldest, 1);
			cr_assert_eq(shmi_load(&s.mag->top), stay);
			for (uint32_t i = 0; i < stay; i++)
				cr_assert_eq(
				        shmi_load(&s.mag->entry[i]), shmi_page_off(s.own).b + (stay - 1 - i) * 64ull);
			cr_assert_eq(shmi_threadrec_put(&t->img, s.rec, &done), 0);
			cr_assert_eq(word_of(&s, s.own, 0), ~((1ull << stay) - 1));
		}
}

/* Full words, single slots, and runs with gaps between them. */
TEST_ON_IMAGES(threadrec, take_gives_exactly_the_slots_of_the_group, PAGES)
{
	static const uint64_t words[] = {~0ull, 1, 1ull << 63, 1ull << 63 | 1, ~0ull << 1, ~0ull >> 1,
	        0x5555555555555555, 0xf0f0000000000f0f, 0x7ffffffffffffffe, 6};

	for (uint32_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		struct scene s = set_scene(t);
		struct shmi_group g = group_of(&s, s.own, 1, words[i]);
		uint32_t n = shmi_threadrec_take(&t->img, s.rec, s.mag, &g), top = n;

		cr_assert_eq(n, (uint32_t)__builtin_popcountll(words[i]));
		cr_assert_eq(shmi_load(&s.mag->top), n);
		for (uint64_t bits = words[i]; bits; bits &= bits - 1)
			cr_assert_eq(shmi_load(&s.mag->entry[--top]),
			        shmi_page_off(s.own).b + (64ull + (uint32_t)__builtin_ctzll(bits)) * 64);
		cr_assert_eq(word_of(&s, s.own, 1), ~words[i]);
	}
}

TEST_ON_IMAGES(threadrec, put_tells_a_double_free, PAGES)
{
	struct scene s = set_scene(t);
	struct shmi_group g = group_of(&s, s.own, 0, 0x3), done;

	shmi_threadrec_take(&t->img, s.rec, s.mag, &g);
	shmi_slots_put(shmi_bitmap_at(&t->img, s.own), 0, 0x2);
	shmi_threadrec_spill(s.rec, s.mag, 2, &g, 1);
	cr_assert_eq(shmi_threadrec_put(&t->img, s.rec, &done), 0x2);
}

/* ---- death ---- */

TEST_ON_IMAGES(threadrec, death_at_rest_puts_all_back, PAGES)
{
	struct scene s = set_scene(t);
	struct shmi_group g = group_of(&s, s.own, 0, ~0ull);

	shmi_threadrec_take(&t->img, s.rec, s.mag, &g);
	push_other(&s, 1, 0xff00ff);
	struct shmi_reclaim r = reclaim(&s);

	cr_assert_eq(r.put, 64 + 16);
	cr_assert_eq(r.bad, 0);
	cr_assert_eq(word_of(&s, s.own, 0), ~0ull);
	cr_assert_eq(word_of(&s, s.other, 1), ~0ull);
}

/* Each prefix of a take's stores. */
TEST_ON_IMAGES(threadrec, death_in_a_take, PAGES)
{
	for (uint32_t prefix = 0; prefix < 5; prefix++) {
		struct scene s = set_scene(t);
		struct shmi_group g = group_of(&s, s.own, 1, 0xf0);

		s.rec->intent.group = g;
		shmi_store(&s.rec->intent.op, SHMI_INTENT_TAKE);
		if (prefix > 0)
			shmi_slots_take(shmi_bitmap_at(&t->img, s.own), 1, 0xf0);
		for (uint32_t i = 0; prefix > 1 && i < 4; i++)
			shmi_store(&s.mag->entry[i], shmi_page_off(s.own).b + (64 + 7 - i) * 64ull);
		if (prefix > 2)
			shmi_store(&s.mag->top, 4);
		if (prefix > 3) /* one has been handed out, but nobody was told */
			shmi_store(&s.rec->intent.op, SHMI_INTENT_NONE);
		struct shmi_reclaim r = reclaim(&s);

		cr_assert_eq(word_of(&s, s.own, 1), ~0ull, "prefix %u", prefix);
		cr_assert_eq(r.bad + r.written_off, 0);
	}
}

/* The spill is published, the magazine closed up as far as `moved` entries; a kept slot is never lost nor put twice. */
TEST_ON_IMAGES(threadrec, death_while_the_magazine_is_closed_up, PAGES)
{
	for (uint32_t moved = 0; moved <= 14; moved++) {
		struct scene s = set_scene(t);
		struct shmi_group spilled;

		push_other(&s, 0, 0x3f); /* the six oldest */
		push_other(&s, 1, 0x3fff); /* fourteen that stay */
		spilled = group_of(&s, s.other, 0, 0x3f);
		s.rec->spill[0] = spilled;
		shmi_store(&s.rec->spill_top, 1);
		for (uint32_t i = 0; i < moved; i++)
			shmi_store(&s.mag->entry[i], shmi_load(&s.mag->entry[i + 6]));
		struct shmi_reclaim r = reclaim(&s);

		cr_assert_eq(r.put, 20, "moved %u: %u were put", moved, r.put);
		cr_assert_eq(word_of(&s, s.other, 0), ~0ull);
		cr_assert_eq(word_of(&s, s.other, 1), ~0ull);
	}
}

/* PUT standing: nothing set is doubt, something set is proof, a closed spill is proof. */
TEST_ON_IMAGES(threadrec, death_in_a_put, PAGES)
{
	static const struct {
		bool done, retaken, closed;
		uint32_t written_off;
	} cases[] = {{false, false, false, 4}, {true, false, false, 0}, {true, true, false, 4}, {true, true, true, 0},
	        {true, false, true, 0}};

	for (uint32_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct scene s = set_scene(t);
		struct shmi_group groups[2] = {group_of(&s, s.other, 0, 0x1), group_of(&s, s.other, 1, 0xf)};
		shmi_a64 *bitmap = shmi_bitmap_at(&t->img, s.other);

		shmi_slots_take(bitmap, 0, 0x1);
		shmi_slots_take(bitmap, 1, 0xf);
		memcpy(s.rec->spill, groups, sizeof(groups));
		shmi_store(&s.rec->spill_top, cases[i].closed ? 1 : 2);
		s.rec->intent.group = groups[1];
		shmi_store(&s.rec->intent.op, SHMI_INTENT_PUT);
		if (cases[i].done)
			shmi_slots_put(bitmap, 1, 0xf);
		if (cases[i].retaken)
			shmi_slots_take(bitmap, 1, 0xf);
		struct shmi_reclaim r = reclaim(&s);

		cr_assert_eq(r.written_off, cases[i].written_off, "case %u", i);
		cr_assert_eq(shmi_span_at(&t->img, s.other)->written_off, cases[i].written_off);
		cr_assert_eq(word_of(&s, s.other, 0), ~0ull, "the other group is put back");
		cr_assert_eq(word_of(&s, s.other, 1), cases[i].done && !cases[i].retaken ? ~0ull : ~0xfull);
	}
}

/* However many deaths leave the same slots in doubt, a span never has more of them than slots: the next daemon would refuse it. */
TEST_ON_IMAGES(threadrec, slots_in_doubt_again_and_again, PAGES)
{
	struct scene s = set_scene(t);
	const struct shmi_span *span = shmi_span_at(&t->img, s.other);

	for (uint32_t w = 0; w < s.class->words; w++)
		shmi_slots_take(shmi_bitmap_at(&t->img, s.other), w, ~0ull);
	for (uint32_t i = 0; i < 40; i++) {
		uint32_t w = i < 20 ? 0 : i % s.class->words;
		struct shmi_group group = group_of(&s, s.other, w, shmi_slots_mask(s.class, w));

		s.rec->spill[0] = s.rec->intent.group = group;
		shmi_store(&s.rec->spill_top, 1);
		shmi_store(&s.rec->intent.op, SHMI_INTENT_PUT);
		cr_assert_eq(reclaim(&s).bad, 0);
		cr_assert_leq(span->written_off, i < 20 ? 64 : span->slots);
		cr_assert_geq(span->written_off, __builtin_popcountll(span->written_off_bits));
	}
	cr_assert_eq(span->written_off, span->slots);
	cr_assert_eq(shmi_load(&t->img.super->counters.slots_written_off), span->slots);
}

/* The daemon dies while it reclaims, holders take what it has put back, and the next daemon reclaims the record again. */
TEST_ON_IMAGES(threadrec, a_second_reclaim_puts_nothing_twice, PAGES)
{
	for (uint32_t spilled = 0; spilled < 3; spilled++) {
		struct scene s = set_scene(t);

		push_other(&s, 0, ~0ull);
		push_other(&s, 1, 0xffff);
		if (spilled) { /* closed up as far as 10 entries, or not at all */
			s.rec->spill[0] = group_of(&s, s.other, 0, 0xff);
			shmi_store(&s.rec->spill_top, 1);
			for (uint32_t i = 0; spilled == 2 && i < 10; i++)
				shmi_store(&s.mag->entry[i], shmi_load(&s.mag->entry[i + 8]));
		}
		struct shmi_reclaim r = reclaim(&s);

		cr_assert_eq(r.put, 80);
		shmi_slots_take(shmi_bitmap_at(&t->img, s.other), 0, 0xf0f0);
		shmi_slots_take(shmi_bitmap_at(&t->img, s.other), 1, 0x0f);
		r = reclaim(&s);
		cr_assert_eq(r.put, 0);
		cr_assert_eq(word_of(&s, s.other, 0), ~0xf0f0ull);
		cr_assert_eq(word_of(&s, s.other, 1), ~0x0full);
	}
}

TEST_ON_IMAGES(threadrec, an_intent_of_another_generation_is_void, PAGES)
{
	struct scene s = set_scene(t);

	shmi_slots_take(shmi_bitmap_at(&t->img, s.own), 0, 0xff);
	s.rec->intent.group = group_of(&s, s.own, 0, 0xff);
	s.rec->intent.group.generation++;
	shmi_store(&s.rec->intent.op, SHMI_INTENT_TAKE);
	struct shmi_reclaim r = reclaim(&s);

	cr_assert_eq(r.bad, 0, "an honest thread leaves it, when the span has been closed since");
	cr_assert_eq(r.put, 0);
	cr_assert_eq(word_of(&s, s.own, 0), ~0xffull);
}

TEST_ON_IMAGES(threadrec, freed_large_spans_are_found_once, PAGES)
{
	struct scene s = set_scene(t);
	uint32_t generation = shmi_span_open_large(&t->img, test_image_run(t, 40), 0, 1, 300000, false);
	shmi_page large = SHMI_NO_PAGE;

	for (uint32_t p = 1; p < shmi_image_published(&t->img); p++)
		if (shmi_span_word(&t->img, (shmi_page){p}).state == SHMI_SPAN_LARGE)
			large.i = p;
	uint64_t entries[] = {large.i | (uint64_t)generation << 32, large.i | (uint64_t)(generation + 1) << 32, s.own.i,
	        large.i | (uint64_t)generation << 32};

	for (uint32_t i = 0; i < 4; i++)
		shmi_store(&s.rec->big.entry[i], entries[i]);
	shmi_store(&s.rec->big.top, 4);
	struct shmi_reclaim r = reclaim(&s);

	cr_assert_eq(r.big_count, 1);
	cr_assert_eq(r.big[0], entries[0]);
	cr_assert_eq(
	        r.bad, 1, "a generation that has not been given out yet; an older one is void, and nobody's fault");
}

/* Records full of random words, some of them near the truth: the reclaim ends, and touches nothing but bitmaps of spans of
 * blocks, within their slots. */
TEST_ON_IMAGES(threadrec, hostile_records, PAGES)
{
	struct test_random random = test_random_init("hostile records");
	struct scene s = set_scene(t);
	unsigned char *bytes = (unsigned char *)s.rec;
	uint64_t meta_spans = t->img.geo.spans;
	unsigned char *before = malloc(t->img.geo.meta_bytes);

	cr_assert_not_null(before);
	for (uint32_t round = 0; round < 300; round++) {
		uint32_t wild = test_random_below(&random, 3);

		for (uint64_t i = 0; i < SHMI_THREAD_HEAD_BYTES + t->img.geo.part_bytes; i += 8) {
			uint64_t v = test_random_next(&random);

			if (wild == 0)
				v = shmi_page_off((shmi_page){(uint32_t)(v % 64)}).b + (v >> 32) % 8192 / 16 * 16;
			else if (wild == 1)
				v &= 0xffff0000001full;
			memcpy(bytes + i, &v, 8);
		}
		memcpy(before, t->img.meta, t->img.geo.meta_bytes);
		reclaim(&s);
		cr_assert_eq(memcmp(before, t->img.meta, offsetof(struct shmi_super, counters)), 0);
		cr_assert_eq(memcmp(before + t->img.geo.page_class, t->img.meta + t->img.geo.page_class,
		                     meta_spans - t->img.geo.page_class),
		        0);
		for (uint32_t w = 0; w < 8; w++)
			cr_assert(w < s.class->words || word_of(&s, s.own, w) == 0, "a bit beyond the last slot");
	}
	free(before);
}
