#include "daemon/heap.h"

#include <string.h>

#include "daemon/damage.h"
#include "daemon/guard.h"
#include "daemon/passing.h"
#include "daemon/policy.h"
#include "daemon/stale.h"
#include "shm/central.h"

#define BASE_FROM 0x200000000000ull
#define BASE_TO 0x500000000000ull
#define BASE_STEP (1ull << 30)

static uint64_t hash_text(uint64_t hash, const char *text)
{
	do
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	while (*text++);
	return hash;
}

uint64_t heap_base_address(const char *instance, const char *name, uint32_t limit_pages)
{
	uint64_t hash = hash_text(hash_text(0xcbf29ce484222325ull, instance), name);
	uint64_t length = shmi_npages_bytes((shmi_npages){limit_pages});
	uint64_t places = (BASE_TO - BASE_FROM - length) / BASE_STEP;

	return BASE_FROM + (hash ^ hash >> 32) % places * BASE_STEP;
}

/* ---- the floor, as the page heap sees it ---- */

static int page_commit(void *ctx, shmi_page first, shmi_npages pages)
{
	struct heap *heap = ctx;

	if (heap->floor.back(heap->floor.ctx, HEAP_DATA, shmi_page_off(first).b, shmi_npages_bytes(pages))) {
		heap->starved = true;
		return SHMI_E_NOMEM;
	}
	heap->last_commit = (struct shmi_run){.first = first, .pages = pages, .backed = true};
	return 0;
}

static int page_publish(void *ctx, shmi_page first, shmi_npages pages)
{
	struct heap *heap = ctx;

	for (uint32_t part = 0; part < SHMI_ARENA_PARTS; part++) {
		uint64_t off, len;

		shmi_geometry_arena_part(&heap->img.geo, part, first.i, pages.n, &off, &len);
		/* A part that was backed before the next one failed stays; it is needed for the next attempt. */
		if (heap->floor.back(heap->floor.ctx, shmi_arena_part_in_ctl(part) ? HEAP_CTL : HEAP_META, off, len)) {
			heap->starved = true;
			return SHMI_E_NOMEM;
		}
	}
	return 0;
}

static void bind_heap(struct heap *heap, const struct heap_floor *floor, const struct heap_memory *memory)
{
	*heap = (struct heap){.state = memory->state, .floor = *floor, .now = heap->now};
	heap->page_floor = (struct shmi_floor){.ctx = heap, .commit = page_commit, .publish = page_publish};
}

/* ---- making and adopting ---- */

struct making {
	struct heap *heap;
	const struct heap_memory *memory;
	const struct shmi_image_params *params;
};

static int format_guarded(void *ctx)
{
	struct making *m = ctx;

	shmi_image_format(&m->heap->img, m->memory->meta, m->memory->ctl, m->params);
	return 0;
}

int heap_create(struct heap *heap, const struct heap_floor *floor, const struct heap_memory *memory,
        const struct shmi_image_params *params)
{
	struct making making = {heap, memory, params};

	bind_heap(heap, floor, memory);
	int error = guard_run(format_guarded, &making);

	if (error)
		return error;
	heap->state->layout_hash = shmi_layout_hash();
	heap->state->heap_id = params->heap_id;
	heap->state->magic = SHMI_STATE_MAGIC;
	strncpy(heap->name, params->heap_name, sizeof(heap->name) - 1);
	shmi_store(&heap->img.super->generation, 1);
	shmi_store_release(&heap->img.super->dirty, 1);
	return 0;
}

struct adopting {
	struct heap *heap;
	const struct heap_memory *memory;
	uint64_t data_bytes;
	const char *why;
};

static const char *check_state(const struct heap *heap, uint64_t state_bytes)
{
	const struct shmi_state *state = heap->state;

	if (state_bytes < sizeof(*state))
		return "its state object is shorter than it must be";
	if (state->magic != SHMI_STATE_MAGIC || state->layout_hash != shmi_layout_hash() ||
	        state->heap_id != heap->img.super->heap_id)
		return "its state object belongs to another heap";
	return NULL;
}

/* What the header says of itself, and what follows from the names of the objects. */
static const char *check_names(const struct heap *heap, const struct heap_memory *m)
{
	const struct shmi_super *super = heap->img.super;

	if (!m->name)
		return NULL;
	if (strncmp(super->heap_name, m->name, sizeof(super->heap_name)) != 0)
		return "its header bears another name";
	if (super->base != heap_base_address(m->instance, m->name, heap->img.geo.limit_pages))
		return "its header says that it lies elsewhere";
	return NULL;
}

static int adopt_guarded(void *ctx)
{
	struct adopting *a = ctx;
	struct heap *heap = a->heap;
	const struct heap_memory *m = a->memory;
	shmi_page where;
	int error = shmi_image_open(&heap->img, m->meta, m->meta_bytes, m->ctl, m->ctl_bytes);

	if (error) {
		a->why = shmi_image_strerror(error);
		return -1;
	}
	if (a->data_bytes < shmi_npages_bytes((shmi_npages){heap->img.geo.limit_pages})) {
		a->why = "its data object is shorter than its header says";
		return -1;
	}
	a->why = check_names(heap, m);
	if (!a->why)
		a->why = check_state(heap, m->state_bytes);
	if (a->why)
		return -1;
	if (damage_mend_ctl(heap)) {
		a->why = "there is no memory for holes in its ctl object";
		return -1;
	}
	if (shmi_adopt(&heap->img, heap->now, NULL, NULL, &where)) {
		a->why = "its records contradict each other";
		return -1;
	}
	stale_begin(heap);
	return 0;
}

int heap_adopt(struct heap *heap, const struct heap_floor *floor, const struct heap_memory *memory, uint64_t data_bytes,
        const char **why)
{
	struct adopting a = {heap, memory, data_bytes, NULL};

	bind_heap(heap, floor, memory);
	int error = guard_run(adopt_guarded, &a);

	if (error) {
		*why = error == GUARD_E_BUS ? "one of its objects was cut short" : a.why;
		return -1;
	}
	memcpy(heap->name, heap->img.super->heap_name, sizeof(heap->name));
	shmi_store_release(&heap->img.super->dirty, 1);
	shmi_bump(&heap->img.super->counters.recoveries, 1);
	return 0;
}

/* ---- pages ---- */

/* Drops a part of what is stale. False when there is no more. */
static bool drop_stale(struct heap *heap)
{
	uint32_t before = heap->stale.next;

	while (heap->stale.next - before < POLICY_STALE_PAGES && stale_step(heap, POLICY_TURN_PAGES))
		;
	return heap->stale.next != before;
}

/* Returns idle memory, of at least so many pages if there are. False if there was none. */
static bool release_idle(struct heap *heap, uint32_t pages)
{
	uint32_t got = 0, now;

	while (got < pages && (now = heap_release(heap, 0, POLICY_TURN_PAGES)) != 0)
		got += now;
	return got != 0;
}

int heap_commit(struct heap *heap, shmi_page first, shmi_npages pages)
{
	heap->starved = false;
	int error = shmi_pageheap_commit(&heap->img, &heap->page_floor, first, pages, pages);

	/* The system is out of memory: what lies idle here is the next thing to use. */
	while (error && drop_stale(heap))
		error = shmi_pageheap_commit(&heap->img, &heap->page_floor, first, pages, pages);
	if (error && release_idle(heap, pages.n))
		error = shmi_pageheap_commit(&heap->img, &heap->page_floor, first, pages, pages);
	return error;
}

int heap_decommit(struct heap *heap, shmi_page first, shmi_npages pages)
{
	return heap->floor.unback(heap->floor.ctx, HEAP_DATA, shmi_page_off(first).b, shmi_npages_bytes(pages));
}

uint32_t heap_release(struct heap *heap, uint32_t min_age, uint32_t most)
{
	struct shmi_run run;

	if (!shmi_pageheap_pick(&heap->img, heap->now, min_age, (shmi_npages){most}, &run))
		return 0;
	uint32_t pages = run.pages.n;

	run.backed = heap_decommit(heap, run.first, run.pages) != 0;
	if (!run.backed)
		passing_dropped(heap, run.first);
	shmi_pageheap_put(&heap->img, run, heap->now);
	if (run.backed)
		return 0;
	shmi_fetch_add(&heap->img.super->counters.scavenged_pages, pages);
	return pages;
}

/* Looks at every class again: whole spans may have come together since. How many had something. */
static uint32_t sweep_all(struct heap *heap)
{
	uint32_t found = 0;

	for (uint32_t c = SHMI_ATTRS; c < SHMI_CLASS_LARGE * SHMI_ATTRS; c++)
		found += shmi_central_sweep(&heap->img, (shmi_sclass){(uint16_t)c}, POLICY_SWEEP_ALL, heap->now);
	return found;
}

/* Whether the run's pages are zero, given how many pages were free or had been backed before: one that came together from runs of
 * both kinds has pages in it that somebody used. */
static bool is_clean(
        const struct heap *heap, const struct shmi_run *run, uint64_t free_before, uint64_t committed_before)
{
	const struct shmi_super *super = heap->img.super;

	if (stale_in(heap, run))
		return false;
	if (!run->backed)
		return shmi_load(&super->pages.free) == free_before;
	return shmi_load(&super->counters.committed_pages) - committed_before == heap->last_commit.pages.n &&
	       run->first.i >= heap->last_commit.first.i &&
	       run->first.i + run->pages.n <= heap->last_commit.first.i + heap->last_commit.pages.n;
}

static int try_alloc(
        struct heap *heap, shmi_npages pages, shmi_npages align, bool lazy, struct shmi_run *run, bool *clean)
{
	const struct shmi_super *super = heap->img.super;
	uint64_t free_before = shmi_load(&super->pages.free);
	uint64_t committed_before = shmi_load(&super->counters.committed_pages);

	heap->last_commit = (struct shmi_run){0};
	int error = shmi_pageheap_alloc(&heap->img, &heap->page_floor, pages, align, lazy, heap->now, run);

	*clean = !error && is_clean(heap, run, free_before, committed_before);
	return error;
}

int heap_alloc(struct heap *heap, shmi_npages pages, shmi_npages align, bool lazy, struct shmi_run *run, bool *clean)
{
	heap->starved = false;
	int error = try_alloc(heap, pages, align, lazy, run, clean);

	/* What a sweep finds may be of no use here: slots of another class. */
	if (error && sweep_all(heap))
		error = try_alloc(heap, pages, align, lazy, run, clean);
	while (error && drop_stale(heap))
		error = try_alloc(heap, pages, align, lazy, run, clean);
	if (error && release_idle(heap, pages.n < POLICY_TURN_PAGES ? pages.n : POLICY_TURN_PAGES))
		error = try_alloc(heap, pages, align, lazy, run, clean);
	return error;
}

void heap_put(struct heap *heap, struct shmi_run run)
{
	shmi_pageheap_put(&heap->img, run, heap->now);
}

/* ---- thread records ---- */

static uint64_t record_off(const struct heap *heap, uint32_t thread)
{
	return heap->img.geo.records + thread * heap->img.geo.record_bytes;
}

/* Backs what a killed daemon may have backed already, and zeroes it without touching it: each page of the record that we touched would
 * cost a fault here, and its thread uses a few of them. */
static int back_anew(struct heap *heap, uint64_t off, uint64_t len)
{
	if (heap->floor.unback(heap->floor.ctx, HEAP_CTL, off, len))
		return SHMI_E_NOMEM;
	return heap->floor.back(heap->floor.ctx, HEAP_CTL, off, len) ? SHMI_E_NOMEM : 0;
}

int heap_back_record(struct heap *heap, uint32_t thread, bool head, uint32_t parts)
{
	const struct shmi_geometry *geo = &heap->img.geo;
	uint64_t at = record_off(heap, thread);

	if (head && back_anew(heap, at, SHMI_THREAD_HEAD_BYTES))
		return SHMI_E_NOMEM;
	for (uint32_t a = 0; a < SHMI_ATTRS; a++) {
		uint64_t part = at + SHMI_THREAD_HEAD_BYTES + (uint64_t)a * geo->part_bytes;

		if (parts >> a & 1 && back_anew(heap, part, geo->part_bytes))
			return SHMI_E_NOMEM;
	}
	return 0;
}

uint32_t heap_record_pages(const struct heap *heap, uint32_t parts)
{
	uint64_t bytes = SHMI_THREAD_HEAD_BYTES + (uint64_t)__builtin_popcount(parts) * heap->img.geo.part_bytes;

	return shmi_npages_of(bytes).n;
}

void heap_drop_record(struct heap *heap, uint32_t thread)
{
	/* If it cannot be dropped it is found backed the next time, and dropped then. */
	(void)heap->floor.unback(heap->floor.ctx, HEAP_CTL, record_off(heap, thread), heap->img.geo.record_bytes);
}
