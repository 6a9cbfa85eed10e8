/* What becomes of the spans that a thread holds when they come free: kept, given back, looked for, aged.
 *
 * A span is found wholly free by the put that frees its last slot, or, when others freed it, by a look (reap). What goes back waits for the
 * next message, as it is in nobody's way until the heap grows, and the heap grows by messages only; what is too much for one is
 * sent for its own sake, and not waited for.
 */
#include "client/tcache.h"

#define REAP_LOOKS 32u /* spans of one queue that are looked at before it is another's turn */

static const struct shmi_class *class_of(const struct shmi_tcache *tc, uint32_t sclass)
{
	return shmi_tcache_class(tc, (shmi_sclass){(uint16_t)sclass});
}

static void forget(struct shmi_tcache *tc, uint32_t page)
{
	struct shmi_held *node = &tc->env->held[page];
	struct shmi_queue *queues = node->queue == SHMI_HELD_READY ? tc->ready : tc->full;

	shmi_queue_remove(tc->env->held, &queues[node->sclass], page);
	tc->whole[node->sclass] -= node->whole != SHMI_WHOLE_NOT;
	tc->held_bytes -= class_of(tc, node->sclass)->pages << SHMI_PAGE_SHIFT;
	node->whole = SHMI_WHOLE_NOT;
	shmi_store(&node->thread, 0);
	shmi_store(shmi_holder_at(&tc->env->img, (shmi_page){page}), SHMI_NO_THREAD);
}

static void expect_one_less(struct shmi_tcache *tc, uint32_t sclass)
{
	struct shmi_tc_class *c = &tc->cls[sclass];

	if (c->begun) {
		c->begun--;
		tc->begun_bytes -= class_of(tc, sclass)->pages << SHMI_PAGE_SHIFT;
	} else {
		c->rate -= c->rate < SHMI_TC_RATE_ONE ? c->rate : SHMI_TC_RATE_ONE;
	}
}

/* False if there is no room for it in the next message and the daemon cannot be told. */
static bool return_span(struct shmi_tcache *tc, uint32_t page)
{
	struct shmi_held *node = &tc->env->held[page];
	uint32_t sclass = node->sclass, pages = class_of(tc, sclass)->pages;

	if (tc->ask.n_returns == SHMI_TC_RETURNS || tc->return_bytes >= SHMI_TC_RETURN_BYTES) {
		if (shmi_tcache_send(tc, false) && tc->ask.n_returns == SHMI_TC_RETURNS)
			(void)shmi_tcache_send(tc, true);
		if (tc->ask.n_returns == SHMI_TC_RETURNS)
			return false;
	}
	forget(tc, page);
	tc->return_bytes += pages << SHMI_PAGE_SHIFT;
	for (uint32_t p = page; sclass & SHMI_SCOPED && p < page + pages; p++)
		shmi_fetch_and(&tc->env->own_scoped[p / 64], ~(1ull << p % 64));
	tc->ask.returns[tc->ask.n_returns++] = (struct shmi_tc_span){page, node->generation, sclass};
	return true;
}

void shmi_tcache_give_back(struct shmi_tcache *tc, uint32_t page)
{
	uint32_t sclass = tc->env->held[page].sclass;

	if (!return_span(tc, page))
		return;
	expect_one_less(tc, sclass);
	tc->given[sclass] = (uint16_t)(tc->given[sclass] + (tc->given[sclass] < UINT16_MAX));
}

bool shmi_tcache_is_whole(const struct shmi_tcache *tc, uint32_t page)
{
	const struct shmi_class *class = class_of(tc, tc->env->held[page].sclass);
	shmi_a64 *bitmap = shmi_bitmap_at(&tc->env->img, (shmi_page){page});

	for (uint32_t w = 0; w < class->words; w++)
		if (shmi_slots_peek(bitmap, class, w) != shmi_slots_mask(class, w))
			return false;
	return true;
}

void shmi_tcache_found_whole(struct shmi_tcache *tc, uint32_t page)
{
	struct shmi_held *node = &tc->env->held[page];

	node->whole = SHMI_WHOLE_AGAIN;
	tc->whole[node->sclass]++;
	if (tc->whole[node->sclass] > shmi_tcache_keep_size(tc, (shmi_sclass){(uint16_t)node->sclass}))
		shmi_tcache_give_back(tc, page);
}

static void give_back_whole(struct shmi_tcache *tc, struct shmi_queue *queue)
{
	uint32_t next;

	for (uint32_t page = queue->head; page; page = next) {
		next = tc->env->held[page].next;
		if (shmi_tcache_is_whole(tc, page))
			shmi_tcache_give_back(tc, page);
	}
}

/* One held span, from the head of a queue to its end, or to where it belongs by now. */
static void look_at_head(struct shmi_tcache *tc, struct shmi_queue *queue, uint32_t c)
{
	uint32_t page = queue->head;
	struct shmi_held *node = &tc->env->held[page];
	const struct shmi_class *class = class_of(tc, c);
	uint32_t n = shmi_slots_count(shmi_bitmap_at(&tc->env->img, (shmi_page){page}), class);
	enum shmi_held_queue which = n ? SHMI_HELD_READY : (enum shmi_held_queue)node->queue;

	shmi_queue_remove(tc->env->held, queue, page);
	shmi_queue_append(tc->env->held, which == SHMI_HELD_READY ? &tc->ready[c] : queue, page, which);
	if (n == class->slots && !node->whole)
		shmi_tcache_found_whole(tc, page);
}

void shmi_tcache_reap(struct shmi_tcache *tc, uint32_t looks)
{
	for (uint32_t classes = 0; looks && classes < SHMI_SPAN_CLASSES; classes++) {
		uint32_t c = tc->reap_clock = (tc->reap_clock + 1) % SHMI_SPAN_CLASSES;
		struct shmi_queue *queues[] = {&tc->full[c], &tc->ready[c]};

		for (uint32_t q = 0; q < 2; q++) {
			uint32_t n = queues[q]->count < REAP_LOOKS ? queues[q]->count : REAP_LOOKS;

			for (; n && looks; n--, looks--)
				look_at_head(tc, queues[q], c);
		}
	}
}

/* A class that was not used for a round of the clock: half of what it caches goes back, and it keeps half as much. */
static void age_class(struct shmi_tcache *tc, uint32_t c)
{
	uint32_t top = tc->mag[c] ? shmi_load(&tc->mag[c]->top) : 0, whole, next;

	shmi_tcache_keep_less(tc, (shmi_sclass){(uint16_t)c}, (tc->keep[c] + 1u) / 2);
	shmi_tcache_put_oldest(tc, (shmi_sclass){(uint16_t)c}, (top + 1) / 2);
	whole = tc->whole[c] / 2;
	for (uint32_t page = tc->ready[c].head; page && tc->whole[c] > whole; page = next) {
		next = tc->env->held[page].next;
		if (tc->ask.n_returns < SHMI_TC_RETURNS && tc->env->held[page].whole)
			shmi_tcache_give_back(tc, page);
	}
}

static void age_next(struct shmi_tcache *tc)
{
	uint32_t c = tc->age_clock;

	tc->age_clock = (c + 1) % SHMI_SPAN_CLASSES;
	if (!tc->cls[c].active && tc->mag[c])
		age_class(tc, c);
	else
		shmi_tcache_keep_less(tc, (shmi_sclass){(uint16_t)c}, tc->keep[c] / 8u);
	tc->cls[c].active = 0;
}

void shmi_tcache_age(struct shmi_tcache *tc, uint32_t classes)
{
	for (uint32_t i = 0; i < classes && i < SHMI_SPAN_CLASSES; i++)
		age_next(tc);
}

static void empty_magazines(struct shmi_tcache *tc)
{
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++)
		if (tc->mag[i])
			shmi_tcache_put_oldest(tc, (shmi_sclass){(uint16_t)i}, shmi_load(&tc->mag[i]->top));
}

/* Sends back the spans of a queue that the daemon has taken. False if it could not be told of one. */
static bool return_seized(struct shmi_tcache *tc, struct shmi_queue *queue)
{
	uint32_t next;

	for (uint32_t page = queue->head; page; page = next) {
		next = tc->env->held[page].next;
		if (shmi_tcache_is_seized(tc, page) && !return_span(tc, page))
			return false;
	}
	return true;
}

/* The daemon has taken spans of this process. Those that it takes while we look it counts afterwards, so none is missed. */
static void return_all_seized(struct shmi_tcache *tc, uint32_t seizures)
{
	bool all = true;

	tc->seized = false;
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES && all; i++)
		all = return_seized(tc, &tc->ready[i]) && return_seized(tc, &tc->full[i]);
	if (all)
		tc->seizures = seizures;
	else
		tc->seized = true;
}

/* True if there may have been any. */
static bool catch_seized(struct shmi_tcache *tc)
{
	const struct shmi_owner *owner = tc->env->owner;
	uint32_t seizures = owner ? shmi_load_acquire(&owner->seizures) : 0;

	if (tc->seizures == seizures && !tc->seized)
		return false;
	return_all_seized(tc, seizures);
	return true;
}

void shmi_tcache_trim(struct shmi_tcache *tc)
{
	tc->trim_epoch = shmi_load(&tc->env->trim_epoch);
	tc->trim_wanted = tc->env->owner ? shmi_load(&tc->env->owner->trim_wanted) : 0;
	if (tc->posted)
		(void)shmi_tcache_send(tc, true); /* what is on its way goes back as well */
	empty_magazines(tc);
	bool seized = catch_seized(tc); /* those in the pool go with any message */

	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++) {
		give_back_whole(tc, &tc->ready[i]);
		give_back_whole(tc, &tc->full[i]);
	}
	if (tc->ask.n_returns || tc->ask.n_reports || tc->posted || seized)
		(void)shmi_tcache_send(tc, true); /* if the daemon is away they wait for the next message */
}

void shmi_tcache_catch_up(struct shmi_tcache *tc)
{
	const struct shmi_owner *owner = tc->env->owner;
	uint32_t wanted = owner ? shmi_load(&owner->trim_wanted) : 0;

	(void)catch_seized(tc);
	if (tc->trim_epoch != shmi_load(&tc->env->trim_epoch) || tc->trim_wanted != wanted)
		shmi_tcache_trim(tc);
}

void shmi_tcache_retire(struct shmi_tcache *tc, void (*keep)(void *ctx, uint32_t page, shmi_sclass sclass), void *ctx)
{
	shmi_tcache_trim(tc);
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++) {
		struct shmi_queue *queues[] = {&tc->ready[i], &tc->full[i]};

		for (uint32_t q = 0; q < 2; q++)
			while (queues[q]->head) {
				uint32_t page = queues[q]->head;

				forget(tc, page);
				keep(ctx, page, (shmi_sclass){(uint16_t)i});
			}
	}
}
