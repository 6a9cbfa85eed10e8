#include "shm/reclaim.h"

#define CHUNK SHMI_SPILL_MAX /* entries that go through the spill at a time: each may be a group of its own */
#define INDEX_BITS 11u /* of an entry's place in its magazine */

_Static_assert(SHMI_MAG_MAX == 1u << INDEX_BITS, "places in the largest magazine");

void shmi_reclaim_init(struct shmi_reclaim *r, uint32_t thread, uint32_t client, uint32_t parts)
{
	*r = (struct shmi_reclaim){.thread = thread, .client = client, .parts = parts};
}

/* What to make of a group. Void is what names a span that has gone since: nothing is to be done, and nothing is wrong. */
enum verdict { GROUP_TRUE, GROUP_VOID, GROUP_BAD };

static enum verdict judge(const struct shmi_image *img, const struct shmi_group *g, struct shmi_word *word)
{
	if (!shmi_image_page_ok(img, (shmi_page){g->span}) || g->sclass >= SHMI_SPAN_CLASSES)
		return GROUP_BAD;
	*word = shmi_span_word(img, (shmi_page){g->span});
	if ((word->state != SHMI_SPAN_OWNED && word->state != SHMI_SPAN_CENTRAL) || word->generation != g->generation)
		return GROUP_VOID;
	if (word->sclass.c != g->sclass)
		return GROUP_BAD;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word->sclass)];

	return g->word < class->words && g->bits && !(g->bits & ~shmi_slots_mask(class, g->word)) ? GROUP_TRUE
	                                                                                          : GROUP_BAD;
}

static bool group_ok(const struct shmi_image *img, const struct shmi_group *g, struct shmi_word *word)
{
	return judge(img, g, word) == GROUP_TRUE;
}

/* The same, of what the record says; what is wrong with it is counted. */
static bool believe(
        const struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g, struct shmi_word *word)
{
	enum verdict verdict = judge(img, g, word);

	r->bad += verdict == GROUP_BAD;
	return verdict == GROUP_TRUE;
}

static struct shmi_threadrec *record_of(const struct shmi_image *img, const struct shmi_reclaim *r)
{
	return shmi_threadrec_at(img, r->thread);
}

/* Puts a group of the spill by the client's protocol: whoever finds the record after our death resolves it as well. `left`
 * groups are left afterwards. */
static void put_group(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g, uint32_t left)
{
	struct shmi_threadrec *rec = record_of(img, r);

	shmi_then(); /* not before the last intent's end */
	rec->intent.group = *g;
	shmi_store_release(&rec->intent.op, SHMI_INTENT_RECLAIM);
	uint64_t twice = shmi_slots_put(shmi_bitmap_at(img, (shmi_page){g->span}), g->word, g->bits);

	shmi_store_release(&rec->spill_top, left);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	r->put += (uint32_t)__builtin_popcountll(g->bits & ~twice);
}

static uint64_t bits_set(const struct shmi_image *img, const struct shmi_group *g)
{
	return shmi_load_acquire(&shmi_bitmap_at(img, (shmi_page){g->span})[g->word]) & g->bits;
}

/* The span is the dead client's, so nobody takes what we put: it may be put again. */
static void reclaim_take(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g)
{
	struct shmi_word word;
	uint64_t set;

	bool good = believe(img, r, g, &word);

	r->bad += good && word.owner != r->client;
	if (good && word.owner == r->client && (set = bits_set(img, g)) != g->bits) {
		shmi_slots_put(shmi_bitmap_at(img, (shmi_page){g->span}), g->word, g->bits);
		r->put += (uint32_t)__builtin_popcountll(g->bits & ~set);
	}
	shmi_store_release(&record_of(img, r)->intent.op, SHMI_INTENT_NONE);
}

/* ---- slots in doubt ---- */

void shmi_reclaim_redo(struct shmi_image *img, struct shmi_write_off *w)
{
	struct shmi_span *span = shmi_span_at(img, (shmi_page){w->span});
	struct shmi_threadrec *rec = shmi_threadrec_at(img, w->thread);

	if (shmi_load_acquire(&w->open) != 1)
		return;
	span->written_off = (uint16_t)w->written_off;
	span->written_off_word = w->word;
	span->written_off_bits = w->bits;
	shmi_store(&img->super->counters.slots_written_off, w->counter);
	shmi_store_release(&rec->spill_top, w->left);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	shmi_store_release(&w->open, 0);
}

/* Slots may be in doubt more than once: they count once as long as we know them, and never more than the span has. */
static void write_off(struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_group *g, uint32_t left)
{
	const struct shmi_span *span = shmi_span_at(img, (shmi_page){g->span});
	struct shmi_write_off here = {0}, *w = r->write_off ? r->write_off : &here;
	uint64_t known = span->written_off_word == g->word ? span->written_off_bits : 0;
	uint32_t n = (uint32_t)__builtin_popcountll(g->bits & ~known), room = span->slots - span->written_off;

	n = n < room ? n : room;
	w->thread = r->thread;
	w->left = left;
	w->span = g->span;
	w->bits = g->bits | known;
	w->word = g->word;
	w->written_off = span->written_off + n;
	w->counter = shmi_load(&img->super->counters.slots_written_off) + n;
	shmi_store_release(&w->open, 1);
	shmi_reclaim_redo(img, w);
	r->written_off += n;
}

/* A put that stood at death, the thread's or that of a daemon that reclaimed it. Returns how many groups of the spill are left. */
static uint32_t reclaim_put(
        struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy, uint32_t op, uint32_t left)
{
	const struct shmi_group *g = &copy->intent.group;
	struct shmi_threadrec *rec = record_of(img, r);
	struct shmi_word word;

	if (left && copy->spill[left - 1].span == g->span && copy->spill[left - 1].word == g->word) {
		bool ok = believe(img, r, g, &word), again = ok && op == SHMI_INTENT_RECLAIM && word.owner == r->client;
		uint64_t set = ok ? bits_set(img, g) : 0;

		/* What a daemon puts into a span of the dead client nobody can have taken, so it may be put again. It must be if
		 * anything is missing: some of it may have been set before, with a take that stood. */
		left -= !again || set == g->bits;
		if (ok && !again && !set)
			write_off(img, r, g, left);
	}
	shmi_store_release(&rec->spill_top, left);
	shmi_store_release(&rec->intent.op, SHMI_INTENT_NONE);
	return left;
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

	r->bad += op > SHMI_INTENT_RECLAIM || left != shmi_load(&copy->spill_top);
	if (op == SHMI_INTENT_TAKE)
		reclaim_take(img, r, &copy->intent.group);
	else if (op == SHMI_INTENT_PUT || op == SHMI_INTENT_RECLAIM)
		left = reclaim_put(img, r, copy, op, left);
	while (left--) {
		if (believe(img, r, &copy->spill[left], &word))
			put_group(img, r, &copy->spill[left], left);
		else
			shmi_store_release(&record_of(img, r)->spill_top, left);
	}
}

static void reclaim_big(const struct shmi_image *img, struct shmi_reclaim *r, const struct shmi_threadrec *copy)
{
	uint32_t top = shmi_load(&copy->big.top), newest = shmi_load(&img->super->generations);

	r->bad += top > SHMI_BIG_MAX;
	for (uint32_t i = 0; i < top && i < SHMI_BIG_MAX; i++) {
		uint64_t entry = shmi_load(&copy->big.entry[i]);
		shmi_page page = {(uint32_t)entry};
		uint32_t j = 0;

		if (!shmi_image_page_ok(img, page) || (int32_t)(newest - (uint32_t)(entry >> 32)) < 0) {
			r->bad++;
			continue;
		}
		struct shmi_word word = shmi_span_word(img, page);

		if (word.state != SHMI_SPAN_LARGE || word.generation != entry >> 32)
			continue; /* void: the daemon had freed it, and the client died before it took the entry out */
		while (j < r->big_count && r->big[j] != entry)
			j++;
		if (j == r->big_count)
			r->big[r->big_count++] = entry;
	}
}

static void sift_down(uint64_t *v, uint32_t root, uint32_t n)
{
	for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
		uint64_t down = v[root];

		if (child + 1 < n && v[child + 1] > v[child])
			child++;
		if (down >= v[child])
			return;
		v[root] = v[child];
		v[child] = down;
	}
}

/* Heapsort: no recursion, no memory, and no input makes it slow. */
static void sort(uint64_t *v, uint32_t n)
{
	for (uint32_t i = n / 2; i-- > 0;)
		sift_down(v, i, n);
	for (uint32_t end = n; end-- > 1;) {
		uint64_t last = v[end];

		v[end] = v[0];
		v[0] = last;
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

/* ---- a magazine that was being closed up ---- */

/* Orders slots by span and word as their offsets are ordered. The group's place in the spill is in the lowest bits. */
static uint64_t group_key(const struct shmi_group *g, uint32_t index)
{
	return ((uint64_t)g->span * SHMI_BITMAP_BYTES_PER_PAGE / 8 + g->word) << INDEX_BITS | index;
}

/* The groups of the spill that can be true, sorted. */
static uint32_t sort_spill(
        const struct shmi_image *img, const struct shmi_threadrec *copy, uint32_t left, uint64_t *sorted)
{
	struct shmi_word word;
	uint32_t n = 0;

	for (uint32_t i = 0; i < left; i++)
		if (group_ok(img, &copy->spill[i], &word))
			sorted[n++] = group_key(&copy->spill[i], i);
	sort(sorted, n);
	return n;
}

/* The entries that are slots, sorted, each with its place in the magazine. */
static uint32_t sort_entries(
        const struct shmi_image *img, struct shmi_magazine *mag, uint32_t top, shmi_sclass sclass, uint64_t *sorted)
{
	struct shmi_group g;
	uint32_t n = 0;

	for (uint32_t i = 0; i < top; i++)
		if (entry_group(img, sclass, shmi_load(&mag->entry[i]), &g))
			sorted[n++] = shmi_load(&mag->entry[i]) << INDEX_BITS | i;
	sort(sorted, n);
	return n;
}

/* What the spill has of one bitmap word after the other, in ascending order. */
struct spilled {
	const struct shmi_threadrec *copy;
	uint64_t sorted[SHMI_SPILL_MAX], key, bits;
	uint32_t n, at;
};

static bool in_spill(struct spilled *s, const struct shmi_group *g)
{
	uint64_t key = group_key(g, 0);

	if (key != s->key) {
		s->key = key;
		s->bits = 0;
		while (s->at < s->n && s->sorted[s->at] < key)
			s->at++;
		for (; s->at < s->n && s->sorted[s->at] >> INDEX_BITS == key >> INDEX_BITS; s->at++)
			s->bits |= s->copy->spill[s->sorted[s->at] & (SHMI_MAG_MAX - 1)].bits;
	}
	return s->bits & g->bits;
}

/* A magazine whose spill stands may have been in the middle of being closed up: some entries twice, some in the spill as
 * well. What stands twice becomes an entry of 0, in the copy and in the record; whoever does this again finds the rest. */
static void close_up(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy)
{
	struct spilled spilled = {.copy = copy};
	uint64_t entries[SHMI_MAG_MAX];
	shmi_sclass sclass = {(uint16_t)copy->spill[0].sclass};
	uint32_t left = spill_left(copy);

	if (!left || !shmi_sclass_is_small(sclass) || !(r->parts & 1u << shmi_sclass_attrs(sclass)))
		return;
	struct shmi_magazine *mag = shmi_magazine_at(img, copy, sclass);
	struct shmi_magazine *real = shmi_magazine_at(img, record_of(img, r), sclass);
	uint32_t n = sort_entries(img, mag, magazine_top(img, mag, sclass), sclass, entries);

	spilled.n = sort_spill(img, copy, left, spilled.sorted);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t place = entries[i] & (SHMI_MAG_MAX - 1);
		struct shmi_group g;

		if (!entry_group(img, sclass, entries[i] >> INDEX_BITS, &g) ||
		        !(in_spill(&spilled, &g) || (i && entries[i] >> INDEX_BITS == entries[i - 1] >> INDEX_BITS)))
			continue;
		shmi_store(&mag->entry[place], 0);
		shmi_store_release(&real->entry[place], 0);
	}
}

/* ---- magazines ---- */

/* The entries [from, top) as groups, into the copy's spill, which nobody needs any more. Returns how many. */
static uint32_t group_entries(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy,
        shmi_sclass sclass, uint32_t from, uint32_t top)
{
	struct shmi_magazine *mag = shmi_magazine_at(img, copy, sclass);
	struct shmi_group g, *groups = copy->spill;
	uint32_t n = 0;

	for (uint32_t i = from; i < top; i++) {
		uint64_t entry = shmi_load(&mag->entry[i]);

		if (!entry)
			continue;
		if (!entry_group(img, sclass, entry, &g))
			r->bad++;
		else if (n && groups[n - 1].span == g.span && groups[n - 1].word == g.word)
			groups[n - 1].bits |= g.bits;
		else
			groups[n++] = g;
	}
	return n;
}

/* The youngest entries of a magazine, by way of the spill, as a put of the client's goes, but from the top. */
static void reclaim_chunk(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy,
        shmi_sclass sclass, uint32_t from, uint32_t top)
{
	struct shmi_threadrec *rec = record_of(img, r);
	uint32_t count = group_entries(img, r, copy, sclass, from, top);

	shmi_then(); /* not before the end of the last put */
	memcpy(rec->spill, copy->spill, count * sizeof(*copy->spill));
	shmi_store_release(&rec->spill_top, count); /* the slots are in the spill as well from here on ... */
	shmi_store_release(&shmi_magazine_at(img, rec, sclass)->top, from); /* ... and only there from here on */
	while (count--)
		put_group(img, r, &copy->spill[count], count);
}

/* One magazine. Returns the work done, in entries looked at. */
static uint32_t reclaim_magazine(
        struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy, shmi_sclass sclass)
{
	struct shmi_magazine *mag = shmi_magazine_at(img, copy, sclass);
	uint32_t top = magazine_top(img, mag, sclass), all = top;

	r->bad += top != shmi_load(&mag->top);
	for (uint32_t from; top; top = from) {
		from = top > CHUNK ? top - CHUNK : 0;
		reclaim_chunk(img, r, copy, sclass, from, top);
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
