#include "shm/reclaim.h"

#define CONSUME 64u /* entries that are taken out of the record at a time */

void shmi_reclaim_init(struct shmi_reclaim *r, uint32_t thread, uint32_t client, uint32_t parts)
{
	*r = (struct shmi_reclaim){.thread = thread, .client = client, .parts = parts};
}

/* The span of blocks that a group names, if the group can be true. */
static bool group_ok(const struct shmi_image *img, const struct shmi_group *g, struct shmi_word *word)
{
	if (!shmi_image_page_ok(img, (shmi_page){g->span}) || g->sclass >= SHMI_SPAN_CLASSES)
		return false;
	*word = shmi_span_word(img, (shmi_page){g->span});
	if ((word->state != SHMI_SPAN_OWNED && word->state != SHMI_SPAN_CENTRAL) || word->sclass.c != g->sclass ||
	        word->generation != g->generation)
		return false;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word->sclass)];

	return g->word < class->words && g->bits && !(g->bits & ~shmi_slots_mask(class, g->word));
}

static struct shmi_threadrec *record_of(const struct shmi_image *img, const struct shmi_reclaim *r)
{
	return shmi_threadrec_at(img, r->thread);
}

static void put_back(struct shmi_image *img, struct shmi_reclaim *r, uint32_t span, uint32_t word, uint64_t bits)
{
	uint64_t twice = shmi_slots_put(shmi_bitmap_at(img, (shmi_page){span}), word, bits);

	r->put += (uint32_t)__builtin_popcountll(bits & ~twice);
}

static bool bits_free(const struct shmi_image *img, const struct shmi_group *g, uint64_t *set)
{
	*set = shmi_load_acquire(&shmi_bitmap_at(img, (shmi_page){g->span})[g->word]) & g->bits;
	return *set == g->bits;
}

static void reclaim_take(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g)
{
	struct shmi_word word;
	uint64_t set;

	if (!group_ok(img, g, &word) || word.owner != r->client)
		r->bad++;
	else if (!bits_free(img, g, &set))
		put_back(img, r, g->span, g->word, g->bits);
	shmi_store_release(&record_of(img, r)->intent.op, SHMI_INTENT_NONE);
}

/* Slots may be in doubt more than once: they count once as long as we know them, and never more than the span has. */
static void write_off(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g)
{
	struct shmi_span *span = shmi_span_at(img, (shmi_page){g->span});
	uint64_t known = span->written_off_word == g->word ? span->written_off_bits : 0;
	uint32_t n = (uint32_t)__builtin_popcountll(g->bits & ~known), room = span->slots - span->written_off;

	n = n < room ? n : room;
	span->written_off = (uint16_t)(span->written_off + n);
	span->written_off_word = g->word;
	span->written_off_bits = g->bits | known;
	shmi_fetch_add(&img->super->counters.slots_written_off, n);
	r->written_off += n;
}

/* A put that stood at death. Returns how many groups of the spill are left after it. */
static uint32_t reclaim_put(
        struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy, uint32_t left)
{
	const struct shmi_group *g = &copy->intent.group;
	struct shmi_word word;
	uint64_t set;

	if (!left || copy->spill[left - 1].span != g->span || copy->spill[left - 1].word != g->word)
		return left; /* the spill was closed already */
	shmi_store_release(&record_of(img, r)->spill_top, left - 1);
	if (!group_ok(img, g, &word))
		r->bad++;
	else if (!bits_free(img, g, &set) && !set)
		write_off(img, r, g);
	return left - 1;
}

static uint32_t spill_left(const struct shmi_threadrec *copy)
{
	uint32_t left = shmi_load(&copy->spill_top);

	return left > SHMI_SPILL_MAX ? SHMI_SPILL_MAX : left;
}

/* The intent and the spill. */
static void reclaim_head(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy)
{
	uint32_t op = shmi_load(&copy->intent.op), left = spill_left(copy);
	struct shmi_word word;

	r->bad += op > SHMI_INTENT_PUT || left != shmi_load(&copy->spill_top);
	if (op == SHMI_INTENT_TAKE)
		reclaim_take(img, r, &copy->intent.group);
	else if (op == SHMI_INTENT_PUT)
		left = reclaim_put(img, r, copy, left);
	while (left--) {
		const struct shmi_group *g = &copy->spill[left];

		shmi_store_release(&record_of(img, r)->spill_top, left);
		if (group_ok(img, g, &word))
			put_back(img, r, g->span, g->word, g->bits);
		else
			r->bad++;
	}
}

static void reclaim_big(const struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy)
{
	uint32_t top = shmi_load(&copy->big.top);

	r->bad += top > SHMI_BIG_MAX;
	for (uint32_t i = 0; i < top && i < SHMI_BIG_MAX; i++) {
		uint64_t entry = shmi_load(&copy->big.entry[i]);
		shmi_page page = {(uint32_t)entry};
		uint32_t j = 0;

		if (!shmi_image_page_ok(img, page) || shmi_span_word(img, page).state != SHMI_SPAN_LARGE ||
		        shmi_span_word(img, page).generation != entry >> 32) {
			r->bad++;
			continue;
		}
		while (j < r->big_count && r->big[j] != entry)
			j++;
		if (j == r->big_count)
			r->big[r->big_count++] = entry;
	}
}

static void sift_down(shmi_a64 *v, uint32_t root, uint32_t n)
{
	for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
		if (child + 1 < n && shmi_load(&v[child + 1]) > shmi_load(&v[child]))
			child++;
		uint64_t up = shmi_load(&v[child]), down = shmi_load(&v[root]);

		if (down >= up)
			return;
		shmi_store(&v[root], up);
		shmi_store(&v[child], down);
	}
}

/* Heapsort: no recursion, no memory, and no input makes it slow. */
static void sort(shmi_a64 *v, uint32_t n)
{
	for (uint32_t i = n / 2; i-- > 0;)
		sift_down(v, i, n);
	for (uint32_t end = n; end-- > 1;) {
		uint64_t last = shmi_load(&v[end]);

		shmi_store(&v[end], shmi_load(&v[0]));
		shmi_store(&v[0], last);
		sift_down(v, 0, end);
	}
}

/* The group of one slot that an entry of a magazine of `sclass` stands for; false if it is none. */
static bool entry_group(const struct shmi_image *img, shmi_sclass sclass, uint64_t entry, struct shmi_group *g)
{
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];
	shmi_page page = shmi_off_page((shmi_off){entry});

	if (!shmi_image_page_ok(img, page))
		return false;
	uint32_t first = shmi_load_acquire(shmi_page_span_at(img, page));

	if (first > page.i || page.i - first >= class->pages)
		return false;
	uint32_t delta = (uint32_t)(entry - ((uint64_t)first << SHMI_PAGE_SHIFT)), slot = shmi_slot_of(class, delta);
	struct shmi_word word;

	if (slot >= class->slots || slot * class->size != delta)
		return false;
	*g = (struct shmi_group){.bits = 1ull << slot % 64, .span = first, .word = slot / 64, .sclass = sclass.c};
	g->generation = first ? shmi_span_word(img, (shmi_page){first}).generation : 0;
	return group_ok(img, g, &word);
}

/* How many entries the magazine can have. */
static uint32_t magazine_top(const struct shmi_image *img, const struct shmi_magazine *mag, shmi_sclass sclass)
{
	uint32_t top = shmi_load(&mag->top), cap = img->classes[shmi_sclass_size_class(sclass)].mag_cap;

	return top > cap ? cap : top;
}

static bool in_spill(const struct shmi_threadrec *copy, uint32_t left, const struct shmi_group *g)
{
	for (uint32_t i = 0; i < left; i++)
		if (copy->spill[i].span == g->span && copy->spill[i].word == g->word && copy->spill[i].bits & g->bits)
			return true;
	return false;
}

/* A magazine whose spill stands may have been in the middle of being closed up: some entries twice, some in the spill as
 * well. Makes it what it would have been afterwards, in the copy and in the record. */
static void close_up(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy)
{
	shmi_sclass sclass = {(uint16_t)copy->spill[0].sclass};
	uint32_t left = spill_left(copy), n = 0;

	if (!left || !shmi_sclass_is_small(sclass) || !(r->parts & 1u << shmi_sclass_attrs(sclass)))
		return;
	struct shmi_magazine *mag = shmi_magazine_at(img, copy, sclass);
	struct shmi_magazine *real = shmi_magazine_at(img, record_of(img, r), sclass);
	uint32_t top = magazine_top(img, mag, sclass);

	sort(mag->entry, top);
	for (uint32_t i = 0; i < top; i++) {
		uint64_t entry = shmi_load(&mag->entry[i]);
		struct shmi_group g;

		if ((n && entry == shmi_load(&mag->entry[n - 1])) ||
		        (entry_group(img, sclass, entry, &g) && in_spill(copy, left, &g)))
			continue;
		shmi_store(&mag->entry[n++], entry);
	}
	shmi_store(&mag->top, n);
	shmi_store_release(&real->top, 0);
	for (uint32_t i = 0; i < n; i++)
		shmi_store(&real->entry[i], shmi_load(&mag->entry[i]));
	shmi_store_release(&real->top, n);
}

/* One magazine. Returns the work done, in entries looked at. */
static uint32_t reclaim_magazine(
        struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy, shmi_sclass sclass)
{
	struct shmi_magazine *mag = shmi_magazine_at(img, copy, sclass);
	uint32_t top = magazine_top(img, mag, sclass), all = top;

	r->bad += top != shmi_load(&mag->top);
	while (top) {
		uint32_t from = top > CONSUME ? top - CONSUME : 0;

		shmi_store_release(&shmi_magazine_at(img, record_of(img, r), sclass)->top, from);
		while (top > from) {
			struct shmi_group g;

			if (entry_group(img, sclass, shmi_load(&mag->entry[--top]), &g))
				put_back(img, r, g.span, g.word, g.bits);
			else
				r->bad++;
		}
	}
	return all + 1;
}

bool shmi_reclaim_step(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy, uint32_t budget)
{
	uint32_t done = 0;

	if (!r->begun) {
		r->begun = true;
		close_up(img, r, copy);
		reclaim_head(img, r, copy);
		reclaim_big(img, r, copy);
	}
	for (; r->at < SHMI_SPAN_CLASSES && done < budget; r->at++) {
		shmi_sclass sclass = {(uint16_t)r->at};

		if (shmi_sclass_is_small(sclass) && r->parts & 1u << shmi_sclass_attrs(sclass))
			done += reclaim_magazine(img, r, copy, sclass);
	}
	return r->at == SHMI_SPAN_CLASSES;
}
