#include "shm/ledger.h"

#include <string.h>

#include "shm/slots.h"
#include "shm/walk.h"

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* ---- what one span is worth ---- */

/* The slots of a span, shared out. */
struct share {
	uint64_t bytes, size; /* of the span; of a slot */
	uint32_t free, written_off, cached, live;
	uint64_t tail;
};

static bool is_counted(struct shmi_word word)
{
	if (word.state == SHMI_SPAN_QUARANTINE || word.state == SHMI_SPAN_LARGE)
		return true;
	return (word.state == SHMI_SPAN_CENTRAL || word.state == SHMI_SPAN_OWNED) && shmi_sclass_is_small(word.sclass);
}

static struct share share_of(
        const struct shmi_image *img, shmi_page page, struct shmi_word word, const struct shmi_counted *c)
{
	struct share s = {.bytes = shmi_npages_bytes((shmi_npages){shmi_span_at(img, page)->pages})};
	uint32_t slots = 1;

	s.size = s.bytes;
	if (word.state != SHMI_SPAN_LARGE) {
		slots = img->classes[shmi_sclass_size_class(word.sclass)].slots;
		s.size = img->classes[shmi_sclass_size_class(word.sclass)].size;
	}
	s.free = least(c->free, slots);
	s.written_off = least(c->written_off, slots - s.free);
	s.cached = least(c->cached, slots - s.free - s.written_off);
	s.live = slots - s.free - s.written_off - s.cached;
	s.tail = s.bytes > slots * s.size ? s.bytes - slots * s.size : 0;
	return s;
}

/* ---- sums ---- */

/* `sign` is 1 or, modulo 2^64, -1. */
static void add_holding(struct shmi_holding *h, const struct share *s, bool quarantined, uint64_t sign)
{
	h->bytes += sign * s->bytes;
	if (quarantined) {
		h->quarantined += sign * s->bytes;
		return;
	}
	h->spans += sign;
	h->live_blocks += sign * s->live;
	h->live += sign * s->live * s->size;
	h->cached += sign * s->cached * s->size;
	h->slots_free += sign * s->free * s->size;
	h->written_off += sign * s->written_off * s->size;
	h->tail += sign * s->tail;
}

static void add_stock(struct shmi_stock *stock, const struct share *s, bool owned, uint64_t sign)
{
	if (owned)
		stock->spans_owned += sign;
	else
		stock->spans_central += sign;
	stock->bytes += sign * s->bytes;
	stock->live += sign * s->live;
	stock->cached += sign * s->cached;
	stock->slots_free += sign * s->free;
	stock->written_off += sign * s->written_off;
}

static void add_counted(const struct shmi_image *img, shmi_page page, struct shmi_word word,
        const struct shmi_counted *counted, uint64_t sign)
{
	struct shmi_ledger *ledger = img->ledger;
	struct share share = share_of(img, page, word, counted);
	bool owned = word.owner < SHMI_MAX_CLIENTS, quarantined = word.state == SHMI_SPAN_QUARANTINE;

	add_holding(owned ? &ledger->owner[word.owner] : &ledger->nobody, &share, quarantined, sign);
	if (!quarantined && word.sclass.c < SHMI_SPAN_CLASSES)
		add_stock(&ledger->stock[word.sclass.c], &share, owned, sign);
}

static void add(const struct shmi_image *img, shmi_page page, struct shmi_word word, uint64_t sign)
{
	add_counted(img, page, word, &img->ledger->counted[page.i], sign);
}

void shmi_ledger_change(const struct shmi_image *img, shmi_page page, struct shmi_word from, struct shmi_word to)
{
	struct shmi_counted *counted = &img->ledger->counted[page.i];

	if (is_counted(from))
		add(img, page, from, -(uint64_t)1);
	if (!is_counted(to))
		return;
	if (!is_counted(from)) /* all slots of a span of blocks are free when it opens */
		*counted = (struct shmi_counted){.free = to.state == SHMI_SPAN_LARGE ? 0 : UINT32_MAX};
	add(img, page, to, 1);
}

/* ---- a round ---- */

/* The counted entry of the span of class `sclass` in which `page` lies; NULL: there is none. */
static struct shmi_counted *find(const struct shmi_image *img, shmi_page page, shmi_sclass sclass, shmi_page *first)
{
	if (!shmi_image_page_ok(img, page) || shmi_load(shmi_page_class_at(img, page)) != sclass.c)
		return NULL;
	first->i = shmi_sclass_is_large(sclass) ? page.i : shmi_load(shmi_page_span_at(img, page));
	return shmi_image_page_ok(img, *first) ? &img->ledger->counted[first->i] : NULL;
}

void shmi_ledger_see(const struct shmi_image *img, shmi_sclass sclass, uint64_t off)
{
	shmi_page first;
	struct shmi_counted *counted = find(img, shmi_off_page((shmi_off){off}), sclass, &first);

	if (counted && counted->seen < UINT32_MAX)
		counted->seen++;
}

/* A slot whose put has just happened is in the bitmap as well: it counts there. */
void shmi_ledger_see_group(const struct shmi_image *img, const struct shmi_group *group)
{
	shmi_sclass sclass = {(uint16_t)group->sclass};
	shmi_page first;

	if (group->sclass >= SHMI_SPAN_CLASSES || !shmi_sclass_is_small(sclass))
		return;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];
	struct shmi_counted *counted = find(img, (shmi_page){group->span}, sclass, &first);

	if (!counted || first.i != group->span || group->word >= class->words)
		return;
	uint64_t bits = group->bits & shmi_slots_mask(class, group->word) &
	                ~shmi_slots_peek(shmi_bitmap_at(img, first), class, group->word);
	uint32_t room = UINT32_MAX - counted->seen;

	counted->seen += least((uint32_t)__builtin_popcountll(bits), room);
}

void shmi_ledger_see_large(const struct shmi_image *img, uint64_t entry)
{
	shmi_page page = {(uint32_t)entry};

	if (!shmi_image_page_ok(img, page))
		return;
	struct shmi_word word = shmi_span_word(img, page);

	if (word.state == SHMI_SPAN_LARGE && word.generation == entry >> 32)
		img->ledger->counted[page.i].seen = 1;
}

void shmi_ledger_count(const struct shmi_image *img, shmi_page page)
{
	struct shmi_counted *counted = &img->ledger->counted[page.i];
	struct shmi_word word = shmi_span_word(img, page);

	if (!is_counted(word) || word.state == SHMI_SPAN_QUARANTINE)
		return;
	add(img, page, word, -(uint64_t)1);
	counted->cached = counted->seen;
	counted->seen = 0;
	if (word.state != SHMI_SPAN_LARGE) {
		counted->free =
		        shmi_slots_count(shmi_bitmap_at(img, page), &img->classes[shmi_sclass_size_class(word.sclass)]);
		counted->written_off = shmi_span_at(img, page)->written_off;
	}
	add(img, page, word, 1);
}

/* ---- the whole ---- */

void shmi_ledger_open(struct shmi_ledger *ledger, struct shmi_image *img, struct shmi_counted *counted)
{
	static const struct shmi_counted nothing; /* that in `counted` would each need a page from the system */
	struct shmi_walk walk = shmi_walk_start(img);

	memset(ledger, 0, sizeof(*ledger));
	ledger->counted = counted;
	img->ledger = ledger;
	while (shmi_walk_next(img, &walk))
		if (is_counted(walk.word))
			add_counted(img, walk.page, walk.word, &nothing, 1);
}

struct shmi_holding shmi_ledger_sum(const struct shmi_ledger *ledger)
{
	struct shmi_holding sum = ledger->nobody;

	for (uint32_t c = 0; c < SHMI_MAX_CLIENTS; c++) {
		const struct shmi_holding *h = &ledger->owner[c];

		sum.spans += h->spans;
		sum.live_blocks += h->live_blocks;
		sum.bytes += h->bytes;
		sum.live += h->live;
		sum.cached += h->cached;
		sum.slots_free += h->slots_free;
		sum.tail += h->tail;
		sum.written_off += h->written_off;
		sum.quarantined += h->quarantined;
	}
	return sum;
}
