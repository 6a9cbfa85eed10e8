/* malloc and its family, as the C library defines them: a request of 0 bytes gives a block, alignment is 16 at least, free keeps errno,
 * realloc to 0 bytes frees. What glibc of a version does beyond the standard is as in its manual: an alignment that is no power of two
 * is rounded up, but by posix_memalign. */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/preload.h"

/* ---- allocation ---- */

static inline bool pop(size_t size, void **block)
{
	shmi_sclass sclass = {(uint16_t)(shmi_sclass_of(size).c + SHMI_SCOPED)};

	/* A large block's class has no magazine. */
	return __builtin_expect(shmi_tcache_pop(shmi_tls[0], sclass, block), 1);
}

SHMI_EXPORT void *malloc(size_t size)
{
	void *block;

	return pop(size, &block) ? block : shmi_preload_alloc(size, 0, 0);
}

SHMI_EXPORT void *calloc(size_t count, size_t size)
{
	size_t bytes;
	void *block;

	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return pop(bytes, &block) ? memset(block, 0, bytes) : shmi_preload_alloc(bytes, 0, SHMA_ZERO);
}

SHMI_EXPORT void *memalign(size_t alignment, size_t size)
{
	size_t rounded = 16;

	if (alignment > SIZE_MAX / 2 + 1) {
		errno = EINVAL;
		return NULL;
	}
	while (rounded < alignment)
		rounded *= 2;
	return rounded == 16 ? malloc(size) : shmi_preload_alloc(size, rounded, 0);
}

SHMI_EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

SHMI_EXPORT int posix_memalign(void **to, size_t alignment, size_t size)
{
	int keep = errno;

	if (!alignment || alignment % sizeof(void *) || alignment & (alignment - 1))
		return EINVAL;
	void *block = memalign(alignment, size);

	errno = keep;
	if (!block)
		return ENOMEM;
	*to = block;
	return 0;
}

SHMI_EXPORT void *valloc(size_t size)
{
	return memalign((size_t)sysconf(_SC_PAGESIZE), size);
}

SHMI_EXPORT void *pvalloc(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes;

	if (__builtin_add_overflow(size, page - 1, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return memalign(page, bytes & ~(page - 1));
}

/* ---- free, realloc ---- */

SHMI_EXPORT void free(void *block)
{
	if (__builtin_expect(!shmi_tcache_push(shmi_tls[0], block), 0))
		shmi_preload_free(block);
}

/* Whether a block of `old` bytes is left where it is when it is to have `size`, as in shma_realloc. */
static bool stays(size_t old, size_t size)
{
	return size <= old && (size >= old / 2 || old <= 32);
}

/* Of a small block, if the thread has a cache; else 0. */
static inline size_t small_size(const void *block)
{
	const struct shmi_tcache *tc = shmi_tls[0];
	uint64_t off = (uint64_t)(uintptr_t)block - tc->base;

	if (off >= tc->bytes)
		return 0;
	shmi_sclass sclass = {shmi_load(&tc->page_class[off >> SHMI_PAGE_SHIFT])};

	return tc->env->img.classes[shmi_sclass_size_class(sclass)].size;
}

SHMI_EXPORT void *realloc(void *block, size_t size)
{
	if (!block)
		return malloc(size);
	if (!shmi_preload_is_ours(block))
		return __libc_realloc(block, size);
	size_t old = small_size(block);

	if (!old)
		old = shmi_preload_size(block);

	if (!size) {
		free(block);
		return NULL;
	}
	if (stays(old, size))
		return block;
	void *moved = malloc(size);

	if (!moved)
		return size <= old ? block : NULL;
	memcpy(moved, block, size < old ? size : old);
	free(block);
	return moved;
}

SHMI_EXPORT void *reallocarray(void *block, size_t count, size_t size)
{
	size_t bytes;

	if (!__builtin_mul_overflow(count, size, &bytes))
		return realloc(block, bytes);
	errno = ENOMEM;
	return NULL;
}

/* ---- figures ---- */

SHMI_EXPORT size_t malloc_usable_size(void *block)
{
	if (block && shmi_preload_is_ours(block))
		return shmi_preload_size(block);
	return shmi_preload_next()->malloc_usable_size(block);
}

SHMI_EXPORT int malloc_trim(size_t pad)
{
	bool ours = shmi_preload_trim();

	return shmi_preload_next()->malloc_trim(pad) || ours;
}

/* glibc's figures, and what the process holds in the heap: all of that counts as used. */
SHMI_EXPORT struct mallinfo2 mallinfo2(void)
{
	struct mallinfo2 (*next)(void) = shmi_preload_next()->mallinfo2; /* an old C library has none */
	struct mallinfo2 info = next ? next() : (struct mallinfo2){0};
	struct shma_stats stats = {.size = sizeof(stats)};

	if (shmi_preload.heap && shma_stats_get(shmi_preload.heap, &stats) == 0) {
		info.arena += stats.process_owned;
		info.uordblks += stats.process_owned;
	}
	return info;
}

static int narrow(size_t n)
{
	return n > INT32_MAX ? INT32_MAX : (int)n;
}

SHMI_EXPORT struct mallinfo mallinfo(void)
{
	struct mallinfo2 wide = mallinfo2();

	return (struct mallinfo){.arena = narrow(wide.arena),
	        .ordblks = narrow(wide.ordblks),
	        .smblks = narrow(wide.smblks),
	        .hblks = narrow(wide.hblks),
	        .hblkhd = narrow(wide.hblkhd),
	        .usmblks = narrow(wide.usmblks),
	        .fsmblks = narrow(wide.fsmblks),
	        .uordblks = narrow(wide.uordblks),
	        .fordblks = narrow(wide.fordblks),
	        .keepcost = narrow(wide.keepcost)};
}
