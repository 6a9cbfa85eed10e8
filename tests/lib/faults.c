#include "tests/lib/faults.h"

#include <string.h>

#include "shm/threadrec.h"
#include "shm/walk.h"

/* ---- values ---- */

static uint32_t below(struct havoc *h, uint32_t bound)
{
	return test_random_below(h->random, bound);
}

/* The page of a run of any state, of the edges of the heap, or anything. */
static uint32_t some_page(struct havoc *h)
{
	const uint32_t limit = h->heap.img.geo.limit_pages;
	const uint32_t edges[] = {0, 1, limit - 1, limit, limit + 1, SHMI_MAX_PAGES, UINT32_MAX};
	struct shmi_walk walk = shmi_walk_from(&h->heap.img, 1 + below(h, limit - 1));
	uint32_t skip = below(h, 4);

	if (test_random_one_in(h->random, 6))
		return edges[below(h, sizeof(edges) / sizeof(edges[0]))];
	if (test_random_one_in(h->random, 6))
		return below(h, limit);
	while (shmi_walk_next(&h->heap.img, &walk) && skip--)
		;
	return walk.page.i;
}

static uint32_t generation_of(struct havoc *h, uint32_t page)
{
	uint32_t real = shmi_image_page_ok(&h->heap.img, (shmi_page){page})
	                        ? shmi_span_word(&h->heap.img, (shmi_page){page}).generation
	                        : 1;

	switch (below(h, 8)) {
	case 0:
		return real + 1;
	case 1:
		return real - 1;
	case 2:
		return 0;
	case 3:
		return UINT32_MAX;
	default:
		return real;
	}
}

static uint32_t sclass_of(struct havoc *h, uint32_t page)
{
	const uint32_t edges[] = {0, 3, 4, SHMI_CLASS_LARGE * SHMI_ATTRS, SHMI_SPAN_CLASSES, 4095, 4096, UINT32_MAX};

	if (test_random_one_in(h->random, 5))
		return edges[below(h, sizeof(edges) / sizeof(edges[0]))];
	if (test_random_one_in(h->random, 5) || !shmi_image_page_ok(&h->heap.img, (shmi_page){page}))
		return below(h, SHMI_SPAN_CLASSES);
	return shmi_span_word(&h->heap.img, (shmi_page){page}).sclass.c;
}

static uint64_t some_bits(struct havoc *h)
{
	const uint64_t edges[] = {0, 1, ~0ull, 1ull << 63, 0xffffffffull};

	return test_random_one_in(h->random, 2) ? edges[below(h, 5)] : test_random_next(h->random);
}

/* One that could be true: slots of one word of a span of blocks, all of them allocated or not. */
static bool true_group(struct havoc *h, struct shmi_group *g)
{
	const struct shmi_image *img = &h->heap.img;
	struct shmi_walk walk = shmi_walk_from(img, 1 + below(h, img->geo.limit_pages - 1));

	while (shmi_walk_next(img, &walk)) {
		if (!shmi_state_in_use(walk.word.state) || !shmi_sclass_is_small(walk.word.sclass))
			continue;
		const struct shmi_class *class = &img->classes[shmi_sclass_size_class(walk.word.sclass)];
		uint32_t word = below(h, class->words);
		uint64_t set = shmi_load(&shmi_bitmap_at(img, walk.page)[word]);

		*g = (struct shmi_group){.bits = (test_random_one_in(h->random, 4) ? set : ~set) &
		                                 shmi_slots_mask(class, word) & test_random_next(h->random),
		        .span = walk.page.i,
		        .generation = walk.word.generation,
		        .word = word,
		        .sclass = walk.word.sclass.c};
		return true;
	}
	return false;
}

static struct shmi_group some_group(struct havoc *h)
{
	const uint32_t words[] = {0, 1, 7, 8, 63, 64, 1u << 20, UINT32_MAX};
	struct shmi_group g;

	if (test_random_one_in(h->random, 2) && true_group(h, &g))
		return g;
	g = (struct shmi_group){.bits = some_bits(h), .span = some_page(h), .word = words[below(h, 8)]};
	g.generation = generation_of(h, g.span);
	g.sclass = sclass_of(h, g.span);
	if (test_random_one_in(h->random, 2))
		g.word = 0;
	return g;
}

/* An offset: the start of a slot of any span, something inside it, or nonsense. */
static uint64_t some_entry(struct havoc *h)
{
	const uint64_t edges[] = {0, 1, 8, 16, SHMI_PAGE_SIZE, SHMI_PAGE_SIZE - 1, UINT64_MAX, 1ull << 63, 1ull << 44};
	uint32_t page = some_page(h), sclass = sclass_of(h, page);
	uint32_t size = sclass < SHMI_SPAN_CLASSES ? h->heap.img.classes[sclass / SHMI_ATTRS].size : 16;

	if (test_random_one_in(h->random, 8))
		return edges[below(h, sizeof(edges) / sizeof(edges[0]))];
	if (test_random_one_in(h->random, 8))
		return test_random_next(h->random);
	return ((uint64_t)page << SHMI_PAGE_SHIFT) + (uint64_t)below(h, 64) * size +
	       (test_random_one_in(h->random, 8) ? 1 + below(h, 15) : 0);
}

static uint32_t some_top(struct havoc *h, uint32_t room)
{
	const uint32_t edges[] = {0, 1, 2, room - 1, room, room + 1, 2 * room, 1u << 31, UINT32_MAX};

	return edges[below(h, sizeof(edges) / sizeof(edges[0]))];
}

/* ---- the thread record of the hostile client ---- */

struct shmi_threadrec *fault_record(struct havoc *h, uint32_t *parts)
{
	const struct havoc_client *c = &h->client[HAVOC_HOSTILE];

	*parts = c->parts;
	return c->threads ? shmi_threadrec_at(&h->heap.img, c->thread[below(h, c->threads)]) : NULL;
}

static void craft_intent(struct havoc *h, struct shmi_threadrec *rec)
{
	const uint32_t ops[] = {0, SHMI_INTENT_TAKE, SHMI_INTENT_PUT, 3, 4, 1u << 31, UINT32_MAX};

	rec->intent.group = some_group(h);
	shmi_store(&rec->intent.op, ops[below(h, 7)]);
}

static void craft_spill(struct havoc *h, struct shmi_threadrec *rec)
{
	uint32_t top = some_top(h, SHMI_SPILL_MAX), n = top < SHMI_SPILL_MAX ? top : SHMI_SPILL_MAX;
	struct shmi_group same = some_group(h);
	bool all_same = test_random_one_in(h->random, 3);

	for (uint32_t i = 0; i < n; i++)
		rec->spill[i] = all_same ? same : some_group(h);
	if (test_random_one_in(h->random, 2) && n)
		rec->intent.group = rec->spill[n - 1];
	shmi_store(&rec->spill_top, top);
}

static void craft_magazine(struct havoc *h, struct shmi_threadrec *rec, uint32_t parts)
{
	const struct shmi_image *img = &h->heap.img;
	uint32_t attrs = parts == 15 ? below(h, SHMI_ATTRS) : 0;
	shmi_sclass sclass = shmi_sclass_make(1 + below(h, SHMI_CLASS_LARGE - 1), attrs);
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];
	struct shmi_magazine *mag = shmi_magazine_at(img, rec, sclass);
	uint64_t same = some_entry(h);
	bool all_same = test_random_one_in(h->random, 4);

	for (uint32_t i = 0; i < class->mag_cap && i < 200; i++)
		shmi_store(&mag->entry[i], all_same ? same : some_entry(h));
	shmi_store(&mag->top, some_top(h, class->mag_cap));
}

static void craft_big(struct havoc *h, struct shmi_threadrec *rec)
{
	uint32_t page = some_page(h);

	for (uint32_t i = 0; i < SHMI_BIG_MAX; i++) {
		if (test_random_one_in(h->random, 2))
			page = some_page(h);
		shmi_store(&rec->big.entry[i], page | (uint64_t)generation_of(h, page) << 32);
	}
	shmi_store(&rec->big.top, some_top(h, SHMI_BIG_MAX));
}

static void random_bytes(struct havoc *h, void *at, uint64_t len)
{
	for (uint64_t *word = at; len >= sizeof(*word); len -= sizeof(*word))
		*word++ = test_random_next(h->random);
}

/* ---- kinds of fault ---- */

static void fault_intent(struct havoc *h)
{
	uint32_t parts;
	struct shmi_threadrec *rec = fault_record(h, &parts);

	if (rec)
		craft_intent(h, rec);
}

static void fault_spill(struct havoc *h)
{
	uint32_t parts;
	struct shmi_threadrec *rec = fault_record(h, &parts);

	if (!rec)
		return;
	craft_spill(h, rec);
	if (test_random_one_in(h->random, 2))
		shmi_store(&rec->intent.op, 1 + below(h, 3));
}

/* A put that may have happened: a group of the spill that the intent names, none of whose slots is free. */
static void fault_doubt(struct havoc *h)
{
	uint32_t parts, n = 1 + below(h, 8), made = 0;
	struct shmi_threadrec *rec = fault_record(h, &parts);
	struct shmi_group g;

	if (!rec)
		return;
	for (uint32_t tries = 0; made < n && tries < 40; tries++) {
		if (!true_group(h, &g))
			return;
		g.bits &= ~shmi_load(&shmi_bitmap_at(&h->heap.img, (shmi_page){g.span})[g.word]);
		if (g.bits)
			rec->spill[made++] = g;
	}
	if (!made)
		return;
	rec->intent.group = rec->spill[made - 1];
	shmi_store(&rec->intent.op, SHMI_INTENT_PUT);
	shmi_store(&rec->spill_top, made);
}

static void fault_magazines(struct havoc *h)
{
	uint32_t parts;

	for (uint32_t i = 0; i < 12; i++) {
		struct shmi_threadrec *rec = fault_record(h, &parts);

		if (rec)
			craft_magazine(h, rec, parts);
	}
}

/* In the process's own record, where they belong, or in a thread's, where they do not. */
static void fault_big(struct havoc *h)
{
	const struct havoc_client *c = &h->client[HAVOC_HOSTILE];
	uint32_t parts, own = h->heap.state->clients[c->caller.client->id].thread;
	struct shmi_threadrec *rec = fault_record(h, &parts);

	craft_big(h, shmi_threadrec_at(&h->heap.img, own));
	if (rec && test_random_one_in(h->random, 2))
		craft_big(h, rec);
}

void fault_all_of_record(struct havoc *h)
{
	fault_intent(h);
	fault_spill(h);
	fault_magazines(h);
	fault_big(h);
}

/* The same slots in the magazine, in the spill, in the intent and in another thread's magazine. */
static void fault_duplicates(struct havoc *h)
{
	uint32_t parts;
	struct shmi_threadrec *from = fault_record(h, &parts), *to = fault_record(h, &parts);

	if (!from)
		return;
	craft_spill(h, from);
	craft_magazine(h, from, parts);
	if (to != from)
		memcpy(to, from, SHMI_THREAD_HEAD_BYTES + h->heap.img.geo.part_bytes);
	shmi_store(&from->spill_top, 1 + below(h, SHMI_SPILL_MAX));
}

static void fault_random_head(struct havoc *h)
{
	uint32_t parts;
	struct shmi_threadrec *rec = fault_record(h, &parts);

	if (rec)
		random_bytes(h, rec, SHMI_THREAD_HEAD_BYTES);
}

static void fault_random_record(struct havoc *h)
{
	uint32_t parts;
	struct shmi_threadrec *rec = fault_record(h, &parts);

	if (rec)
		random_bytes(h, rec, SHMI_THREAD_HEAD_BYTES + h->heap.img.geo.part_bytes);
}

/* Of all spans, in use or not. */
void fault_bitmaps(struct havoc *h)
{
	uint64_t *words = (uint64_t *)(void *)(h->heap.img.ctl + h->heap.img.geo.bitmaps);
	uint32_t n = h->heap.img.geo.limit_pages * 8, how = below(h, 4), left = 1 + below(h, 200);

	while (left--)
		words[below(h, n)] = how == 0   ? 0
		                     : how == 1 ? ~0ull
		                     : how == 2 ? some_bits(h)
		                                : test_random_next(h->random);
}

static void fault_ones(struct havoc *h)
{
	memset(h->heap.img.ctl + h->heap.img.geo.bitmaps, 0xff,
	        (size_t)h->heap.img.geo.limit_pages * SHMI_BITMAP_BYTES_PER_PAGE);
}

/* The head, the holders and the bitmaps, and the first few records: all that is in use. */
static uint64_t used_bytes(const struct havoc *h)
{
	return h->heap.img.geo.records + SHMI_THREAD_HEAD_BYTES + h->heap.img.geo.part_bytes;
}

void fault_flips(struct havoc *h)
{
	uint32_t parts, left = 1 + below(h, 64);
	unsigned char *rec = (unsigned char *)fault_record(h, &parts);

	while (left--) {
		h->heap.img.ctl[below(h, (uint32_t)used_bytes(h))] ^= (unsigned char)(1 << below(h, 8));
		if (rec)
			rec[below(h, SHMI_THREAD_HEAD_BYTES + h->heap.img.geo.part_bytes)] ^=
			        (unsigned char)(1 << below(h, 8));
	}
}

static void fault_everything(struct havoc *h)
{
	random_bytes(h, h->heap.img.ctl, used_bytes(h));
	fault_random_record(h);
}

/* A hole reads as zeros. */
static void fault_punch(struct havoc *h)
{
	uint32_t pages = (uint32_t)(used_bytes(h) / 4096), parts;
	uint32_t n = test_random_length(h->random, pages), from = below(h, pages - n + 1);
	struct shmi_threadrec *rec = fault_record(h, &parts);

	memset(h->heap.img.ctl + (uint64_t)from * 4096, 0, (uint64_t)n * 4096);
	if (rec && test_random_one_in(h->random, 2))
		memset(rec, 0, SHMI_THREAD_HEAD_BYTES);
}

static void fault_cut(struct havoc *h)
{
	h->cut[test_random_one_in(h->random, 2) ? HEAP_CTL : HEAP_DATA] = 1 + below(h, 1u << 20);
}

static void fault_torn(struct havoc *h)
{
	h->torn = true;
}

const struct fault_kind fault_kinds[FAULT_KINDS] = {
        {"intent", fault_intent, false},
        {"spill", fault_spill, false},
        {"put in doubt", fault_doubt, false},
        {"magazines", fault_magazines, false},
        {"big cache", fault_big, false},
        {"whole record, crafted", fault_all_of_record, false},
        {"duplicates", fault_duplicates, false},
        {"head, random", fault_random_head, false},
        {"record, random", fault_random_record, false},
        {"bitmaps", fault_bitmaps, false},
        {"bitmaps all set", fault_ones, false},
        {"bits flipped", fault_flips, false},
        {"all of ctl, random", fault_everything, false},
        {"ctl punched", fault_punch, false},
        {"ctl or data cut", fault_cut, true},
        {"ctl cut while it is read", fault_torn, true},
};
