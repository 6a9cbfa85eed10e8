/* Invariants of what threads cache: every cached slot is one, and is nowhere else.
 *
 * Slots move while we look: one that we saw in one magazine may have been allocated, freed and cached by another thread before
 * we come by there. So the slots that were met twice are only suspects. A second walk finds all places where they are, and
 * two places count if the slot is seen in the first, then in the second, then in the first again: it cannot have gone
 * there and back in between. The same for a slot that is free in its bitmap.
 *
 * Half-done puts explain themselves. While a thread's spill is not empty its magazine of that class is being closed up, so
 * entries may stand there twice, or in the spill as well; and the slots of the last group, once the intent says PUT for it,
 * may be anywhere. A big cache that is being closed up has entries twice as well, and no spill to say so.
 */
#include "shm/check_ctl.h"

#include <stdlib.h>

enum where { IN_MAGAZINE, IN_SPILL, IN_BIG };

/* Where a block is cached: entry `index` of a magazine or of a big cache, or bit `bit` of group `index` of a spill. */
struct place {
	uint64_t off; /* of the block; in a big cache the entry */
	uint64_t slot; /* 512 times the span's first page, plus the slot's number; of a large block the page */
	uint32_t thread, index;
	uint16_t sclass;
	uint8_t where;
	uint8_t bit;
};

typedef void (*place_fn)(struct shmi_checker *c, const struct place *place, void *arg);

/* ---- where a slot is ---- */

/* The span of blocks in use that has a slot at `off`: *span and *slot, and its word; false if none has. */
static bool find_slot(
        const struct shmi_checker *c, uint64_t off, uint32_t *span, uint32_t *slot, struct shmi_word *word)
{
	shmi_page page = shmi_off_page((shmi_off){off});

	if (page.i == 0 || page.i >= c->published)
		return false;
	*span = shmi_load(shmi_page_span_at(c->img, page));
	if (!shmi_run_begins(c, *span) || *span > page.i)
		return false;
	*word = shmi_span_word(c->img, (shmi_page){*span});
	if (!shmi_state_in_use(word->state) || !shmi_sclass_is_small(word->sclass))
		return false;
	const struct shmi_class *class = shmi_checker_class(c, word->sclass.c);
	uint64_t delta = off - ((uint64_t)*span << SHMI_PAGE_SHIFT);

	if (delta >= (uint64_t) class->pages << SHMI_PAGE_SHIFT)
		return false;
	*slot = shmi_slot_of(class, (uint32_t)delta);
	return *slot < class->slots && (uint64_t)*slot * class->size == delta;
}

static bool magazine_holds(const struct shmi_checker *c, const struct place *p)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, p->thread);
	struct shmi_magazine *mag = shmi_magazine_at(c->img, rec, (shmi_sclass){p->sclass});

	return shmi_load_acquire(&mag->top) > p->index && shmi_load_acquire(&mag->entry[p->index]) == p->off;
}

/* The intent is read first: if it does not yet say that this group is put and the group is still there afterwards, then it had
 * not been put when the intent was read. */
static bool spill_holds(const struct shmi_checker *c, const struct place *p)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, p->thread);
	bool putting = shmi_load_acquire(&rec->intent.op) >= SHMI_INTENT_PUT;
	struct shmi_group g = shmi_group_read(&rec->spill[p->index]);
	uint32_t top = shmi_load_acquire(&rec->spill_top);

	if (putting && p->index + 1 >= top)
		return false;
	return p->index < top && (uint64_t)g.span * 512 + g.word * 64 + p->bit == p->slot && g.bits >> p->bit & 1;
}

static bool big_holds(const struct shmi_checker *c, const struct place *p)
{
	struct shmi_bigmag *big = &shmi_threadrec_at(c->img, p->thread)->big;

	return shmi_load_acquire(&big->top) > p->index && shmi_load_acquire(&big->entry[p->index]) == p->off;
}

static bool place_holds(const struct shmi_checker *c, const struct place *p)
{
	switch (p->where) {
	case IN_MAGAZINE:
		return magazine_holds(c, p);
	case IN_SPILL:
		return spill_holds(c, p);
	default:
		return big_holds(c, p);
	}
}

/* ---- all places ---- */

static void each_entry(struct shmi_checker *c, uint32_t thread, uint32_t parts, place_fn fn, void *arg)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, thread);

	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		shmi_sclass sclass = {(uint16_t)s};

		if (!shmi_sclass_is_small(sclass) || !(parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		struct shmi_magazine *mag = shmi_magazine_at(c->img, rec, sclass);
		uint32_t top = shmi_load_acquire(&mag->top), cap = shmi_checker_class(c, s)->mag_cap;

		for (uint32_t i = 0; i < top && i < cap; i++) {
			struct place place = {.off = shmi_load_acquire(&mag->entry[i]),
			        .thread = thread,
			        .index = i,
			        .sclass = sclass.c};

			if (place.off) /* 0: taken out by a reclaim */
				fn(c, &place, arg);
		}
	}
}

static void each_spilled(struct shmi_checker *c, uint32_t thread, place_fn fn, void *arg)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, thread);
	uint32_t top = shmi_load_acquire(&rec->spill_top);

	for (uint32_t i = 0; i < top && i < SHMI_SPILL_MAX; i++) {
		struct shmi_group g = shmi_group_read(&rec->spill[i]);

		if (g.sclass >= SHMI_SPAN_CLASSES || !shmi_sclass_is_small((shmi_sclass){(uint16_t)g.sclass}) ||
		        g.word >= shmi_checker_class(c, g.sclass)->words)
			continue; /* I13 reports it */
		for (; g.bits; g.bits &= g.bits - 1) {
			uint32_t bit = (uint32_t)__builtin_ctzll(g.bits);
			uint64_t delta = (uint64_t)(g.word * 64 + bit) * shmi_checker_class(c, g.sclass)->size;
			struct place place = {.off = ((uint64_t)g.span << SHMI_PAGE_SHIFT) + delta,
			        .slot = (uint64_t)g.span * 512 + g.word * 64 + bit,
			        .thread = thread,
			        .index = i,
			        .sclass = (uint16_t)g.sclass,
			        .where = IN_SPILL,
			        .bit = (uint8_t)bit};

			fn(c, &place, arg);
		}
	}
}

static void each_place(struct shmi_checker *c, bool spills, place_fn fn, void *arg)
{
	struct shmi_thread_slot slot;

	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		if (!shmi_checker_record(c, t, &slot))
			continue;
		each_entry(c, t, slot.parts, fn, arg);
		if (spills)
			each_spilled(c, t, fn, arg);
	}
}

/* ---- I10, I25, I24, I12 ---- */

static void check_entry(struct shmi_checker *c, const struct place *p, void *arg)
{
	uint32_t span, slot;
	struct shmi_word word;

	(void)arg;
	if (!find_slot(c, p->off, &span, &slot, &word)) {
		if (place_holds(c, p))
			shmi_found(c, shmi_off_page((shmi_off){p->off}).i, p->off,
			        "thread %u has cached %lx in span class %u, where no block begins", p->thread, p->off,
			        (unsigned)p->sclass);
	} else if (word.sclass.c != p->sclass && place_holds(c, p)) {
		shmi_found(c, span, p->off, "thread %u has cached %lx in span class %u, and it is of %u", p->thread,
		        p->off, (unsigned)p->sclass, (unsigned)word.sclass.c);
	}
}

void shmi_check_entries(struct shmi_checker *c)
{
	each_place(c, false, check_entry, NULL);
}

static void check_seized(struct shmi_checker *c, const struct place *p, void *arg)
{
	uint32_t span, slot;
	struct shmi_word word;

	(void)arg;
	if (!find_slot(c, p->off, &span, &slot, &word) || word.state != SHMI_SPAN_SEIZED)
		return;
	if (place_holds(c, p) && shmi_span_word(c->img, (shmi_page){span}).state == SHMI_SPAN_SEIZED)
		shmi_found(c, span, p->off, "thread %u has cached %lx, of a seized span", p->thread, p->off);
}

void shmi_check_seized_entries(struct shmi_checker *c)
{
	each_place(c, false, check_seized, NULL);
}

static void check_scoped(struct shmi_checker *c, const struct place *p, void *arg)
{
	uint32_t span, slot, client = shmi_thread_slot_at(c->img, p->thread)->client;
	struct shmi_word word;

	(void)arg;
	if (!find_slot(c, p->off, &span, &slot, &word) || !shmi_sclass_scoped(word.sclass) ||
	        word.state == SHMI_SPAN_QUARANTINE)
		return;
	if (word.owner != client && place_holds(c, p))
		shmi_found(c, span, p->off, "thread %u of client %u has cached %lx, a scoped block of client %u",
		        p->thread, client, p->off, word.owner);
}

void shmi_check_scoped(struct shmi_checker *c)
{
	each_place(c, false, check_scoped, NULL);
}

/* The place as one of a slot; false if there is no such slot (others report that). */
static bool as_slot(const struct shmi_checker *c, struct place *p)
{
	uint32_t span, slot;
	struct shmi_word word;

	if (!find_slot(c, p->off, &span, &slot, &word) || word.sclass.c != p->sclass ||
	        word.state == SHMI_SPAN_QUARANTINE)
		return false;
	p->slot = (uint64_t)span * 512 + slot;
	return true;
}

static bool is_free(const struct shmi_checker *c, uint64_t slot)
{
	shmi_a64 *bitmap = shmi_bitmap_at(c->img, (shmi_page){(uint32_t)(slot / 512)});

	return shmi_load_acquire(&bitmap[slot % 512 / 64]) >> slot % 64 & 1;
}

static void check_not_free(struct shmi_checker *c, const struct place *place, void *arg)
{
	struct place p = *place;

	(void)arg;
	if (!as_slot(c, &p) || !is_free(c, p.slot) || !place_holds(c, &p) || !is_free(c, p.slot) || !place_holds(c, &p))
		return;
	shmi_found(c, (uint32_t)(p.slot / 512), p.slot % 512, "slot %lu of page %lu is free and cached by thread %u",
	        p.slot % 512, p.slot / 512, p.thread);
}

void shmi_check_not_free(struct shmi_checker *c)
{
	each_place(c, true, check_not_free, NULL);
}

/* ---- I11 ---- */

/* A growing array of places; at most SHMI_FINDINGS_MAX. */
struct places {
	struct place *v;
	uint32_t n, room;
};

static void add_place(struct shmi_checker *c, struct places *places, const struct place *p)
{
	if (places->n == SHMI_FINDINGS_MAX)
		return;
	if (places->n == places->room) {
		uint32_t room = places->room ? places->room * 2 : 64;
		struct place *grown = realloc(places->v, room * sizeof(*grown));

		if (!grown) {
			c->no_memory = true;
			return;
		}
		places->v = grown;
		places->room = room;
	}
	places->v[places->n++] = *p;
}

static int compare_slots(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return x->slot == y->slot ? 0 : x->slot < y->slot ? -1 : 1;
}

static void sort_places(struct places *places)
{
	if (places->n)
		qsort(places->v, places->n, sizeof(*places->v), compare_slots);
}

static void mark(struct shmi_checker *c, const struct place *place, void *arg)
{
	struct place p = *place;

	if (as_slot(c, &p) && shmi_bit_set(c->slot_marks, p.slot))
		add_place(c, arg, &p);
}

struct gather {
	const struct places *suspects;
	struct places *found;
};

static void gather(struct shmi_checker *c, const struct place *place, void *arg)
{
	struct gather *g = arg;
	struct place p = *place;

	if (as_slot(c, &p) && bsearch(&p, g->suspects->v, g->suspects->n, sizeof(p), compare_slots))
		add_place(c, g->found, &p);
}

static bool both_hold(const struct shmi_checker *c, const struct place *a, const struct place *b)
{
	return place_holds(c, a) && place_holds(c, b) && place_holds(c, a);
}

/* A put of this thread has begun and not ended: it explains two places in one record, but not two in the spill. */
static bool explained(const struct shmi_checker *c, const struct place *a, const struct place *b)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, a->thread);

	return a->thread == b->thread && !(a->where == IN_SPILL && b->where == IN_SPILL) &&
	       shmi_load_acquire(&rec->spill_top) != 0 && shmi_group_read(&rec->spill[0]).sclass == a->sclass;
}

static void check_pair(struct shmi_checker *c, const struct place *a, const struct place *b)
{
	if (!both_hold(c, a, b) || explained(c, a, b) || !both_hold(c, a, b))
		return;
	shmi_found(c, (uint32_t)(a->slot / 512), a->slot % 512, "slot %lu of page %lu is cached by thread %u and by %u",
	        a->slot % 512, a->slot / 512, a->thread, b->thread);
}

void shmi_check_one_cache(struct shmi_checker *c)
{
	struct places suspects = {0}, found = {0};
	struct gather arg = {.suspects = &suspects, .found = &found};

	each_place(c, true, mark, &suspects);
	sort_places(&suspects);
	if (suspects.n)
		each_place(c, true, gather, &arg);
	sort_places(&found);
	for (uint32_t i = 1; i < found.n; i++)
		if (found.v[i].slot == found.v[i - 1].slot)
			check_pair(c, &found.v[i - 1], &found.v[i]);
	free(suspects.v);
	free(found.v);
}

/* ---- I21 ---- */

/* The large block that a place in a big cache names; false if the entry is void or (reported) wrong. */
static bool check_big_entry(struct shmi_checker *c, struct place *p)
{
	uint32_t page = (uint32_t)p->off;
	const char *fault = NULL;
	struct shmi_word word;

	if (page == 0 || page >= c->published) {
		fault = "which is not there";
	} else {
		word = shmi_span_word(c->img, (shmi_page){page});
		if (!shmi_run_begins(c, page) || !shmi_state_in_use(word.state) || word.generation != p->off >> 32)
			return false; /* void */
		if (!shmi_sclass_is_large(word.sclass))
			fault = "a span of blocks";
	}
	if (fault && place_holds(c, p))
		shmi_found(c, page, p->off, "the big cache of thread %u names page %u, %s", p->thread, page, fault);
	p->slot = page;
	return !fault;
}

void shmi_check_big(struct shmi_checker *c)
{
	struct places blocks = {0};
	struct shmi_thread_slot slot;

	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		if (!shmi_checker_record(c, t, &slot))
			continue;
		struct shmi_threadrec *rec = shmi_threadrec_at(c->img, t);
		uint32_t top = shmi_load_acquire(&rec->big.top);

		for (uint32_t i = 0; i < top && i < SHMI_BIG_MAX; i++) {
			struct place p = {
			        .off = shmi_load_acquire(&rec->big.entry[i]), .thread = t, .index = i, .where = IN_BIG};

			if (check_big_entry(c, &p))
				add_place(c, &blocks, &p);
		}
	}
	sort_places(&blocks);
	for (uint32_t i = 1; i < blocks.n; i++)
		if (blocks.v[i].slot == blocks.v[i - 1].slot && blocks.v[i].thread != blocks.v[i - 1].thread &&
		        both_hold(c, &blocks.v[i - 1], &blocks.v[i]))
			shmi_found(c, (uint32_t)blocks.v[i].slot, blocks.v[i].off,
			        "the large block at page %lu is cached by thread %u and by %u", blocks.v[i].slot,
			        blocks.v[i - 1].thread, blocks.v[i].thread);
	free(blocks.v);
}
