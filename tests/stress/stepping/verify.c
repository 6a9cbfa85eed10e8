/* What must hold after a death and a reclaim: see oracle.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shm/check.h"
#include "shm/roots.h"
#include "tests/stress/stepping/parts.h"

__attribute__((format(printf, 2, 3))) static const char *wrong(struct oracle *o, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(o->text, sizeof(o->text), format, args);
	va_end(args);
	return o->text;
}

/* The bits of a word that may be written off. */
static uint64_t in_doubt(const struct oracle *o, shmi_page page, uint32_t generation, uint32_t word)
{
	uint64_t bits = 0;

	for (uint32_t i = 0; i < o->n_doubt; i++)
		if (o->doubt[i].span == page.i && o->doubt[i].generation == generation && o->doubt[i].word == word)
			bits |= o->doubt[i].bits;
	return bits;
}

/* A block that is allocated and was not before: at most one, and always the same. */
static const char *extra(struct oracle *o, uint64_t off, bool *found)
{
	if (!o->allocates)
		return wrong(o, "offset %#llx is lost", (unsigned long long)off);
	if (o->lost && o->lost != off)
		return wrong(o, "offset %#llx is lost, before it was %#llx", (unsigned long long)off,
		        (unsigned long long)o->lost);
	o->lost = off;
	*found = true;
	return NULL;
}

/* Whether the block that the operation frees may be as it is. */
static const char *verify_old(struct oracle *o, bool is_free)
{
	if (o->freed && !is_free)
		return wrong(o, "the freed block %#llx is allocated again", (unsigned long long)o->old);
	o->freed = is_free;
	return NULL;
}

static const char *verify_word(struct oracle *o, const struct shmi_walk *walk, uint32_t w, uint32_t *written, bool *new)
{
	bool known = o->word[walk->page.i].generation == walk->word.generation && o->word[walk->page.i].state;
	uint64_t now = taken(o, walk->page, walk->word.sclass, w), live = known ? o->live[walk->page.i][w] : 0;
	uint64_t missing = live & ~now, more = now & ~live;
	uint64_t doubt = more & in_doubt(o, walk->page, walk->word.generation, w);
	const char *text = NULL;

	*written += (uint32_t)__builtin_popcountll(doubt);
	for (more &= ~doubt; more && !text; more &= more - 1)
		text = extra(
		        o, slot_off(o, walk->page, walk->word.sclass, w * 64 + (uint32_t)__builtin_ctzll(more)), new);
	for (uint64_t all = live; all && !text; all &= all - 1) {
		uint64_t bit = all & -all,
		         off = slot_off(o, walk->page, walk->word.sclass, w * 64 + (uint32_t)__builtin_ctzll(all));

		if (off == o->old && walk->word.generation == o->old_generation)
			text = verify_old(o, missing & bit);
		else if (missing & bit)
			text = wrong(o, "the live block %#llx is free", (unsigned long long)off);
	}
	return text;
}

static const char *verify_span(struct oracle *o, const struct shmi_walk *walk, uint32_t *written, bool *new)
{
	struct shmi_word was = o->word[walk->page.i];
	const char *text = NULL;

	if (walk->word.owner == o->victim && o->victim != SHMI_NOBODY)
		return wrong(o, "page %u is still the dead client's", walk->page.i);
	if (was.generation == walk->word.generation && was.state == SHMI_SPAN_OWNED && was.owner != o->victim &&
	        shmi_word_pack(was) != shmi_word_pack(walk->word) && o->victim != SHMI_NOBODY)
		return wrong(o, "the state word of page %u, another client's, has changed", walk->page.i);
	for (uint32_t w = 0; w < class_of(o, walk->word.sclass)->words && !text; w++)
		text = verify_word(o, walk, w, written, new);
	return text;
}

static const char *verify_large(struct oracle *o, const struct shmi_walk *walk, bool *new)
{
	for (uint32_t i = 0; i < o->n_large; i++) {
		const struct oracle_block *b = &o->large[i];

		if (b->page != walk->page.i || b->generation != walk->word.generation)
			continue;
		if (b->scoped && b->owner == o->victim)
			return wrong(o, "the scoped large block at page %u is still there", b->page);
		if (walk->word.owner != (b->owner == o->victim ? SHMI_NOBODY : b->owner))
			return wrong(o, "the large block at page %u has owner %u", b->page, walk->word.owner);
		return NULL;
	}
	if (shmi_sclass_scoped(walk->word.sclass) || walk->word.owner != SHMI_NOBODY)
		return wrong(o, "a large block at page %u of client %u", walk->page.i, walk->word.owner);
	return extra(o, shmi_page_off(walk->page).b, new);
}

/* Spans and blocks that are gone altogether. */
static const char *verify_gone(struct oracle *o)
{
	const struct shmi_image *img = &o->w->heap.img;

	for (uint32_t p = 1; p < WORLD_PAGES; p++) {
		struct shmi_word now = shmi_span_word(img, (shmi_page){p}), was = o->word[p];
		uint32_t lives = 0;

		if (!was.state || (is_blocks(now) && now.generation == was.generation))
			continue;
		for (uint32_t w = 0; w < 8; w++)
			lives += (uint32_t)__builtin_popcountll(o->live[p][w]);
		bool olds = has_old(o, (shmi_page){p}, was);
		const char *text = olds ? verify_old(o, true) : NULL;

		if (text)
			return text;
		if (was.owner != SHMI_NOBODY && was.owner != o->victim)
			return wrong(o, "page %u, another client's span, is gone", p);
		if (lives - olds && !shmi_sclass_scoped(was.sclass))
			return wrong(o, "page %u is gone with live blocks in it", p);
	}
	for (uint32_t i = 0; i < o->n_large; i++) {
		const struct oracle_block *b = &o->large[i];
		struct shmi_word now = shmi_span_word(img, (shmi_page){b->page});
		bool is_there = now.state == SHMI_SPAN_LARGE && now.generation == b->generation;
		bool is_old = o->old == (uint64_t)b->page << SHMI_PAGE_SHIFT && o->old_generation == b->generation;
		const char *text = is_old ? verify_old(o, !is_there) : NULL;

		if (text)
			return text;
		if (!is_there && !is_old && !(b->scoped && b->owner == o->victim))
			return wrong(o, "the large block at page %u is gone", b->page);
	}
	return NULL;
}

static const char *verify_heap(struct oracle *o)
{
	struct shmi_walk walk = shmi_walk_start(&o->w->heap.img);
	uint32_t written = 0;
	bool new = false, lost = o->lost != 0;
	const char *text = verify_gone(o);

	while (!text && shmi_walk_next(&o->w->heap.img, &walk)) {
		if (is_blocks(walk.word))
			text = verify_span(o, &walk, &written, &new);
		else if (walk.word.state == SHMI_SPAN_LARGE)
			text = verify_large(o, &walk, &new);
		else if (walk.word.state == SHMI_SPAN_QUARANTINE)
			text = wrong(o, "page %u is quarantined", walk.page.i);
	}
	if (text)
		return text;
	if (lost && !new)
		return wrong(o, "the block %#llx was allocated and is free again", (unsigned long long)o->lost);
	uint64_t counted = shmi_load(&o->w->heap.img.super->counters.slots_written_off) - o->written_off;

	if (counted < written || (counted && !o->n_doubt))
		return wrong(o, "%u slots are written off, %llu counted", written, (unsigned long long)counted);
	if (shmi_load(&o->w->heap.img.super->counters.bad_words) != o->bad_words)
		return wrong(o, "an honest client's records are said to make no sense");
	if (counted > o->most_written_off)
		o->most_written_off = (uint32_t)counted;
	return NULL;
}

static const char *verify_victim(struct oracle *o)
{
	const struct shmi_image *img = &o->w->heap.img;

	if (o->victim == SHMI_NOBODY)
		return NULL;
	if (o->w->core.client[o->victim].state != CLIENT_FREE || shmi_owner_at(img, o->victim)->in_use ||
	        shmi_owner_at(img, o->victim)->spans.count)
		return wrong(o, "the dead client is still there");
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++)
		if (shmi_thread_slot_at(img, t)->client == o->victim)
			return wrong(o, "thread record %u is still the dead client's", t);
	return NULL;
}

static bool is_marked(const struct oracle *o, uint64_t off)
{
	return !off || off == o->given_up || world_is_marked(o->w->data + off, off, world_size_at(o->w, off));
}

/* What others have in their blocks, records and roots. */
static const char *verify_others(struct oracle *o)
{
	const struct note *note = o->w->note;
	const struct shmi_image *img = &o->w->heap.img;
	shmi_off off;

	for (uint32_t i = 0; i < o->w->others; i++)
		if (!(o->gone >> i & 1) && memcmp(o->records[i], shmi_threadrec_at(img, o->w->other[i].thread),
		                                   sizeof(o->records[i])) != 0)
			return wrong(o, "the record of another client has changed");
	for (uint32_t i = 0; i < note->n_foreign; i++)
		if (!is_marked(o, note->foreign[i]))
			return wrong(o, "the block %#llx is overwritten", (unsigned long long)note->foreign[i]);
	for (uint32_t i = 0; i < note->n_central; i++)
		if (!is_marked(o, note->central[i]))
			return wrong(o, "the block %#llx is overwritten", (unsigned long long)note->central[i]);
	for (uint32_t i = 0; i < note->n_own; i++)
		if (!is_marked(o, note->own[i]))
			return wrong(
			        o, "the dead client's block %#llx is overwritten", (unsigned long long)note->own[i]);
	if (!is_marked(o, note->foreign_large) || (!o->gone && !is_marked(o, note->foreign_large_scoped)))
		return wrong(o, "a large block is overwritten");
	if (note->n_foreign && (shmi_roots_get(img, "small", &off) != 0 || off.b != note->foreign[0]))
		return wrong(o, "the root of a small block has changed");
	if (shmi_roots_get(img, "large", &off) != 0 || off.b != note->foreign_large)
		return wrong(o, "the root of a large block has changed");
	return NULL;
}

static bool client_lives(void *ctx, uint32_t client)
{
	const struct oracle *o = ctx;

	return client < SHMI_MAX_CLIENTS && o->w->core.client[client].state != CLIENT_FREE;
}

const char *oracle_check(struct oracle *o)
{
	const struct shmi_check_env env = {.ctx = o, .client_lives = client_lives};
	struct shmi_violation found;

	if (shmi_check(&o->w->heap.img, &env, 1, &found, 1))
		return wrong(o, "I%u, page %u: %s", found.invariant, found.page, found.text);
	return NULL;
}

const char *oracle_verify(struct oracle *o)
{
	const char *text = verify_heap(o);

	if (!text)
		text = verify_victim(o);
	if (!text)
		text = verify_others(o);
	return text ? text : oracle_check(o);
}

const char *oracle_end(struct oracle *o, uint64_t result)
{
	if (o->lost && o->lost != result)
		return wrong(o, "the block %#llx was lost, but %#llx allocated", (unsigned long long)o->lost,
		        (unsigned long long)result);
	if (o->old && !o->freed)
		return wrong(o, "the block %#llx was never free", (unsigned long long)o->old);
	return NULL;
}
