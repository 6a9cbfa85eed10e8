#include "client/tcache.h"

#include <errno.h>

#define CLOCK_STEPS 8u /* classes that one attempt to grow takes room from */
#define AGE_REFILLS 16u /* refills of magazines between two looks at an idle class */
#define AGE_ROUNDS 12u /* looks at every class while what the thread holds doubles */
#define AGE_FROM SHMI_MIB /* bytes held up to which that does not pay: the same spans would come and go */
#define STEADY 4u /* requests in a row after which a class is taken to grow on */
#define REAP_LEAST 16u /* held spans that are looked at before any are asked for */
#define SWEEP_LEAST 16u /* spans without free slots that a sweep looks at, whatever it finds, and more for a long ask */

struct shmi_tcache shmi_tcache_none;

static const struct shmi_class *class_of(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	return &tc->env->img.classes[shmi_sclass_size_class(sclass)];
}

void shmi_tcache_init(struct shmi_tcache *tc, struct shmi_tc_env *env, uint32_t thread, uint32_t parts)
{
	tc->env = env;
	tc->rec = shmi_threadrec_at(&env->img, thread);
	tc->thread = thread;
	tc->parts = parts;
	tc->trim_epoch = shmi_load(&env->trim_epoch);
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
	tc->limit[sclass.c] = least_limit(class_of(tc, sclass));
	return 0;
}

static void shrink(struct shmi_tcache *tc, uint32_t index)
{
	shmi_sclass sclass = {(uint16_t)index};
	uint32_t least = least_limit(class_of(tc, sclass)), limit = tc->limit[index] / 2;
	uint32_t top = shmi_load(&tc->mag[index]->top);

	limit = limit < least ? least : limit;
	if (top > limit)
		shmi_tcache_put_oldest(tc, sclass, top - limit);
	tc->limit_bytes -= (tc->limit[index] - limit) * class_of(tc, sclass)->size;
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
	const struct shmi_class *class = class_of(tc, sclass);
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

/* At most `want` free slots of one span into the magazine. */
static uint32_t take_from(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t page, uint32_t want, bool *empty)
{
	const struct shmi_class *class = class_of(tc, sclass);
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
	if (got && node->whole) {
		node->whole = 0;
		tc->whole[sclass.c]--;
		tc->cls[sclass.c].grows = 1;
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

static uint32_t bounded(uint32_t spans, uint32_t bytes, const struct shmi_class *class)
{
	uint32_t most = bytes / (class->pages << SHMI_PAGE_SHIFT);

	return spans < most ? spans : most ? most : 1;
}

/* A sixteenth of what the thread holds of the class; at first one, then two, then four short spans. */
static uint32_t ask_size(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	const struct shmi_class *class = class_of(tc, sclass);
	uint32_t held = tc->ready[sclass.c].count + tc->full[sclass.c].count, asks = tc->cls[sclass.c].asks;
	uint32_t least = bounded(1u << (asks > 2 ? 2 : asks), 32 * 1024, class), n = held / (asks < STEADY ? 16 : 8);

	return bounded(n < least ? least : n, SHMI_TC_ASK_MAX, class);
}

/* Looks again at spans that had no free slot, the oldest first: other threads and processes put blocks back without a
 * word to us. Goes on as long as a look brings a slot or more on average, and for some looks to each span that would be
 * asked for otherwise: so all spans have had their turn before the class has grown by a quarter. */
static uint32_t sweep(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	struct shmi_queue *full = &tc->full[sclass.c];
	uint32_t found = 0, looks = 0, most = full->count, least = SWEEP_LEAST + 4 * ask_size(tc, sclass);

	for (; looks < most && found < want && looks < found + least; looks++) {
		uint32_t page = full->head;

		look_ahead(tc, page);
		uint32_t n = shmi_slots_count(shmi_bitmap_at(&tc->env->img, (shmi_page){page}), class_of(tc, sclass));

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

		if (span.sclass != sclass.c)
			continue;
		ask->returns[i] = ask->returns[--ask->n_returns];
		tc->return_bytes -= class_of(tc, sclass)->pages << SHMI_PAGE_SHIFT;
		shmi_tcache_grant(tc, span.page, span.generation, sclass, true);
		return true;
	}
	return false;
}

/* How many wholly free spans are not given back. */
uint32_t shmi_tcache_keep_size(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t ask = ask_size(tc, sclass), keep = tc->keep[sclass.c];

	return ask > keep ? ask : keep;
}

void shmi_tcache_keep_less(struct shmi_tcache *tc, uint32_t sclass, uint32_t by)
{
	tc->keep[sclass] = (uint16_t)(tc->keep[sclass] - by);
	tc->keep_bytes -= (uint64_t)by * class_of(tc, (shmi_sclass){(uint16_t)sclass})->pages << SHMI_PAGE_SHIFT;
}

/* Spans of this class were given back, and now there are none: too early, if there is room to keep more. */
static void learn_to_keep(struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint64_t most = tc->held_bytes / SHMI_TC_KEEP_SHARE, bytes = class_of(tc, sclass)->pages << SHMI_PAGE_SHIFT;
	uint32_t more = tc->given[sclass.c];

	most = most < SHMI_TC_KEEP_LEAST ? SHMI_TC_KEEP_LEAST : most;
	most = most > tc->keep_bytes ? (most - tc->keep_bytes) / bytes : 0;
	more = more < most ? more : (uint32_t)most;
	more = tc->keep[sclass.c] + more < UINT16_MAX ? more : 0;
	tc->keep[sclass.c] = (uint16_t)(tc->keep[sclass.c] + more);
	tc->keep_bytes += more * bytes;
	tc->given[sclass.c] = 0;
}

static void want_spans(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t spans)
{
	struct shmi_tc_class *c = &tc->cls[sclass.c];

	learn_to_keep(tc, sclass);
	tc->ask.wants[tc->ask.n_wants].sclass = sclass.c;
	tc->ask.wants[tc->ask.n_wants++].spans = spans;
	if (c->asks < 7)
		c->asks++;
}

/* How many spans' worth of blocks are at hand without a look at what others have freed. */
static uint32_t at_hand(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	return tc->ready[sclass.c].count + shmi_load(&tc->mag[sclass.c]->top) / class_of(tc, sclass)->slots;
}

/* What another class should be given while a message goes out anyway: it ran dry, or it grows and has half of what it would ask for
 * when dry, or less. */
static uint32_t wants_too(const struct shmi_tcache *tc, shmi_sclass sclass, bool dry)
{
	uint32_t ask = ask_size(tc, sclass), have = at_hand(tc, sclass);

	if (dry && !tc->ready[sclass.c].head && shmi_load(&tc->mag[sclass.c]->top) <= tc->limit[sclass.c] / 4)
		return ask;
	return tc->cls[sclass.c].grows && have * 2 <= ask ? ask - have : 0;
}

/* One message serves all classes that ran out since the last one, and those that soon will. */
static void want_others(struct shmi_tcache *tc, shmi_sclass but)
{
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES && tc->ask.n_wants < SHMI_TC_WANTS; i++) {
		bool dry = tc->cls[i].dry;
		uint32_t spans = tc->mag[i] && i != but.c ? wants_too(tc, (shmi_sclass){(uint16_t)i}, dry) : 0;

		tc->cls[i].dry = 0;
		if (spans)
			want_spans(tc, (shmi_sclass){(uint16_t)i}, spans);
	}
}

/* Sends what waits. Returns 0 or an errno. */
int shmi_tcache_send(struct shmi_tcache *tc)
{
	tc->granted = 0;
	int error = tc->env->ops->refill(tc->env->ctx, tc, &tc->ask);

	tc->ask.n_wants = 0;
	if (!tc->ask.n_returns)
		tc->return_bytes = 0;
	return error;
}

/* Before the thread holds more than ever, classes that it does not use now give back a part of what they cache. Below that they may keep
 * it: a program that uses its classes in turn would ask for what it has just given back. */
static void age_by_growth(struct shmi_tcache *tc, uint64_t bytes)
{
	uint64_t will = tc->held_bytes + bytes;

	if (will > tc->peak_bytes && will > AGE_FROM)
		shmi_tcache_age(tc, (uint32_t)(SHMI_SPAN_CLASSES * AGE_ROUNDS * (will - tc->peak_bytes) / will) + 1);
	if (tc->held_bytes + bytes > tc->peak_bytes)
		tc->peak_bytes = tc->held_bytes + bytes;
}

/* Asks the daemon for enough spans for `want` blocks. When there is no memory, what the thread could do without goes back
 * and the daemon is asked once more. */
static int ask_daemon(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	uint32_t spans = ask_size(tc, sclass), slots = class_of(tc, sclass)->slots;
	uint32_t need = (want + slots - 1) / slots;

	age_by_growth(tc, (uint64_t)spans * class_of(tc, sclass)->pages << SHMI_PAGE_SHIFT);
	shmi_tcache_reap(tc, REAP_LEAST + 4 * spans);
	if (tc->ready[sclass.c].head) /* the class's own turn has come */
		return 0;
	want_spans(tc, sclass, spans < need ? need : spans);
	want_others(tc, sclass);
	int error = shmi_tcache_send(tc);

	if (error != ENOMEM || tc->granted)
		return tc->granted ? 0 : error;
	shmi_tcache_trim(tc);
	want_spans(tc, sclass, 1);
	return shmi_tcache_send(tc);
}

void shmi_tcache_grant(struct shmi_tcache *tc, uint32_t page, uint32_t generation, shmi_sclass sclass, bool whole)
{
	struct shmi_held *node = &tc->env->held[page];
	uint32_t pages = class_of(tc, sclass)->pages;

	node->generation = generation;
	node->sclass = sclass.c;
	node->whole = whole;
	shmi_store(&node->thread, tc->thread + 1); /* other threads read this one field */
	shmi_store(shmi_holder_at(&tc->env->img, (shmi_page){page}), tc->thread);
	tc->whole[sclass.c] += whole;
	tc->held_bytes += pages << SHMI_PAGE_SHIFT;
	shmi_queue_append(tc->env->held, &tc->ready[sclass.c], page, SHMI_HELD_READY);
	tc->granted++;
	for (uint32_t p = page; shmi_sclass_scoped(sclass) && p < page + pages; p++)
		shmi_fetch_or(&tc->env->own_scoped[p / 64], 1ull << p % 64);
	/* Blocks of the new spans lie where nothing was published before, perhaps. */
	if (!tc->env->harden)
		tc->bytes = shmi_page_off((shmi_page){shmi_image_published(&tc->env->img)}).b;
}

void *shmi_tcache_refill(struct shmi_tcache *tc, shmi_sclass sclass, int *error)
{
	struct shmi_tc_class *c = &tc->cls[sclass.c];
	uint32_t want;

	if ((*error = shmi_tcache_set_up(tc, sclass)) != 0)
		return NULL;
	shmi_tcache_catch_up(tc);
	if (shmi_load(&tc->mag[sclass.c]->top) == 0) {
		c->active = 1;
		if (++tc->refills % AGE_REFILLS == 0)
			shmi_tcache_age(tc, 1);
		shmi_tcache_grow(tc, sclass);
		want = tc->limit[sclass.c] / 2 ? tc->limit[sclass.c] / 2 : 1;
		if (!fill_ready(tc, sclass, want)) {
			c->dry = 1;
			if (!sweep(tc, sclass, want) && !take_back(tc, sclass))
				tc->env->ops->pool(tc->env->ctx, tc, sclass);
			if (!tc->ready[sclass.c].head && (*error = ask_daemon(tc, sclass, want)) != 0)
				return NULL;
			fill_ready(tc, sclass, want);
		}
	}
	void *block = NULL;

	if (!shmi_tcache_pop(tc, sclass, &block))
		*error = EAGAIN; /* somebody wrote wildly into our bitmaps */
	return block;
}
