/* Blocks that are spans of their own: from the cache of freed ones (client/bigcache.h) or from the daemon, and back.
 *
 * What is over the bound of that cache goes back with the next request for memory, whatever it asks for: it is in nobody's way until then, as the
 * heap does not grow but by requests, and it may be used again meanwhile. Only when several times as much is kept is the daemon
 * told of it for its own sake: other processes may want it.
 */
#include <errno.h>
#include <string.h>

#include "client/bigcache.h"

#define CACHE_SPAN_BYTES (4 * SHMI_MIB) /* a longer span is not kept */
#define MEET_MOST                                                                                                      \
	512u /* pages of a block that are mapped at once: the first use of more costs more than a few faults anyway */
#define IDLE_MESSAGES 8u /* refills without a large request in between, after which half of it goes back */

/* ---- what the daemon could not be told ---- */

static bool is_owed(const struct shma_heap *heap, uint64_t entry)
{
	uint8_t queue = heap->env.held[(uint32_t)entry].queue;

	return queue == SHMI_HELD_OWED || queue == SHMI_HELD_OWED_OTHERS;
}

static void owe(struct shma_heap *heap, uint64_t entry, enum shmi_held_queue which)
{
	heap->env.held[(uint32_t)entry].generation = (uint32_t)(entry >> 32);
	shmi_queue_append(heap->env.held, &heap->proc->owed, (uint32_t)entry, which);
	shmi_big_note(heap, entry);
}

/* The oldest of them as a request, all of one kind. */
static void fill_free(const struct shma_heap *heap, uint8_t kind)
{
	struct wire_msg *request = &heap->buffers->request;
	struct wire_free *body = &request->u.free;

	request->kind = WIRE_FREE;
	body->n_spans = 0;
	for (uint32_t page = heap->proc->owed.head;
	        page && heap->env.held[page].queue == kind && body->n_spans < WIRE_BIGS;
	        page = heap->env.held[page].next)
		body->spans[body->n_spans++] = (struct wire_span){page, heap->env.held[page].generation};
}

/* Tells the daemon. What is another's scoped block may have gone with that process meanwhile: that is no double free. Both locks
 * held. Returns 0 or an errno. */
static int pay(struct shma_heap *heap)
{
	struct shmi_queue *owed = &heap->proc->owed;
	const struct wire_free *body = &heap->buffers->request.u.free;
	bool sent = true;
	int error = 0;

	while (owed->head && sent && !error) {
		uint8_t kind = heap->env.held[owed->head].queue;

		fill_free(heap, kind);
		error = shmi_channel_call(heap, &sent);
		if (error == EFAULT && kind == SHMI_HELD_OWED_OTHERS)
			error = 0;
		if (error == EFAULT)
			shmi_misuse(&heap->env, SHMI_FREE_TWICE, shmi_page_off((shmi_page){owed->head}).b);
		for (uint32_t i = 0; sent && i < body->n_spans; i++)
			shmi_queue_remove(heap->env.held, owed, owed->head);
	}
	shmi_big_forget_notes(heap);
	return sent && error == EAGAIN ? 0 : error;
}

/* ---- what the daemon is told of ---- */

/* Tells the daemon that the oldest `n` entries are free, and removes them; they stay as notes until it has answered. Both locks
 * held. Returns 0 or an errno. */
static int free_oldest(struct shma_heap *heap, uint32_t n)
{
	bool sent;

	if (!n)
		return 0;
	heap->buffers->request.kind = WIRE_FREE;
	shmi_big_name(heap, n, &heap->buffers->request.u.free);
	int error = shmi_channel_call(heap, &sent);

	shmi_big_named(heap, sent, error);
	return sent && error == EAGAIN ? 0 : error;
}

/* With a request for memory what is over the bound goes back, and half of it all if that has been kept in vain for long. */
void shmi_large_name(struct shma_heap *heap, struct wire_free *body)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	uint32_t have = shmi_big_kept(heap), n = shmi_big_too_many(heap, 0, shmi_big_bound(heap));

	if (have && ++heap->proc->big_idle > IDLE_MESSAGES) {
		heap->proc->big_idle = 0;
		n = n > (have + 1) / 2 ? n : (have + 1) / 2;
	}
	shmi_big_name(heap, n, body);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

void shmi_large_named(struct shma_heap *heap, bool sent, int error)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	shmi_big_named(heap, sent, error);
	if (!error)
		(void)pay(heap); /* it answers */
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

void shmi_large_answered(struct shma_heap *heap)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	shmi_big_forget_notes(heap);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

/* ---- allocation ---- */

/* Whether the block is ours by what meta says, as long as was asked for, and not one that we have: each gets a later generation, and how
 * late the heap's own count tells, however often it has gone round. With the channel's lock held. */
static bool is_granted(struct shma_heap *heap, const struct wire_large_ok *ok, uint32_t pages)
{
	const struct shmi_image *img = &heap->env.img;
	uint32_t newest = heap->proc->big_newest, now = shmi_load(&img->super->generations);

	if (!shmi_image_page_ok(img, (shmi_page){ok->page}) || (newest && now - ok->generation >= now - newest))
		return false;
	struct shmi_word word = shmi_span_word(img, (shmi_page){ok->page});

	if (word.state != SHMI_SPAN_LARGE || word.owner != heap->proc->client || word.generation != ok->generation ||
	        shmi_span_at(img, (shmi_page){ok->page})->pages < pages)
		return false;
	heap->proc->big_newest = ok->generation;
	return true;
}

/* Only a block that the cache has; 0: none. */
static uint64_t take_cached(struct shma_heap *heap, const struct wire_large *ask)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	uint64_t entry = shmi_big_take(heap, ask->pages, ask->align_pages, ask->attrs);

	heap->proc->big_idle = 0;
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	return entry;
}

static int ask_daemon(struct shma_heap *heap, const struct wire_large *ask, struct wire_large_ok *ok, int64_t deadline)
{
	struct shmi_buffers *b = heap->buffers;
	bool sent;

	shmi_channel_lock_until(heap, deadline);
	b->request.kind = WIRE_LARGE;
	b->request.u.large = *ask;
	shmi_large_name(heap, &b->request.u.large.freed);
	int error = shmi_channel_call(heap, &sent);

	if (!error && (b->reply.kind != WIRE_LARGE_OK || !is_granted(heap, &b->reply.u.large_ok, ask->pages)))
		error = EPROTO;
	*ok = b->reply.u.large_ok;
	shmi_large_named(heap, sent, error);
	shmi_channel_unlock(heap);
	return error;
}

/* With memory short, what this process could do without goes back, and the daemon is asked once more. */
static int ask_twice(struct shma_heap *heap, const struct wire_large *ask, struct wire_large_ok *ok, int64_t deadline)
{
	int error = ask_daemon(heap, ask, ok, deadline);

	if (error != ENOMEM)
		return error;
	error = shmi_large_trim(heap);
	if (shmi_tls[heap->index]->env)
		shmi_tcache_trim(shmi_tls[heap->index]);
	return error ? error : ask_daemon(heap, ask, ok, deadline);
}

void *shmi_large_alloc(struct shma_heap *heap, uint64_t size, uint64_t alignment, unsigned flags, int *error)
{
	uint64_t limit = shmi_npages_bytes((shmi_npages){heap->env.img.geo.limit_pages});

	*error = ENOMEM;
	if (size > limit - SHMI_PAGE_SIZE || alignment > SHMI_ARENA_PAGES * SHMI_PAGE_SIZE) /* page 0 is nobody's */
		return NULL;
	struct wire_large ask = {.bytes = size,
	        .pages = shmi_npages_of(size).n,
	        .align_pages = alignment > SHMI_PAGE_SIZE ? (uint32_t)(alignment >> SHMI_PAGE_SHIFT) : 1,
	        .attrs = flags & (SHMA_SCOPED | SHMA_NOSCAN),
	        .lazy = flags & SHMA_LAZY};
	struct wire_large_ok ok = {0};
	int64_t deadline =
	        shmi_channel_deadline(heap); /* who frees has the cache's lock while it waits for the daemon */
	uint64_t entry = ask.lazy ? 0 : take_cached(heap, &ask);

	if (entry)
		ok.page = (uint32_t)entry;
	else if ((*error = ask_twice(heap, &ask, &ok, deadline)) != 0)
		return NULL;
	else if (!ask.lazy)
		shmi_heap_meet(heap, ok.page, ask.pages < MEET_MOST ? ask.pages : MEET_MOST, ok.zeroed);
	*error = 0;
	void *block = (void *)(uintptr_t)(heap->env.base + shmi_page_off((shmi_page){ok.page}).b);

	return flags & SHMA_ZERO && !ok.zeroed ? memset(block, 0, size) : block;
}

/* ---- free ---- */

/* Whether it is free: kept, noted, or owed without a note. */
static bool is_free(const struct shma_heap *heap, uint64_t entry)
{
	return is_owed(heap, entry) || shmi_big_has(heap, entry);
}

/* The slow way into the cache: the daemon must be told about older spans, or about this one. What it is owed already goes first:
 * the notes of that take the room. False if it is a double free. */
static bool make_room_and_keep(struct shma_heap *heap, uint64_t entry, uint64_t bytes)
{
	shmi_channel_lock(heap);
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	bool twice = is_free(heap, entry);

	if (!twice && !pay(heap))
		(void)free_oldest(heap,
		        shmi_big_too_many(heap, bytes, shmi_big_bound(heap))); /* if the daemon is away, more is kept */
	if (!twice && !shmi_big_keep(heap, entry, bytes))
		owe(heap, entry, SHMI_HELD_OWED);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	shmi_channel_unlock(heap);
	return !twice;
}

/* Without the cache. False if it is a double free. */
static bool free_now(struct shma_heap *heap, uint64_t entry, bool attached, bool others)
{
	shmi_channel_lock(heap);
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	bool twice = is_owed(heap, entry);

	if (!twice)
		owe(heap, entry, others ? SHMI_HELD_OWED_OTHERS : SHMI_HELD_OWED);
	if (attached)
		(void)pay(heap);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	shmi_channel_unlock(heap);
	return !twice;
}

enum shmi_tc_free shmi_large_free(struct shma_heap *heap, uint64_t off)
{
	shmi_page page = shmi_off_page((shmi_off){off});
	struct shmi_word word = shmi_span_word(&heap->env.img, page);
	struct shmi_span *span = shmi_span_at(&heap->env.img, page);
	uint64_t entry = page.i | (uint64_t)word.generation << 32,
	         bytes = shmi_npages_bytes((shmi_npages){span->pages});

	if (word.state != SHMI_SPAN_LARGE)
		return SHMI_FREE_NOTHING;
	if (off % SHMI_PAGE_SIZE)
		return SHMI_FREE_INSIDE;
	bool attached = shmi_load_acquire(&heap->proc->attached) || shmi_attach_again(heap, true) == 0;
	bool others = shmi_sclass_scoped(word.sclass) && (!attached || word.owner != heap->proc->client);

	if (!attached || bytes > CACHE_SPAN_BYTES || others || span->flags & SHMI_SPAN_LAZY)
		return free_now(heap, entry, attached, others) ? SHMI_FREED : SHMI_FREE_TWICE;
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	bool twice = is_free(heap, entry);
	bool kept = !twice && !shmi_big_too_many(heap, bytes, shmi_big_bound_of_waiting(heap)) &&
	            shmi_big_keep(heap, entry, bytes);

	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	if (twice)
		return SHMI_FREE_TWICE;
	return kept || make_room_and_keep(heap, entry, bytes) ? SHMI_FREED : SHMI_FREE_TWICE;
}

int shmi_large_trim(struct shma_heap *heap)
{
	int error;

	shmi_channel_lock(heap);
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	error = pay(heap);
	if (!error)
		error = free_oldest(heap, shmi_big_kept(heap));
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	shmi_channel_unlock(heap);
	return error;
}
