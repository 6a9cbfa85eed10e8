/* Blocks that are spans of their own, and the process's cache of freed ones.
 *
 * The cache is the `big` magazine of the process's own thread record: in shared memory, so that the daemon knows after our
 * death what was free. Entries are in the order in which they were freed. An entry bears the span's generation: the daemon is
 * told first and the entry removed afterwards, and one that is still there after a death in between is void.
 *
 * What the daemon is to be told and has not answered yet, because it is away, stands as notes before those that may be used again
 * (proc->big_noted of them): so what the process had freed is free even if it dies before the daemon is back. A note of what the
 * daemon has freed is void. There is room for SHMI_BIG_MAX entries in all; of further frees without a daemon the process alone
 * knows, and if it dies before the daemon is back, those blocks stay allocated.
 *
 * How much is kept follows what is reused (ghost entries, as in ARC): the sizes of spans that were given back lately are
 * remembered, and a request that one of them would have served raises the bound by its size; each span that is given back
 * lowers it a little. So a program that frees and allocates the same frames keeps them all, and a buffer that grows by
 * realloc does not leave a trail of shorter ones. The newest span is always kept.
 *
 * What is over that bound goes back with the next request for memory, whatever it asks for: it is in nobody's way until then, as the
 * heap does not grow but by requests, and it may be used again meanwhile. Only when several times as much is kept is the daemon
 * told of it for its own sake: other processes may want it.
 */
#include <errno.h>
#include <string.h>

#include "client/heap.h"

#define CACHE_SPAN_BYTES (4 * SHMI_MIB) /* a longer span is not kept */
#define KEPT_MOST 60u /* entries */
#define MEET_MOST                                                                                                      \
	512u /* pages of a block that are mapped at once: the first use of more costs more than a few faults anyway */
#define FIT_SHARE 4u /* the part of a request by which a kept span may be too long for it */
#define CACHE_LEAST (1 * SHMI_MIB) /* bounds of what may be kept, the newest span aside: bytes ... */
#define CACHE_SHARE 16u /* ... and the part of what the process holds */
#define WAIT_LEAST (4 * SHMI_MIB) /* bounds of what may be kept until the next request for memory: bytes ... */
#define WAIT_SHARE 8u /* ... and the part of what the process holds */
#define IDLE_MESSAGES 8u /* refills without a large request in between, after which half of it goes back */

_Static_assert(KEPT_MOST <= WIRE_BIGS, "one message can tell the daemon of all that is kept");

static struct shmi_bigmag *big_of(const struct shma_heap *heap)
{
	return &shmi_threadrec_at(&heap->env.img, heap->proc->thread)->big;
}

static uint32_t span_pages(const struct shma_heap *heap, uint64_t entry)
{
	return shmi_span_at(&heap->env.img, (shmi_page){(uint32_t)entry})->pages;
}

static struct shmi_word span_word(const struct shma_heap *heap, uint64_t entry)
{
	return shmi_span_word(&heap->env.img, (shmi_page){(uint32_t)entry});
}

static uint64_t bytes_of(const struct shma_heap *heap, const struct shmi_bigmag *big, uint32_t at, uint32_t n)
{
	uint64_t bytes = 0;

	for (uint32_t i = at; i < at + n; i++)
		bytes += shmi_npages_bytes((shmi_npages){span_pages(heap, shmi_load(&big->entry[i]))});
	return bytes;
}

/* Closes the gap of `n` entries of `bytes` in all at `at`. Ascending, so that what stays is always somewhere below top. */
static void remove_entries(struct shma_heap *heap, struct shmi_bigmag *big, uint32_t at, uint32_t n, uint64_t bytes)
{
	uint32_t top = shmi_load(&big->top);

	heap->proc->big_bytes -= bytes;
	for (uint32_t i = at; i + n < top; i++)
		shmi_store_release(&big->entry[i], shmi_load(&big->entry[i + n]));
	shmi_store_release(&big->top, top - n);
}

/* Puts the entry in front of those that may be used again. Whoever reads it meanwhile finds some entries twice, and none missing. */
static void note(struct shma_heap *heap, uint64_t entry)
{
	struct shmi_bigmag *big = big_of(heap);
	uint32_t top = shmi_load(&big->top), at = heap->proc->big_noted;

	if (!shmi_load(&heap->proc->attached) || top == SHMI_BIG_MAX)
		return;
	shmi_store(&big->entry[top], top > at ? shmi_load(&big->entry[top - 1]) : entry);
	shmi_store_release(&big->top, top + 1);
	for (uint32_t i = top; i-- > at + 1;)
		shmi_store_release(&big->entry[i], shmi_load(&big->entry[i - 1]));
	shmi_store_release(&big->entry[at], entry);
	heap->proc->big_noted++;
}

/* Once the daemon has been told of all that it had to be, and has answered, the notes are void. Both locks held. */
static void forget_notes(struct shma_heap *heap)
{
	if (!heap->proc->big_noted || heap->proc->outstanding || heap->proc->owed.head)
		return;
	remove_entries(heap, big_of(heap), 0, heap->proc->big_noted, 0);
	heap->proc->big_noted = 0;
}

/* A part of what the process holds. */
static uint64_t share(const struct shma_heap *heap, uint32_t part)
{
	return shmi_npages_bytes((shmi_npages){shmi_owner_at(&heap->env.img, heap->proc->client)->pages}) / part;
}

static uint64_t bound(const struct shma_heap *heap)
{
	uint64_t most = share(heap, CACHE_SHARE);
	uint64_t learned = heap->proc->big_bound < most ? heap->proc->big_bound : most;

	return learned < CACHE_LEAST ? CACHE_LEAST : learned;
}

static uint64_t bound_of_waiting(const struct shma_heap *heap)
{
	uint64_t most = share(heap, WAIT_SHARE);

	return most < WAIT_LEAST ? WAIT_LEAST : most;
}

static void note_given_back(struct shma_heap *heap, uint32_t pages)
{
	struct shmi_proc *proc = heap->proc;

	proc->ghosts[proc->next_ghost++ % SHMI_GHOSTS] = pages;
	proc->big_bound = bound(heap) - bound(heap) / 16;
}

/* A request that was not served: would it have been, had we kept more? */
static void note_miss(struct shma_heap *heap, uint32_t pages)
{
	for (uint32_t i = 0; i < SHMI_GHOSTS; i++) {
		uint32_t *ghost = &heap->proc->ghosts[i];

		if (*ghost < pages || *ghost > pages + pages / FIT_SHARE)
			continue;
		heap->proc->big_bound = bound(heap) + shmi_npages_bytes((shmi_npages){*ghost});
		*ghost = 0;
		return;
	}
}

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
	note(heap, entry);
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
	forget_notes(heap);
	return sent && error == EAGAIN ? 0 : error;
}

/* ---- what the daemon is told of ---- */

/* How many entries may be used again, or told to the daemon. */
static uint32_t kept(const struct shma_heap *heap)
{
	return shmi_load(&big_of(heap)->top) - heap->proc->big_noted;
}

/* How many of the oldest entries must go so that what is kept is within `most`, the newest aside: that is one of `bytes` to be kept
 * as well, unless it is 0. */
static uint32_t too_many(const struct shma_heap *heap, uint64_t bytes, uint64_t most)
{
	const struct shmi_bigmag *big = big_of(heap);
	uint32_t at = heap->proc->big_noted, have = kept(heap),
	         n = have && bytes && (have >= KEPT_MOST || at + have == SHMI_BIG_MAX);
	uint64_t left = heap->proc->big_bytes - bytes_of(heap, big, at, n);

	for (; n + !bytes < have && left + bytes > most; n++)
		left -= bytes_of(heap, big, at + n, 1);
	return n;
}

/* Names the oldest `n` entries in a request: they are notes from here on. Both locks held; until the answer has been dealt with the
 * channel's must be. */
static void name_oldest(struct shma_heap *heap, uint32_t n, struct wire_free *body)
{
	struct shmi_bigmag *big = big_of(heap);
	uint32_t at = heap->proc->big_noted;

	heap->proc->big_bytes -=
	        bytes_of(heap, big, at, n); /* now: once freed, their records are the daemon's to change */
	heap->proc->big_noted += n;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t entry = shmi_load(&big->entry[at + i]);

		body->spans[i] = (struct wire_span){(uint32_t)entry, (uint32_t)(entry >> 32)};
		heap->proc->named[i] = span_pages(heap, entry);
	}
	body->n_spans = n;
	heap->proc->n_named = n;
}

/* After the request: what was named is free, or, if it was not sent, kept as before. Both locks held. */
static void was_named(struct shma_heap *heap, bool sent, int error)
{
	struct shmi_proc *proc = heap->proc;
	uint32_t n = proc->n_named;

	proc->n_named = 0;
	if (sent) {
		if (error == EFAULT && n)
			shmi_misuse(&heap->env, SHMI_FREE_TWICE,
			        shmi_page_off(
			                (shmi_page){(uint32_t)shmi_load(&big_of(heap)->entry[proc->big_noted - n])})
			                .b);
		for (uint32_t i = 0; i < n; i++)
			note_given_back(heap, proc->named[i]);
	} else {
		proc->big_noted -= n;
		proc->big_bytes += bytes_of(heap, big_of(heap), proc->big_noted, n);
	}
	forget_notes(heap);
}

/* Tells the daemon that the oldest `n` entries are free, and removes them; they stay as notes until it has answered. Both locks
 * held. Returns 0 or an errno. */
static int free_oldest(struct shma_heap *heap, uint32_t n)
{
	bool sent;

	if (!n)
		return 0;
	heap->buffers->request.kind = WIRE_FREE;
	name_oldest(heap, n, &heap->buffers->request.u.free);
	int error = shmi_channel_call(heap, &sent);

	was_named(heap, sent, error);
	return sent && error == EAGAIN ? 0 : error;
}

/* With a request for memory what is over the bound goes back, and half of it all if that has been kept in vain for long. */
void shmi_large_name(struct shma_heap *heap, struct wire_free *body)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	uint32_t have = kept(heap), n = too_many(heap, 0, bound(heap));

	if (have && ++heap->proc->big_idle > IDLE_MESSAGES) {
		heap->proc->big_idle = 0;
		n = n > (have + 1) / 2 ? n : (have + 1) / 2;
	}
	name_oldest(heap, n, body);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

void shmi_large_named(struct shma_heap *heap, bool sent, int error)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	was_named(heap, sent, error);
	if (!error)
		(void)pay(heap); /* it answers */
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

void shmi_large_answered(struct shma_heap *heap)
{
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	forget_notes(heap);
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
}

/* ---- allocation ---- */

/* The shortest kept span of this kind that is long enough and not much too long, or 0. */
static uint64_t take_cached(struct shma_heap *heap, uint32_t pages, uint32_t align_pages, uint32_t attrs)
{
	uint32_t best = 0, best_pages = pages + pages / FIT_SHARE + 1;
	uint64_t entry = 0;

	(void)pthread_mutex_lock(&heap->proc->big_lock);
	struct shmi_bigmag *big = big_of(heap);

	for (uint32_t i = shmi_load(&big->top); i-- > heap->proc->big_noted;) {
		uint64_t e = shmi_load(&big->entry[i]);
		uint32_t have = span_pages(heap, e);

		if (span_word(heap, e).state != SHMI_SPAN_LARGE || span_word(heap, e).generation != e >> 32)
			shmi_misuse(&heap->env, SHMI_FREE_TWICE,
			        shmi_page_off((shmi_page){(uint32_t)e}).b); /* another did */
		if (have >= pages && have < best_pages && (uint32_t)e % align_pages == 0 &&
		        shmi_sclass_attrs(span_word(heap, e).sclass) == attrs) {
			best = i;
			best_pages = have;
			entry = e;
		}
	}
	if (entry)
		remove_entries(heap, big, best, 1, bytes_of(heap, big, best, 1));
	else
		note_miss(heap, pages);
	heap->proc->big_idle = 0;
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	return entry;
}

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
	uint64_t entry = ask.lazy ? 0 : take_cached(heap, ask.pages, ask.align_pages, ask.attrs);

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

/* Adds an entry if there is room for it; big_lock held. */
static bool keep(struct shma_heap *heap, uint64_t entry, uint64_t bytes)
{
	struct shmi_bigmag *big = big_of(heap);
	uint32_t top = shmi_load(&big->top);

	if (top == SHMI_BIG_MAX || kept(heap) >= KEPT_MOST)
		return false;
	shmi_store(&big->entry[top], entry);
	shmi_store_release(&big->top, top + 1);
	heap->proc->big_bytes += bytes;
	return true;
}

/* Whether it is free: kept, noted, or owed without a note. */
static bool is_free(const struct shma_heap *heap, uint64_t entry)
{
	const struct shmi_bigmag *big = big_of(heap);

	if (is_owed(heap, entry))
		return true;
	for (uint32_t i = 0; i < shmi_load(&big->top); i++)
		if (shmi_load(&big->entry[i]) == entry)
			return true;
	return false;
}

/* The slow way into the cache: the daemon must be told about older spans, or about this one. What it is owed already goes first:
 * the notes of that take the room. False if it is a double free. */
static bool make_room_and_keep(struct shma_heap *heap, uint64_t entry, uint64_t bytes)
{
	shmi_channel_lock(heap);
	(void)pthread_mutex_lock(&heap->proc->big_lock);
	bool twice = is_free(heap, entry);

	if (!twice && !pay(heap))
		(void)free_oldest(heap, too_many(heap, bytes, bound(heap))); /* if the daemon is away, more is kept */
	if (!twice && !keep(heap, entry, bytes))
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
	bool kept = !twice && !too_many(heap, bytes, bound_of_waiting(heap)) && keep(heap, entry, bytes);

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
		error = free_oldest(heap, kept(heap));
	(void)pthread_mutex_unlock(&heap->proc->big_lock);
	shmi_channel_unlock(heap);
	return error;
}
