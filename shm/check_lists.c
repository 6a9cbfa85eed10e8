/* Invariants of lists and trees. Everything on a list has a right to be there, and there are as many as have to be: so each is
 * there exactly once, since a node of a sound double list or tree has one place. */
#include "shm/checker.h"

typedef bool (*belongs_fn)(const struct shmi_checker *c, uint32_t page, uint32_t arg);

/* Walks a list whose nodes are runs for which `belongs` holds. Returns how many it has, as far as it is sound. */
static uint32_t walk_list(
        struct shmi_checker *c, const struct shmi_list *list, const char *what, belongs_fn belongs, uint32_t arg)
{
	uint32_t prev = 0, n = 0;

	for (uint32_t page = list->head; page; page = shmi_span_at(c->img, (shmi_page){page})->next) {
		if (!shmi_run_begins(c, page) || !belongs(c, page, arg)) {
			shmi_found(c, page, arg, "page %u does not belong on the %s list %u", page, what, arg);
			return n;
		}
		if (shmi_span_at(c->img, (shmi_page){page})->prev != prev) {
			shmi_found(c, page, prev, "page %u on the %s list %u does not link back to %u", page, what, arg,
			        prev);
			return n;
		}
		prev = page;
		n++;
	}
	if (n != list->count)
		shmi_found(c, 0, arg, "the %s list %u has %u members and counts %u", what, arg, n, list->count);
	return n;
}

static void must_be(struct shmi_checker *c, uint64_t have, uint64_t want, const char *what)
{
	if (have != want)
		shmi_found(c, 0, have, "%lu %s are listed and %lu are there", have, what, want);
}

static uint64_t count_runs(
        const struct shmi_checker *c, bool (*wanted)(const struct shmi_checker *, const struct shmi_walk *))
{
	struct shmi_walk walk = shmi_walk_start(c->img);
	uint64_t n = 0;

	while (shmi_walk_next(c->img, &walk))
		n += wanted(c, &walk);
	return n;
}

/* ---- owners ---- */

static bool has_owner(const struct shmi_checker *c, const struct shmi_walk *walk)
{
	(void)c;
	return shmi_state_in_use(walk->word.state) && walk->word.owner != SHMI_NOBODY;
}

static bool owned_by(const struct shmi_checker *c, uint32_t page, uint32_t client)
{
	struct shmi_word word = shmi_span_word(c->img, (shmi_page){page});

	return shmi_state_in_use(word.state) && word.owner == client;
}

/* The first `n` of the list are sound, and are all that its count knows of; what they lead to need not be. */
static void check_pages(struct shmi_checker *c, const struct shmi_owner *owner, uint32_t client, uint32_t n)
{
	uint64_t pages[2] = {0}; /* seized ones apart */

	for (uint32_t page = owner->spans.head; n--; page = shmi_span_at(c->img, (shmi_page){page})->next)
		pages[shmi_span_word(c->img, (shmi_page){page}).state == SHMI_SPAN_SEIZED] +=
		        shmi_span_at(c->img, (shmi_page){page})->pages;
	if (pages[0] != owner->pages)
		shmi_found(c, 0, client, "client %u holds %lu pages and counts %u", client, pages[0], owner->pages);
	if (pages[1] != owner->seized_pages)
		shmi_found(c, 0, (uint64_t)1 << 32 | client, "%lu pages of client %u are seized and it counts %u",
		        pages[1], client, owner->seized_pages);
}

void shmi_check_owners(struct shmi_checker *c)
{
	uint64_t listed = 0, before = c->count;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		const struct shmi_owner *owner = shmi_owner_at(c->img, i);
		uint32_t n = walk_list(c, &owner->spans, "owner's", owned_by, i);
		if (n == owner->spans.count)
			check_pages(c, owner, i, n);
		listed += n;
	}
	if (c->count == before)
		must_be(c, listed, count_runs(c, has_owner), "spans with an owner");
}

/* ---- central lists ---- */

static bool is_central(const struct shmi_checker *c, const struct shmi_walk *walk)
{
	(void)c;
	return walk->word.state == SHMI_SPAN_CENTRAL;
}

/* `arg` is the span class and, times SHMI_SPAN_CLASSES, which of its two lists. */
static bool central_of(const struct shmi_checker *c, uint32_t page, uint32_t arg)
{
	struct shmi_word word = shmi_span_word(c->img, (shmi_page){page});

	return word.state == SHMI_SPAN_CENTRAL && word.sclass.c == arg % SHMI_SPAN_CLASSES &&
	       shmi_span_at(c->img, (shmi_page){page})->list == arg / SHMI_SPAN_CLASSES;
}

void shmi_check_central(struct shmi_checker *c)
{
	uint64_t listed = 0, before = c->count;

	for (uint32_t s = 0; s < SHMI_SPAN_CLASSES; s++) {
		const struct shmi_central_lists *lists = shmi_central_at(c->img, (shmi_sclass){(uint16_t)s});

		listed += walk_list(c, &lists->free, "free central", central_of, s + 1 * SHMI_SPAN_CLASSES);
		listed += walk_list(c, &lists->full, "full central", central_of, s + 2 * SHMI_SPAN_CLASSES);
		if (lists->cursor && (!shmi_run_begins(c, lists->cursor) ||
		                             !central_of(c, lists->cursor, s + 2 * SHMI_SPAN_CLASSES)))
			shmi_found(c, lists->cursor, s, "the sweep of span class %u stands at page %u, not on its list",
			        s, lists->cursor);
	}
	if (c->count == before)
		must_be(c, listed, count_runs(c, is_central), "central spans");
}

/* ---- free runs ---- */

void shmi_check_coalesced(struct shmi_checker *c)
{
	struct shmi_walk walk = shmi_walk_start(c->img);
	uint32_t before = SHMI_SPAN_NONE, first = 0;

	while (shmi_walk_next(c->img, &walk)) {
		if (walk.word.state == before && (before == SHMI_SPAN_FREE || before == SHMI_SPAN_RETURNED))
			shmi_found(c, walk.page.i, first, "the free runs at pages %u and %u should be one", first,
			        walk.page.i);
		before = walk.word.state;
		first = walk.page.i;
	}
}

static uint32_t kind_state(uint32_t kind)
{
	return kind ? SHMI_SPAN_RETURNED : SHMI_SPAN_FREE;
}

static bool is_short(const struct shmi_checker *c, const struct shmi_walk *walk)
{
	(void)c;
	return (walk->word.state == SHMI_SPAN_FREE || walk->word.state == SHMI_SPAN_RETURNED) &&
	       walk->pages.n <= SHMI_EXACT_PAGES;
}

/* `arg` is the length, plus 1000 for returned runs. */
static bool free_of(const struct shmi_checker *c, uint32_t page, uint32_t arg)
{
	return shmi_span_word(c->img, (shmi_page){page}).state == kind_state(arg / 1000) &&
	       shmi_span_at(c->img, (shmi_page){page})->pages == arg % 1000;
}

void shmi_check_exact_lists(struct shmi_checker *c)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(c->img);
	uint64_t listed = 0, before = c->count;

	for (uint32_t kind = 0; kind < 2; kind++)
		for (uint32_t pages = 0; pages <= SHMI_EXACT_PAGES; pages++)
			listed += walk_list(c, &heads->exact[kind][pages], "free runs'", free_of, kind * 1000 + pages);
	for (uint32_t i = 0; i < 2 * SHMI_EXACT_PAGES; i++) {
		uint32_t kind = i / SHMI_EXACT_PAGES, pages = i % SHMI_EXACT_PAGES + 1;
		bool bit = heads->nonempty[kind][(pages - 1) / 64] >> (pages - 1) % 64 & 1;

		if (bit != (heads->exact[kind][pages].head != 0))
			shmi_found(
			        c, 0, i, "the bit of the free runs' list %u is %u", kind * 1000 + pages, (unsigned)bit);
	}
	if (c->count == before)
		must_be(c, listed, count_runs(c, is_short), "short free runs");
}

/* ---- trees ---- */

static bool is_long(const struct shmi_checker *c, uint32_t page, uint32_t kind)
{
	return shmi_run_begins(c, page) && shmi_span_word(c->img, (shmi_page){page}).state == kind_state(kind) &&
	       shmi_span_at(c->img, (shmi_page){page})->pages > SHMI_EXACT_PAGES;
}

static uint64_t tree_key(const struct shmi_checker *c, uint32_t page)
{
	return (uint64_t)shmi_span_at(c->img, (shmi_page){page})->pages << 32 | page;
}

/* A child of `parent` (0: the root), which has a right to be there and knows its parent; 0 if there is none or it has not. */
static uint32_t sound_child(struct shmi_checker *c, uint32_t page, uint32_t parent, uint32_t kind)
{
	if (!page)
		return 0;
	if (!is_long(c, page, kind)) {
		shmi_found(c, page, kind, "page %u does not belong in the tree of kind %u", page, kind);
		return 0;
	}
	if (shmi_span_at(c->img, (shmi_page){page})->parent != parent) {
		shmi_found(c, page, parent, "page %u in the tree of kind %u does not link back to its parent %u", page,
		        kind, parent);
		return 0;
	}
	return page;
}

/* The way down ends: a page has one parent, and the root's is 0, so no page is met again. */
static uint32_t leftmost(struct shmi_checker *c, uint32_t page, uint32_t kind)
{
	for (uint32_t left = page; left;
	        left = sound_child(c, shmi_span_at(c->img, (shmi_page){page})->next, page, kind))
		page = left;
	return page;
}

/* The next page in order. The parent links have been seen to be right on the way down. */
static uint32_t successor(struct shmi_checker *c, uint32_t page, uint32_t kind)
{
	uint32_t right = sound_child(c, shmi_span_at(c->img, (shmi_page){page})->prev, page, kind);

	if (right)
		return leftmost(c, right, kind);
	uint32_t parent = shmi_span_at(c->img, (shmi_page){page})->parent;

	while (parent && shmi_span_at(c->img, (shmi_page){parent})->prev == page) {
		page = parent;
		parent = shmi_span_at(c->img, (shmi_page){page})->parent;
	}
	return parent;
}

/* Returns how many runs are in the tree, as far as it is sound. */
static uint32_t walk_tree(struct shmi_checker *c, uint32_t kind)
{
	uint32_t page = sound_child(c, shmi_pageheap_at(c->img)->root[kind], 0, kind), n = 0;
	uint64_t last = 0;

	for (page = leftmost(c, page, kind); page; page = successor(c, page, kind)) {
		if (tree_key(c, page) <= last) {
			shmi_found(c, page, last, "the tree of kind %u is out of order at page %u", kind, page);
			return n;
		}
		last = tree_key(c, page);
		n++;
	}
	return n;
}

void shmi_check_trees(struct shmi_checker *c)
{
	const struct shmi_pageheap_heads *heads = shmi_pageheap_at(c->img);
	uint32_t there[2] = {0, 0};
	struct shmi_walk walk = shmi_walk_start(c->img);

	while (shmi_walk_next(c->img, &walk))
		if (walk.pages.n > SHMI_EXACT_PAGES &&
		        (walk.word.state == SHMI_SPAN_FREE || walk.word.state == SHMI_SPAN_RETURNED))
			there[walk.word.state == SHMI_SPAN_RETURNED]++;
	for (uint32_t kind = 0; kind < 2; kind++) {
		uint32_t before = c->count, n = walk_tree(c, kind);

		if (c->count == before && (n != there[kind] || n != heads->tree_count[kind]))
			shmi_found(c, 0, n, "the tree of kind %u has %u runs and counts %u, and %u are there", kind, n,
			        heads->tree_count[kind], there[kind]);
	}
}
