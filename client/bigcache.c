#include "client/bigcache.h"

#include <errno.h>

#define KEPT_MOST 60u /* entries */
#define FIT_SHARE 4u /* the part of a request by which a kept span may be too long for it */
#define CACHE_LEAST (1 * SHMI_MIB) /* bounds of what may be kept, the newest span aside: bytes ... */
#define CACHE_SHARE 16u /* ... and the part of what the process holds */
#define WAIT_LEAST (4 * SHMI_MIB) /* bounds of what may be kept until the next request for memory: bytes ... */
#define WAIT_SHARE 8u /* ... and the part of what the process holds */

_Static_assert(KEPT_MOST <= WIRE_BIGS, "one message can tell the daemon of all that is kept");

/* ---- entries ---- */

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

void shmi_big_note(struct shma_heap *heap, uint64_t entry)
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

void shmi_big_forget_notes(struct shma_heap *heap)
{
	if (!heap->proc->big_noted || heap->proc->outstanding || heap->proc->owed.head)
		return;
	remove_entries(heap, big_of(heap), 0, heap->proc->big_noted, 0);
	heap->proc->big_noted = 0;
}

/* ---- how much is kept ---- */

/* A part of what the process holds. */
static uint64_t share(const struct shma_heap *heap, uint32_t part)
{
	return shmi_npages_bytes((shmi_npages){shmi_owner_at(&heap->env.img, heap->proc->client)->pages}) / part;
}

uint64_t shmi_big_bound(const struct shma_heap *heap)
{
	uint64_t most = share(heap, CACHE_SHARE);
	uint64_t learned = heap->proc->big_bound < most ? heap->proc->big_bound : most;

	return learned < CACHE_LEAST ? CACHE_LEAST : learned;
}

uint64_t shmi_big_bound_of_waiting(const struct shma_heap *heap)
{
	uint64_t most = share(heap, WAIT_SHARE);

	return most < WAIT_LEAST ? WAIT_LEAST : most;
}

static void note_given_back(struct shma_heap *heap, uint32_t pages)
{
	struct shmi_proc *proc = heap->proc;

	proc->ghosts[proc->next_ghost++ % SHMI_GHOSTS] = pages;
	proc->big_bound = shmi_big_bound(heap) - shmi_big_bound(heap) / 16;
}

/* A request that was not served: would it have been, had we kept more? */
static void note_miss(struct shma_heap *heap, uint32_t pages)
{
	for (uint32_t i = 0; i < SHMI_GHOSTS; i++) {
		uint32_t *ghost = &heap->proc->ghosts[i];

		if (*ghost < pages || *ghost > pages + pages / FIT_SHARE)
			continue;
		heap->proc->big_bound = shmi_big_bound(heap) + shmi_npages_bytes((shmi_npages){*ghost});
		*ghost = 0;
		return;
	}
}

/* ---- what may be used again ---- */

bool shmi_big_keep(struct shma_heap *heap, uint64_t entry, uint64_t bytes)
{
	struct shmi_bigmag *big = big_of(heap);
	uint32_t top = shmi_load(&big->top);

	if (top == SHMI_BIG_MAX || shmi_big_kept(heap) >= KEPT_MOST)
		return false;
	shmi_store(&big->entry[top], entry);
	shmi_store_release(&big->top, top + 1);
	heap->proc->big_bytes += bytes;
	return true;
}

bool shmi_big_has(const struct shma_heap *heap, uint64_t entry)
{
	const struct shmi_bigmag *big = big_of(heap);

	for (uint32_t i = 0; i < shmi_load(&big->top); i++)
		if (shmi_load(&big->entry[i]) == entry)
			return true;
	return false;
}

uint64_t shmi_big_take(struct shma_heap *heap, uint32_t pages, uint32_t align_pages, uint32_t attrs)
{
	uint32_t best = 0, best_pages = pages + pages / FIT_SHARE + 1;
	struct shmi_bigmag *big = big_of(heap);
	uint64_t entry = 0;

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
	return entry;
}

/* ---- what the daemon is told ---- */

uint32_t shmi_big_kept(const struct shma_heap *heap)
{
	return shmi_load(&big_of(heap)->top) - heap->proc->big_noted;
}

uint32_t shmi_big_too_many(const struct shma_heap *heap, uint64_t bytes, uint64_t most)
{
	const struct shmi_bigmag *big = big_of(heap);
	uint32_t at = heap->proc->big_noted, have = shmi_big_kept(heap),
	         n = have && bytes && (have >= KEPT_MOST || at + have == SHMI_BIG_MAX);
	uint64_t left = heap->proc->big_bytes - bytes_of(heap, big, at, n);

	for (; n + !bytes < have && left + bytes > most; n++)
		left -= bytes_of(heap, big, at + n, 1);
	return n;
}

void shmi_big_name(struct shma_heap *heap, uint32_t n, struct wire_free *body)
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

void shmi_big_named(struct shma_heap *heap, bool sent, int error)
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
	shmi_big_forget_notes(heap);
}
