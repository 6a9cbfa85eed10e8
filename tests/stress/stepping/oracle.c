#include "tests/stress/stepping/oracle.h"

#include <string.h>

#include "shm/threadrec.h"
#include "tests/stress/stepping/parts.h"

/* ---- what there is ---- */

static void note_span(struct oracle *o, shmi_page page, struct shmi_word word)
{
	o->word[page.i] = word;
	for (uint32_t w = 0; w < class_of(o, word.sclass)->words; w++)
		o->live[page.i][w] = taken(o, page, word.sclass, w);
}

static void note_large(struct oracle *o, shmi_page page, struct shmi_word word)
{
	if (o->n_large == ORACLE_LARGE)
		world_die("too many large blocks");
	o->large[o->n_large++] =
	        (struct oracle_block){page.i, word.generation, word.owner, shmi_sclass_scoped(word.sclass)};
}

static void forget_large(struct oracle *o, uint64_t entry)
{
	for (uint32_t i = 0; i < o->n_large; i++)
		if (o->large[i].page == (uint32_t)entry && o->large[i].generation == entry >> 32)
			o->large[i] = o->large[--o->n_large];
}

static void forget_slot(struct oracle *o, uint64_t off)
{
	const struct shmi_image *img = &o->w->heap.img;
	shmi_page first = {shmi_load(shmi_page_span_at(img, shmi_off_page((shmi_off){off})))};
	uint32_t slot = (uint32_t)((off - shmi_page_off(first).b) / class_of(o, o->word[first.i].sclass)->size);

	o->live[first.i][slot / 64] &= ~(1ull << slot % 64);
}

/* What a record at rest holds is free. */
static void forget_record(struct oracle *o, uint32_t thread)
{
	const struct shmi_image *img = &o->w->heap.img;
	struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);
	uint8_t parts = shmi_thread_slot_at(img, thread)->parts;

	if (shmi_load(&rec->intent.op) || shmi_load(&rec->spill_top))
		world_die("the victim is not at rest");
	for (uint32_t i = 0; i < shmi_load(&rec->big.top); i++)
		forget_large(o, shmi_load(&rec->big.entry[i]));
	for (uint32_t c = SHMI_ATTRS; c < SHMI_CLASS_LARGE * SHMI_ATTRS; c++) {
		struct shmi_magazine *mag = shmi_magazine_at(img, rec, (shmi_sclass){(uint16_t)c});

		for (uint32_t i = 0; parts >> c % SHMI_ATTRS & 1 && i < shmi_load(&mag->top); i++)
			forget_slot(o, shmi_load(&mag->entry[i]));
	}
}

/* The block that the operation frees, unless it goes with the victim anyway. */
static void note_old(struct oracle *o, uint64_t off)
{
	const struct shmi_image *img = &o->w->heap.img;
	shmi_page page = {off ? shmi_load(shmi_page_span_at(img, shmi_off_page((shmi_off){off}))) : 0};
	struct shmi_word word = shmi_span_word(img, page);

	o->given_up = off;
	if (off && !(shmi_sclass_scoped(word.sclass) && word.owner == o->victim)) {
		o->old = off;
		o->old_generation = word.generation;
	}
}

void oracle_begin(struct oracle *o, struct world *w, bool allocates)
{
	struct shmi_walk walk = shmi_walk_start(&w->heap.img);

	memset(o, 0, sizeof(*o));
	o->w = w;
	o->allocates = allocates;
	o->victim = world_victim(w);
	note_old(o, w->note->old);
	while (shmi_walk_next(&w->heap.img, &walk)) {
		if (is_blocks(walk.word))
			note_span(o, walk.page, walk.word);
		else if (walk.word.state == SHMI_SPAN_LARGE)
			note_large(o, walk.page, walk.word);
	}
	for (uint32_t t = 0; t < SHMI_MAX_THREADS && o->victim != SHMI_NOBODY; t++)
		if (shmi_thread_slot_at(&w->heap.img, t)->client == o->victim)
			forget_record(o, t);
	for (uint32_t i = 0; i < w->others; i++)
		memcpy(o->records[i], shmi_threadrec_at(&w->heap.img, w->other[i].thread), sizeof(o->records[i]));
}

void oracle_taken(struct oracle *o, shmi_page page, uint32_t word, uint64_t bits)
{
	shmi_sclass sclass = shmi_span_word(&o->w->heap.img, page).sclass;

	o->live[page.i][word] |= bits;
	for (; bits; bits &= bits - 1)
		if (slot_off(o, page, sclass, word * 64 + (uint32_t)__builtin_ctzll(bits)) == o->old)
			o->old = 0; /* it was free, and has been given out again */
}

void oracle_given(struct oracle *o, shmi_page page)
{
	struct shmi_word word = shmi_span_word(&o->w->heap.img, page);

	if (o->freed && !has_old(o, page, word) &&
	        shmi_off_page((shmi_off){o->old}).i - page.i < shmi_span_at(&o->w->heap.img, page)->pages) {
		forget_large(o, o->old >> SHMI_PAGE_SHIFT | (uint64_t)o->old_generation << 32);
		o->old = 0;
	}
	if (word.state == SHMI_SPAN_LARGE) {
		note_large(o, page, word);
		return;
	}
	if (o->word[page.i].generation != word.generation || !o->word[page.i].state)
		memset(o->live[page.i], 0, sizeof(o->live[page.i]));
	o->word[page.i] = word;
}

static void forget_spans(struct oracle *o, uint32_t client)
{
	for (uint32_t p = 1; p < WORLD_PAGES; p++) {
		struct shmi_word *word = &o->word[p];

		if (!word->state || word->owner != client)
			continue;
		word->state = shmi_sclass_scoped(word->sclass) ? SHMI_SPAN_NONE : SHMI_SPAN_CENTRAL;
		word->owner = SHMI_NOBODY;
		if (word->state)
			continue;
		if (o->old && shmi_off_page((shmi_off){o->old}).i - p < class_of(o, word->sclass)->pages)
			o->old = 0;
		memset(o->live[p], 0, sizeof(o->live[p]));
	}
}

void oracle_died(struct oracle *o, uint32_t other, uint32_t client)
{
	forget_record(o, o->w->other[other].thread);
	forget_spans(o, client);
	for (uint32_t i = o->n_large; i-- > 0;) {
		if (o->large[i].owner != client)
			continue;
		o->large[i].owner = SHMI_NOBODY;
		if (!o->large[i].scoped)
			continue;
		if (o->old >> SHMI_PAGE_SHIFT == o->large[i].page)
			o->old = 0;
		o->large[i] = o->large[--o->n_large];
	}
	o->gone |= 1u << other;
}

/* ---- before ---- */

static void note_doubt(struct oracle *o, uint32_t thread)
{
	const struct shmi_image *img = &o->w->heap.img;
	const struct shmi_threadrec *rec = shmi_threadrec_at(img, thread);
	const struct shmi_group *g = &rec->intent.group;

	if (shmi_load(&rec->intent.op) != SHMI_INTENT_PUT || o->n_doubt == 8 ||
	        shmi_span_word(img, (shmi_page){g->span}).generation != g->generation)
		return;
	if (!(shmi_load(&shmi_bitmap_at(img, (shmi_page){g->span})[g->word]) & g->bits))
		o->doubt[o->n_doubt++] = *g;
}

void oracle_before(struct oracle *o)
{
	const struct shmi_image *img = &o->w->heap.img;

	o->n_doubt = 0;
	if (world_victim(o->w) != SHMI_NOBODY) /* once it has detached it is whom it was */
		o->victim = world_victim(o->w);
	o->bad_words = shmi_load(&img->super->counters.bad_words);
	o->written_off = shmi_load(&img->super->counters.slots_written_off);
	for (uint32_t t = 0; t < SHMI_MAX_THREADS && o->victim != SHMI_NOBODY; t++)
		if (shmi_thread_slot_at(img, t)->client == o->victim)
			note_doubt(o, t);
}
