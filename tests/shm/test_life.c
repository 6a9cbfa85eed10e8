/* Threads that allocate, free, flush and die, and the daemon beside them, at random and one operation at a time: after every
 * step, half-done ones included, no invariant is broken and the statistics know what is live. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/central.h"
#include "shm/check.h"
#include "shm/reclaim.h"
#include "shm/stats.h"
#include "tests/lib/image.h"
#include "tests/lib/random.h"

TestSuite(life, .timeout = 120);

#define LIMIT (SHMI_ARENA_PAGES + 1000)
#define THREADS 4u /* of clients 1 and 2, two each; records 4 and 5 are the processes' own */
#define MOST_BLOCKS 4000u
#define KEEP 40u /* entries of a magazine */

static const uint32_t sizes[] = {16, 64, 64, 256, 1024, 2816, 8192, 65536};

struct block {
	uint64_t off, bytes;
	uint32_t scoped_to; /* a client, or SHMI_NOBODY */
	bool large;
};

struct life {
	struct test_image *t;
	struct shmi_image *img;
	struct test_random random;
	struct block blocks[MOST_BLOCKS];
	uint32_t n_blocks, now;
	uint64_t live;
	uint32_t holder[LIMIT]; /* thread + 1, by first page */
	uint32_t looks, deaths, spans_back, half;
};

static uint32_t client_of(uint32_t thread)
{
	return thread >= THREADS ? thread - THREADS + 1 : thread / 2 + 1;
}

static uint32_t below(struct life *l, uint32_t n)
{
	return test_random_below(&l->random, n);
}

static void give_record(struct life *l, uint32_t thread, uint32_t parts)
{
	*shmi_thread_slot_at(l->img, thread) =
	        (struct shmi_thread_slot){.client = (uint16_t)client_of(thread), .parts = (uint8_t)parts, .head = 1};
	shmi_threadrec_at(l->img, thread)->client = client_of(thread);
}

static struct shmi_magazine *magazine(struct life *l, uint32_t thread, shmi_sclass sclass)
{
	return shmi_magazine_at(l->img, shmi_threadrec_at(l->img, thread), sclass);
}

static void look(struct life *l)
{
	struct shmi_violation v[4];
	struct shmi_heap_stats s;
	uint32_t n = shmi_check(&l->t->view, NULL, 1 + l->looks % 3, v, 4);

	l->looks++;
	for (uint32_t i = 0; i < n && i < 4; i++)
		fprintf(stderr, "I%u: %s\n", v[i].invariant, v[i].text);
	cr_assert_eq(n, 0);
	shmi_stats_heap(&l->t->view, &s);
	cr_assert_eq(s.owned + s.central + s.free, s.backed);
	cr_assert_eq(s.live + s.cached + s.slots_free + s.tail + s.written_off + s.quarantined,
	        s.owned + s.central + s.lazy);
}

/* Half-done operations count some slots twice or not at all; between two operations all is exact. */
static void look_exactly(struct life *l)
{
	struct shmi_heap_stats s;

	look(l);
	shmi_stats_heap(&l->t->view, &s);
	cr_assert_eq(s.live, l->live, "%lu live, not %lu", s.live, l->live);
	cr_assert_eq(s.live_blocks, l->n_blocks);
}

static void look_halfway(struct life *l)
{
	if (below(l, 40) == 0) {
		l->half++;
		look(l);
	}
}

/* ---- blocks of spans ---- */

static struct shmi_group group_in(struct life *l, uint32_t page, uint32_t word, uint64_t bits)
{
	struct shmi_word w = shmi_span_word(l->img, (shmi_page){page});

	return (struct shmi_group){
	        .bits = bits, .span = page, .generation = w.generation, .word = word, .sclass = w.sclass.c};
}

/* Takes up to sixteen slots of one word of a span. */
static bool take_from(struct life *l, uint32_t thread, uint32_t page, shmi_sclass sclass)
{
	const struct shmi_class *class = &l->img->classes[shmi_sclass_size_class(sclass)];

	for (uint32_t w = 0; w < class->words; w++) {
		uint64_t bits = shmi_slots_peek(shmi_bitmap_at(l->img, (shmi_page){page}), class, w);

		while (__builtin_popcountll(bits) > 3 + (int)(page % 13))
			bits &= bits - 1;
		if (!bits)
			continue;
		struct shmi_group g = group_in(l, page, w, bits);

		shmi_threadrec_take(l->img, shmi_threadrec_at(l->img, thread), magazine(l, thread, sclass), &g);
		return true;
	}
	return false;
}

static bool refill(struct life *l, uint32_t thread, shmi_sclass sclass)
{
	for (uint32_t page = 1; page < shmi_image_published(l->img); page++)
		if (l->holder[page] == thread + 1 && shmi_span_word(l->img, (shmi_page){page}).sclass.c == sclass.c &&
		        take_from(l, thread, page, sclass))
			return true;
	shmi_page page = shmi_central_grant(l->img, sclass, client_of(thread));

	if (!page.i) {
		shmi_npages pages = {l->img->classes[shmi_sclass_size_class(sclass)].pages};
		struct shmi_run run;

		if (shmi_pageheap_alloc(l->img, &l->t->floor, pages, (shmi_npages){1}, false, l->now, &run))
			return false;
		shmi_span_open(l->img, run, sclass, client_of(thread));
		page = run.first;
	}
	l->holder[page.i] = thread + 1;
	return take_from(l, thread, page.i, sclass);
}

static void add_block(struct life *l, struct block block)
{
	l->blocks[l->n_blocks++] = block;
	l->live += block.bytes;
}

static void allocate(struct life *l, uint32_t thread)
{
	static const uint32_t attrs[] = {0, 0, SHMI_SCOPED, SHMI_NOSCAN};
	shmi_sclass sclass = shmi_sclass_make(shmi_class_of(sizes[below(l, 8)]), attrs[below(l, 4)]);
	struct shmi_magazine *mag = magazine(l, thread, sclass);

	if (l->n_blocks == MOST_BLOCKS || (!shmi_load(&mag->top) && !refill(l, thread, sclass)))
		return;
	uint32_t top = shmi_load(&mag->top) - 1;

	shmi_store_release(&mag->top, top);
	add_block(l, (struct block){.off = shmi_load(&mag->entry[top]),
	                     .bytes = l->img->classes[shmi_sclass_size_class(sclass)].size,
	                     .scoped_to = shmi_sclass_scoped(sclass) ? client_of(thread) : SHMI_NOBODY});
}

static void add_to_groups(struct life *l, struct shmi_group *groups, uint32_t *count, uint64_t off, shmi_sclass sclass)
{
	uint32_t page = shmi_load(shmi_page_span_at(l->img, shmi_off_page((shmi_off){off}))), i = 0;
	uint32_t size = l->img->classes[shmi_sclass_size_class(sclass)].size;
	uint32_t slot = (uint32_t)(off - ((uint64_t)page << SHMI_PAGE_SHIFT)) / size;

	while (i < *count && (groups[i].span != page || groups[i].word != slot / 64))
		i++;
	if (i == *count)
		groups[(*count)++] = group_in(l, page, slot / 64, 0);
	groups[i].bits |= 1ull << slot % 64;
}

/* Puts the oldest entries of a magazine back, and looks now and then in between. With `die` it may stop in the middle. */
static void flush(struct life *l, uint32_t thread, shmi_sclass sclass, bool die)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(l->img, thread);
	struct shmi_magazine *mag = magazine(l, thread, sclass);
	uint32_t entries = (shmi_load(&mag->top) + 1) / 2, count = 0;
	struct shmi_group groups[KEEP], g;

	for (uint32_t i = 0; i < entries; i++)
		add_to_groups(l, groups, &count, shmi_load(&mag->entry[i]), sclass);
	if (!count)
		return;
	shmi_threadrec_spill(rec, mag, entries, groups, count);
	while (count--) {
		look_halfway(l);
		if (die && below(l, 3) == 0) { /* before or after the or */
			rec->intent.group = rec->spill[count];
			shmi_store(&rec->intent.op, SHMI_INTENT_PUT);
			if (below(l, 2))
				shmi_slots_put(shmi_bitmap_at(l->img, (shmi_page){rec->spill[count].span}),
				        rec->spill[count].word, rec->spill[count].bits);
			look(l);
			return;
		}
		cr_assert_eq(shmi_threadrec_put(l->img, rec, &g), 0);
		if (shmi_central_report(l->img, (shmi_page){g.span}, l->now))
			l->spans_back++;
	}
}

static void release_large(struct life *l, uint32_t page)
{
	struct shmi_run run = shmi_span_close(l->img, (shmi_page){page});

	shmi_pageheap_put(l->img, run, l->now);
}

/* Into the process's cache, or at once to the daemon. */
static void free_large(struct life *l, uint32_t thread, struct block block)
{
	struct shmi_bigmag *big = &shmi_threadrec_at(l->img, THREADS + client_of(thread) - 1)->big;
	shmi_page page = shmi_off_page((shmi_off){block.off});
	uint32_t top = shmi_load(&big->top);

	if (top == 6 || block.scoped_to != SHMI_NOBODY) {
		release_large(l, page.i);
		return;
	}
	shmi_store(&big->entry[top], page.i | (uint64_t)shmi_span_word(l->img, page).generation << 32);
	shmi_store_release(&big->top, top + 1);
}

static void release(struct life *l, uint32_t thread)
{
	uint32_t i = l->n_blocks ? below(l, l->n_blocks) : 0;

	if (!l->n_blocks)
		return;
	struct block block = l->blocks[i];

	l->blocks[i] = l->blocks[--l->n_blocks];
	l->live -= block.bytes;
	if (block.large) {
		free_large(l, thread, block);
		return;
	}
	shmi_page page = shmi_off_page((shmi_off){block.off});
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(l->img, page))};
	struct shmi_magazine *mag = magazine(l, thread, sclass);

	if (block.scoped_to != SHMI_NOBODY && block.scoped_to != client_of(thread)) {
		struct shmi_group g[1];
		uint32_t count = 0;

		add_to_groups(l, g, &count, block.off, sclass);
		cr_assert_eq(shmi_slots_put(shmi_bitmap_at(l->img, (shmi_page){g->span}), g->word, g->bits), 0);
		shmi_central_report(l->img, (shmi_page){g->span}, l->now);
		return;
	}
	uint32_t cap = l->img->classes[shmi_sclass_size_class(sclass)].mag_cap;

	if (shmi_load(&mag->top) >= (cap < KEEP ? cap : KEEP))
		flush(l, thread, sclass, false);
	uint32_t top = shmi_load(&mag->top);

	shmi_store(&mag->entry[top], block.off);
	shmi_store_release(&mag->top, top + 1);
}

/* ---- spans ---- */

/* A client does not give back a scoped span that has blocks: they would outlive it. */
static bool can_go_back(struct life *l, uint32_t page)
{
	shmi_sclass sclass = shmi_span_word(l->img, (shmi_page){page}).sclass;
	const struct shmi_class *class = &l->img->classes[shmi_sclass_size_class(sclass)];

	return l->holder[page] &&
	       (!shmi_sclass_scoped(sclass) ||
	               shmi_slots_count(shmi_bitmap_at(l->img, (shmi_page){page}), class) == class->slots);
}

static void give_back_span(struct life *l)
{
	uint32_t page = 1 + below(l, shmi_image_published(l->img) - 1);

	while (page < shmi_image_published(l->img) && !can_go_back(l, page))
		page++;
	if (page == shmi_image_published(l->img))
		return;
	l->holder[page] = 0;
	l->spans_back += shmi_central_accept(l->img, (shmi_page){page}, l->now);
}

static void allocate_large(struct life *l, uint32_t thread)
{
	uint32_t pages = 33 + below(l, 300), attrs = below(l, 4) ? 0 : SHMI_SCOPED;
	bool lazy = below(l, 4) == 0;
	struct shmi_run run;

	if (l->n_blocks == MOST_BLOCKS ||
	        shmi_pageheap_alloc(l->img, &l->t->floor, (shmi_npages){pages}, (shmi_npages){1}, lazy, l->now, &run))
		return;
	if (!run.backed && !lazy) {
		shmi_pageheap_commit(l->img, &l->t->floor, run.first, run.pages, run.pages);
		run.backed = true;
	}
	shmi_span_open_large(l->img, run, attrs, client_of(thread), pages * SHMI_PAGE_SIZE - 5, lazy);
	add_block(l, (struct block){.off = shmi_page_off(run.first).b,
	                     .bytes = pages * SHMI_PAGE_SIZE,
	                     .scoped_to = attrs ? client_of(thread) : SHMI_NOBODY,
	                     .large = true});
}

static void scavenge(struct life *l)
{
	struct shmi_run run;

	if (!shmi_pageheap_pick(l->img, l->now, 0, (shmi_npages){1 + below(l, 200)}, &run))
		return;
	look_halfway(l); /* a MOVING run is there */
	test_image_return(l->t, run.first, run.pages);
	run.backed = false;
	shmi_pageheap_put(l->img, run, l->now);
}

/* ---- death ---- */

static void reclaim_record(struct life *l, uint32_t thread, uint32_t parts)
{
	struct shmi_threadrec *copy = malloc(l->img->geo.record_bytes);
	struct shmi_reclaim r;

	cr_assert_not_null(copy);
	memcpy(copy, shmi_threadrec_at(l->img, thread), l->img->geo.record_bytes);
	shmi_reclaim_init(&r, thread, client_of(thread), parts);
	while (!shmi_reclaim_step(l->img, &r, copy, 100)) {
	}
	cr_assert_eq(r.bad, 0);
	for (uint32_t i = 0; i < r.big_count; i++)
		release_large(l, (uint32_t)r.big[i]);
	free(copy);
	give_record(l, thread, parts);
}

static void drop_scoped_blocks(struct life *l, uint32_t client)
{
	for (uint32_t i = l->n_blocks; i-- > 0;)
		if (l->blocks[i].scoped_to == client) {
			l->live -= l->blocks[i].bytes;
			l->blocks[i] = l->blocks[--l->n_blocks];
		}
}

static void die(struct life *l, uint32_t client)
{
	uint32_t next, thread = client * 2 - 2;

	for (uint32_t s = 0; s < 4; s++)
		flush(l, thread, shmi_sclass_make(shmi_class_of(sizes[below(l, 8)]), 0), s == 3);
	for (uint32_t i = 0; i < THREADS + 2; i++)
		if (client_of(i) == client)
			reclaim_record(l, i, i < THREADS ? 15 : 0);
	for (uint32_t page = shmi_owner_at(l->img, client)->spans.head; page; page = next) {
		struct shmi_word word = shmi_span_word(l->img, (shmi_page){page});

		next = shmi_span_at(l->img, (shmi_page){page})->next;
		l->holder[page] = 0;
		if (shmi_sclass_scoped(word.sclass))
			release_large(l, page);
		else if (word.state == SHMI_SPAN_LARGE)
			shmi_span_set_owner(l->img, (shmi_page){page}, SHMI_NOBODY);
		else
			shmi_central_accept(l->img, (shmi_page){page}, l->now);
	}
	drop_scoped_blocks(l, client);
	l->deaths++;
}

static void step(struct life *l)
{
	uint32_t thread = below(l, THREADS), dice = below(l, 200);

	l->now++;
	if (dice < 90)
		for (uint32_t n = below(l, 30); n; n--)
			allocate(l, thread);
	else if (dice < 170)
		for (uint32_t n = below(l, 32); n; n--)
			release(l, thread);
	else if (dice < 180)
		give_back_span(l);
	else if (dice < 188)
		allocate_large(l, thread);
	else if (dice < 198)
		scavenge(l);
	else
		die(l, 1 + below(l, 2));
}

TEST_ON_IMAGES(life, random_walk, LIMIT)
{
	struct life *l = calloc(1, sizeof(*l));

	cr_assert_not_null(l);
	l->t = t;
	l->img = &t->img;
	l->random = test_random_init("life");
	test_image_publish(t, 1);
	for (uint32_t i = 0; i < THREADS + 2; i++) {
		shmi_owner_at(l->img, client_of(i))->in_use = 1;
		give_record(l, i, i < THREADS ? 15 : 0);
	}
	for (uint32_t i = 0; i < 1200; i++) {
		step(l);
		look_exactly(l);
	}
	cr_assert(l->deaths && l->spans_back && l->half, "%u deaths, %u spans back, %u looks halfway", l->deaths,
	        l->spans_back, l->half);
	free(l);
}
