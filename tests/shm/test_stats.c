#include "shm/stats.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/lib/lived.h"

TestSuite(stats, .timeout = 60);

#define PAGE SHMI_PAGE_SIZE

static void must_add_up(const struct shmi_image *img, const struct shmi_heap_stats *s)
{
	uint64_t unpublished = shmi_load(&img->super->pages.unpublished) * PAGE;

	cr_assert_eq(s->owned + s->central + s->free, s->backed);
	cr_assert_eq(s->backed + s->returned + s->lazy + s->moving + unpublished, s->limit);
	cr_assert_eq(s->live + s->cached + s->slots_free + s->tail + s->written_off + s->quarantined,
	        s->owned + s->central + s->lazy);
}

TEST_ON_IMAGES(stats, empty_heap, LIVED_LIMIT)
{
	struct shmi_heap_stats s;

	shmi_stats_heap(&t->view, &s);
	cr_assert_eq(s.limit, LIVED_LIMIT * PAGE);
	cr_assert_eq(s.published, 0);
	cr_assert_eq(s.backed + s.live + s.cached, 0);
	cr_assert_eq(s.metadata, t->img.geo.fixed_bytes + 4096);
	must_add_up(&t->view, &s);
}

TEST_ON_IMAGES(stats, every_place, LIVED_LIMIT)
{
	struct shmi_heap_stats s;
	struct lived h;

	lived_init(&h, t);
	shmi_stats_heap(&t->view, &s);
	must_add_up(&t->view, &s);
	cr_assert_eq(s.live, 7 * 64 + 2 * 256 + 2816 + 10 * 16 + 4 * 8192 + (33 + 33 + 35 + 50) * PAGE);
	cr_assert_eq(s.live_blocks, 7 + 2 + 1 + 10 + 4 + 4);
	cr_assert_eq(s.cached, 57 * 64 + 30 * 256 + 2 * 2816 + 40 * PAGE);
	cr_assert_eq(s.slots_free, 64 * 64 + (h.wide_slots - 4) * 2816 + 502 * 16);
	cr_assert_eq(s.tail, h.wide_pages * PAGE - h.wide_slots * 2816);
	cr_assert_eq(s.written_off, 2816);
	cr_assert_eq(s.quarantined, PAGE);
	cr_assert_eq(s.lazy, 50 * PAGE);
	cr_assert_eq(s.moving, 5 * PAGE);
	cr_assert_eq(s.owned, (1 + 1 + h.wide_pages + 40 + 33 + 33) * PAGE);
	cr_assert_eq(s.central, (1 + 4 + 1 + 35) * PAGE);
	cr_assert_eq(s.published, SHMI_ARENA_PAGES * PAGE);
	cr_assert_geq(s.peak_backed, s.backed);
	cr_assert_eq(s.clients, 2);
	cr_assert_eq(s.threads, 2);
	cr_assert_eq(s.roots, 2);
	cr_assert_eq(s.counters[11], 1); /* slots_written_off */
}

TEST_ON_IMAGES(stats, metadata_is_what_is_backed, LIVED_LIMIT)
{
	struct shmi_heap_stats s;
	struct lived h;

	lived_init(&h, t);
	shmi_stats_heap(&t->view, &s);
	cr_assert_eq(s.metadata, t->img.geo.fixed_bytes + 4096 + SHMI_ARENA_PAGES * (2 + 4 + 64 + 4 + 64) +
	                                 3 * SHMI_THREAD_HEAD_BYTES + 5 * (uint64_t)t->img.geo.part_bytes);
}

TEST_ON_IMAGES(stats, classes_add_up_to_the_heap, LIVED_LIMIT)
{
	struct shmi_class_stats rows[SHMI_SPAN_CLASSES];
	struct shmi_heap_stats s;
	uint64_t live = 0, cached = 0, free = 0, blocks = 0, bytes = 0;
	struct lived h;

	lived_init(&h, t);
	shmi_stats_heap(&t->view, &s);
	shmi_stats_classes(&t->view, rows);
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++) {
		cr_assert_eq(rows[i].sclass.c, i);
		live += rows[i].live * rows[i].size;
		cached += rows[i].cached * rows[i].size;
		free += rows[i].slots_free * rows[i].size;
		blocks += rows[i].live;
		bytes += rows[i].bytes;
	}
	cr_assert_eq(live + (33 + 33 + 35 + 50) * PAGE, s.live);
	cr_assert_eq(cached + 40 * PAGE, s.cached);
	cr_assert_eq(free, s.slots_free);
	cr_assert_eq(blocks, s.live_blocks);
	cr_assert_eq(bytes + s.quarantined, s.owned + s.central + s.lazy);

	const struct shmi_class_stats *row = &rows[shmi_sclass_make(shmi_class_of(64), 0).c];

	cr_assert(row->spans_owned == 1 && row->spans_central == 0 && row->bytes == PAGE);
	cr_assert(row->live == 7 && row->cached == 57 && row->slots_free == 64);
	row = &rows[shmi_sclass_make(SHMI_CLASS_LARGE, 0).c];
	cr_assert(row->size == 0 && row->spans_owned == 3 && row->spans_central == 1 && row->live == 3 &&
	          row->cached == 1);
}

TEST_ON_IMAGES(stats, clients, LIVED_LIMIT)
{
	struct shmi_client_stats s;
	struct lived h;

	lived_init(&h, t);
	shmi_stats_client(&t->view, 1, &s);
	cr_assert(s.client == 1 && s.threads == 1 && s.spans == 4);
	cr_assert_eq(s.bytes, (1 + 1 + 40 + 50) * PAGE);
	cr_assert_eq(s.cached, 54 * 64 + 30 * 256 + 40 * PAGE);
	shmi_stats_client(&t->view, 2, &s);
	cr_assert(s.threads == 1 && s.spans == 3);
	cr_assert_eq(s.cached, 3 * 64 + 2 * 2816);
	shmi_stats_client(&t->view, 3, &s);
	cr_assert(s.threads == 0 && s.spans == 0 && s.cached == 0);
}

/* A slot whose put has happened, though the spill still has it, is free and not cached as well. */
TEST_ON_IMAGES(stats, half_done_put, LIVED_LIMIT)
{
	struct shmi_heap_stats before, after;
	struct lived h;

	lived_init(&h, t);
	shmi_stats_heap(&t->view, &before);
	shmi_slots_put(shmi_bitmap_at(&t->img, h.held), 0, h.rec[1]->spill[0].bits);
	shmi_stats_heap(&t->view, &after);
	cr_assert_eq(after.live, before.live);
	cr_assert_eq(after.cached + 2 * 64, before.cached);
	cr_assert_eq(after.slots_free, before.slots_free + 2 * 64);
}

/* Whatever a client writes into ctl, the sums stay within the heap and the places add up. */
TEST_ON_IMAGES(stats, hostile_records, LIVED_LIMIT)
{
	struct shmi_class_stats rows[SHMI_SPAN_CLASSES];
	struct shmi_heap_stats s;
	struct lived h;

	lived_init(&h, t);
	for (uint32_t round = 0; round < 4; round++) {
		static const unsigned char fill[] = {0xff, 0x01, 0x80, 0x00};

		for (uint32_t r = 0; r < 3; r++)
			memset(shmi_threadrec_at(&t->img, r), fill[round], t->img.geo.record_bytes);
		memset(shmi_bitmap_at(&t->img, (shmi_page){0}), fill[round], 64 * 200);
		h.rec[0]->spill[0] = lived_group(&h, h.held, 900, ~0ull);
		h.rec[0]->spill[1] = lived_group(&h, (shmi_page){LIVED_LIMIT - 1}, 0, ~0ull);
		h.rec[0]->spill[2] = lived_group(&h, h.large, 0, ~0ull);
		h.rec[0]->spill[3] = (struct shmi_group){.span = h.held.i, .sclass = 1u << 20};
		shmi_store(&h.rec[0]->spill_top, UINT32_MAX);
		shmi_store(&h.rec[1]->big.top, UINT32_MAX);
		shmi_store(&h.rec[1]->big.entry[0], h.held.i);
		shmi_stats_heap(&t->view, &s);
		must_add_up(&t->view, &s);
		cr_assert_leq(s.live, s.limit);
		shmi_stats_classes(&t->view, rows);
		for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++)
			cr_assert_leq(rows[i].live * rows[i].size, rows[i].bytes);
	}
}
