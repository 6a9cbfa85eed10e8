/* The table of invariants, and which findings count. */
#include "shm/checker.h"

/* The only file of shm/ that takes memory: two bitmaps, one bit for each page and one for each slot, and the findings. A limit
 * fixed beforehand would be a heap too large to check; the bitmap of slots is as long as the one in ctl, but the system
 * backs only what is touched, and that is a bit for each cached block. */
#include <stdlib.h>

#include "shm/text.h"

struct invariant {
	uint32_t number;
	bool base; /* if it does not hold, what comes after it in the table is not looked at: it would say anything */
	bool live;
	void (*check)(struct shmi_checker *c);
	const char *sentence;
};

/* In the order in which they are checked. */
static const struct invariant invariants[] = {
        {16, true, false, shmi_check_header, "The headers of meta and ctl are those of one heap of this layout."},
        {1, true, false, shmi_check_tiling,
                "From page 1 to the last published page every page is in exactly one run, which begins at a record "
                "of legal state and length, and no other record says that a run begins there."},
        {2, true, false, shmi_check_words,
                "The record of a span in use is legal: class, owner and generation in the state word agree with the "
                "state, and pages, slots, bytes, flags and written-off slots with the class."},
        {3, false, false, shmi_check_classes,
                "A page bears a class if and only if it is in a span of blocks or the first page of a large block, "
                "and then that span's."},
        {4, false, false, shmi_check_page_map,
                "The page map names the first page of its run for every page of a span of blocks and for the first "
                "and last page of a large block or free run, and 0 for all other pages."},
        {5, false, false, shmi_check_owners,
                "A client's list holds exactly the spans whose state words name it, and its counts are theirs."},
        {6, false, false, shmi_check_central,
                "Every span of blocks that nobody holds is on exactly one central list, of its span class, the one "
                "that its record names; nothing else is there."},
        {8, false, false, shmi_check_coalesced, "No two free runs of one kind are neighbours."},
        {17, false, false, shmi_check_exact_lists,
                "Every free run of up to 128 pages is on the list of its length and kind; nothing else is there, and "
                "the "
                "bits say which lists have any."},
        {18, false, false, shmi_check_trees,
                "Every longer free run is in the tree of its kind, which is ordered by length and page and whose "
                "parent links are right; nothing else is there."},
        {9, false, false, shmi_check_counts,
                "The page counts are those of the runs by state, and add up to the limit."},
        {19, false, false, shmi_check_clients, "Every client that has an id lives, or its death is being handled."},
        {20, false, false, shmi_check_threads,
                "A thread record is given to a client in use or to nobody, and its head is backed before its parts."},
        {22, false, false, shmi_check_roots,
                "A root in use has a name that no other has, and its offset lies in a published page."},
        {23, false, false, shmi_check_counters,
                "Counters agree with each other and with the heap: nothing came back that had not been given."},
        {7, false, true, shmi_check_central_free, "A span on a `free` central list has a free slot."},
        {15, false, true, shmi_check_bitmaps, "No bitmap has a bit beyond its span's last slot."},
        {14, false, true, shmi_check_tops, "No magazine, spill or big cache is fuller than it can be."},
        {13, false, true, shmi_check_intents,
                "An intent is empty, void (of another generation) or a legal half-done take or put; so is every group "
                "of a spill."},
        {10, false, true, shmi_check_entries,
                "Every entry of a magazine is the start of a slot, in a span in use of the magazine's class."},
        {24, false, true, shmi_check_scoped, "No magazine holds a block of another client's scoped span."},
        {25, false, true, shmi_check_seized, "A seized span has no free slot, and nobody has cached one of it."},
        {12, false, true, shmi_check_not_free, "No cached slot is free in its bitmap."},
        {11, false, true, shmi_check_one_cache, "No slot is cached twice."},
        {21, false, true, shmi_check_big,
                "Every entry of a big cache is void (of another generation) or a large block, which no other cache "
                "has."},
};

#define N_INVARIANTS (sizeof(invariants) / sizeof(invariants[0]))

const char *shmi_check_sentence(uint32_t number)
{
	for (size_t i = 0; i < N_INVARIANTS; i++)
		if (invariants[i].number == number)
			return invariants[i].sentence;
	return number ? NULL : "The check could be made.";
}

/* ---- findings ---- */

static int compare_findings(const void *a, const void *b)
{
	const struct shmi_finding *x = a, *y = b;

	if (x->invariant != y->invariant)
		return x->invariant < y->invariant ? -1 : 1;
	if (x->page != y->page)
		return x->page < y->page ? -1 : 1;
	return x->detail == y->detail ? 0 : x->detail < y->detail ? -1 : 1;
}

static bool grow_findings(struct shmi_checker *c)
{
	uint32_t room = c->room_findings ? c->room_findings * 2 : 64;
	struct shmi_finding *grown = realloc(c->findings, room * sizeof(*grown));

	if (!grown) {
		c->no_memory = true;
		return false;
	}
	c->findings = grown;
	c->room_findings = room;
	return true;
}

static void remember(struct shmi_checker *c, const struct shmi_finding *finding)
{
	if (c->n_findings < SHMI_FINDINGS_MAX && (c->n_findings < c->room_findings || grow_findings(c)))
		c->findings[c->n_findings++] = *finding;
}

/* True if this pass is the one that decides, and this is the first time in it that we come by. */
static bool counts(struct shmi_checker *c, const struct shmi_finding *finding)
{
	if (!c->live || c->passes == 1)
		return true;
	if (c->pass == 1) {
		remember(c, finding);
		return false;
	}
	struct shmi_finding *known = bsearch(finding, c->findings, c->n_findings, sizeof(*finding), compare_findings);

	if (!known || known->seen != c->pass - 1)
		return false;
	known->seen = c->pass;
	return c->pass == c->passes;
}

/* Leaves each place once, in order, as bsearch wants it. */
static void sort_findings(struct shmi_checker *c)
{
	uint32_t kept = 0;

	if (c->n_findings)
		qsort(c->findings, c->n_findings, sizeof(*c->findings), compare_findings);
	for (uint32_t i = 0; i < c->n_findings; i++)
		if (!kept || compare_findings(&c->findings[kept - 1], &c->findings[i]) != 0)
			c->findings[kept++] = c->findings[i];
	c->n_findings = kept;
}

void shmi_found(struct shmi_checker *c, uint32_t page, uint64_t detail, const char *format, ...)
{
	struct shmi_finding finding = {.invariant = c->invariant, .page = page, .detail = detail, .seen = c->pass};
	va_list args;

	if (!counts(c, &finding))
		return;
	if (c->count < c->room) {
		struct shmi_violation *v = &c->out[c->count];

		*v = (struct shmi_violation){.invariant = c->invariant, .page = page, .detail = detail};
		va_start(args, format);
		shmi_text_v(v->text, sizeof(v->text), format, args);
		va_end(args);
	}
	c->count++;
}

/* ---- the check ---- */

/* False if an invariant on which others stand does not hold. */
static bool check_meta(struct shmi_checker *c)
{
	c->live = false;
	for (size_t i = 0; i < N_INVARIANTS; i++) {
		uint32_t before = c->count;

		if (invariants[i].live)
			continue;
		c->invariant = invariants[i].number;
		invariants[i].check(c);
		if (invariants[i].base && c->count != before)
			return false;
	}
	return true;
}

static void check_ctl(struct shmi_checker *c)
{
	free(c->slot_marks);
	c->slot_marks = calloc((size_t)c->published + 1, SHMI_BITMAP_BYTES_PER_PAGE);
	if (!c->slot_marks) {
		c->no_memory = true;
		return;
	}
	c->live = true;
	for (size_t i = 0; i < N_INVARIANTS; i++) {
		if (!invariants[i].live)
			continue;
		c->invariant = invariants[i].number;
		invariants[i].check(c);
	}
	if (c->pass == 1)
		sort_findings(c);
}

static void run(struct shmi_checker *c)
{
	c->run_starts = calloc((size_t)c->published / 64 + 1, sizeof(*c->run_starts));
	if (!c->run_starts) {
		c->no_memory = true;
		return;
	}
	if (!check_meta(c) || !c->img->ctl)
		return;
	for (c->pass = 1; c->pass <= c->passes && !c->no_memory; c->pass++)
		if (c->pass == 1 || c->n_findings)
			check_ctl(c);
}

uint32_t shmi_check(const struct shmi_image *img, const struct shmi_check_env *env, uint32_t passes,
        struct shmi_violation *out, uint32_t room)
{
	static const struct shmi_check_env no_env;
	struct shmi_checker c = {.img = img,
	        .env = env ? env : &no_env,
	        .published = shmi_image_published(img),
	        .pass = 1,
	        .passes = passes ? passes : 1,
	        .out = out,
	        .room = room};

	if (c.published > img->geo.limit_pages)
		c.published = img->geo.limit_pages; /* I16 reports it */
	run(&c);
	if (c.no_memory) {
		c.live = false;
		c.invariant = 0;
		shmi_found(&c, 0, 0, "there was no memory to check the heap with");
	}
	free(c.findings);
	free(c.run_starts);
	free(c.slot_marks);
	return c.count;
}
