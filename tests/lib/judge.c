/* What must hold after a daemon's death and a recovery: see deaths.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shm/check.h"
#include "shm/walk.h"
#include "tests/lib/deaths.h"

#define SHOWN 5u /* violations that are described */

void deaths_violation(struct deaths *d, const char *format, ...)
{
	va_list args;

	if (d->violations++ >= SHOWN)
		return;
	fprintf(stderr, "%s%s, killed", d->c->name, d->orphaned ? " with its client" : "");
	for (uint32_t l = 0; l <= d->level; l++)
		fprintf(stderr, "%s after store %zu of %zu", l ? ", then" : "", d->at[l], d->of[l]);
	fprintf(stderr, ": ");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n");
}

/* ---- the heap ---- */

static bool client_lives(void *ctx, uint32_t client)
{
	const struct test_core *t = ctx;

	return client < SHMI_MAX_CLIENTS && t->core.client[client].state != CLIENT_FREE;
}

/* A record whose client is being reclaimed may be half gone. */
static bool is_reclaimed(void *ctx, uint32_t thread)
{
	const struct test_core *t = ctx;
	uint32_t client = shmi_thread_slot_at(&t->heap.img, thread)->client;

	return client < SHMI_MAX_CLIENTS && t->core.client[client].state == CLIENT_LEAVING;
}

void deaths_check(struct deaths *d, const char *when)
{
	const struct shmi_check_env env = {.ctx = d->t, .client_lives = client_lives, .reclaiming = is_reclaimed};
	struct shmi_violation found[1];

	if (shmi_check(&d->t->heap.img, &env, 1, found, 1))
		deaths_violation(d, "%s: I%u, page %u: %s", when, found[0].invariant, found[0].page, found[0].text);
}

/* ---- judging ---- */

static bool backed(const struct deaths *d, enum heap_object object, uint64_t off, uint64_t len)
{
	return world_backed(&d->w, d->w.copy, object, off, len);
}

static void judge_dropped(struct deaths *d, uint32_t page, uint32_t pages)
{
	for (uint32_t i = page; i < page + pages; i++)
		if (backed(d, HEAP_DATA, shmi_page_off((shmi_page){i}).b, 1))
			deaths_violation(d, "page %u is seized and backed", i);
}

/* Pages in use, arenas and records have memory behind them, and seized ones have none. */
static void judge_backing(struct deaths *d)
{
	const struct shmi_image *img = &d->t->heap.img;
	struct shmi_walk walk = shmi_walk_start(img);

	while (shmi_walk_next(img, &walk)) {
		if (shmi_span_is_backed(img, walk.page) &&
		        !backed(d, HEAP_DATA, shmi_page_off(walk.page).b, shmi_npages_bytes(walk.pages)))
			deaths_violation(d, "page %u is in use and not backed", walk.page.i);
		if (walk.word.state == SHMI_SPAN_SEIZED)
			judge_dropped(d, walk.page.i, walk.pages.n);
	}
	for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
		uint64_t off, len;

		shmi_geometry_arena_part(&img->geo, part, 0, shmi_image_published(img), &off, &len);
		if (!backed(d, shmi_arena_part_in_ctl(part) ? HEAP_CTL : HEAP_META, off, len))
			deaths_violation(d, "part %u of an arena is published and not backed", part);
	}
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);
		uint64_t at = img->geo.records + t * img->geo.record_bytes;

		if (slot->client == SHMI_NOBODY)
			continue;
		if (!backed(d, HEAP_CTL, at, SHMI_THREAD_HEAD_BYTES))
			deaths_violation(d, "record %u is given out and not backed", t);
		for (uint32_t a = 0; a < SHMI_ATTRS; a++)
			if (slot->parts >> a & 1 &&
			        !backed(d, HEAP_CTL, at + SHMI_THREAD_HEAD_BYTES + a * (uint64_t)img->geo.part_bytes,
			                img->geo.part_bytes))
				deaths_violation(d, "part %u of record %u is given out and not backed", a, t);
	}
}

static bool is_told(const struct wire_msg *reply, uint32_t page, uint32_t generation)
{
	if (reply->kind == WIRE_LARGE_OK)
		return reply->u.large_ok.page == page && reply->u.large_ok.generation == generation;
	for (uint32_t i = 0; reply->kind == WIRE_REFILL_OK && i < reply->u.refill_ok.n_grants; i++)
		if (reply->u.refill_ok.grants[i].page == page && reply->u.refill_ok.grants[i].generation == generation)
			return true;
	return false;
}

/* What the client has it knows of, and what it was told it has. */
static void judge_knowledge(struct deaths *d, const struct digest *is)
{
	uint32_t told = 0,
	         n = d->reply.kind == WIRE_REFILL_OK ? d->reply.u.refill_ok.n_grants : d->reply.kind == WIRE_LARGE_OK;

	for (uint32_t i = 0; i < is->spans; i++) {
		const struct digest_span *s = &is->span[i];
		const struct digest_span *then = digest_find(&d->before, s->page, s->word.generation);

		if (s->word.owner != d->asker.id)
			continue;
		if (is_told(&d->reply, s->page, s->word.generation))
			told++;
		else if (!then || then->word.owner != d->asker.id)
			deaths_violation(d, "the client has span %u and was not told", s->page);
	}
	if (told != n)
		deaths_violation(d, "the client was told of %u spans and has %u of them", n, told);
	if (d->reply.kind == WIRE_THREAD_OK &&
	        shmi_thread_slot_at(&d->t->heap.img, d->reply.u.thread_ok.thread)->client != d->asker.id)
		deaths_violation(d, "record %u is not the client's", d->reply.u.thread_ok.thread);
	const struct wire_attach_ok *as = &d->reply.u.attach_ok;

	if (d->reply.kind == WIRE_ATTACH_OK && shmi_thread_slot_at(&d->t->heap.img, as->thread)->client != as->client)
		deaths_violation(d, "record %u is not that of client %u", as->thread, as->client);
}

/* A client that attaches may come to have another id and another record than without the death, as it was told. */
static void rename_newcomer(const struct deaths *d, struct digest *is)
{
	const struct wire_attach_ok *told = &d->reply.u.attach_ok;

	if (d->reply.kind != WIRE_ATTACH_OK || told->client >= DIGEST_CLIENTS || told->client == d->asker.id)
		return;
	is->client[d->asker.id] = is->client[told->client];
	memset(&is->client[told->client], 0, sizeof(is->client[0]));
	for (uint32_t i = 0; i < is->threads; i++)
		if (is->thread[i].thread == told->thread && is->thread[i].client == told->client) {
			is->thread[i].thread = d->thread;
			is->thread[i].client = d->asker.id;
		}
}

/* ---- seizures ---- */

/* How many words of the span are written off; all other slots are free. */
static uint32_t words_written_off(struct deaths *d, const struct digest_span *s)
{
	const struct shmi_image *img = &d->t->heap.img;
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(s->word.sclass)];
	const shmi_a64 *bitmap = shmi_bitmap_at(img, (shmi_page){s->page});
	uint32_t words = 0, slots = 0;

	for (uint32_t w = 0; w < class->words; w++) {
		uint64_t mask = shmi_slots_mask(class, w), free = shmi_load(&bitmap[w]);

		words += !free;
		slots += free ? 0 : (uint32_t)__builtin_popcountll(mask);
		if (free && free != mask)
			deaths_violation(d, "word %u of span %u, which nobody used, is %lx", w, s->page, free);
	}
	if (slots != s->written_off)
		deaths_violation(
		        d, "%u slots of span %u are nowhere, and %u are written off", slots, s->page, s->written_off);
	return words;
}

/* What could not be seized, as a part of it is written off, counts as seized; as free, if its owner is dead. */
static bool forgive(struct digest *is, const struct digest *should, uint32_t i)
{
	struct digest_span *s = &is->span[i];
	const struct digest_span *seized = digest_find(should, s->page, s->word.generation);

	if (s->word.state == SHMI_SPAN_OWNED && seized && seized->word.state == SHMI_SPAN_SEIZED) {
		is->owned -= s->pages;
		is->client[s->word.owner].charged -= s->pages;
		*s = *seized;
		return true;
	}
	if (s->word.state == SHMI_SPAN_CENTRAL && !seized) {
		is->central -= s->pages;
		is->free += s->pages;
		*s = is->span[--is->spans];
		return true;
	}
	return false;
}

/* As many words are written off as the deaths account for, and counted. */
static void judge_written_off(struct deaths *d, struct digest *is, const struct digest *should)
{
	uint64_t slots = 0, counted = shmi_load(&d->t->heap.img.super->counters.slots_written_off);
	uint32_t words = 0, doubts = 0;

	for (uint32_t i = is->spans; i--;) {
		struct digest_span s = is->span[i];

		slots += s.written_off;
		if (s.written_off && forgive(is, should, i))
			words += words_written_off(d, &s);
	}
	for (uint32_t l = 0; l <= d->level; l++)
		doubts += d->note[l].doubt;
	if (words > doubts)
		deaths_violation(d, "%u words are written off, and %u were in doubt", words, doubts);
	if (!words && d->note[d->level].doubt)
		deaths_violation(d, "nobody can know of a word whether it is free, and it was not written off");
	if (slots != counted)
		deaths_violation(d, "%llu slots are written off, and %llu were counted", (unsigned long long)slots,
		        (unsigned long long)counted);
}

void deaths_judge(struct deaths *d)
{
	static struct digest is;
	const char *why, * or = NULL;

	deaths_check(d, "in the end");
	judge_backing(d);
	digest_take(&is, &d->t->heap);
	rename_newcomer(d, &is);
	if (d->c->again)
		judge_written_off(d, &is, d->orphaned ? &d->orphan[0] : &d->after);
	if (d->orphaned) {
		why = digest_differs(&is, &d->orphan[0], &d->before);
		or = why ? digest_differs(&is, &d->orphan[1], &d->before) : NULL;
		why = or ;
	} else {
		why = digest_differs(&is, &d->after, &d->before);
		if (d->req.kind != WIRE_NONE && d->req.kind != WIRE_DETACH)
			judge_knowledge(d, &is);
	}
	if (why)
		deaths_violation(d, "not as without the death: %s", why);
}

/* ---- words that living clients read ---- */

/* A span in use of which a client can know; granted, perhaps, by the request that was cut short. */
static bool is_read(const struct deaths *d, uint32_t page)
{
	const struct shmi_image *img = &d->t->heap.img;
	const struct digest_span *then;
	shmi_page first = {shmi_load(shmi_page_span_at(img, (shmi_page){page}))};

	if (!shmi_image_page_ok(img, (shmi_page){page}) || !shmi_image_page_ok(img, first))
		return false;
	struct shmi_word word = shmi_span_word(img, first);

	then = digest_find(&d->before, first.i, word.generation);
	return shmi_state_in_use(word.state) && then && (then->word.state != SHMI_SPAN_CENTRAL);
}

static bool within(uint64_t off, uint64_t from, uint64_t count, uint64_t each, uint64_t *i, uint64_t *in)
{
	if (off < from || off >= from + count * each)
		return false;
	*i = (off - from) / each;
	*in = (off - from) % each;
	return true;
}

/* Whether a living client may look at this byte of meta, and what it is. */
static const char *read_in_meta(const struct deaths *d, uint64_t off)
{
	const struct shmi_image *img = &d->t->heap.img;
	const struct shmi_geometry *geo = &img->geo;
	uint64_t i, in, pages = geo->limit_pages;

	if (off < offsetof(struct shmi_super, generation) ||
	        (off >= offsetof(struct shmi_super, published_pages) && off < offsetof(struct shmi_super, generations)))
		return "the superblock";
	if (off >= geo->classes && off < geo->pageheap)
		return "the class table";
	if (within(off, geo->roots, SHMI_MAX_ROOTS, sizeof(struct shmi_root), &i, &in))
		return shmi_load(&shmi_root_at(img, (uint32_t)i)->off) ? "a root" : NULL;
	if (within(off, geo->page_class, pages, 2, &i, &in))
		return is_read(d, (uint32_t)i) ? "the class of a page" : NULL;
	if (within(off, geo->page_span, pages, 4, &i, &in))
		return is_read(d, (uint32_t)i) ? "the page map" : NULL;
	if (!within(off, geo->spans, pages, sizeof(struct shmi_span), &i, &in) || !is_read(d, (uint32_t)i))
		return NULL;
	if (in >= offsetof(struct shmi_span, written_off_bits) && in < offsetof(struct shmi_span, last_user))
		return NULL;
	return in < offsetof(struct shmi_span, next) || in >= offsetof(struct shmi_span, flags) ? "a span's record"
	                                                                                        : NULL;
}

/* A byte of a word that the dead daemon had taken for a seizure is put back: the one thing that a client may see happen. */
static bool is_put_back(const struct deaths *d, uint64_t off, unsigned char before, unsigned char after)
{
	const struct death_note *note = &d->note[d->level]; /* of no words, mostly */
	uint64_t from = d->t->heap.img.geo.bitmaps + note->span * SHMI_BITMAP_BYTES_PER_PAGE;

	return off >= from && off < from + note->words * sizeof(uint64_t) && !before && after;
}

static const char *read_in_ctl(const struct deaths *d, uint64_t off)
{
	const struct shmi_geometry *geo = &d->t->heap.img.geo;
	uint64_t i, in;

	if (within(off, geo->bitmaps, geo->limit_pages, SHMI_BITMAP_BYTES_PER_PAGE, &i, &in))
		return is_read(d, (uint32_t)i) ? "a bitmap" : NULL;
	if (!within(off, geo->records, SHMI_MAX_THREADS, geo->record_bytes, &i, &in))
		return NULL;
	for (uint32_t t = 0; t < d->before.threads; t++)
		if (d->before.thread[t].thread == i && d->before.thread[t].client <= d->other.id)
			return "a thread record";
	return NULL;
}

/* No store of the adoption is to a word that a living client reads. */
void deaths_judge_stores(struct deaths *d, const struct stores *log)
{
	for (size_t i = 0; i < d->adopted && i < log->count; i++) {
		const struct stores_change *c = &log->change[i];
		const char *what = NULL;

		for (uint32_t b = 0; b < c->len && !what; b++) {
			unsigned char before = stores_before(log, c)[b], after = stores_after(log, c)[b];

			if (before == after)
				continue;
			if (c->range == HEAP_META)
				what = read_in_meta(d, c->off + b);
			else if (c->range == HEAP_CTL && !is_put_back(d, c->off + b, before, after))
				what = read_in_ctl(d, c->off + b);
		}
		if (what)
			deaths_violation(d, "store %zu of the adoption is to %s, which clients read (byte %llu)", i,
			        what, (unsigned long long)c->off);
	}
}
