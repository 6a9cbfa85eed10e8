/* The put side of the thread cache: blocks go back into the bitmaps they came from. */
#include "client/tcache.h"

static const struct shmi_class *class_of(const struct shmi_tcache *tc, uint32_t sclass)
{
	return shmi_tcache_class(tc, (shmi_sclass){(uint16_t)sclass});
}

/* The slot at `off`, as a group of one bit. Its page is in the heap and has class `sclass`, which is small. */
static inline enum shmi_tc_free locate_in(const struct shmi_tc_env *env, const struct shmi_class *class, uint64_t off,
        uint32_t sclass, struct shmi_group *g)
{
	shmi_page page = shmi_off_page((shmi_off){off});
	uint32_t first = shmi_load_acquire(shmi_page_span_at(&env->img, page));
	uint64_t delta = off - shmi_page_off((shmi_page){first}).b; /* huge if the span begins behind it */

	if (delta >> SHMI_PAGE_SHIFT >= class->pages)
		return SHMI_FREE_NOTHING;
	uint32_t slot = shmi_slot_of(class, (uint32_t)delta);

	if (slot * class->size != delta)
		return SHMI_FREE_INSIDE;
	if (slot >= class->slots)
		return SHMI_FREE_NOTHING;
	*g = (struct shmi_group){.bits = 1ull << slot % 64, .span = first, .word = slot / 64, .sclass = sclass};
	return SHMI_FREED;
}

static enum shmi_tc_free locate(const struct shmi_tc_env *env, uint64_t off, uint32_t sclass, struct shmi_group *g)
{
	return locate_in(env, &env->img.classes[sclass / SHMI_ATTRS], off, sclass, g);
}

static uint64_t first_block(const struct shmi_class *class, const struct shmi_group *g, uint64_t bits)
{
	uint32_t slot = g->word * 64 + (uint32_t)__builtin_ctzll(bits);

	return shmi_page_off((shmi_page){g->span}).b + (uint64_t)slot * class->size;
}

/* How many entries from the first on, `most` at most, lie `step` bytes behind the one before. */
static inline uint32_t run_length(const shmi_a64 *entry, uint32_t most, uint64_t step)
{
	uint64_t off = shmi_load(entry);
	uint32_t n = 1;

	while (n < most && shmi_load(&entry[n]) == (off += step))
		n++;
	return n;
}

/* Blocks are often freed in the order in which they were allocated, or the other way round: the entries after the first, whose
 * slot is in `g`, that are the next ones of its bitmap word, or the ones before. Adds them, and returns how many there are then. */
static inline uint32_t add_run(
        const shmi_a64 *entry, uint32_t most, const struct shmi_class *class, struct shmi_group *g)
{
	uint64_t step = most > 1 ? shmi_load(&entry[1]) - shmi_load(entry) : 0, size = class->size;
	uint32_t bit = (uint32_t)__builtin_ctzll(g->bits), slots = class->slots - g->word * 64, room, n;

	if (step != size && step != -size)
		return 1;
	room = step != size ? bit + 1 : (slots < 64 ? slots : 64) - bit;
	n = run_length(entry, most < room ? most : room, step);
	g->bits = ~0ull >> (64 - n) << (step != size ? bit + 1 - n : bit);
	return n;
}

/* Adds the bits to the group of the same bitmap word, or makes one. A word that was met before another one with the same hash gets
 * a group more: that is rare, and does no harm. Returns the bits that were there already. */
static inline uint64_t add_group(struct shmi_tcache *tc, const struct shmi_group *g, uint32_t *count)
{
	uint16_t *hint = &tc->hash[(g->span * 8u + g->word) * 0x9e3779b1u >> 22]; /* 10 bits: twice SHMI_SPILL_MAX */
	struct shmi_group *have = &tc->groups[*hint];

	/* One branch: what is left of earlier puts makes each of the three a matter of luck. */
	if (((have->span ^ g->span) | (have->word ^ g->word) | (*hint >= *count)) == 0) {
		uint64_t twice = have->bits & g->bits;

		have->bits |= g->bits;
		return twice;
	}
	__builtin_prefetch(&tc->env->held[g->span]);
	__builtin_prefetch(&shmi_bitmap_at(&tc->env->img, (shmi_page){g->span})[g->word], 1);
	*hint = (uint16_t)*count;
	have = &tc->groups[(*count)++];
	have->bits = g->bits; /* one by one: a copy of the whole would wait for what was just written */
	have->span = g->span;
	have->word = g->word;
	have->sclass = g->sclass;
	return 0;
}

static void date_groups(struct shmi_tcache *tc, uint32_t count)
{
	for (struct shmi_group *g = tc->groups; g < tc->groups + count; g++) {
		const struct shmi_held *node = &tc->env->held[g->span];

		g->generation = shmi_load(&node->thread) == tc->thread + 1
		                        ? node->generation
		                        : shmi_span_word(&tc->env->img, (shmi_page){g->span}).generation;
	}
}

/* Sorts the oldest entries of a magazine by bitmap word, as many of `*entries` as SHMI_SPILL_MAX words have room for. Returns
 * the number of groups. */
static uint32_t group_oldest(struct shmi_tcache *tc, uint32_t sclass, const struct shmi_class *class, uint32_t *entries)
{
	const shmi_a64 *entry = tc->mag[sclass]->entry;
	uint32_t count = 0, i = 0;

	while (i < *entries && count < SHMI_SPILL_MAX) {
		struct shmi_group g;
		enum shmi_tc_free what = locate_in(tc->env, class, shmi_load(&entry[i]), sclass, &g);

		if (what != SHMI_FREED)
			shmi_misuse(tc->env, what, shmi_load(&entry[i]));
		i += add_run(&entry[i], *entries - i, class, &g);
		uint64_t twice = add_group(tc, &g, &count);

		if (twice)
			shmi_misuse(tc->env, SHMI_FREE_TWICE, first_block(class, &g, twice));
	}
	date_groups(tc, count);
	*entries = i;
	return count;
}

static bool word_full(const struct shmi_tcache *tc, const struct shmi_group *g, const struct shmi_class *class)
{
	shmi_a64 *bitmap = shmi_bitmap_at(&tc->env->img, (shmi_page){g->span});

	return shmi_slots_peek(bitmap, class, g->word) == shmi_slots_mask(class, g->word);
}

static void note_report(struct shmi_tcache *tc, uint32_t page)
{
	struct shmi_tc_ask *ask = &tc->ask;

	for (uint32_t i = 0; i < ask->n_reports; i++)
		if (ask->reports[i] == page)
			return;
	if (ask->n_reports < SHMI_TC_REPORTS) /* the daemon finds by itself what is not reported, but later */
		ask->reports[ask->n_reports++] = page;
}

/* Slots of a span that this thread holds were put back. */
static void after_own_put(
        struct shmi_tcache *tc, const struct shmi_class *class, const struct shmi_group *g, struct shmi_held *node)
{
	if (node->queue == SHMI_HELD_FULL) {
		shmi_queue_remove(tc->env->held, &tc->full[g->sclass], g->span);
		shmi_queue_append(tc->env->held, &tc->ready[g->sclass], g->span, SHMI_HELD_READY);
	}
	if (node->queue != SHMI_HELD_READY || node->whole || !word_full(tc, g, class) ||
	        !shmi_tcache_is_whole(tc, g->span))
		return;
	shmi_tcache_found_whole(tc, g->span);
}

/* What is most often so after a put: the span is this thread's, known to have free slots, and has others that are not. */
static inline bool nothing_new(const struct shmi_tcache *tc, const struct shmi_class *class, const struct shmi_group *g)
{
	const struct shmi_held *node = &tc->env->held[g->span];

	return shmi_load(&node->thread) == tc->thread + 1 && node->queue == SHMI_HELD_READY && !word_full(tc, g, class);
}

/* Slots of the groups from `from` on were put back: who should know? */
static void after_put(struct shmi_tcache *tc, const struct shmi_class *class, uint32_t from, uint32_t count)
{
	bool fenced = false;

	for (const struct shmi_group *g = tc->groups + from; g < tc->groups + count; g++) {
		struct shmi_held *node = &tc->env->held[g->span];

		if (shmi_load(&node->thread) == tc->thread + 1) {
			after_own_put(tc, class, g, node);
			continue;
		}
		tc->ask.remote_freed += (uint32_t)__builtin_popcountll(g->bits);
		if (!fenced)
			shmi_fence(); /* P2, for all of them */
		fenced = true;
		if (shmi_span_word(&tc->env->img, (shmi_page){g->span}).state == SHMI_SPAN_CENTRAL)
			note_report(tc, g->span);
	}
}

void shmi_tcache_put_oldest(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t entries)
{
	const struct shmi_class class = *class_of(tc, sclass.c);

	while (entries) {
		uint32_t n = entries, count = group_oldest(tc, sclass.c, &class, &n), from = count;
		struct shmi_group g;

		shmi_threadrec_spill(tc->rec, tc->mag[sclass.c], n, tc->groups, count);
		for (uint32_t left = count; left--;) {
			uint64_t twice = shmi_threadrec_put(&tc->env->img, tc->rec, &g);

			if (twice)
				shmi_misuse(tc->env, SHMI_FREE_TWICE, first_block(&class, &g, twice));
			if (!nothing_new(tc, &class, &g))
				tc->groups[--from] = g; /* behind those that are yet to be put */
		}
		after_put(tc, &class, from, count);
		entries -= n;
	}
}

/* A block goes straight back: until the or it is allocated, after it free. True if it was free already. If the process whose scoped
 * span it is dies meanwhile its span goes with it, and what is free already is another span's: that is no double free. */
static bool put_straight(const struct shmi_tc_env *env, const struct shmi_group *g)
{
	uint32_t generation = shmi_span_word(&env->img, (shmi_page){g->span}).generation;

	return shmi_slots_put(shmi_bitmap_at(&env->img, (shmi_page){g->span}), g->word, g->bits) &&
	       shmi_span_word(&env->img, (shmi_page){g->span}).generation == generation;
}

static void put_foreign(struct shmi_tcache *tc, const struct shmi_group *g, uint64_t off)
{
	if (put_straight(tc->env, g))
		shmi_misuse(tc->env, SHMI_FREE_TWICE, off);
	tc->ask.remote_freed++;
	shmi_fence(); /* P2 */
	if (shmi_span_word(&tc->env->img, (shmi_page){g->span}).state == SHMI_SPAN_CENTRAL)
		note_report(tc, g->span);
}

static bool own_scoped(const struct shmi_tcache *tc, uint32_t page)
{
	return shmi_load(&tc->env->own_scoped[page / 64]) >> page % 64 & 1;
}

/* With SHMALLOC_HARDEN every free looks whether the block is free already: in its bitmap or in this thread's magazine. */
static bool is_free(const struct shmi_tcache *tc, const struct shmi_group *g, uint64_t off)
{
	struct shmi_magazine *mag = tc->mag[g->sclass];
	shmi_a64 *bitmap = shmi_bitmap_at(&tc->env->img, (shmi_page){g->span});

	if (shmi_load_acquire(&bitmap[g->word]) & g->bits)
		return true;
	if (shmi_tcache_is_seized(tc, g->span)) /* no block is in use there, though no bit says so */
		return true;
	for (uint32_t i = mag ? shmi_load(&mag->top) : 0; i-- > 0;)
		if (shmi_load(&mag->entry[i]) == off)
			return true;
	return false;
}

/* Pushes; a magazine at its limit may hold more from now on, or puts its older half back. */
static void push(struct shmi_tcache *tc, shmi_sclass sclass, uint64_t off)
{
	struct shmi_magazine *mag = tc->mag[sclass.c];

	if (shmi_load(&mag->top) >= tc->limit[sclass.c])
		shmi_tcache_grow(tc, sclass);
	if (shmi_load(&mag->top) >= tc->limit[sclass.c])
		shmi_tcache_put_oldest(tc, sclass, (shmi_load(&mag->top) + 1) / 2);
	uint32_t top = shmi_load(&mag->top);

	shmi_store(&mag->entry[top], off);
	shmi_store_release(&mag->top, top + 1);
}

static int set_up_to_free(struct shmi_tcache *tc, shmi_sclass sclass)
{
	tc->to_free = true;
	int error = shmi_tcache_set_up(tc, sclass);

	tc->to_free = false;
	return error;
}

enum shmi_tc_free shmi_tcache_free(struct shmi_tcache *tc, uint64_t off)
{
	const struct shmi_image *img = &tc->env->img;
	shmi_page page = shmi_off_page((shmi_off){off});
	struct shmi_group g;

	if (!shmi_image_page_ok(img, page))
		return SHMI_FREE_OUTSIDE;
	if (!tc->env->harden)
		tc->bytes = shmi_page_off((shmi_page){shmi_image_published(img)}).b;
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(img, page))};

	if (shmi_sclass_is_large(sclass))
		return SHMI_FREE_LARGE;
	if (!shmi_sclass_is_small(sclass))
		return SHMI_FREE_NOTHING;
	enum shmi_tc_free what = locate(tc->env, off, sclass.c, &g);

	if (what != SHMI_FREED)
		return what;
	if (tc->env->harden && is_free(tc, &g, off))
		return SHMI_FREE_TWICE;
	shmi_tcache_catch_up(tc);
	/* Where there is no memory for a magazine, or no daemon to ask, the block needs none. */
	if ((shmi_sclass_scoped(sclass) && !own_scoped(tc, g.span)) || set_up_to_free(tc, sclass) != 0)
		put_foreign(tc, &g, off);
	else
		push(tc, sclass, off);
	return SHMI_FREED;
}

/* Whoever frees needs no record to set a bit. A central span that has slots again is found by the daemon when it looks. */
enum shmi_tc_free shmi_tcache_free_bare(struct shmi_tc_env *env, uint64_t off)
{
	shmi_page page = shmi_off_page((shmi_off){off});
	struct shmi_group g;

	if (!shmi_image_page_ok(&env->img, page))
		return SHMI_FREE_OUTSIDE;
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(&env->img, page))};

	if (!shmi_sclass_is_small(sclass))
		return shmi_sclass_is_large(sclass) ? SHMI_FREE_LARGE : SHMI_FREE_NOTHING;
	enum shmi_tc_free what = locate(env, off, sclass.c, &g);

	return what == SHMI_FREED && put_straight(env, &g) ? SHMI_FREE_TWICE : what;
}
