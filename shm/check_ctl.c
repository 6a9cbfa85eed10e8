/* Invariants of bitmaps, intents and fill levels: what clients write while we look. Each word is read once, and each finding
 * has to be found again (shm/check.h). */
#include "shm/check_ctl.h"

const struct shmi_class *shmi_checker_class(const struct shmi_checker *c, uint32_t sclass)
{
	return &c->img->classes[sclass / SHMI_ATTRS];
}

bool shmi_checker_record(const struct shmi_checker *c, uint32_t thread, struct shmi_thread_slot *slot)
{
	*slot = *shmi_thread_slot_at(c->img, thread);
	if (slot->client == SHMI_NOBODY || !slot->head)
		return false;
	return !c->env->reclaiming || !c->env->reclaiming(c->env->ctx, thread);
}

/* ---- bitmaps ---- */

void shmi_check_central_free(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk))
		if (walk.word.state == SHMI_SPAN_CENTRAL && shmi_span_at(c->img, walk.page)->list == SHMI_LIST_FREE &&
		        !shmi_slots_count(shmi_bitmap_at(c->img, walk.page), shmi_checker_class(c, walk.word.sclass.c)))
			shmi_found(c, walk.page.i, 0, "the span at page %u is listed with free slots and has none",
			        walk.page.i);
}

void shmi_check_bitmaps(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		if (walk.word.state != SHMI_SPAN_CENTRAL && walk.word.state != SHMI_SPAN_OWNED)
			continue;
		const struct shmi_class *class = shmi_checker_class(c, walk.word.sclass.c);
		uint64_t beyond = shmi_slots_beyond(shmi_bitmap_at(c->img, walk.page), class);

		if (beyond)
			shmi_found(c, walk.page.i, class->words - 1,
			        "bits %lx of the bitmap of page %u are beyond slot %u", beyond, walk.page.i,
			        class->slots - 1);
	}
}

/* A set bit, in a bitmap that the daemon emptied: somebody has freed what was no block any more. */
void shmi_check_seized(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		if (walk.word.state != SHMI_SPAN_SEIZED)
			continue;
		const struct shmi_class *class = shmi_checker_class(c, walk.word.sclass.c);
		uint32_t free = shmi_slots_count(shmi_bitmap_at(c->img, walk.page), class);

		if (free)
			shmi_found(
			        c, walk.page.i, 0, "the seized span at page %u has %u free slots", walk.page.i, free);
	}
	shmi_check_seized_entries(c);
}

/* ---- fill levels ---- */

static void check_record_tops(struct shmi_checker *c, uint32_t thread, uint32_t parts)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, thread);
	uint32_t spill = shmi_load_acquire(&rec->spill_top), big = shmi_load_acquire(&rec->big.top);

	if (spill > SHMI_SPILL_MAX)
		shmi_found(c, 0, (uint64_t)thread << 32 | SHMI_SPAN_CLASSES, "the spill of thread %u holds %u groups",
		        thread, spill);
	if (big > SHMI_BIG_MAX)
		shmi_found(c, 0, (uint64_t)thread << 32 | (SHMI_SPAN_CLASSES + 1),
		        "the big cache of thread %u holds %u blocks", thread, big);
	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		shmi_sclass sclass = {(uint16_t)s};

		if (!shmi_sclass_is_small(sclass) || !(parts & 1u << shmi_sclass_attrs(sclass)))
			continue;
		uint32_t top = shmi_load_acquire(&shmi_magazine_at(c->img, rec, sclass)->top);

		if (top > shmi_checker_class(c, s)->mag_cap)
			shmi_found(c, 0, (uint64_t)thread << 32 | s,
			        "the magazine of span class %u of thread %u holds %u of %u entries", s, thread, top,
			        shmi_checker_class(c, s)->mag_cap);
	}
}

void shmi_check_tops(struct shmi_checker *c)
{
	struct shmi_thread_slot slot;

	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++)
		if (shmi_checker_record(c, t, &slot))
			check_record_tops(c, t, slot.parts);
}

/* ---- intents and spills ---- */

/* NULL if the group can be true or is void: its span has gone since, and another generation or nothing at all begins at its
 * page. Else what is wrong with it. */
static const char *group_fault(const struct shmi_checker *c, const struct shmi_group *g, struct shmi_word *word)
{
	if (g->span == 0 || g->span >= c->published)
		return "names a page that is not there";
	*word = shmi_span_word(c->img, (shmi_page){g->span});
	if (!shmi_run_begins(c, g->span) || !shmi_state_in_use(word->state) || word->generation != g->generation) {
		word->state = SHMI_SPAN_NONE;
		return NULL;
	}
	if (word->sclass.c != g->sclass || !shmi_sclass_is_small(word->sclass))
		return "names another span class";
	const struct shmi_class *class = shmi_checker_class(c, g->sclass);

	if (g->word >= class->words)
		return "names a word beyond the bitmap";
	return !g->bits || g->bits & ~shmi_slots_mask(class, g->word) ? "names no slots, or slots that are not there"
	                                                              : NULL;
}

static bool same_group(const struct shmi_group *a, const struct shmi_group *b)
{
	return a->bits == b->bits && a->span == b->span && a->generation == b->generation && a->word == b->word &&
	       a->sclass == b->sclass;
}

/* The intent as it stands; false if it was changed while we read it, so that it may be half of one and half of another. */
static bool read_intent(struct shmi_threadrec *rec, struct shmi_group *group, uint32_t *op)
{
	struct shmi_group again;

	*op = shmi_load_acquire(&rec->intent.op);
	*group = shmi_group_read(&rec->intent.group);
	again = shmi_group_read(&rec->intent.group);
	return same_group(group, &again) && shmi_load_acquire(&rec->intent.op) == *op;
}

static void check_intent(struct shmi_checker *c, uint32_t thread, uint32_t client)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, thread);
	struct shmi_word word = {0};
	struct shmi_group g;
	uint32_t op;

	if (!read_intent(rec, &g, &op) || op == SHMI_INTENT_NONE)
		return;
	if (op > SHMI_INTENT_RECLAIM) {
		shmi_found(c, 0, thread, "the intent of thread %u is to do %u, which is nothing", thread, op);
		return;
	}
	const char *fault = group_fault(c, &g, &word);

	if (!fault && op == SHMI_INTENT_TAKE && word.state == SHMI_SPAN_OWNED && word.owner != client)
		fault = "takes from another client's span";
	if (fault)
		shmi_found(c, g.span, thread, "the intent of thread %u %s", thread, fault);
}

static void check_spill(struct shmi_checker *c, uint32_t thread)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(c->img, thread);
	uint32_t top = shmi_load_acquire(&rec->spill_top);

	for (uint32_t i = 0; i < top && i < SHMI_SPILL_MAX; i++) {
		struct shmi_group g = shmi_group_read(&rec->spill[i]);
		struct shmi_word word;
		const char *fault = group_fault(c, &g, &word);

		if (fault && shmi_load_acquire(&rec->spill_top) > i)
			shmi_found(c, g.span, (uint64_t)i << 32 | thread, "group %u of the spill of thread %u %s", i,
			        thread, fault);
	}
}

void shmi_check_intents(struct shmi_checker *c)
{
	struct shmi_thread_slot slot;

	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		if (!shmi_checker_record(c, t, &slot))
			continue;
		uint32_t client = shmi_threadrec_at(c->img, t)->client;

		if (client != slot.client)
			shmi_found(c, 0, (uint64_t)1 << 32 | t, "thread record %u says that client %u has it, not %u",
			        t, client, (unsigned)slot.client);
		check_intent(c, t, slot.client);
		check_spill(c, t);
	}
}
