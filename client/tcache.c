#include "client/tcache.h"

#include <errno.h>

#define CLOCK_STEPS 8u /* classes that one attempt to grow takes room from */
#define AGE_REFILLS 16u /* refills of magazines between two looks at an idle class */
#define BORROW_MOST 16u /* blocks that a class takes from larger ones before it has spans of its own */
#define FILL_TRIES                                                                                                     \
	4u /* looks for slots: each but the first because the daemon has taken from us what the last one had found */
#define SWEEP_LEAST 16u /* spans without free slots that a sweep looks at, whatever it finds, and more for a long ask */

struct shmi_tcache shmi_tcache_none;

void shmi_tcache_init(struct shmi_tcache *tc, struct shmi_tc_env *env, uint32_t thread, uint32_t parts)
{
	tc->env = env;
	tc->rec = shmi_threadrec_at(&env->img, thread);
	tc->thread = thread;
	tc->parts = parts;
	tc->trim_epoch = shmi_load(&env->trim_epoch);
	tc->trim_wanted = env->owner ? shmi_load(&env->owner->trim_wanted) : 0;
	tc->seizures = env->owner ? shmi_load_acquire(&env->owner->seizures) : 0;
	tc->page_class = shmi_page_class_at(&env->img, (shmi_page){0});
	tc->base = env->base;
	tc->bytes = env->harden ? 0 : shmi_page_off((shmi_page){shmi_image_published(&env->img)}).b;
}

/* Entries that every magazine may hold, whatever the budget says: 4 KiB of blocks, and one block at least. */
static uint32_t least_limit(const struct shmi_class *class)
{
	uint32_t limit = 4096 / class->size;

	return limit > 64 ? 64 : limit ? limit : 1;
}

/* Gives a class its magazine: backed. Returns 0 or an errno. */
int shmi_tcache_set_up(struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t attrs = shmi_sclass_attrs(sclass);

	if (tc->mag[sclass.c])
		return 0;
	if (!(tc->parts & 1u << attrs)) {
		int error = tc->env->ops->part(tc->env->ctx, tc, attrs);

		if (error)
			return error;
		tc->parts |= 1u << attrs;
	}
	tc->mag[sclass.c] = shmi_magazine_at(&tc->env->img, tc->rec, sclass);
	tc->limit[sclass.c] = least_limit(shmi_tcache_class(tc, sclass));
	return 0;
}

static void shrink(struct shmi_tcache *tc, uint32_t index)
{
	shmi_sclass sclass = {(uint16_t)index};
	uint32_t least = least_limit(shmi_tcache_class(tc, sclass)), limit = tc->limit[index] / 2;
	uint32_t top = shmi_load(&tc->mag[index]->top);

	limit = limit < least ? least : limit;
	if (top > limit)
		shmi_tcache_put_oldest(tc, sclass, top - limit);
	tc->limit_bytes -= (tc->limit[index] - limit) * shmi_tcache_class(tc, sclass)->size;
	tc->limit[index] = limit;
}

/* Takes room from classes that were not used since the clock last came by: a few steps of it at a time, so that a thread
 * whose budget is used up does not search for more at every refill. True when `bytes` more fit. */
static bool make_room(struct shmi_tcache *tc, uint32_t bytes, uint32_t except)
{
	for (uint32_t step = 0; step < CLOCK_STEPS && tc->limit_bytes + bytes > SHMI_TC_BUDGET; step++) {
		uint32_t c = tc->clock;

		if (tc->mag[c] && !tc->cls[c].used && c != except)
			shrink(tc, c);
		tc->cls[c].used = 0;
		tc->clock = (tc->clock + 1) % SHMI_SPAN_CLASSES;
	}
	return tc->limit_bytes + bytes <= SHMI_TC_BUDGET;
}

/* Bytes of the budget that one class may have: what a magazine saves goes with the number of its blocks, not their size. */
static uint32_t share(uint32_t size)
{
	return size <= 256 ? 64 * 1024 : size <= 1024 ? 32 * 1024 : 16 * 1024;
}

/* The magazine ran empty or over: let it hold twice as much, within its capacity, a share of the budget and the budget. */
void shmi_tcache_grow(struct shmi_tcache *tc, shmi_sclass sclass)
{
	const struct shmi_class *class = shmi_tcache_class(tc, sclass);
	uint32_t limit = tc->limit[sclass.c], more = limit;

	tc->cls[sclass.c].used = 1;
	if (limit + more > class->mag_cap)
		more = class->mag_cap - limit;
	if (!more || (limit + more) * class->size > share(class->size) || !make_room(tc, more * class->size, sclass.c))
		return;
	tc->limit[sclass.c] = limit + more;
	tc->limit_bytes += more * class->size;
}

/* `bits` without its lowest `n` set bits. */
static uint64_t lowest_off(uint64_t bits, uint32_t n)
{
	if (n >= 64)
		return 0;
	while (bits && n--)
		bits &= bits - 1;
	return bits;
}

/* The span behind `page` in its queue is likely to be next: what is known about it should be at hand by then. */
static void look_ahead(const struct shmi_tcache *tc, uint32_t page)
{
	uint32_t next = tc->env->held[page].next;

	__builtin_prefetch(&tc->env->held[next]);
	__builtin_prefetch(shmi_bitmap_at(&tc->env->img, (shmi_page){next}), 1);
}

static void count_begun(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t pages)
{
	tc->cls[sclass.c].begun++;
	tc->begun_bytes += pages << SHMI_PAGE_SHIFT;
}

/* At most `want` free slots of one span into the magazine. */
static uint32_t take_from(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t page, uint32_t want, bool *empty)
{
	const struct shmi_class *class = shmi_tcache_class(tc, sclass);
	struct shmi_held *node = &tc->env->held[page];
	shmi_a64 *bitmap = shmi_bitmap_at(&tc->env->img, (shmi_page){page});
	uint32_t got = 0;

	*empty = true;
	for (uint32_t w = 0; w < class->words; w++) {
		uint64_t bits = shmi_slots_peek(bitmap, class, w), rest = lowest_off(bits, want - got);

		if (rest)
			*empty = false;
		bits ^= rest;
		if (!bits && rest)
			break;
		if (!bits)
			continue;
		got += shmi_threadrec_take(&tc->env->img, tc->rec, tc->mag[sclass.c],
		        &(struct shmi_group){.bits = bits,
		                .span = page,
		                .generation = node->generation,
		                .word = w,
		                .sclass = sclass.c});
	}
	if ((got || *empty) && node->whole) { /* empty and nothing got: the daemon has it, or has had it just now */
		if (got && node->whole == SHMI_WHOLE_NEW)
			count_begun(tc, sclass, class->pages);
		node->whole = SHMI_WHOLE_NOT;
		tc->whole[sclass.c]--;
	}
	return got;
}

static uint32_t fill_ready(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	struct shmi_queue *ready = &tc->ready[sclass.c];
	uint32_t got = 0;

	while (got < want && ready->head) {
		uint32_t page = ready->head;
		bool empty;

		look_ahead(tc, page);
		got += take_from(tc, sclass, page, want - got, &empty);
		if (empty) {
			shmi_queue_remove(tc->env->held, ready, page);
			shmi_queue_append(tc->env->held, &tc->full[sclass.c], page, SHMI_HELD_FULL);
		}
	}
	return got;
}

/* Looks again at spans that had no free slot, the oldest first: other threads and processes put blocks back without a
 * word to us. Goes on as long as a look brings a slot or more on average, and for some looks to each span that would be
 * asked for otherwise: so all spans have had their turn before the class has grown by a quarter. */
static uint32_t sweep(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	struct shmi_queue *full = &tc->full[sclass.c];
	uint32_t found = 0, looks = 0, most = full->count, least = SWEEP_LEAST + 4 * shmi_tcache_expected(tc, sclass);

	for (; looks < most && found < want && looks < found + least; looks++) {
		uint32_t page = full->head;

		look_ahead(tc, page);
		uint32_t n = shmi_slots_count(
		        shmi_bitmap_at(&tc->env->img, (shmi_page){page}), shmi_tcache_class(tc, sclass));

		shmi_queue_remove(tc->env->held, full, page);
		if (n)
			shmi_queue_append(tc->env->held, &tc->ready[sclass.c], page, SHMI_HELD_READY);
		else
			shmi_queue_append(tc->env->held, full, page, SHMI_HELD_FULL);
		found += n;
	}
	return found;
}

/* Spans that were to be given back, but have not been yet. */
static bool take_back(struct shmi_tcache *tc, shmi_sclass sclass)
{
	struct shmi_tc_ask *ask = &tc->ask;

	for (uint32_t i = 0; i < ask->n_returns; i++) {
		struct shmi_tc_span span = ask->returns[i];

		if (span.sclass != sclass.c || shmi_tcache_is_seized(tc, span.page))
			continue;
		ask->returns[i] = ask->returns[--ask->n_returns];
		tc->return_bytes -= shmi_tcache_class(tc, sclass)->pages << SHMI_PAGE_SHIFT;
		shmi_tcache_grant(tc, span.page, span.generation, sclass, true);
		if (tc->env->held[span.page].whole)
			tc->env->held[span.page].whole = SHMI_WHOLE_AGAIN;
		return true;
	}
	return false;
}

/* Slots of the class that the thread or its process has: freed by others, in spans that were to be given back, in the pool. */
static void look_around(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	bool posted = tc->posted; /* after a look at what others have freed */

	if (posted)
		tc->env->ops->pool(tc->env->ctx, tc, sclass);
	if (posted && tc->ready[sclass.c].head)
		return;
	if (!sweep(tc, sclass, want) && !take_back(tc, sclass))
		tc->env->ops->pool(tc->env->ctx, tc, sclass);
}

void shmi_tcache_grant(struct shmi_tcache *tc, uint32_t page, uint32_t generation, shmi_sclass sclass, bool whole)
{
	struct shmi_held *node = &tc->env->held[page];
	uint32_t pages = shmi_tcache_class(tc, sclass)->pages;
	bool seized = shmi_tcache_is_seized(tc, page);

	whole = whole && !seized;
	tc->seized = tc->seized || seized;
	node->generation = generation;
	node->sclass = sclass.c;
	node->whole = whole ? SHMI_WHOLE_NEW : SHMI_WHOLE_NOT;
	if (!whole && !seized)
		count_begun(tc, sclass, pages);
	shmi_store(&node->thread, tc->thread + 1); /* other threads read this one field */
	shmi_store(shmi_holder_at(&tc->env->img, (shmi_page){page}), tc->thread);
	tc->whole[sclass.c] += whole;
	tc->held_bytes += pages << SHMI_PAGE_SHIFT;
	shmi_queue_append(tc->env->held, &tc->ready[sclass.c], page, SHMI_HELD_READY);
	for (uint32_t p = page; shmi_sclass_scoped(sclass) && p < page + pages; p++)
		shmi_fetch_or(&tc->env->own_scoped[p / 64], 1ull << p % 64);
	/* Blocks of the new spans lie where nothing was published before, perhaps. */
	if (!tc->env->harden)
		tc->bytes = shmi_page_off((shmi_page){shmi_image_published(&tc->env->img)}).b;
}

/* Blocks that a class may take from larger ones: not much larger, and none that realloc to the same size would move. */
static uint32_t most_borrowed(const struct shmi_class *class)
{
	uint32_t smallest = class[-1].size + 1, stays = smallest * 2 > 32 ? smallest * 2 : 32;
	uint32_t most = class->size + (class->size / 4 > 32 ? class->size / 4 : 32);

	return most < stays ? most : stays;
}

/* A class that does not grow and has run dry takes some blocks from slightly larger ones before the daemon is asked: what it needs
 * for a short while costs no message then, and no span. */
static void *borrow(struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t most = most_borrowed(shmi_tcache_class(tc, sclass));
	void *block = NULL;

	if (shmi_tcache_expected(tc, sclass) || tc->cls[sclass.c].borrowed >= BORROW_MOST)
		return NULL;
	for (uint32_t i = sclass.c + SHMI_ATTRS; i < SHMI_CLASS_LARGE * SHMI_ATTRS && !block; i += SHMI_ATTRS) {
		shmi_sclass larger = {(uint16_t)i};

		if (shmi_tcache_class(tc, larger)->size > most)
			return NULL;
		if (tc->mag[i] && !shmi_load(&tc->mag[i]->top))
			fill_ready(tc, larger, 1);
		(void)shmi_tcache_pop(tc, larger, &block);
	}
	if (block)
		tc->cls[sclass.c].borrowed++;
	return block;
}

/* A class that has no slot at hand gets a span that should have some, or takes a block from a larger class. */
static int find_slots(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want, bool exact, void **block)
{
	tc->cls[sclass.c].dry = 1;
	look_around(tc, sclass, want);
	if (!tc->ready[sclass.c].head && !exact && (*block = borrow(tc, sclass)) != NULL)
		return 0;
	return tc->ready[sclass.c].head ? 0 : shmi_tcache_ask(tc, sclass, want);
}

/* Fills an empty magazine, or takes a block from a larger class. Spans that were found, or granted, may have been taken from us by the
 * time that we look: if this thread was stopped meanwhile. */
static int fill(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want, bool exact, void **block)
{
	for (uint32_t tries = 0; !fill_ready(tc, sclass, want); tries++) {
		if (tries == FILL_TRIES) /* somebody writes wildly into our bitmaps */
			return EAGAIN;
		shmi_tcache_catch_up(tc);
		int error = find_slots(tc, sclass, want, exact, block);

		if (error || *block)
			return error;
	}
	tc->cls[sclass.c].borrowed = 0;
	return shmi_tcache_pop(tc, sclass, block) ? 0 : EAGAIN;
}

void *shmi_tcache_refill(struct shmi_tcache *tc, shmi_sclass sclass, bool exact, int *error)
{
	void *block = NULL;

	if ((*error = shmi_tcache_set_up(tc, sclass)) != 0)
		return NULL;
	shmi_tcache_catch_up(tc);
	if (shmi_tcache_pop(tc, sclass, &block))
		return block;
	if (++tc->refills % AGE_REFILLS == 0)
		shmi_tcache_age(tc, 1);
	tc->put_off -= tc->put_off != 0;
	tc->cls[sclass.c].active = 1;
	shmi_tcache_grow(tc, sclass);
	uint32_t want = tc->limit[sclass.c] / 2 ? tc->limit[sclass.c] / 2 : 1;

	*error = fill(tc, sclass, want, exact, &block);
	/* The block is out of the magazine: from here on that may be emptied again. */
	if (!*error && shmi_tcache_runs_low(tc, sclass, want))
		look_around(tc, sclass, want);
	if (!*error && shmi_tcache_runs_low(tc, sclass, want))
		shmi_tcache_ask_ahead(tc, sclass);
	return block;
}
