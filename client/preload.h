/* libshmalloc-preload.so: the malloc family of an unmodified program on the default heap, in scoped blocks.
 *
 * A block is the heap's if its address lies in the heap's mapping; every other one is the C library's own, and goes back there. So
 * there is no moment at which a call must not come: before the heap is attached (in the dynamic loader), where it cannot serve, in
 * a thread that is ending, and in a child of a fork, the C library's malloc serves, and blocks of both kinds can be freed at any time.
 *
 *	preloadapi.c    the functions of C: fast paths, contracts
 *	preloadcxx.c    new and delete
 *	preload.c       attaching; slow paths, and who serves them
 *	preloadfork.c   what a child of a fork gets
 *	preloadaside.c  what a fork resets before our handler runs: streams, values of threads
 *
 * The heap is tried first. ENOMEM of it is the caller's answer; anything else (the daemon is away, the client was evicted, there is no
 * thread record left) makes the C library serve, so that an unmodified program goes on. After a wait in vain nobody waits again for
 * a while (proc->look_ns), and then not for long.
 *
 * State: attached (heap is set, bytes is not 0); left, in a child of a fork (heap is NULL, bytes is not 0: addresses of inherited
 * blocks); never attached (bytes is 0). It changes in the constructor and in the child of a fork only, where there is one thread.
 *
 * The library itself allocates with malloc nowhere, but what it calls may (pthread_setspecific does): `inside` sends that to the C
 * library.
 */
#ifndef CLIENT_PRELOAD_H
#define CLIENT_PRELOAD_H

#include <malloc.h>
#include <stdio.h>
#include <threads.h>
#include <wchar.h>

#include "client/heap.h"

#define SHMI_EXPORT __attribute__((visibility("default")))

struct shmi_preload {
	struct shma_heap *heap;
	uint64_t base, bytes; /* where the heap is mapped */
	const uint32_t *sizes; /* of inherited blocks, by page: shmi_inherited_size */
	uint32_t n_sizes;
};

/* What a thread knows. */
struct shmi_preload_self {
	unsigned inside; /* in a slow path */
	unsigned aside; /* between shmi_preload_aside and shmi_preload_back */
	bool entered; /* it has had a thread cache; if that is gone, the thread is ending */
	int64_t again_ns; /* it could not have one: when it asks again */
};

extern struct shmi_preload shmi_preload;
extern __thread struct shmi_preload_self shmi_preload_self
        __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* glibc's own functions. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static inline bool shmi_preload_is_ours(const void *block)
{
	return (uint64_t)(uintptr_t)block - shmi_preload.base < shmi_preload.bytes;
}

/* ---- preload.c ---- */

/* The slow path of all that allocates: `alignment` is a power of two or 0, `flags` 0 or SHMA_ZERO. NULL and ENOMEM. errno is kept
 * otherwise. */
void *shmi_preload_alloc(size_t size, size_t alignment, unsigned flags);

/* The slow path of free. errno is kept. */
void shmi_preload_free(void *block);

/* Usable bytes of a block of ours, inherited ones included; ends the process if none begins there. */
size_t shmi_preload_size(const void *block);

/* Gives back what can be spared. True if the process holds less than before. */
bool shmi_preload_trim(void);

/* The same functions of the next library in the order of lookup: glibc's. Found at the start, as looking takes the loader's lock, which
 * a caller may wait for, and changes what dlerror() says. */
#define SHMI_PRELOAD_NEXT(X)                                                                                           \
	X(malloc_usable_size)                                                                                          \
	X(malloc_trim)                                                                                                 \
	X(mallinfo2)                                                                                                   \
	X(pthread_setspecific)                                                                                         \
	X(tss_set)                                                                                                     \
	X(fopen)                                                                                                       \
	X(fopen64)                                                                                                     \
	X(fdopen)                                                                                                      \
	X(popen)                                                                                                       \
	X(tmpfile)                                                                                                     \
	X(tmpfile64)                                                                                                   \
	X(fmemopen)                                                                                                    \
	X(open_memstream)                                                                                              \
	X(open_wmemstream)                                                                                             \
	X(fopencookie)
#define SHMI_PRELOAD_FIELD(name) __typeof__ (&(name))(name);
struct shmi_preload_next {
	SHMI_PRELOAD_NEXT(SHMI_PRELOAD_FIELD)
};
const struct shmi_preload_next *shmi_preload_next(void);

/* Between the two whatever the thread allocates comes from the C library, and what it frees goes where it belongs, though slowly; so
 * it stays if a signal handler jumps out from between them. */
struct shmi_tcache *shmi_preload_aside(void);
void shmi_preload_back(struct shmi_tcache *tc);

/* ---- preloadfork.c ---- */

/* Before anybody else asks for it: so our handler is the last before a fork, and the first after it. */
void shmi_preload_watch_forks(void);

/* The process came about by a clone that ran no fork handlers: one line, and the end. */
_Noreturn void shmi_preload_cloned(void);

/* Usable bytes of the inherited block that begins on `page`; ends the process if none does. */
size_t shmi_inherited_size(uint32_t page);

#endif
