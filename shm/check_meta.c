/* Invariants of what only the daemon writes: headers, runs, records, page arrays, counts, roots. */
#include "shm/checker.h"

#include <string.h>

static bool is_kind(const char *ok, uint64_t have, uint64_t want, struct shmi_checker *c)
{
	if (have != want)
		shmi_found(c, 0, have, "%s is %lx, not %lx", ok, have, want);
	return have == want;
}

void shmi_check_header(struct shmi_checker *c)
{
	const struct shmi_image *img = c->img;
	const struct shmi_super *super = img->super;
	const struct shmi_ctl_head *head = (const void *)img->ctl;
	struct shmi_class table[SHMI_CLASSES];
	uint32_t published = shmi_image_published(img);

	is_kind("magic of meta", super->magic, SHMI_META_MAGIC, c);
	is_kind("layout version", super->layout_version, SHMI_LAYOUT_VERSION, c);
	is_kind("layout hash of meta", super->layout_hash, shmi_layout_hash(), c);
	is_kind("page size", super->page_size, SHMI_PAGE_SIZE, c);
	if (memcmp(&super->geometry, &img->geo, sizeof(img->geo)) != 0)
		shmi_found(c, 0, 0, "the geometry is not that of a heap of %u pages", img->geo.limit_pages);
	if (published > img->geo.limit_pages)
		shmi_found(c, 0, published, "%u pages are published, and the limit is %u", published,
		        img->geo.limit_pages);
	shmi_class_table(table);
	if (memcmp(table, img->classes, sizeof(table)) != 0)
		shmi_found(c, 0, 0, "the class table is not that of this layout");
	if (!head)
		return;
	is_kind("magic of ctl", head->magic, SHMI_CTL_MAGIC, c);
	is_kind("layout hash of ctl", head->layout_hash, super->layout_hash, c);
	is_kind("heap id of ctl", head->heap_id, super->heap_id, c);
}

/* ---- runs and their records ---- */

static uint32_t state_at(const struct shmi_checker *c, uint32_t page)
{
	return shmi_span_word(c->img, (shmi_page){page}).state;
}

void shmi_check_tiling(struct shmi_checker *c)
{
	uint32_t page = 1;

	if (c->published && state_at(c, 0) != SHMI_SPAN_NONE)
		shmi_found(c, 0, state_at(c, 0), "page 0 has a record in state %u", state_at(c, 0));
	while (page < c->published) {
		uint32_t state = state_at(c, page), pages = shmi_span_at(c->img, (shmi_page){page})->pages;

		if (state == SHMI_SPAN_NONE || state > SHMI_SPAN_SEIZED) {
			shmi_found(c, page, state, "state %u where a run has to begin", state);
			return;
		}
		if (!pages || pages > c->published - page) {
			shmi_found(c, page, pages, "a run of %u pages of the %u that are left", pages,
			        c->published - page);
			return;
		}
		shmi_bit_set(c->run_starts, page);
		for (uint32_t i = page + 1; i < page + pages; i++)
			if (state_at(c, i) != SHMI_SPAN_NONE)
				shmi_found(c, i, state_at(c, i), "a record in state %u inside the run at page %u",
				        state_at(c, i), page);
		page += pages;
	}
}

static bool owner_legal(const struct shmi_checker *c, const struct shmi_word *word)
{
	bool client = word->owner < SHMI_MAX_CLIENTS && shmi_owner_at(c->img, word->owner)->in_use == 1;

	switch (word->state) {
	case SHMI_SPAN_OWNED:
	case SHMI_SPAN_SEIZED:
		return client;
	case SHMI_SPAN_LARGE:
		return client || word->owner == SHMI_NOBODY;
	default:
		return word->owner == SHMI_NOBODY;
	}
}

static bool class_legal(const struct shmi_word *word)
{
	bool small = shmi_sclass_is_small(word->sclass), large = shmi_sclass_is_large(word->sclass);

	switch (word->state) {
	case SHMI_SPAN_LARGE:
		return large;
	case SHMI_SPAN_QUARANTINE:
		return small || large;
	default:
		return small;
	}
}

static void check_small_record(struct shmi_checker *c, const struct shmi_walk *walk)
{
	const struct shmi_span *span = shmi_span_at(c->img, walk->page);
	const struct shmi_class *class = &c->img->classes[shmi_sclass_size_class(walk->word.sclass)];
	uint64_t bits = span->written_off_bits;

	if (span->pages != class->pages || span->slots != class->slots)
		shmi_found(c, walk->page.i, (uint64_t)span->slots << 32 | span->pages,
		        "%u pages and %u slots, where its class has %u and %u", span->pages, span->slots, class->pages,
		        class->slots);
	if (span->written_off > class->slots || (uint32_t)__builtin_popcountll(bits) > span->written_off ||
	        (bits && (span->written_off_word >= class->words ||
	                         bits & ~shmi_slots_mask(class, span->written_off_word))))
		shmi_found(c, walk->page.i, span->written_off, "%u slots of %u written off, the last %lx of word %u",
		        (unsigned)span->written_off, class->slots, bits, span->written_off_word);
	if (span->flags)
		shmi_found(c, walk->page.i, span->flags, "flags %x on a span of blocks", span->flags);
}

static void check_large_record(struct shmi_checker *c, const struct shmi_walk *walk)
{
	const struct shmi_span *span = shmi_span_at(c->img, walk->page);

	if (span->slots != 1)
		shmi_found(c, walk->page.i, span->slots, "a large block with %u slots", span->slots);
	if (span->bytes > shmi_npages_bytes(walk->pages))
		shmi_found(c, walk->page.i, span->bytes, "a large block of %lu bytes in %u pages", span->bytes,
		        span->pages);
	if (span->flags & ~SHMI_SPAN_LAZY || span->written_off)
		shmi_found(c, walk->page.i, span->flags, "a large block with flags %x and %u slots written off",
		        span->flags, (unsigned)span->written_off);
}

void shmi_check_words(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		struct shmi_word word = walk.word;

		if (!shmi_state_in_use(word.state))
			continue;
		if (!class_legal(&word)) {
			shmi_found(
			        c, walk.page.i, word.sclass.c, "span class %u in state %u", word.sclass.c, word.state);
			continue;
		}
		if (!owner_legal(c, &word))
			shmi_found(c, walk.page.i, word.owner, "owner %u in state %u", word.owner, word.state);
		if (!word.generation) /* more cannot be said: generations come round again after 2^32 spans */
			shmi_found(c, walk.page.i, 0, "a span in use with generation 0");
		if (shmi_sclass_is_small(word.sclass))
			check_small_record(c, &walk);
		else
			check_large_record(c, &walk);
	}
}

/* ---- page arrays ---- */

static bool is_blocks(const struct shmi_walk *walk)
{
	return shmi_state_in_use(walk->word.state) && shmi_sclass_is_small(walk->word.sclass);
}

void shmi_check_classes(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		bool all = is_blocks(&walk), first = shmi_state_in_use(walk.word.state);

		for (uint32_t i = 0; i < walk.pages.n; i++) {
			uint32_t want = all || (first && i == 0) ? walk.word.sclass.c : 0;
			uint32_t have = shmi_load(shmi_page_class_at(c->img, (shmi_page){walk.page.i + i}));

			if (have != want)
				shmi_found(c, walk.page.i + i, have, "page %u bears span class %u, not %u",
				        walk.page.i + i, have, want);
		}
	}
}

void shmi_check_page_map(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		bool all = is_blocks(&walk), moving = walk.word.state == SHMI_SPAN_MOVING;

		for (uint32_t i = 0; i < walk.pages.n; i++) {
			bool edge = i == 0 || i == walk.pages.n - 1;
			uint32_t want = all || (edge && !moving) ? walk.page.i : 0;
			uint32_t have = shmi_load(shmi_page_span_at(c->img, (shmi_page){walk.page.i + i}));

			if (have != want)
				shmi_found(c, walk.page.i + i, have, "the map says %u for page %u, not %u", have,
				        walk.page.i + i, want);
		}
	}
}

/* ---- counts ---- */

static uint64_t *count_for(uint64_t *counts, const struct shmi_checker *c, const struct shmi_walk *walk)
{
	switch (walk->word.state) {
	case SHMI_SPAN_FREE:
		return &counts[2];
	case SHMI_SPAN_RETURNED:
		return &counts[3];
	case SHMI_SPAN_MOVING:
		return &counts[5];
	case SHMI_SPAN_SEIZED:
		return &counts[7];
	default:
		if (shmi_span_at(c->img, walk->page)->flags & SHMI_SPAN_LAZY)
			return &counts[4];
		return &counts[walk->word.owner == SHMI_NOBODY ? 1 : 0];
	}
}

void shmi_check_counts(struct shmi_checker *c)
{
	static const char *const names[] = {
	        "owned", "central", "free", "returned", "lazy", "moving", "unpublished", "seized"};
	struct shmi_walk walk = shmi_walk_start(c->img);
	const struct shmi_page_counts *pages = &c->img->super->pages;
	uint64_t counts[8] = {0};
	const uint64_t have[8] = {shmi_load(&pages->owned), shmi_load(&pages->central), shmi_load(&pages->free),
	        shmi_load(&pages->returned), shmi_load(&pages->lazy), shmi_load(&pages->moving),
	        shmi_load(&pages->unpublished), shmi_load(&pages->seized)};

	while (shmi_walk_next(c->img, &walk))
		*count_for(counts, c, &walk) += walk.pages.n;
	counts[6] = c->img->geo.limit_pages - c->published + (c->published ? 1 : 0); /* page 0 is in no run */
	for (uint32_t i = 0; i < 8; i++)
		if (have[i] != counts[i])
			shmi_found(c, 0, have[i], "%s: %lu pages are counted and %lu are there", names[i], have[i],
			        counts[i]);
}

static void not_more(struct shmi_checker *c, uint64_t a, const char *what_a, uint64_t b, const char *what_b)
{
	if (a > b)
		shmi_found(c, 0, a, "%lu %s, but %lu %s", a, what_a, b, what_b);
}

void shmi_check_counters(struct shmi_checker *c)
{
	const struct shmi_counters *counters = &c->img->super->counters;
	const struct shmi_page_counts *pages = &c->img->super->pages;
	uint64_t backed = shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->free);
	uint64_t written_off = 0, quarantined = 0;
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk)) {
		if (shmi_state_in_use(walk.word.state))
			written_off += shmi_span_at(c->img, walk.page)->written_off;
		if (walk.word.state == SHMI_SPAN_QUARANTINE)
			quarantined += walk.pages.n;
	}
	not_more(c, shmi_load(&counters->spans_returned), "spans came back", shmi_load(&counters->spans_granted),
	        "were granted");
	not_more(c, shmi_load(&counters->large_freed), "large blocks were freed", shmi_load(&counters->large_granted),
	        "were granted");
	not_more(c, backed, "pages are backed", shmi_load(&counters->peak_backed_pages), "is the peak");
	not_more(c, shmi_load(&counters->peak_backed_pages), "pages is the peak", c->img->geo.limit_pages,
	        "is the limit");
	not_more(c, written_off, "slots are written off", shmi_load(&counters->slots_written_off), "ever were");
	not_more(c, quarantined, "pages are quarantined", shmi_load(&counters->quarantined_pages), "ever were");
}

/* ---- clients, threads, roots ---- */

void shmi_check_clients(struct shmi_checker *c)
{
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		uint32_t in_use = shmi_owner_at(c->img, i)->in_use;

		if (in_use > 1)
			shmi_found(c, 0, i, "client %u is in use as %u", i, in_use);
		else if (in_use && c->env->client_lives && !c->env->client_lives(c->env->ctx, i))
			shmi_found(c, 0, i, "client %u has an id and is gone", i);
	}
}

void shmi_check_threads(struct shmi_checker *c)
{
	for (uint32_t i = 0; i < SHMI_MAX_THREADS; i++) {
		struct shmi_thread_slot slot = *shmi_thread_slot_at(c->img, i);

		if (slot.client != SHMI_NOBODY &&
		        (slot.client >= SHMI_MAX_CLIENTS || shmi_owner_at(c->img, slot.client)->in_use != 1))
			shmi_found(c, 0, i, "thread record %u belongs to client %u, which is not in use", i,
			        (unsigned)slot.client);
		if (slot.head > 1 || slot.parts >= 1u << SHMI_ATTRS || (!slot.head && slot.parts) ||
		        (slot.client != SHMI_NOBODY && !slot.head))
			shmi_found(c, 0, i, "thread record %u has head %u and parts %x", i, (unsigned)slot.head,
			        (unsigned)slot.parts);
	}
}

static bool name_known(const struct shmi_checker *c, uint32_t root)
{
	const struct shmi_root *mine = shmi_root_at(c->img, root);

	for (uint32_t r = 0; r < root; r++) {
		const struct shmi_root *other = shmi_root_at(c->img, r);

		if (shmi_load(&other->off) && memcmp(other->name, mine->name, sizeof(mine->name)) == 0)
			return true;
	}
	return false;
}

void shmi_check_roots(struct shmi_checker *c)
{
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		const struct shmi_root *root = shmi_root_at(c->img, r);
		uint64_t off = shmi_load(&root->off);

		if (!off)
			continue;
		if (!root->name[0] || root->name[SHMI_ROOT_NAME_MAX] || shmi_load(&root->seq) % 2)
			shmi_found(c, 0, r, "root %u is in use without a name", r);
		else if (name_known(c, r))
			shmi_found(c, 0, r, "root %u has a name that another has: %s", r, root->name);
		else if (shmi_off_page((shmi_off){off}).i == 0 || shmi_off_page((shmi_off){off}).i >= c->published)
			shmi_found(c, 0, off, "root %s names offset %lx, which is outside the heap", root->name, off);
	}
}
