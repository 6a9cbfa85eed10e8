/* The public functions about a heap as a whole: references, roots, trim, statistics. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/heap.h"
#include "shm/roots.h"

static int fail(int error)
{
	errno = error;
	return -1;
}

/* ---- references ---- */

SHMA_API struct shma_heap *shma_heap_of(const void *block)
{
	return shmi_heap_of(block);
}

SHMA_API shma_off shma_to_off(const void *block)
{
	const struct shma_heap *heap = block ? shmi_heap_of(block) : NULL;

	return heap ? (uint64_t)(uintptr_t)block - heap->env.base : 0;
}

SHMA_API void *shma_from_off(struct shma_heap *heap, shma_off off)
{
	if (!off)
		return NULL;
	if (heap && off < shmi_npages_bytes((shmi_npages){heap->env.img.geo.limit_pages}) && off >= SHMI_PAGE_SIZE)
		return (void *)(uintptr_t)(heap->env.base + off);
	errno = EINVAL;
	return NULL;
}

/* ---- roots ---- */

static int root_request(struct shma_heap *heap, enum wire_kind kind, const struct wire_root *root)
{
	struct wire_msg *msg = &heap->buffers->request;

	if (!shmi_load_acquire(&heap->proc->attached)) {
		int error = shmi_attach_again(heap, false);

		if (error)
			return error;
	}
	shmi_channel_lock(heap);
	msg->kind = kind;
	msg->u.root = *root;
	int error = shmi_channel_call(heap, NULL);

	shmi_channel_unlock(heap);
	return error;
}

static bool name_ok(const char *name)
{
	size_t len = name ? strnlen(name, SHMI_ROOT_NAME_MAX + 1) : 0;

	return len > 0 && len <= SHMI_ROOT_NAME_MAX;
}

static int root_set(struct shma_heap *heap, const char *name, const void *block, bool exclusive)
{
	struct wire_root root = {.exclusive = exclusive};

	if (!heap || !name_ok(name) || !block || shmi_heap_of(block) != heap)
		return fail(EINVAL);
	root.off = shma_to_off(block);
	(void)snprintf(root.name, sizeof(root.name), "%s", name);
	int error = root_request(heap, WIRE_ROOT_SET, &root);

	return error ? fail(error) : 0;
}

SHMA_API int shma_root_set(struct shma_heap *heap, const char *name, const void *block)
{
	return root_set(heap, name, block, false);
}

SHMA_API int shma_root_add(struct shma_heap *heap, const char *name, const void *block)
{
	return root_set(heap, name, block, true);
}

SHMA_API int shma_root_del(struct shma_heap *heap, const char *name)
{
	struct wire_root root = {.off = 0};

	if (!heap || !name_ok(name))
		return fail(EINVAL);
	(void)snprintf(root.name, sizeof(root.name), "%s", name);
	int error = root_request(heap, WIRE_ROOT_DEL, &root);

	return error ? fail(error) : 0;
}

SHMA_API void *shma_root_get(struct shma_heap *heap, const char *name)
{
	shmi_off off;

	if (!heap || !name_ok(name)) {
		errno = EINVAL;
		return NULL;
	}
	if (shmi_roots_get(&heap->env.img, name, &off) == 0)
		return shma_from_off(heap, off.b);
	errno = ENOENT;
	return NULL;
}

/* ---- trim, statistics ---- */

SHMA_API int shma_trim(struct shma_heap *heap)
{
	int error;

	if (!heap)
		return fail(EINVAL);
	struct shmi_tcache *tc = shmi_thread_cache(heap, 0, false, &error);

	if (!tc)
		return fail(error);
	shmi_channel_lock(heap);
	int late = shmi_channel_settle(heap); /* what it brings is nobody's; who asks for a trim waits for it */

	shmi_channel_unlock(heap);
	(void)shmi_fetch_add(&heap->env.trim_epoch, 1);
	shmi_tcache_trim(tc); /* our magazines' blocks may be what the pool's spans lack */
	shmi_thread_trim_idle(heap);
	shmi_pool_trim(heap, tc);
	shmi_tcache_trim(tc);
	error = shmi_large_trim(heap);
	if (late || error)
		return fail(late ? late : error);
	return 0;
}

SHMA_API int shma_stats_get(struct shma_heap *heap, struct shma_stats *stats)
{
	if (!heap || !stats || stats->size < sizeof(stats->size))
		return fail(EINVAL);
	const struct shmi_super *super = heap->env.img.super;
	const struct shmi_proc *proc = heap->proc;
	struct shma_stats s = {.size = stats->size, .limit = (uint64_t)super->geometry.limit_pages << SHMI_PAGE_SHIFT};

	s.owned = shmi_load(&super->pages.owned) << SHMI_PAGE_SHIFT;
	s.central = shmi_load(&super->pages.central) << SHMI_PAGE_SHIFT;
	s.free = shmi_load(&super->pages.free) << SHMI_PAGE_SHIFT;
	s.backed = s.owned + s.central + s.free;
	s.peak_backed = shmi_load(&super->counters.peak_backed_pages) << SHMI_PAGE_SHIFT;
	s.base = heap->env.base;
	s.at_base = heap->env.base == super->base;
	if (shmi_load_acquire(&proc->attached)) {
		s.client = proc->client;
		s.messages = shmi_load(&proc->messages);
		shmi_waits_fill(&proc->waits, &s);
		s.process_owned = (uint64_t)shmi_owner_at(&heap->env.img, proc->client)->pages << SHMI_PAGE_SHIFT;
	}
	memcpy(stats, &s, stats->size < sizeof(s) ? stats->size : sizeof(s));
	return 0;
}
