/* The audit: every slot of the heap against every entry of the journal, while all clients are parked between two calls and the
 * dead have been buried. Exact: what is allocated is what the journal says and what deaths are allowed to leave. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/heap.h"
#include "shm/walk.h"
#include "tests/stress/kills/kills.h"

#define SETTLE_NS 60000000000ll /* for the daemon to finish with the dead */
#define MAX_LOST 65536u

/* One bit per slot at the place that it has in the bitmaps of ctl; of a large block the first. */
struct marks {
	uint64_t *cached, *journaled;
	uint64_t words;
};

/* Allocated, and no entry and no doubt names it. */
struct unknown {
	uint64_t off, bytes;
	uint32_t page;
};

struct finder {
	struct worker *w;
	const struct shmi_image *img;
	struct marks marks;
	bool alive[SHMI_MAX_CLIENTS];
	uint64_t written_off_room; /* slots that the daemon has written off since the last audit */
	uint64_t *lost; /* offsets, to be freed */
	uint32_t n_lost;
	struct unknown *unknown;
	uint32_t n_unknown;
	uint64_t live; /* entries with a block */
};

struct place {
	uint64_t word;
	uint64_t bit;
	uint32_t page, in_word, size;
};

/* ---- the dead are gone ---- */

/* Owners in use, but for those that live; alive[] is set for the latter. */
static uint32_t dead_owners(struct finder *f)
{
	uint32_t dead = 0, living = 0;

	memset(f->alive, 0, sizeof(f->alive));
	for (uint32_t c = 0; c <= CLIENTS; c++) {
		uint32_t id = atomic_load(&campaign.board->client_id[c]);

		if (id)
			f->alive[id - 1] = true;
		living += id != 0;
	}
	for (uint32_t id = 0; id < SHMI_MAX_CLIENTS; id++) {
		const struct shmi_owner *owner = shmi_owner_at(f->img, id);

		dead += owner->in_use && !f->alive[id];
		living -= owner->in_use && f->alive[id];
	}
	if (living)
		violation("%u living clients are not known to the daemon", living);
	return dead;
}

static void wait_for_burials(struct finder *f)
{
	int64_t deadline = now_ns() + SETTLE_NS;

	while (dead_owners(f) && now_ns() < deadline)
		sleep_ns(200000);
	if (dead_owners(f))
		violation("%u clients are there that nobody is", dead_owners(f));
}

/* ---- marks ---- */

/* Where the block at `off` has its bit. False: no block begins there. */
static bool find(const struct finder *f, uint64_t off, struct place *p)
{
	shmi_page page = shmi_off_page((shmi_off){off});

	if (!shmi_image_page_ok(f->img, page))
		return false;
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(f->img, page))};

	*p = (struct place){.page = page.i};
	if (shmi_sclass_is_large(sclass)) {
		*p = (struct place){.word = page.i * 8ull, .bit = 1, .page = page.i, .size = UINT32_MAX};
		return off % SHMI_PAGE_SIZE == 0 && shmi_span_word(f->img, page).state == SHMI_SPAN_LARGE;
	}
	if (!shmi_sclass_is_small(sclass))
		return false;
	const struct shmi_class *class = &f->img->classes[shmi_sclass_size_class(sclass)];
	shmi_page first = {shmi_load_acquire(shmi_page_span_at(f->img, page))};
	uint32_t delta = (uint32_t)(off - shmi_page_off(first).b), slot = shmi_slot_of(class, delta);
	uint32_t state = shmi_span_word(f->img, first).state;

	*p = (struct place){.word = first.i * 8ull + slot / 64,
	        .bit = 1ull << slot % 64,
	        .page = first.i,
	        .in_word = slot / 64,
	        .size = class->size};
	return slot < class->slots && slot * class->size == delta &&
	       (state == SHMI_SPAN_OWNED || state == SHMI_SPAN_CENTRAL);
}

static void mark_cached(struct finder *f, uint64_t off)
{
	struct place p;

	if (!find(f, off, &p))
		violation("a cache holds %llx, which is no block", (unsigned long long)off);
	else if (f->marks.cached[p.word] & p.bit)
		violation("%llx is cached twice", (unsigned long long)off);
	else
		f->marks.cached[p.word] |= p.bit;
}

/* The daemon has freed it already, in a request whose answer the client has not seen (I21). */
static bool is_void(const struct finder *f, uint64_t entry)
{
	struct shmi_word word = shmi_span_word(f->img, (shmi_page){(uint32_t)entry});

	return word.state != SHMI_SPAN_LARGE || word.generation != entry >> 32;
}

static void mark_record(struct finder *f, uint32_t thread, uint32_t parts)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(f->img, thread);

	for (uint32_t c = SHMI_CLASS_NONE + 1; c < SHMI_CLASS_LARGE; c++)
		for (uint32_t a = 0; a < SHMI_ATTRS; a++) {
			if (!(parts >> a & 1))
				continue;
			struct shmi_magazine *mag = shmi_magazine_at(f->img, rec, shmi_sclass_make(c, a));

			for (uint32_t i = 0; i < shmi_load(&mag->top) && i < f->img->classes[c].mag_cap; i++)
				mark_cached(f, shmi_load(&mag->entry[i]));
		}
	if (shmi_load(&rec->intent.op) || shmi_load(&rec->spill_top))
		violation("thread record %u has an intent or a spill at rest", thread);
	for (uint32_t i = 0; i < shmi_load(&rec->big.top) && i < SHMI_BIG_MAX; i++) {
		uint64_t entry = shmi_load(&rec->big.entry[i]);

		if (!is_void(f, entry))
			mark_cached(f, shmi_page_off((shmi_page){(uint32_t)entry}).b);
	}
}

static void mark_caches(struct finder *f)
{
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(f->img, t);

		if (slot->client != SHMI_NOBODY)
			mark_record(f, t, slot->parts);
	}
}

/* ---- the journal ---- */

static bool is_free(const struct finder *f, const struct place *p)
{
	if (p->size == UINT32_MAX)
		return false;
	return shmi_load_acquire(&shmi_bitmap_at(f->img, (shmi_page){p->page})[p->in_word]) & p->bit;
}

/* One block that the journal knows. */
static void audit_entry(struct finder *f, const struct entry *e, uint64_t word)
{
	uint64_t off = entry_off(word);
	struct place p;
	const char *wrong = NULL;

	f->live++;
	if (!find(f, off, &p))
		wrong = "is no block";
	else if (is_free(f, &p))
		wrong = "is free in its bitmap";
	else if (f->marks.cached[p.word] & p.bit)
		wrong = "lies in a cache";
	else if (f->marks.journaled[p.word] & p.bit)
		wrong = "belongs to two";
	else if (e->size > p.size)
		wrong = "is longer than its slot";
	else if (entry_state(word) != E_FILLING && !pattern_check(shma_from_off(f->w->heap, off), off, e->size, e->seq))
		wrong = "was changed";
	if (wrong)
		violation("audit: live block %llx of %u bytes, slot %u, state %d, %s", (unsigned long long)off, e->size,
		        entry_owner(word), (int)entry_state(word), wrong);
	else
		f->marks.journaled[p.word] |= p.bit;
}

static bool in_a_place(uint32_t number)
{
	for (uint32_t i = 0; i < PLACES; i++)
		if (atomic_load(&campaign.board->place[i]) == number + 1)
			return true;
	return false;
}

static void add_lost(struct finder *f, uint64_t off)
{
	if (f->n_lost < MAX_LOST)
		f->lost[f->n_lost++] = off;
}

static void audit_journal(struct finder *f)
{
	struct board *b = campaign.board;

	for (uint32_t i = 0; i < SLOTS * REGION; i++) {
		uint64_t word = atomic_load(&b->entry[i].word);
		enum entry_state state = entry_state(word);

		if (!word)
			continue;
		if (state != E_LIVE && state != E_FILLING && state != E_MAILED) {
			violation("audit: entry %u is in state %d", i, (int)state);
			continue;
		}
		audit_entry(f, &b->entry[i], word);
		if (state == E_MAILED && !in_a_place(i)) { /* on its way when its bearer was killed */
			b->orphans++;
			add_lost(f, entry_off(word));
			atomic_store(&b->entry[i].word, 0);
		}
	}
}

/* ---- the heap ---- */

static uint32_t class_bytes[SHMI_CLASSES];

static bool in_doubt(uint64_t off)
{
	struct board *b = campaign.board;

	for (uint32_t i = 0; i < b->n_doubts; i++)
		if (b->doubt[i].size && b->doubt[i].off == off) {
			b->doubt[i].size = 0;
			b->undone++;
			return true;
		}
	return false;
}

/* Is a block of `bytes` what the library gives to this request? One of its class, or of one up to a quarter larger; a large one from
 * a cache is up to a quarter longer than need be; alignment may ask for more. */
static bool fits(const struct doubt *d, uint64_t bytes, bool large)
{
	if (large)
		return bytes == shmi_npages_bytes(shmi_npages_of(d->size)) ||
		       (bytes > d->size && bytes <= d->size + d->size / 4 + 2 * SHMI_PAGE_SIZE);
	if (d->alignment <= 16 && d->size <= SHMI_SMALL_MAX) {
		uint32_t own = class_bytes[shmi_class_of(d->size)];

		return bytes >= own && bytes <= own + (own / 4 > 32 ? own / 4 : 32);
	}
	if (d->alignment <= 16)
		return false;
	return bytes % d->alignment == 0 && bytes >= d->size &&
	       bytes <= 4ull * (d->size > d->alignment ? d->size : d->alignment);
}

/* The shortest request that the block fits. Blocks are asked about in ascending order, so that none takes what only another
 * fits. */
static bool asked_for(uint64_t bytes, bool large)
{
	struct board *b = campaign.board;
	struct doubt *best = NULL;

	for (uint32_t i = 0; i < b->n_doubts; i++) {
		struct doubt *d = &b->doubt[i];

		if (d->size && !d->off && fits(d, bytes, large) && (!best || d->size < best->size))
			best = d;
	}
	if (best)
		best->size = 0;
	return best != NULL;
}

/* An allocated block that no entry knows. */
static void judge(struct finder *f, uint64_t off, uint32_t page, uint64_t bytes, uint32_t *written_off)
{
	struct board *b = campaign.board;

	add_lost(f, off);
	if (in_doubt(off))
		return;
	if (*written_off && f->written_off_room) {
		--*written_off;
		f->written_off_room--;
		b->written_off++;
	} else if (f->n_unknown < MAX_LOST) {
		f->unknown[f->n_unknown++] = (struct unknown){off, bytes, page};
	}
}

static int by_bytes(const void *a, const void *b)
{
	const struct unknown *x = a, *y = b;

	return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Each must be what a killed thread was asking for. */
static void judge_unknown(struct finder *f)
{
	qsort(f->unknown, f->n_unknown, sizeof(*f->unknown), by_bytes);
	for (uint32_t i = 0; i < f->n_unknown; i++) {
		const struct unknown *u = &f->unknown[i];
		struct shmi_word word = shmi_span_word(f->img, (shmi_page){u->page});

		if (asked_for(u->bytes, word.state == SHMI_SPAN_LARGE))
			campaign.board->lost++;
		else
			violation("audit: %llx is allocated and nobody's: %llu bytes, span %u, state %u, class %u, "
			          "owner %u",
			        (unsigned long long)u->off, (unsigned long long)u->bytes, u->page, word.state,
			        word.sclass.c, word.owner);
	}
}

static void audit_small(struct finder *f, const struct shmi_walk *walk)
{
	const struct shmi_class *class = &f->img->classes[shmi_sclass_size_class(walk->word.sclass)];
	shmi_a64 *bitmap = shmi_bitmap_at(f->img, walk->page);
	uint32_t written_off = shmi_span_at(f->img, walk->page)->written_off;

	for (uint32_t w = 0; w < class->words; w++) {
		uint64_t at = walk->page.i * 8ull + w;
		uint64_t free = shmi_slots_peek(bitmap, class, w), cached = f->marks.cached[at];
		uint64_t lost = shmi_slots_mask(class, w) & ~(free | cached | f->marks.journaled[at]);

		if (free & cached)
			violation("audit: span %u word %u: slots %llx are cached and free", walk->page.i, w,
			        (unsigned long long)(free & cached));
		for (; lost; lost &= lost - 1) {
			uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(lost);

			judge(f, shmi_page_off(walk->page).b + (uint64_t)slot * class->size, walk->page.i, class->size,
			        &written_off);
		}
	}
}

static void audit_heap(struct finder *f)
{
	struct shmi_walk walk = shmi_walk_start(f->img);

	while (shmi_walk_next(f->img, &walk)) {
		uint32_t none = 0;
		uint64_t at = walk.page.i * 8ull;

		if (walk.word.state < SHMI_SPAN_CENTRAL)
			continue;
		if (walk.word.owner != SHMI_NOBODY && !f->alive[walk.word.owner % SHMI_MAX_CLIENTS])
			violation("audit: span %u, class %u, is owned by %u, who is dead", walk.page.i,
			        walk.word.sclass.c, walk.word.owner);
		if (walk.word.state == SHMI_SPAN_QUARANTINE)
			violation("audit: span %u was set aside", walk.page.i);
		else if (walk.word.state != SHMI_SPAN_LARGE)
			audit_small(f, &walk);
		else if (!((f->marks.cached[at] | f->marks.journaled[at]) & 1))
			judge(f, shmi_page_off(walk.page).b, walk.page.i, shmi_npages_bytes(walk.pages), &none);
	}
}

/* ---- all of it ---- */

static void *zeros(size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		abort();
	return p;
}

void audit(struct worker *w, bool last)
{
	struct board *b = campaign.board;
	const struct shmi_image *img = &w->heap->env.img;
	uint64_t words = shmi_image_published(img) * 8ull, counter;
	struct finder f = {.w = w, .img = img, .marks = {zeros(words * 8), zeros(words * 8), words}};

	f.lost = zeros(MAX_LOST * sizeof(*f.lost));
	f.unknown = zeros(MAX_LOST * sizeof(*f.unknown));
	wait_for_burials(&f);
	counter = shmi_load(&img->super->counters.slots_written_off);
	f.written_off_room = counter - b->written_off_counter;
	b->written_off_counter = counter;
	for (uint32_t c = 0; c < SHMI_CLASSES; c++)
		class_bytes[c] = img->classes[c].size;
	mark_caches(&f);
	audit_journal(&f);
	audit_heap(&f);
	judge_unknown(&f);
	b->audits++;
	b->audited += f.live;
	b->most_live = f.live > b->most_live ? f.live : b->most_live;
	b->n_doubts = 0;
	for (uint32_t i = 0; i < f.n_lost; i++)
		shma_free(shma_from_off(w->heap, f.lost[i]));
	for (uint32_t i = 0; last && i < SLOTS * REGION; i++)
		if (atomic_load(&b->entry[i].word))
			journal_free(w, i);
	free(f.marks.cached);
	free(f.marks.journaled);
	free(f.lost);
	free(f.unknown);
}
