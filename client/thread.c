/* Thread caches of the calling thread: found, made, given up at thread exit, made anew in a child of a fork. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/heap.h"

#define NONE &shmi_tcache_none

__thread struct shmi_tcache *shmi_tls[SHMI_MAX_HEAPS] = {
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE};

static pthread_key_t exit_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;
static int exit_key_error;

/* A cache of a heap that is gone, or of the parent. */
static void unmap_wiped(struct shmi_tcache *tc)
{
	if (tc != NONE)
		(void)munmap(tc, sizeof(*tc));
}

void shmi_thread_leave(struct shma_heap *heap)
{
	struct shmi_tcache *tc = shmi_tls[heap->index];

	shmi_tls[heap->index] = NONE;
	if (!tc->env) {
		unmap_wiped(tc);
		return;
	}
	shmi_tcache_retire(tc, shmi_pool_keep, heap);
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	tc->idle = 1;
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

void shmi_thread_forget(struct shma_heap *heap)
{
	struct shmi_tcache *next;

	for (struct shmi_tcache *tc = heap->proc->caches; tc; tc = next) {
		next = tc->next;
		if (tc->idle)
			(void)munmap(tc, sizeof(*tc));
		else
			memset(tc, 0, sizeof(*tc));
	}
}

/* A later destructor may free blocks: that makes a cache again, and calls us again. */
static void at_thread_exit(void *unused)
{
	(void)unused;
	shmi_heaps_hold();
	for (uint32_t i = 0; i < SHMI_MAX_HEAPS; i++) {
		struct shma_heap *heap = shmi_load_acquire(&shmi_heaps[i]);

		if (heap) {
			shmi_thread_leave(heap);
		} else {
			unmap_wiped(shmi_tls[i]);
			shmi_tls[i] = NONE;
		}
	}
	shmi_heaps_release();
}

static void make_exit_key(void)
{
	exit_key_error = pthread_key_create(&exit_key, at_thread_exit);
}

static struct shmi_tcache *take_idle(struct shma_heap *heap)
{
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	struct shmi_tcache *tc = heap->proc->caches;

	while (tc && !tc->idle)
		tc = tc->next;
	if (tc)
		tc->idle = 0;
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
	return tc;
}

void shmi_thread_trim_idle(struct shma_heap *heap)
{
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	for (struct shmi_tcache *tc = heap->proc->caches; tc; tc = tc->next) {
		if (!tc->idle || !(tc->ask.n_returns + tc->ask.n_reports))
			continue;
		tc->idle = 0; /* ours meanwhile */
		(void)pthread_mutex_unlock(&heap->proc->pool_lock);
		shmi_tcache_trim(tc);
		(void)pthread_mutex_lock(&heap->proc->pool_lock);
		tc->idle = 1;
	}
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

static void enter(struct shma_heap *heap, struct shmi_tcache *tc)
{
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	tc->next = heap->proc->caches;
	heap->proc->caches = tc;
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
}

bool shmi_record_ok(const struct shma_heap *heap, uint32_t client, uint32_t thread, uint32_t parts)
{
	if (thread >= SHMI_MAX_THREADS)
		return false;
	const struct shmi_thread_slot *slot = shmi_thread_slot_at(&heap->env.img, thread);

	return slot->client == client && slot->head && !(parts & ~(uint32_t)slot->parts);
}

/* A record that is ours and that nobody here has: not the process's own, no cache's, no spare one. With the channel's lock held. */
static bool is_new(struct shma_heap *heap, uint32_t thread)
{
	const struct shmi_proc *proc = heap->proc;
	bool found = thread == proc->thread;

	for (uint32_t i = 0; i < proc->n_spares; i++)
		found |= proc->spares[i] == thread;
	(void)pthread_mutex_lock(&heap->proc->pool_lock);
	for (const struct shmi_tcache *tc = proc->caches; tc; tc = tc->next)
		found |= tc->thread == thread;
	(void)pthread_mutex_unlock(&heap->proc->pool_lock);
	return !found;
}

void shmi_thread_late(struct shma_heap *heap, uint32_t thread)
{
	if (heap->proc->n_spares < 2 && shmi_record_ok(heap, heap->proc->client, thread, 0) && is_new(heap, thread))
		heap->proc->spares[heap->proc->n_spares++] = thread;
}

/* Asks for a thread record, of which *parts are backed. Returns 0 or an errno. */
static int new_record(struct shma_heap *heap, bool to_free, uint32_t *parts, uint32_t *thread)
{
	struct shmi_buffers *b = heap->buffers;

	if (!to_free)
		shmi_channel_lock(heap);
	else if (!shmi_channel_try(heap))
		return EAGAIN;
	if (heap->proc->n_spares) {
		*thread = heap->proc->spares[--heap->proc->n_spares];
		*parts = 0; /* of those that it has we know nothing */
		shmi_channel_unlock(heap);
		return 0;
	}
	b->request.kind = WIRE_THREAD;
	b->request.u.thread = (struct wire_thread){.thread = SHMI_NO_THREAD, .parts = *parts};
	int error = shmi_channel_call(heap, NULL);

	if (!error && (b->reply.kind != WIRE_THREAD_OK ||
	                      !shmi_record_ok(heap, heap->proc->client, b->reply.u.thread_ok.thread, *parts) ||
	                      !is_new(heap, b->reply.u.thread_ok.thread)))
		error = EPROTO;
	*thread = b->reply.u.thread_ok.thread;
	shmi_channel_unlock(heap);
	return error == ENOSPC ? ENOMEM : error;
}

static struct shmi_tcache *make_cache(struct shma_heap *heap, uint32_t attrs, bool to_free, int *error)
{
	struct shmi_tcache *wiped = shmi_tls[heap->index], *tc = take_idle(heap);
	uint32_t thread, parts = 1u << attrs;

	if (tc) {
		unmap_wiped(wiped);
		return tc;
	}
	*error = new_record(heap, to_free, &parts, &thread);
	if (*error)
		return NULL;
	tc = wiped != NONE ? wiped : shmi_wiped_map(sizeof(*tc)); /* a child has its parent's, wiped */
	if (!tc) {
		*error = ENOMEM;
		return NULL;
	}
	(void)madvise(
	        tc, sizeof(*tc), MADV_POPULATE_WRITE); /* at once, not page by page; where it is not known, so be it */
	shmi_tcache_init(tc, &heap->env, thread, parts);
	enter(heap, tc);
	return tc;
}

struct shmi_tcache *shmi_thread_cache(struct shma_heap *heap, uint32_t attrs, bool to_free, int *error)
{
	struct shmi_tcache *tc = shmi_tls[heap->index];

	*error = 0;
	if (tc->env)
		return tc;
	(void)pthread_once(&exit_once, make_exit_key);
	if (!shmi_load_acquire(&heap->proc->attached))
		*error = shmi_attach_again(heap, to_free);
	if (!*error)
		*error = exit_key_error;
	if (*error)
		return NULL;
	tc = make_cache(heap, attrs, to_free, error);
	if (tc) {
		tc->rec->tid = (uint32_t)syscall(SYS_gettid);
		shmi_tls[heap->index] = tc;
		(void)pthread_setspecific(
		        exit_key, heap); /* any value but NULL; without memory the record waits for process exit */
	}
	return tc;
}
