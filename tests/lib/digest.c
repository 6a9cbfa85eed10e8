#include "tests/lib/digest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "shm/slots.h"
#include "shm/walk.h"

/* ---- taking ---- */

static void take_span(struct digest *d, const struct shmi_image *img, const struct shmi_walk *walk)
{
	const struct shmi_span *record = shmi_span_at(img, walk->page);
	struct digest_span span = {.page = walk->page.i,
	        .pages = walk->pages.n,
	        .written_off = record->written_off,
	        .flags = record->flags,
	        .word = walk->word,
	        .bytes = record->bytes};

	if (shmi_sclass_is_small(walk->word.sclass)) {
		const struct shmi_class *class = &img->classes[shmi_sclass_size_class(walk->word.sclass)];

		span.free = shmi_slots_count(shmi_bitmap_at(img, walk->page), class);
		for (uint32_t w = 0; w < class->words; w++)
			span.bitmap =
			        (span.bitmap ^ shmi_load(&shmi_bitmap_at(img, walk->page)[w])) * 0x9e3779b97f4a7c15ull;
	}
	cr_assert_lt(d->spans, DIGEST_SPANS);
	d->span[d->spans++] = span;
}

static void take_tables(struct digest *d, const struct heap *heap)
{
	const struct shmi_image *img = &heap->img;

	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		struct shmi_root *root = shmi_root_at(img, r);

		if (!shmi_load(&root->off))
			continue;
		cr_assert_lt(d->roots, DIGEST_ROOTS);
		d->root[d->roots].off = shmi_load(&root->off);
		memcpy(d->root[d->roots++].name, root->name, sizeof(d->root[0].name));
	}
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);

		if (slot->client == SHMI_NOBODY)
			continue;
		cr_assert_lt(d->threads, DIGEST_THREADS);
		d->thread[d->threads].thread = t;
		d->thread[d->threads].client = slot->client;
		d->thread[d->threads++].parts = slot->parts;
	}
	for (uint32_t c = 0; c < DIGEST_CLIENTS; c++) {
		struct shmi_client_state entry;

		heap->floor.snapshot(heap->floor.ctx, HEAP_STATE,
		        offsetof(struct shmi_state, clients) + c * sizeof(entry), &entry, sizeof(entry));
		uint32_t in_use = shmi_load(&entry.in_use);

		if (in_use != 1 && in_use != 3)
			continue;
		d->client[c].evicted = in_use == 3;
		d->client[c].pid = (uint32_t)entry.pid;
		d->client[c].inode = entry.pidfd_inode;
		d->client[c].charged = entry.charged_pages;
	}
}

void digest_take(struct digest *d, const struct heap *heap)
{
	const struct shmi_image *img = &heap->img;
	const struct shmi_page_counts *pages = &img->super->pages;
	struct shmi_walk walk = shmi_walk_start(img);

	memset(d, 0, sizeof(*d));
	while (shmi_walk_next(img, &walk))
		if (shmi_state_in_use(walk.word.state))
			take_span(d, img, &walk);
	take_tables(d, heap);
	d->owned = shmi_load(&pages->owned);
	d->central = shmi_load(&pages->central);
	d->lazy = shmi_load(&pages->lazy);
	d->unpublished = shmi_load(&pages->unpublished);
	d->free = shmi_load(&pages->free) + shmi_load(&pages->returned) + shmi_load(&pages->moving);
}

/* ---- comparing ---- */

static char text[256];

#define DIFFERS(...) (snprintf(text, sizeof(text), __VA_ARGS__), text)

const struct digest_span *digest_find(const struct digest *d, uint32_t page, uint32_t generation)
{
	for (uint32_t i = 0; i < d->spans; i++)
		if (d->span[i].page == page && d->span[i].word.generation == generation)
			return &d->span[i];
	return NULL;
}

static const struct digest_span *same_span(const struct digest *d, const struct digest_span *s)
{
	return d ? digest_find(d, s->page, s->word.generation) : NULL;
}

/* A client held it before: it is this one and no other. */
static bool was_held(const struct digest *before, const struct digest_span *s)
{
	const struct digest_span *then = same_span(before, s);

	return !before || (then && then->word.state != SHMI_SPAN_CENTRAL);
}

static bool alike(const struct digest_span *a, const struct digest_span *b)
{
	return a->pages == b->pages && a->word.state == b->word.state && a->word.sclass.c == b->word.sclass.c &&
	       a->word.owner == b->word.owner && a->flags == b->flags && a->bytes == b->bytes;
}

static const char *held_differ(
        const struct digest *is, const struct digest *should, const struct digest *before, const char *what)
{
	for (uint32_t i = 0; i < is->spans; i++) {
		const struct digest_span *a = &is->span[i], *b = same_span(should, a);

		if (!was_held(before, a))
			continue;
		if (!b)
			return DIFFERS(
			        "span %u of class %u and client %u %s", a->page, a->word.sclass.c, a->word.owner, what);
		if (!alike(a, b) || a->written_off != b->written_off)
			return DIFFERS("span %u: state %u owner %u written off %u, and not %u, %u, %u", a->page,
			        a->word.state, a->word.owner, a->written_off, b->word.state, b->word.owner,
			        b->written_off);
		if (a->bitmap != b->bitmap)
			return DIFFERS("span %u (state %u): %u slots are free in it, or others, and not %u", a->page,
			        a->word.state, a->free, b->free);
	}
	return NULL;
}

static uint32_t count_alike(const struct digest *d, const struct digest_span *s, const struct digest *before)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < d->spans; i++)
		n += !was_held(before, &d->span[i]) && alike(&d->span[i], s);
	return n;
}

static const char *others_differ(const struct digest *is, const struct digest *should, const struct digest *before)
{
	for (uint32_t i = 0; i < is->spans; i++) {
		const struct digest_span *s = &is->span[i], *then = same_span(before, s), *other = same_span(should, s);

		if (was_held(before, s))
			continue;
		uint32_t n = count_alike(is, s, before), m = count_alike(should, s, before);

		if (n != m)
			return DIFFERS("%u spans in state %u, class %u, of client %u, like page %u, and not %u", n,
			        s->word.state, s->word.sclass.c, s->word.owner, s->page, m);
		other = other ? other : then;
		if (other && alike(s, other) &&
		        s->bitmap != other->bitmap) /* else another one that came to lie there */
			return DIFFERS(
			        "span %u: %u slots are free, or others, and not %u", s->page, s->free, other->free);
	}
	return NULL;
}

static const char *tables_differ(const struct digest *is, const struct digest *should)
{
	if (is->roots != should->roots)
		return DIFFERS("%u roots, and not %u", is->roots, should->roots);
	for (uint32_t i = 0; i < is->roots; i++) {
		uint32_t j = 0;

		while (j < should->roots &&
		        (is->root[i].off != should->root[j].off || strcmp(is->root[i].name, should->root[j].name) != 0))
			j++;
		if (j == should->roots)
			return DIFFERS(
			        "root '%.40s' is at %llu", is->root[i].name, (unsigned long long)is->root[i].off);
	}
	if (is->threads != should->threads)
		return DIFFERS("%u thread records, and not %u", is->threads, should->threads);
	if (memcmp(is->thread, should->thread, sizeof(is->thread)) != 0)
		return DIFFERS("other thread records, or of others");
	for (uint32_t c = 0; c < DIGEST_CLIENTS; c++)
		if (is->client[c].pid != should->client[c].pid || is->client[c].inode != should->client[c].inode)
			return DIFFERS("client %u is %s", c, is->client[c].pid ? "there, or another" : "gone");
		else if (is->client[c].evicted != should->client[c].evicted)
			return DIFFERS("client %u is %sevicted", c, is->client[c].evicted ? "" : "not ");
		else if (is->client[c].charged != should->client[c].charged)
			return DIFFERS("client %u is charged %llu pages, and not %llu", c,
			        (unsigned long long)is->client[c].charged,
			        (unsigned long long)should->client[c].charged);
	return NULL;
}

static const char *counts_differ(const struct digest *is, const struct digest *should)
{
	if (is->owned == should->owned && is->central == should->central && is->lazy == should->lazy &&
	        is->unpublished == should->unpublished && is->free == should->free)
		return NULL;
	return DIFFERS("pages: owned %lld more, central %lld, lazy %lld, unpublished %lld, free %lld",
	        (long long)(is->owned - should->owned), (long long)(is->central - should->central),
	        (long long)(is->lazy - should->lazy), (long long)(is->unpublished - should->unpublished),
	        (long long)(is->free - should->free));
}

const char *digest_differs(const struct digest *is, const struct digest *should, const struct digest *before)
{
	const char *why = held_differ(is, should, before, "should not be there");

	why = why ? why : held_differ(should, is, before, "is gone");
	why = why ? why : others_differ(is, should, before);
	why = why ? why : others_differ(should, is, before);
	why = why ? why : tables_differ(is, should);
	return why ? why : counts_differ(is, should);
}
