#include "shm/stats.h"

#include <string.h>

#include "shm/threadrec.h"
#include "shm/walk.h"

/* What the spans and the records of threads add up to. With `rows`, by span class as well. */
struct tally {
	struct shmi_class_stats *rows; /* NULL: sums only */
	uint64_t slots, slot_bytes; /* of spans of blocks */
	uint64_t free, free_bytes;
	uint64_t written_off, written_off_bytes;
	uint64_t cached, cached_bytes; /* blocks of spans */
	uint64_t large, large_bytes;
	uint64_t large_cached, large_cached_bytes;
	uint64_t tail, quarantined;
};

static uint64_t pages_bytes(uint64_t pages)
{
	return pages << SHMI_PAGE_SHIFT;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What is left of `whole` after `part`, which another process may have made up. */
static uint64_t less(uint64_t whole, uint64_t part)
{
	return whole - least(whole, part);
}

/* ---- spans ---- */

static void add_blocks(const struct shmi_image *img, struct tally *t, const struct shmi_walk *walk)
{
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(walk->word.sclass)];
	uint64_t free = shmi_slots_count(shmi_bitmap_at(img, walk->page), class);
	uint64_t written_off = least(shmi_span_at(img, walk->page)->written_off, class->slots - free);

	t->slots += class->slots;
	t->slot_bytes += (uint64_t) class->slots * class->size;
	t->free += free;
	t->free_bytes += free * class->size;
	t->written_off += written_off;
	t->written_off_bytes += written_off * class->size;
	t->tail += less(shmi_npages_bytes(walk->pages), (uint64_t) class->slots * class->size);
	if (!t->rows)
		return;
	t->rows[walk->word.sclass.c].slots_free += free;
	t->rows[walk->word.sclass.c].live +=
	        class->slots - free - written_off; /* cached ones are taken off at the end */
}

static void add_large(struct tally *t, const struct shmi_walk *walk)
{
	t->large++;
	t->large_bytes += shmi_npages_bytes(walk->pages);
	if (t->rows)
		t->rows[walk->word.sclass.c].live++;
}

static void add_span(const struct shmi_image *img, struct tally *t, const struct shmi_walk *walk)
{
	bool small = shmi_sclass_is_small(walk->word.sclass);

	if (walk->word.state == SHMI_SPAN_QUARANTINE) {
		t->quarantined += shmi_npages_bytes(walk->pages);
		return;
	}
	if (!shmi_state_has_blocks(walk->word.state) || (!small && !shmi_sclass_is_large(walk->word.sclass)))
		return;
	if (small)
		add_blocks(img, t, walk);
	else
		add_large(t, walk);
	if (!t->rows)
		return;
	struct shmi_class_stats *row = &t->rows[walk->word.sclass.c];

	row->bytes += shmi_npages_bytes(walk->pages);
	if (walk->word.owner == SHMI_NOBODY)
		row->spans_central++;
	else
		row->spans_owned++;
}

static void add_spans(const struct shmi_image *img, struct tally *t)
{
	struct shmi_walk walk = shmi_walk_start(img);

	while (shmi_walk_next(img, &walk))
		add_span(img, t, &walk);
}

/* ---- thread records ---- */

static void add_cached(const struct shmi_image *img, struct tally *t, shmi_sclass sclass, uint64_t blocks)
{
	t->cached += blocks;
	t->cached_bytes += blocks * img->classes[shmi_sclass_size_class(sclass)].size;
	if (t->rows)
		t->rows[sclass.c].cached += blocks;
}

static void add_magazines(const struct shmi_image *img, struct tally *t, struct shmi_threadrec *rec, uint32_t parts)
{
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		shmi_sclass sclass = {(uint16_t)s};

		if (!shmi_sclass_is_small(sclass) || !(parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		uint32_t top = shmi_load_acquire(&shmi_magazine_at(img, rec, sclass)->top);

		add_cached(img, t, sclass, least(top, img->classes[shmi_sclass_size_class(sclass)].mag_cap));
	}
}

/* A group whose put has just happened is in the bitmap as well: it counts there. */
static void add_spill(const struct shmi_image *img, struct tally *t, const struct shmi_threadrec *rec)
{
	uint32_t top = (uint32_t)least(shmi_load_acquire(&rec->spill_top), SHMI_SPILL_MAX);

	for (uint32_t i = 0; i < top; i++) {
		struct shmi_group g = shmi_group_read(&rec->spill[i]);
		shmi_sclass sclass = {(uint16_t)g.sclass};
		struct shmi_word word;

		if (!shmi_image_page_ok(img, (shmi_page){g.span}) || g.sclass >= SHMI_SPAN_CLASSES ||
		        !shmi_sclass_is_small(sclass))
			continue;
		word = shmi_span_word(img, (shmi_page){g.span});
		const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];

		if (!shmi_state_has_blocks(word.state) || word.sclass.c != g.sclass || g.word >= class->words)
			continue;
		g.bits &= shmi_slots_mask(class, g.word) &
		          ~shmi_slots_peek(shmi_bitmap_at(img, (shmi_page){g.span}), class, g.word);
		add_cached(img, t, sclass, (uint64_t)__builtin_popcountll(g.bits));
	}
}

static void add_big(const struct shmi_image *img, struct tally *t, const struct shmi_threadrec *rec)
{
	uint32_t top = (uint32_t)least(shmi_load_acquire(&rec->big.top), SHMI_BIG_MAX);

	for (uint32_t i = 0; i < top; i++) {
		uint64_t entry = shmi_load(&rec->big.entry[i]);
		shmi_page page = {(uint32_t)entry};

		if (!shmi_image_page_ok(img, page))
			continue;
		struct shmi_word word = shmi_span_word(img, page);

		if (word.state != SHMI_SPAN_LARGE || word.generation != entry >> 32 ||
		        !shmi_sclass_is_large(word.sclass))
			continue;
		t->large_cached++;
		t->large_cached_bytes += pages_bytes(shmi_span_at(img, page)->pages);
		if (t->rows)
			t->rows[word.sclass.c].cached++;
	}
}

static void add_record(const struct shmi_image *img, struct tally *t, uint32_t thread)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);
	const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, thread);

	if (!slot->head)
		return;
	add_magazines(img, t, rec, slot->parts);
	add_spill(img, t, rec);
	add_big(img, t, rec);
}

/* The records of `client`, or with SHMI_NOBODY all that are in use. Returns how many of them have magazines. */
static uint32_t add_records(const struct shmi_image *img, struct tally *t, uint32_t client)
{
	uint32_t threads = 0;

	for (uint32_t r = 0; r < SHMI_MAX_THREADS; r++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, r);

		if (slot->client == SHMI_NOBODY || (client != SHMI_NOBODY && slot->client != client))
			continue;
		threads += slot->parts != 0;
		add_record(img, t, r);
	}
	return threads;
}

/* ---- the three answers ---- */

static uint64_t metadata_bytes(const struct shmi_image *img)
{
	uint64_t bytes = img->geo.fixed_bytes + 4096 /* the head of ctl */, off, len;

	for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
		shmi_geometry_arena_part(&img->geo, part, 0, shmi_image_published(img), &off, &len);
		bytes += len;
	}
	for (uint32_t r = 0; r < SHMI_MAX_THREADS; r++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, r);
		uint32_t parts = (uint32_t)__builtin_popcount(slot->parts);

		bytes += (slot->head ? SHMI_THREAD_HEAD_BYTES : 0) + (uint64_t)parts * img->geo.part_bytes;
	}
	return bytes;
}

static void fill_pages(const struct shmi_image *img, struct shmi_heap_stats *stats)
{
	const struct shmi_page_counts *pages = &img->super->pages;

	stats->limit = pages_bytes(img->geo.limit_pages);
	stats->published = pages_bytes(shmi_image_published(img));
	stats->owned = pages_bytes(shmi_load(&pages->owned));
	stats->central = pages_bytes(shmi_load(&pages->central));
	stats->free = pages_bytes(shmi_load(&pages->free));
	stats->backed = stats->owned + stats->central + stats->free;
	stats->returned = pages_bytes(shmi_load(&pages->returned));
	stats->lazy = pages_bytes(shmi_load(&pages->lazy));
	stats->moving = pages_bytes(shmi_load(&pages->moving));
	stats->seized = pages_bytes(shmi_load(&pages->seized));
	stats->peak_backed = pages_bytes(shmi_load(&img->super->counters.peak_backed_pages));
}

/* What is neither free nor cached is live, so that the places add up whatever stands in ctl. */
static void fill_blocks(struct shmi_heap_stats *stats, const struct tally *t)
{
	uint64_t held_bytes = t->slot_bytes - t->free_bytes - t->written_off_bytes;
	uint64_t held = t->slots - t->free - t->written_off;

	stats->cached = least(t->cached_bytes, held_bytes) + least(t->large_cached_bytes, t->large_bytes);
	stats->live = held_bytes + t->large_bytes - stats->cached;
	stats->live_blocks = less(held, t->cached) + less(t->large, t->large_cached);
	stats->slots_free = t->free_bytes;
	stats->tail = t->tail;
	stats->written_off = t->written_off_bytes;
	stats->quarantined = t->quarantined;
}

void shmi_stats_heap(const struct shmi_image *img, struct shmi_heap_stats *stats)
{
	const shmi_a64 *counters = (const shmi_a64 *)&img->super->counters;
	struct tally t = {0};

	*stats = (struct shmi_heap_stats){0};
	fill_pages(img, stats);
	add_spans(img, &t);
	stats->threads = add_records(img, &t, SHMI_NOBODY);
	fill_blocks(stats, &t);
	stats->metadata = metadata_bytes(img);
	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++)
		stats->clients += shmi_owner_at(img, c)->in_use == 1;
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++)
		stats->roots += shmi_load(&shmi_root_at(img, r)->off) != 0;
	for (size_t i = 0; i < sizeof(stats->counters) / sizeof(stats->counters[0]); i++)
		stats->counters[i] = shmi_load(&counters[i]);
}

void shmi_stats_classes(const struct shmi_image *img, struct shmi_class_stats *rows)
{
	struct tally t = {.rows = rows};

	memset(rows, 0, SHMI_SPAN_CLASSES * sizeof(*rows));
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		rows[s].sclass.c = (uint16_t)s;
		rows[s].size = img->classes[s / SHMI_ATTRS].size;
	}
	add_spans(img, &t);
	add_records(img, &t, SHMI_NOBODY);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		rows[s].cached = least(rows[s].cached, rows[s].live);
		rows[s].live -= rows[s].cached;
	}
}

void shmi_stats_client(const struct shmi_image *img, uint32_t client, struct shmi_client_stats *stats)
{
	const struct shmi_owner *owner = shmi_owner_at(img, client);
	struct tally t = {0};

	*stats = (struct shmi_client_stats){
	        .client = client, .spans = owner->spans.count, .bytes = pages_bytes(owner->pages)};
	stats->threads = add_records(img, &t, client);
	stats->cached = t.cached_bytes + t.large_cached_bytes;
}
