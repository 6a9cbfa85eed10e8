#include "daemon/damage.h"

#include "daemon/log.h"
#include "daemon/policy.h"
#include "shm/walk.h"

#define CTL_HEAD_BYTES 4096u

/* ---- what must be backed ---- */

struct range {
	enum heap_object object;
	uint64_t off, len;
};

/* The parts of ctl in order: its head, holders and bitmaps of the published pages, and the thread records. */
enum { PART_HEAD, PART_HOLDERS, PART_BITMAPS, PART_RECORDS };

#define ARENA_PARTS_IN_META 3u /* shmi_geometry_arena_part counts those first */

static struct range arena_part(const struct shmi_image *img, uint32_t part)
{
	uint32_t published = shmi_image_published(img);
	struct range range = {.object = HEAP_CTL};

	if (published)
		shmi_geometry_arena_part(&img->geo, part, 0, published, &range.off, &range.len);
	return range;
}

/* Attribute combination `a` of the record, or with SHMI_ATTRS its head; empty if that is not backed. */
static struct range record_part(const struct shmi_image *img, uint32_t thread, uint32_t a)
{
	const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, thread);
	struct range range = {HEAP_CTL, img->geo.records + thread * img->geo.record_bytes, 0};

	if (a == SHMI_ATTRS) {
		range.len = slot->head ? SHMI_THREAD_HEAD_BYTES : 0;
	} else {
		range.off += SHMI_THREAD_HEAD_BYTES + (uint64_t)a * img->geo.part_bytes;
		range.len = slot->parts >> a & 1 ? img->geo.part_bytes : 0;
	}
	return range;
}

/* Range `n` of ctl; the last has the number CTL_RANGES - 1. Many are empty. */
#define CTL_RANGES (PART_RECORDS + SHMI_MAX_THREADS * (SHMI_ATTRS + 1))

static struct range ctl_range(const struct shmi_image *img, uint32_t n)
{
	if (n == PART_HEAD)
		return (struct range){HEAP_CTL, 0, CTL_HEAD_BYTES};
	if (n == PART_HOLDERS || n == PART_BITMAPS)
		return arena_part(img, ARENA_PARTS_IN_META + n - PART_HOLDERS);
	n -= PART_RECORDS;
	return record_part(img, n / (SHMI_ATTRS + 1), n % (SHMI_ATTRS + 1));
}

static uint64_t ctl_due(const struct shmi_image *img)
{
	uint64_t due = 0;

	for (uint32_t n = 0; n < PART_RECORDS; n++)
		due += ctl_range(img, n).len;
	for (uint32_t t = 0; t < SHMI_MAX_THREADS; t++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(img, t);

		due += slot->head ? SHMI_THREAD_HEAD_BYTES : 0;
		due += (uint64_t)__builtin_popcount(slot->parts & ((1u << SHMI_ATTRS) - 1)) * img->geo.part_bytes;
	}
	return due;
}

/* Runs that are being moved count nowhere: they may be backed or not. */
static uint64_t data_due(const struct shmi_image *img)
{
	const struct shmi_page_counts *pages = &img->super->pages;

	return (shmi_load(&pages->owned) + shmi_load(&pages->central) + shmi_load(&pages->free)) << SHMI_PAGE_SHIFT;
}

static uint64_t missing(const struct heap *heap, enum heap_object object, uint64_t due)
{
	uint64_t length, backed;

	heap->floor.measure(heap->floor.ctx, object, &length, &backed);
	return backed < due ? due - backed : 0;
}

/* ---- mending ---- */

static int back(struct heap *heap, const struct range *range)
{
	return range->len ? heap->floor.back(heap->floor.ctx, range->object, range->off, range->len) : 0;
}

int damage_mend_ctl(struct heap *heap)
{
	if (!missing(heap, HEAP_CTL, ctl_due(&heap->img)))
		return 0;
	for (uint32_t n = 0; n < CTL_RANGES; n++) {
		struct range range = ctl_range(&heap->img, n);

		if (back(heap, &range))
			return SHMI_E_NOMEM;
	}
	return 0;
}

/* The next pages of data that must be backed and lie side by side, at most a turn's, from page damage->page on, of whose run the
 * first damage->done are done. May be empty before the end is reached. */
static struct range data_range(const struct shmi_image *img, struct damage *damage)
{
	struct shmi_walk walk = shmi_walk_from(img, damage->page);
	uint32_t first = 0, n = 0, runs = 0;

	while (runs++ < POLICY_TURN_SPANS && n < POLICY_TURN_PAGES) {
		if (!shmi_walk_next(img, &walk)) {
			damage->page = shmi_image_published(img);
			break;
		}
		bool due = shmi_span_is_backed(img, walk.page);
		uint32_t done = walk.page.i == damage->page ? (uint32_t)damage->done : 0;

		if (n && (!due || walk.page.i != first + n))
			break;
		damage->page = walk.page.i + walk.pages.n;
		damage->done = 0;
		if (!due || done >= walk.pages.n)
			continue;
		first = n ? first : walk.page.i + done;
		n += walk.pages.n - done;
		if (n > POLICY_TURN_PAGES) {
			n = POLICY_TURN_PAGES;
			damage->page = walk.page.i;
			damage->done = first + n - walk.page.i;
		}
	}
	return (struct range){HEAP_DATA, (uint64_t)first << SHMI_PAGE_SHIFT, (uint64_t)n << SHMI_PAGE_SHIFT};
}

/* The next piece of ctl; empty at the end. */
static struct range ctl_piece(const struct shmi_image *img, struct damage *damage)
{
	const uint64_t most = (uint64_t)POLICY_TURN_PAGES << SHMI_PAGE_SHIFT;

	for (; damage->range < CTL_RANGES; damage->range++, damage->done = 0) {
		struct range range = ctl_range(img, damage->range);

		if (damage->done >= range.len)
			continue;
		range.off += damage->done;
		range.len = range.len - damage->done < most ? range.len - damage->done : most;
		damage->done += range.len;
		return range;
	}
	return (struct range){0};
}

static bool step_mend(struct core *core, struct job *job)
{
	struct damage *damage = &core->damage;
	const struct shmi_image *img = &core->heap->img;
	struct range range;

	(void)job;
	if (core->heap->fenced)
		return true;
	if (damage->range < CTL_RANGES) {
		range = ctl_piece(img, damage);
	} else if (damage->page < shmi_image_published(img)) {
		range = data_range(img, damage);
	} else {
		shmi_bump(&img->super->counters.mended_pages, damage->lost >> 12);
		return true;
	}
	if (!back(core->heap, &range))
		return false;
	log_event(LEVEL_ERROR, LOG_DAMAGE, core_about_heap(core),
	        "heap '%s': there is no memory in /dev/shm to fill the holes; whoever writes there is killed by SIGBUS",
	        core->heap->name);
	return true; /* the next look finds what is missing yet */
}

static void mend(struct core *core, uint64_t ctl, uint64_t data)
{
	struct damage *damage = &core->damage;

	if ((!ctl && !data) || damage->job.queued)
		return;
	log_event(LEVEL_ERROR, LOG_DAMAGE, core_about_heap(core),
	        "heap '%s': a client has punched holes, of %llu KiB into ctl and %llu KiB into data; they are filled "
	        "with "
	        "zeros; blocks that were free there may stay out of use",
	        core->heap->name, (unsigned long long)ctl >> 10, (unsigned long long)data >> 10);
	damage->lost = ctl + data;
	damage->job.step = step_mend;
	damage->range = ctl ? 0 : CTL_RANGES;
	damage->page = data ? 1 : UINT32_MAX;
	damage->done = 0;
	core_queue(core, &damage->job);
}

/* ---- looking ---- */

void damage_look_for_cuts(struct core *core)
{
	const struct heap *heap = core->heap;
	const struct shmi_geometry *geo = &heap->img.geo;
	uint64_t length, backed;

	heap->floor.measure(heap->floor.ctx, HEAP_CTL, &length, &backed);
	bool cut = length < geo->ctl_bytes;

	heap->floor.measure(heap->floor.ctx, HEAP_DATA, &length, &backed);
	if (cut || length < shmi_npages_bytes((shmi_npages){geo->limit_pages}))
		core_fence(core);
}

static void look_at_head(struct core *core)
{
	const struct shmi_super *super = core->heap->img.super;
	struct shmi_ctl_head *head = (struct shmi_ctl_head *)(void *)core->heap->img.ctl;

	if (head->magic == SHMI_CTL_MAGIC && head->layout_hash == super->layout_hash && head->heap_id == super->heap_id)
		return;
	*head = (struct shmi_ctl_head){
	        .magic = SHMI_CTL_MAGIC, .layout_hash = super->layout_hash, .heap_id = super->heap_id};
	log_event(LEVEL_ERROR, LOG_DAMAGE, core_about_heap(core),
	        "heap '%s': a client has overwritten the head of ctl; it is as it was", core->heap->name);
}

static void tell_of_quarantine(struct core *core)
{
	uint64_t pages = shmi_load(&core->heap->img.super->counters.quarantined_pages);

	if (pages == core->damage.quarantined)
		return;
	core->damage.quarantined = pages;
	log_event(LEVEL_ERROR, LOG_DAMAGE, core_about_heap(core),
	        "heap '%s': bitmaps were overwritten by a client; their spans, of %llu KiB in all, are set aside and "
	        "never "
	        "used again; start shmallocd with --reset when nobody needs the heap any more",
	        core->heap->name, (unsigned long long)(pages << SHMI_PAGE_SHIFT >> 10));
}

void damage_look(struct core *core)
{
	const struct heap *heap = core->heap;

	tell_of_quarantine(core);
	if (!heap->fenced)
		damage_look_for_cuts(core);
	if (heap->fenced)
		return;
	mend(core, missing(heap, HEAP_CTL, ctl_due(&heap->img)), missing(heap, HEAP_DATA, data_due(&heap->img)));
	look_at_head(core);
}
