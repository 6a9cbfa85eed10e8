/* The other clients of a variant, and what they do meanwhile. */
#include "tests/stress/stepping/scene.h"

#include <string.h>

#include "shm/threadrec.h"

#define LIVE 40u /* blocks of a span that are in use at most */

#define HEIRLOOMS 4u /* spans that the heir asks for */

static struct other *holder, *heir;

static bool is_small(const struct variant *v)
{
	return v->size <= SHMI_SMALL_MAX;
}

static uint32_t slots_of(const struct world *w, shmi_page page)
{
	return shmi_span_at(&w->heap.img, page)->slots;
}

/* Some slots of the span are in use, two are cached, the others free. Returns how many are in use. */
static uint32_t use_some(struct world *w, struct other *o, shmi_page page, uint64_t *offs)
{
	uint32_t slots = slots_of(w, page), n = slots > LIVE + 4 ? LIVE : slots > 4 ? slots - 3 : slots;

	for (uint32_t i = 0; i < n; i++)
		offs[i] = world_take(w, page, i);
	if (n + 2 <= slots && n / 64 == (n + 1) / 64)
		world_cache(w, o, page, n / 64, 3ull << n % 64);
	return n;
}

static void name(struct world *w, struct other *o, const char *root, uint64_t off)
{
	w->req = (struct wire_msg){.kind = WIRE_ROOT_SET, .u.root = {.off = off}};
	strcpy(w->req.u.root.name, root);
	world_ask(w, o);
}

static void make_foreign(struct world *w, const struct variant *v)
{
	struct note *note = w->note;
	unsigned attrs = v->flags & SHMI_NOSCAN;

	for (uint32_t i = 0; i < 2; i++)
		note->n_foreign +=
		        use_some(w, holder, world_span(w, holder, v->size, attrs), note->foreign + note->n_foreign);
	name(w, holder, "small", note->foreign[0]);
	shmi_page scoped = world_span(w, holder, v->size, attrs | SHMI_SCOPED);

	for (uint32_t i = 0; i < 3 && i < slots_of(w, scoped); i++)
		note->foreign_scoped[note->n_scoped++] = world_take(w, scoped, i);
}

/* It died in the middle of a put: two slots are in doubt. */
static void leave_in_doubt(struct world *w, const struct other *o, shmi_page page, uint32_t slot)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(&w->heap.img, o->thread);
	struct shmi_word word = shmi_span_word(&w->heap.img, page);

	rec->spill[0] = (struct shmi_group){.bits = 1ull << slot % 64,
	        .span = page.i,
	        .generation = word.generation,
	        .word = slot / 64,
	        .sclass = word.sclass.c};
	rec->intent.group = rec->spill[0];
	shmi_store(&rec->spill_top, 1);
	shmi_store(&rec->intent.op, SHMI_INTENT_PUT);
}

/* Spans of one who has died: nobody holds them, and blocks in them live. */
static void make_central(struct world *w, const struct variant *v)
{
	struct other *dead = world_other(w);
	struct note *note = w->note;

	for (uint32_t i = 0; i < 2 && is_small(v); i++) {
		shmi_page page = world_span(w, dead, v->size, v->flags & SHMI_NOSCAN);

		note->n_central += use_some(w, dead, page, note->central + note->n_central);
		if (i && v->about & V_DOUBT)
			leave_in_doubt(w, dead, page,
			        (uint32_t)((note->central[--note->n_central] - shmi_page_off(page).b) /
			                   world_size_at(w, note->central[0])));
	}
	note->central_large = world_large(w, dead, 35, 0);
	world_kill_other(w, dead);
	w->others--;
}

void scene_make(struct world *w, const struct variant *v)
{
	holder = world_other(w);
	heir = world_other(w);
	if (v->about & V_FOREIGN && is_small(v))
		make_foreign(w, v);
	w->note->foreign_large = world_large(w, holder, 40, 0);
	w->note->foreign_large_scoped = world_large(w, holder, 36, SHMI_SCOPED);
	name(w, holder, "large", w->note->foreign_large);
	if (v->about & V_CENTRAL)
		make_central(w, v);
}

void scene_free_own(struct world *w)
{
	const struct shmi_image *img = &w->heap.img;

	for (uint32_t i = 0; i < w->note->n_own; i++) {
		uint64_t off = w->note->own[i], size = world_size_at(w, off);
		shmi_page first = {shmi_load(shmi_page_span_at(img, shmi_off_page((shmi_off){off})))};
		uint32_t slot = (uint32_t)((off - shmi_page_off(first).b) / size);

		if (shmi_slots_put(shmi_bitmap_at(img, first), slot / 64, 1ull << slot % 64))
			world_die("a block is free already");
	}
}

void scene_grab(struct world *w, const struct variant *v, struct oracle *o)
{
	shmi_page page = world_span(w, holder, is_small(v) ? v->size : 64, v->flags & SHMI_NOSCAN);
	shmi_page large = shmi_off_page((shmi_off){world_large(w, holder, 36, 0)});
	uint32_t slot = 0;

	oracle_given(o, page);
	oracle_given(o, large);
	while (!(shmi_load(&shmi_bitmap_at(&w->heap.img, page)[slot / 64]) >> slot % 64 & 1))
		slot++;
	(void)world_take(w, page, slot);
	oracle_taken(o, page, slot / 64, 1ull << slot % 64);
}

/* ---- hand-over ---- */

static void take_all(struct world *w, struct oracle *o, shmi_page page)
{
	const struct shmi_image *img = &w->heap.img;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(shmi_span_word(img, page).sclass)];

	for (uint32_t i = 0; i < class->words; i++) {
		uint64_t bits = shmi_slots_peek(shmi_bitmap_at(img, page), class, i);

		(void)shmi_slots_take(shmi_bitmap_at(img, page), i, bits);
		oracle_taken(o, page, i, bits);
	}
}

void scene_hand_over(struct world *w, const struct variant *v, struct oracle *o)
{
	uint32_t client = holder->dialogue.caller.client->id;

	oracle_died(o, (uint32_t)(holder - w->other), client);
	w->trial = true;
	world_kill_other(w, holder);
	for (uint32_t i = 0; i < HEIRLOOMS; i++) {
		shmi_page page = world_span(w, heir, is_small(v) ? v->size : 64, v->flags & SHMI_NOSCAN);

		oracle_given(o, page);
		take_all(w, o, page);
	}
}

/* ---- takes ---- */

static bool is_others(const struct world *w, shmi_page page)
{
	struct shmi_word word = shmi_span_word(&w->heap.img, page);

	return word.state == SHMI_SPAN_OWNED && word.owner != world_victim(w);
}

void scene_take(struct world *w, struct oracle *o, struct takes *takes, uint64_t some)
{
	const struct shmi_image *img = &w->heap.img;
	struct shmi_walk walk = shmi_walk_start(img);

	takes->count = 0;
	while (shmi_walk_next(img, &walk)) {
		if (!is_others(w, walk.page))
			continue;
		const struct shmi_class *class = &img->classes[shmi_sclass_size_class(walk.word.sclass)];

		for (uint32_t i = 0; i < class->words && takes->count < SCENE_TAKES; i++) {
			uint64_t bits = shmi_slots_peek(shmi_bitmap_at(img, walk.page), class, i) & some;

			if (!bits)
				continue;
			(void)shmi_slots_take(shmi_bitmap_at(img, walk.page), i, bits);
			takes->take[takes->count++] = (struct shmi_group){
			        .bits = bits & ~o->live[walk.page.i][i], .span = walk.page.i, .word = i};
			oracle_taken(o, walk.page, i, bits);
		}
	}
}

void scene_forget(struct oracle *o, const struct takes *takes)
{
	for (uint32_t i = 0; i < takes->count; i++)
		o->live[takes->take[i].span][takes->take[i].word] &= ~takes->take[i].bits;
}
