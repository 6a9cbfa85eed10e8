/* The public functions that allocate and free. Fast paths first; each slow path is a function of its own, out of line. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/heap.h"

#define ALIGN_DEFAULT 16u

/* ---- allocation ---- */

static void *fail(int error)
{
	errno = error;
	return NULL;
}

static __attribute__((noinline)) void *small_slow(struct shma_heap *heap, shmi_sclass sclass, bool exact)
{
	int error, keep = errno;
	struct shmi_tcache *tc = shmi_thread_cache(heap, shmi_sclass_attrs(sclass), false, &error);
	void *block = tc ? shmi_tcache_refill(tc, sclass, exact, &error) : NULL;

	if (!block)
		return fail(error);
	errno = keep;
	return block;
}

static void *large(struct shma_heap *heap, size_t size, size_t alignment, unsigned flags)
{
	int error = 0, keep = errno;

	if (!shmi_load_acquire(&heap->proc->attached))
		error = shmi_attach_again(heap, false);
	void *block = error ? NULL : shmi_large_alloc(heap, size, alignment, flags, &error);

	if (!block)
		return fail(error);
	errno = keep;
	return block;
}

/* The size class for `size` bytes at a multiple of `alignment`, or SHMI_CLASS_LARGE. Spans begin at a page, so slots are
 * aligned as far as both the page and the block size are. */
static uint32_t aligned_class(const struct shma_heap *heap, uint64_t size, uint64_t alignment)
{
	if (size > SHMI_SMALL_MAX || alignment > SHMI_PAGE_SIZE)
		return SHMI_CLASS_LARGE;
	if (alignment <= ALIGN_DEFAULT)
		return shmi_class_of(size); /* every block size is a multiple of that */
	uint32_t c = shmi_class_of(size > alignment ? size : alignment);

	while (c < SHMI_CLASS_LARGE && heap->env.img.classes[c].size & (alignment - 1))
		c++;
	return c;
}

static void *alloc_aligned(struct shma_heap *heap, size_t size, size_t alignment, unsigned flags)
{
	if (alignment & (alignment - 1))
		return fail(EINVAL);
	uint32_t c = aligned_class(heap, size, alignment);

	if (c == SHMI_CLASS_LARGE)
		return large(heap, size ? size : 1, alignment, flags);
	shmi_sclass sclass = shmi_sclass_make(c, flags & (SHMI_SCOPED | SHMI_NOSCAN));
	void *block;

	if (!shmi_tcache_pop(shmi_tls[heap->index], sclass, &block))
		block = small_slow(heap, sclass, alignment > ALIGN_DEFAULT);
	return block && flags & SHMA_ZERO ? memset(block, 0, size) : block;
}

SHMA_API void *shma_heap_alloc(struct shma_heap *heap, size_t size, size_t alignment, unsigned flags)
{
	if (!heap || flags & ~(unsigned)(SHMA_SCOPED | SHMA_NOSCAN | SHMA_ZERO | SHMA_LAZY))
		return fail(EINVAL);
	return alloc_aligned(heap, size, alignment, flags);
}

static __attribute__((noinline)) void *malloc_slow(size_t size, unsigned flags)
{
	struct shma_heap *heap = shma_default();

	return heap ? alloc_aligned(heap, size, 0, flags) : NULL;
}

SHMA_API void *shma_malloc(size_t size)
{
	void *block;

	/* A large block's class has no magazine. */
	if (__builtin_expect(!shmi_tcache_pop(shmi_tls[0], shmi_sclass_of(size), &block), 0))
		return malloc_slow(size, 0);
	return block;
}

SHMA_API void *shma_calloc(size_t count, size_t size)
{
	size_t bytes;
	void *block;

	if (__builtin_mul_overflow(count, size, &bytes))
		return fail(ENOMEM);
	if (__builtin_expect(!shmi_tcache_pop(shmi_tls[0], shmi_sclass_of(bytes), &block), 0))
		return malloc_slow(bytes, SHMA_ZERO);
	return memset(block, 0, bytes);
}

SHMA_API void *shma_aligned_alloc(size_t alignment, size_t size)
{
	struct shma_heap *heap;

	if (!alignment || alignment & (alignment - 1))
		return fail(EINVAL);
	heap = shma_default();
	return heap ? alloc_aligned(heap, size, alignment, 0) : NULL;
}

/* ---- free ---- */

static _Noreturn void free_outside(const void *block)
{
	(void)dprintf(STDERR_FILENO, "shmalloc: %d: invalid free: %p is in no attached heap\n", (int)getpid(), block);
	abort();
}

static __attribute__((noinline)) void free_slow(void *block)
{
	struct shma_heap *heap = block ? shmi_heap_of(block) : NULL;
	int error, keep = errno;

	if (!block)
		return;
	if (!heap)
		free_outside(block);
	struct shmi_tcache *tc = shmi_thread_cache(heap, 0, true, &error);
	uint64_t off = (uint64_t)(uintptr_t)block - heap->env.base;
	enum shmi_tc_free what = SHMI_FREED;

	if (!tc)
		what = shmi_tcache_free_bare(&heap->env, off);
	else if (!shmi_tcache_push(tc, block))
		what = shmi_tcache_free(tc, off);
	if (what == SHMI_FREE_LARGE)
		what = shmi_large_free(heap, off);
	if (what != SHMI_FREED)
		shmi_misuse(&heap->env, what, off);
	errno = keep;
}

SHMA_API void shma_free(void *block)
{
	if (__builtin_expect(!shmi_tcache_push(shmi_tls[0], block), 0))
		free_slow(block);
}

/* ---- sizes, realloc ---- */

/* Bytes of the block at `off`, or 0 where none begins. */
static size_t size_at(const struct shma_heap *heap, uint64_t off)
{
	const struct shmi_image *img = &heap->env.img;
	shmi_page page = shmi_off_page((shmi_off){off});

	if (!shmi_image_page_ok(img, page))
		return 0;
	shmi_sclass sclass = {shmi_load(shmi_page_class_at(img, page))};

	if (shmi_sclass_is_small(sclass))
		return img->classes[shmi_sclass_size_class(sclass)].size;
	return shmi_sclass_is_large(sclass) ? shmi_npages_bytes((shmi_npages){shmi_span_at(img, page)->pages}) : 0;
}

SHMA_API size_t shma_usable_size(const void *block)
{
	const struct shma_heap *heap = block ? shmi_heap_of(block) : NULL;

	return heap ? size_at(heap, (uint64_t)(uintptr_t)block - heap->env.base) : 0;
}

/* Attributes of the block's span, as flags. */
static unsigned flags_at(const struct shma_heap *heap, uint64_t off)
{
	shmi_page page = shmi_off_page((shmi_off){off});

	return shmi_sclass_attrs((shmi_sclass){shmi_load(shmi_page_class_at(&heap->env.img, page))});
}

/* Whether a block of `old` bytes is left where it is when it is to have `size`: not when it would be more than twice as large. */
static inline bool stays(size_t old, size_t size)
{
	return size <= old && (size >= old / 2 || old <= 32);
}

/* A block is left where it is while it is of the kind that is asked for, and of the right size. */
static void *resize(struct shma_heap *heap, void *block, size_t size, unsigned flags)
{
	uint64_t off = (uint64_t)(uintptr_t)block - heap->env.base;
	size_t old = size_at(heap, off);

	if (!old)
		shmi_misuse(&heap->env, SHMI_FREE_NOTHING, off);
	if (stays(old, size) && (flags & (SHMA_SCOPED | SHMA_NOSCAN)) == flags_at(heap, off))
		return block;
	void *moved = alloc_aligned(heap, size, 0, flags & ~(unsigned)SHMA_ZERO);

	if (!moved)
		return NULL;
	memcpy(moved, block, size < old ? size : old);
	if (flags & SHMA_ZERO && size > old)
		memset((char *)moved + old, 0, size - old);
	shma_free(block);
	return moved;
}

SHMA_API void *shma_heap_realloc(struct shma_heap *heap, void *block, size_t size, unsigned flags)
{
	if (!heap || flags & ~(unsigned)(SHMA_SCOPED | SHMA_NOSCAN | SHMA_ZERO | SHMA_LAZY))
		return fail(EINVAL);
	if (!block)
		return alloc_aligned(heap, size, 0, flags);
	if (shmi_heap_of(block) != heap)
		free_outside(block);
	if (size)
		return resize(heap, block, size, flags);
	shma_free(block);
	return NULL;
}

static __attribute__((noinline)) void *realloc_slow(void *block, size_t size)
{
	struct shma_heap *heap = block ? shmi_heap_of(block) : NULL;

	if (!block)
		return shma_malloc(size);
	if (!heap)
		free_outside(block);
	uint64_t off = (uint64_t)(uintptr_t)block - heap->env.base;

	if (!size_at(heap, off))
		shmi_misuse(&heap->env, SHMI_FREE_NOTHING, off);
	return shma_heap_realloc(heap, block, size, flags_at(heap, off));
}

/* A small block of the default heap, where it is or in a block that is cached. NULL: the slow way, which also says what is wrong. */
static inline void *realloc_fast(void *block, size_t size)
{
	struct shmi_tcache *tc = shmi_tls[0];
	uint64_t off = (uint64_t)(uintptr_t)block - tc->base;
	void *moved;

	if (off >= tc->bytes || size - 1 >= SHMI_SMALL_MAX)
		return NULL;
	shmi_sclass from = {shmi_load(&tc->page_class[off >> SHMI_PAGE_SHIFT])};
	size_t old = tc->env->img.classes[shmi_sclass_size_class(from)].size; /* 0: none of ours */

	if (!old)
		return NULL;
	if (stays(old, size))
		return block;
	shmi_sclass to = {(uint16_t)(shmi_sclass_of(size).c + shmi_sclass_attrs(from))};

	if (!shmi_tcache_pop(tc, to, &moved))
		return NULL;
	memcpy(moved, block, size < old ? size : old);
	shma_free(block);
	return moved;
}

SHMA_API void *shma_realloc(void *block, size_t size)
{
	void *moved = realloc_fast(block, size);

	return __builtin_expect(moved != NULL, 1) ? moved : realloc_slow(block, size);
}

SHMA_API const char *shma_version(void)
{
	return SHMALLOC_VERSION;
}
