/* Between the thread caches and the daemon: the process's own pool of spans, and the messages that move spans. */
#include <errno.h>

#include "client/heap.h"
#include "proto/chan.h"

#define POOL_LOOKS 16u /* spans of the pool that one refill looks at */
#define POOL_REAPS 64u /* spans that one message looks at, for such as have become wholly free */
#define POOL_TAKES 4u /* and takes at most */
#define MEET_RUNS 64u /* runs of one refill that are mapped at once */

/* ---- pages that were granted ---- */

/* Pages that were granted, as runs. */
struct granted {
	uint32_t n;
	struct {
		uint32_t first, pages;
		bool fresh;
	} run[MEET_RUNS];
};

static void add_granted(struct granted *granted, uint32_t first, uint32_t pages, bool fresh)
{
	uint32_t n = granted->n;

	if (n && granted->run[n - 1].first + granted->run[n - 1].pages == first && granted->run[n - 1].fresh == fresh) {
		granted->run[n - 1].pages += pages;
	} else if (n < MEET_RUNS) {
		granted->run[n].first = first;
		granted->run[n].fresh = fresh;
		granted->run[granted->n++].pages = pages;
	}
}

static void meet_all(const struct shma_heap *heap, const struct granted *granted)
{
	for (uint32_t i = 0; i < granted->n; i++)
		shmi_heap_meet(heap, granted->run[i].first, granted->run[i].pages, granted->run[i].fresh);
}

/* ---- the pool ---- */

static bool is_seized(const struct shma_heap *heap, uint32_t page)
{
	return shmi_span_word(&heap->env.img, (shmi_page){page}).state == SHMI_SPAN_SEIZED;
}

void shmi_pool_keep(void *ctx, uint32_t page, shmi_sclass sclass)
{
	struct shma_heap *heap = ctx;

	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	heap->proc->seized = heap->proc->seized || is_seized(heap, page);
	shmi_queue_append(heap->env.held, &heap->proc->pool[sclass.c], page, SHMI_HELD_POOL);
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

/* Moves the pool's first span to `tc` if at least `least` of its slots are free, else to the end of the line. */
static bool take_first(struct shma_heap *heap, struct shmi_tcache *tc, shmi_sclass sclass, uint32_t least)
{
	struct shmi_queue *queue = &heap->proc->pool[sclass.c];
	const struct shmi_class *class = &heap->env.img.classes[shmi_sclass_size_class(sclass)];
	uint32_t page = queue->head, free = shmi_slots_count(shmi_bitmap_at(&heap->env.img, (shmi_page){page}), class);

	shmi_queue_remove(heap->env.held, queue, page);
	if (free < least) {
		shmi_queue_append(heap->env.held, queue, page, SHMI_HELD_POOL);
		return false;
	}
	shmi_tcache_grant(tc, page, heap->env.held[page].generation, sclass, free == class->slots);
	return true;
}

/* Moves some spans of the pool to `tc`: such as have free slots. */
static void take_some(struct shma_heap *heap, struct shmi_tcache *tc, shmi_sclass sclass, struct granted *granted)
{
	struct shmi_queue *queue = &heap->proc->pool[sclass.c];

	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	uint32_t looks = queue->count < POOL_LOOKS ? queue->count : POOL_LOOKS, taken = 0;

	while (looks-- && taken < POOL_TAKES) {
		uint32_t page = queue->head;

		if (!take_first(heap, tc, sclass, 1))
			continue;
		add_granted(granted, page, heap->env.img.classes[shmi_sclass_size_class(sclass)].pages, false);
		taken++;
	}
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

void shmi_pool_trim(struct shma_heap *heap, struct shmi_tcache *tc)
{
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++)
		for (uint32_t n = heap->proc->pool[i].count; n--;)
			(void)take_first(
			        heap, tc, (shmi_sclass){(uint16_t)i}, heap->env.img.classes[i / SHMI_ATTRS].slots);
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

/* A span of the pool goes back with the next message. */
static void return_span(struct shma_heap *heap, struct shmi_tcache *tc, uint32_t sclass, uint32_t page)
{
	const struct shmi_class *class = &heap->env.img.classes[sclass / SHMI_ATTRS];

	shmi_queue_remove(heap->env.held, &heap->proc->pool[sclass], page);
	for (uint32_t p = page; sclass & SHMI_SCOPED && p < page + class->pages; p++)
		shmi_fetch_and(&heap->env.own_scoped[p / 64], ~(1ull << p % 64));
	tc->return_bytes += class->pages << SHMI_PAGE_SHIFT;
	tc->ask.returns[tc->ask.n_returns++] = (struct shmi_tc_span){page, heap->env.held[page].generation, sclass};
}

/* The pool's first span is returned if it is wholly free; else it goes to the end of the line. */
static void return_first(struct shma_heap *heap, struct shmi_tcache *tc, uint32_t sclass)
{
	struct shmi_queue *queue = &heap->proc->pool[sclass];
	const struct shmi_class *class = &heap->env.img.classes[sclass / SHMI_ATTRS];
	uint32_t page = queue->head;

	if (shmi_slots_count(shmi_bitmap_at(&heap->env.img, (shmi_page){page}), class) == class->slots) {
		return_span(heap, tc, sclass, page);
		return;
	}
	shmi_queue_remove(heap->env.held, queue, page);
	shmi_queue_append(heap->env.held, queue, page, SHMI_HELD_POOL);
}

static bool has_room(const struct shmi_tcache *tc)
{
	return tc->ask.n_returns < SHMI_TC_RETURNS && tc->return_bytes < SHMI_TC_RETURN_BYTES;
}

/* The spans of one class that the daemon has taken, as many as there is room for. False if that was too little. */
static bool return_seized_of(struct shma_heap *heap, struct shmi_tcache *tc, uint32_t sclass)
{
	uint32_t next;

	for (uint32_t page = heap->proc->pool[sclass].head; page; page = next) {
		next = heap->env.held[page].next;
		if (!is_seized(heap, page))
			continue;
		if (!has_room(tc))
			return false;
		return_span(heap, tc, sclass, page);
	}
	return true;
}

/* Once the daemon has taken spans of this process; with the pool's lock held. */
static void return_seized(struct shma_heap *heap, struct shmi_tcache *tc)
{
	struct shmi_proc *proc = heap->proc;
	uint32_t seizures = shmi_load_acquire(&heap->env.owner->seizures);
	bool all = true;

	if (proc->seizures == seizures && !proc->seized)
		return;
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES && all; i++)
		all = return_seized_of(heap, tc, i);
	proc->seizures = seizures;
	proc->seized = !all;
}

/* What ended threads left, and others have emptied since, goes back with the next message: without it, that of a class that
 * nobody needs any more would stay. As many as there is room for; one class a message at least. */
static void return_some(struct shma_heap *heap, struct shmi_tcache *tc)
{
	struct shmi_proc *proc = heap->proc;
	uint32_t looks = POOL_REAPS;

	(void)pthread_mutex_lock(&proc->pool_lock);
	return_seized(heap, tc);
	for (uint32_t classes = 0; looks && classes < SHMI_SPAN_CLASSES; classes++) {
		uint32_t c = proc->pool_clock = (proc->pool_clock + 1) % SHMI_SPAN_CLASSES;

		for (uint32_t n = proc->pool[c].count; n && looks && has_room(tc); n--, looks--)
			return_first(heap, tc, c);
	}
	(void)pthread_mutex_unlock(&proc->pool_lock);
}

/* ---- messages ---- */

/* Whether the span is ours by what meta says, and new to us. What a message says is not enough to write there: a span that is granted
 * twice, or of another class, would be two blocks in one place. */
static bool grant_ok(const struct shma_heap *heap, const struct wire_grant *g)
{
	const struct shmi_tc_env *env = &heap->env;

	if (!shmi_image_page_ok(&env->img, (shmi_page){g->page}) || g->sclass >= SHMI_SPAN_CLASSES ||
	        !shmi_sclass_is_small((shmi_sclass){(uint16_t)g->sclass}))
		return false;
	struct shmi_word word = shmi_span_word(&env->img, (shmi_page){g->page});

	return word.owner == heap->proc->client && word.generation == g->generation && word.sclass.c == g->sclass &&
	       env->held[g->page].queue == SHMI_HELD_NONE;
}

void shmi_pool_late(struct shma_heap *heap, const struct wire_refill_ok *ok)
{
	for (uint32_t i = 0; i < ok->n_grants; i++) {
		const struct wire_grant *g = &ok->grants[i];

		if (!grant_ok(heap, g))
			continue;
		heap->env.held[g->page].generation = g->generation;
		heap->env.held[g->page].sclass = (uint16_t)g->sclass;
		shmi_pool_keep(heap, g->page, (shmi_sclass){(uint16_t)g->sclass});
	}
}

static bool is_whole(const struct shma_heap *heap, uint32_t page, shmi_sclass sclass)
{
	const struct shmi_class *class = &heap->env.img.classes[shmi_sclass_size_class(sclass)];

	return shmi_slots_count(shmi_bitmap_at(&heap->env.img, (shmi_page){page}), class) == class->slots;
}

static void grant_all(
        struct shma_heap *heap, struct shmi_tcache *tc, const struct wire_refill_ok *ok, struct granted *granted)
{
	for (uint32_t i = 0; i < ok->n_grants; i++) {
		const struct wire_grant *g = &ok->grants[i];
		shmi_sclass sclass = {(uint16_t)g->sclass};

		if (!grant_ok(heap, g))
			continue;
		add_granted(granted, g->page, heap->env.img.classes[shmi_sclass_size_class(sclass)].pages, g->fresh);
		shmi_tcache_grant(tc, g->page, g->generation, sclass, is_whole(heap, g->page, sclass));
	}
}

static void fill_refill(struct wire_msg *msg, const struct shmi_tc_ask *ask)
{
	struct wire_refill *r = &msg->u.refill;

	msg->kind = WIRE_REFILL;
	r->n_wants = ask->n_wants;
	r->n_returns = ask->n_returns;
	r->n_reports = ask->n_reports;
	for (uint32_t i = 0; i < ask->n_wants; i++)
		r->wants[i] = (struct wire_want){ask->wants[i].sclass, ask->wants[i].spans};
	for (uint32_t i = 0; i < ask->n_returns; i++)
		r->returns[i] = (struct wire_span){ask->returns[i].page, ask->returns[i].generation};
	for (uint32_t i = 0; i < ask->n_reports; i++)
		r->reports[i] = ask->reports[i];
	r->remote_freed = ask->remote_freed;
}

static bool is_posted(const struct shma_heap *heap, const struct shmi_tcache *tc)
{
	return heap->proc->outstanding && heap->proc->posted == tc->thread + 1;
}

/* Fetches the answer to what was posted, if it has come, or with `wait` when it comes: what it brings is for the thread that asked, or for
 * the pool if that is another one. With the channel's lock held. */
static void fetch(struct shma_heap *heap, struct shmi_tcache *tc, bool wait, struct granted *granted)
{
	const struct wire_msg *reply = &heap->buffers->reply;
	uint32_t asker = heap->proc->posted;

	if (shmi_channel_collect(heap, wait) && reply->kind == WIRE_REFILL_OK) {
		if (asker == tc->thread + 1)
			grant_all(heap, tc, &reply->u.refill_ok, granted);
		else
			shmi_pool_late(heap, &reply->u.refill_ok);
	}
	if (!heap->proc->outstanding)
		shmi_large_answered(heap);
	tc->posted = is_posted(heap, tc);
}

static void op_pool(void *ctx, struct shmi_tcache *tc, shmi_sclass sclass)
{
	struct shma_heap *heap = ctx;
	struct granted granted = {0};

	if (tc->posted && shmi_channel_lock_if_idle(heap)) {
		fetch(heap, tc, false, &granted);
		shmi_channel_unlock(heap);
	}
	if (!tc->ready[sclass.c].head)
		take_some(heap, tc, sclass, &granted);
	meet_all(heap, &granted);
}

/* Sends what is asked for, and waits for the answer or goes on. Returns whether it was sent. */
static bool send_refill(
        struct shma_heap *heap, const struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait, int *error)
{
	bool sent;

	fill_refill(&heap->buffers->request, ask);
	heap->buffers->request.u.refill.waited_us = heap->proc->waits.last_us;
	shmi_large_name(heap, &heap->buffers->request.u.refill.freed);
	if (wait) {
		*error = shmi_channel_call(heap, &sent);
	} else {
		sent = shmi_channel_post(heap, tc->thread);
		*error = EAGAIN;
	}
	if (sent)
		ask->n_returns = ask->n_reports = ask->remote_freed = heap->proc->waits.last_us = 0;
	return sent;
}

static int refill(struct shma_heap *heap, struct shmi_tcache *tc, struct shmi_tc_ask *ask, struct granted *granted)
{
	int error;

	/* What was asked for ahead may be enough; whoever only gives something back does not wait for a daemon that is away. */
	if (tc->posted && (ask->n_wants || !shmi_load(&heap->proc->look_ns))) {
		fetch(heap, tc, true, granted);
		if (ask->n_wants ? tc->ready[ask->wants[0].sclass].head != 0 : !ask->n_returns && !ask->n_reports)
			return 0;
	}
	return_some(heap, tc);
	bool sent = send_refill(heap, tc, ask, true, &error);

	if (!error && heap->buffers->reply.kind == WIRE_REFILL_OK)
		grant_all(heap, tc, &heap->buffers->reply.u.refill_ok, granted);
	else if (!error)
		error = EPROTO;
	shmi_large_named(heap, sent, error);
	return error;
}

static int post(struct shma_heap *heap, struct shmi_tcache *tc, struct shmi_tc_ask *ask, struct granted *granted)
{
	int error;

	fetch(heap, tc, false, granted);
	if (heap->proc->outstanding)
		return EAGAIN;
	return_some(heap, tc);
	bool sent = send_refill(heap, tc, ask, false, &error);

	shmi_large_named(heap, sent, EAGAIN);
	return sent ? 0 : EAGAIN;
}

static int op_refill(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait)
{
	struct shma_heap *heap = ctx;
	struct granted granted = {0};
	int64_t began = wait ? shmi_chan_now_ns() : 0;

	if (wait)
		shmi_channel_lock(heap);
	else if (!shmi_channel_lock_if_idle(heap))
		return EAGAIN;
	int error = wait ? refill(heap, tc, ask, &granted) : post(heap, tc, ask, &granted);

	if (wait && !error)
		shmi_waits_add(&heap->proc->waits, (uint64_t)(shmi_chan_now_ns() - began) / 1000);
	tc->posted = is_posted(heap, tc);
	shmi_channel_unlock(heap);
	meet_all(heap, &granted); /* outside the lock: it can take a tenth of a millisecond */
	return error;
}

static int op_part(void *ctx, struct shmi_tcache *tc, uint32_t attrs)
{
	struct shma_heap *heap = ctx;
	struct shmi_buffers *b = heap->buffers;

	if (!tc->to_free)
		shmi_channel_lock(heap);
	else if (!shmi_channel_try(heap))
		return EAGAIN;
	b->request.kind = WIRE_THREAD;
	b->request.u.thread = (struct wire_thread){.thread = tc->thread, .parts = 1u << attrs};
	int error = shmi_channel_call(heap, NULL);

	if (!error && !shmi_record_ok(heap, heap->proc->client, tc->thread, 1u << attrs))
		error = EPROTO;
	shmi_channel_unlock(heap);
	return error;
}

const struct shmi_tc_ops shmi_ops = {.refill = op_refill, .pool = op_pool, .part = op_part};
