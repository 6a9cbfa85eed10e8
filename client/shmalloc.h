/* libshmalloc: memory that several processes share, allocated like one's own.
 *
 * A heap belongs to a daemon, shmallocd. A process attaches to it over a Unix socket and then allocates from thread caches,
 * without a lock and without a system call; its blocks can be used and freed by every process attached to the same heap.
 *
 *	#include <shmalloc.h>
 *
 *	struct job *job = shma_malloc(sizeof(*job));     // attaches at first use, by environment
 *	shma_root_set(shma_default(), "jobs", job);      // another process: shma_root_get(shma_default(), "jobs")
 *	...
 *	shma_free(job);                                  // in any process
 *
 * Lifetime: a block lives until somebody frees it, whoever made it being long gone; with SHMA_SCOPED it goes with the
 * process that made it. So another process may use or free a scoped block only as long as it can be sure that this process
 * lives: once it is dead the block is freed, and a free that comes later is a double one. Hand over shared blocks.
 *
 * Pointers: every process maps a heap at the same address, so raw pointers can be passed on, unless that place was taken:
 * then shma_stats.at_base is 0 in that process and only offsets (shma_to_off, shma_from_off) are good.
 *
 * Errors: NULL or -1 and errno, as the C library does. ENOMEM: the heap, /dev/shm or a limit is full. EAGAIN: the daemon did
 * not answer within timeout_ms. The library prints nothing and never aborts, save on a corrupted heap and on an invalid or
 * double free that it recognises: then one line on standard error, and abort().
 *
 * Threads: every function may be called from any thread, in destructors too. None is async-signal-safe.
 * fork: the child shares the blocks and attaches as a client of its own at its first call that needs one; the parent's scoped
 * blocks live until both are gone. exec ends the use.
 *
 * Environment: SHMALLOC_SOCKET, SHMALLOC_HEAP (where options are silent), SHMALLOC_HARDEN=1 (check every free at once),
 * SHMALLOC_DEBUG=1 (one line per message to the daemon on standard error).
 */
#ifndef SHMALLOC_H
#define SHMALLOC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHMA_API __attribute__((visibility("default")))
#define SHMA_MALLOC __attribute__((malloc, warn_unused_result))
#define SHMA_SIZE(n) __attribute__((alloc_size(n)))
#define SHMA_SIZE2(n, m) __attribute__((alloc_size(n, m)))
#else
#define SHMA_API
#define SHMA_MALLOC
#define SHMA_SIZE(n)
#define SHMA_SIZE2(n, m)
#endif

typedef struct shma_heap shma_heap; /* an attached heap */
typedef uint64_t shma_off; /* a reference that is good at any mapping address; 0 is none */

enum {
	SHMA_SCOPED = 1 << 0, /* the daemon frees it when this process ends, however it ends */
	SHMA_NOSCAN = 1 << 1, /* the block holds no references to other blocks */
	SHMA_ZERO = 1 << 2, /* zero-filled */
	SHMA_LAZY = 1 << 3 /* blocks over 256 KiB: backed on touch, not before; a full /dev/shm is then a SIGBUS */
};

/* Zero-initialised = defaults; `size` comes first, for later growth. */
struct shma_options {
	size_t size; /* sizeof(struct shma_options) */
	const char *socket; /* default $SHMALLOC_SOCKET, else $XDG_RUNTIME_DIR/shmalloc/shmalloc.sock or
	                       /tmp/shmalloc-UID/shmalloc.sock (in a directory of one's own) if it is there, else
	                       /run/shmalloc/shmalloc.sock */
	const char *heap; /* default $SHMALLOC_HEAP, else "default" */
	const char *label; /* what statistics call this client; default: the program's name */
	int timeout_ms; /* the longest wait for the daemon; 0 = default 5000, -1 = for ever */
};

/* Bytes unless said otherwise. Filled as far as the caller's `size` goes. */
struct shma_stats {
	size_t size; /* sizeof(struct shma_stats), set by the caller */
	uint64_t limit; /* of the heap */
	uint64_t backed; /* = owned + central + free */
	uint64_t owned; /* in spans that clients hold */
	uint64_t central; /* in spans that nobody holds */
	uint64_t free; /* backed and free */
	uint64_t peak_backed;
	uint64_t process_owned; /* in spans that this process holds */
	uint64_t messages; /* requests that this process has sent to the daemon (a count) */
	uint64_t base; /* address at which this process has the heap */
	uint32_t at_base; /* 1: at the same address as everybody else */
	uint32_t client; /* id of this process */
	uint64_t refills; /* times that this process has waited for more spans of blocks (a count) ... */
	uint64_t refill_us_sum, refill_us_max; /* ... for how many microseconds, in all and at the longest ... */
	uint64_t refill_us_p50,
	        refill_us_p99; /* ... and 50 and 99 of 100 times at most, rounded up to a power of two */
};

/* Attaches to a heap; options may be NULL. Waits up to timeout_ms for the daemon. Returns NULL and errno: ENOENT or
 * ECONNREFUSED (no daemon), EACCES (not allowed, or evicted), EPROTO (another version), ENXIO (no heap of that name), EIO (a damaged heap), EINVAL,
 * ENAMETOOLONG (socket or heap name), EMFILE (16 heaps are attached already), ENOMEM, EAGAIN.
 * Attaching to a heap that this process has already gives the same handle, counted. */
SHMA_API shma_heap *shma_attach(const struct shma_options *options);

/* Ends one shma_attach; with the last, the process's caches and scoped blocks go back and the memory is unmapped. No other
 * thread may be using the heap; those that have used it may live on, or end just then. What came from the heap, the default one too, must not
 * be used or freed here after the last shma_detach. Returns 0 or -1 and errno. */
SHMA_API int shma_detach(shma_heap *heap);

/* The heap of shma_malloc and the functions beside it; attached at first use. That counts as one shma_attach if the heap was not attached
 * already, else as none: then the last shma_detach of others unmaps it. NULL and errno as shma_attach. */
SHMA_API shma_heap *shma_default(void);

/* From the default heap, aligned to 16 bytes. A size of 0 gives a block that can be freed. */
SHMA_API void *shma_malloc(size_t size) SHMA_MALLOC SHMA_SIZE(1);
SHMA_API void *shma_calloc(size_t count, size_t size) SHMA_MALLOC SHMA_SIZE2(1, 2);

/* The block may move; on failure it stays as it is. The heap, lifetime and noscan attribute of `block` are kept. With
 * NULL as shma_malloc; with a size of 0 the block is freed and NULL returned. */
SHMA_API void *shma_realloc(void *block, size_t size) SHMA_SIZE(2);

/* `alignment` is a power of two (else EINVAL), at most 64 MiB (else ENOMEM). */
SHMA_API void *shma_aligned_alloc(size_t alignment, size_t size) SHMA_SIZE(2);

/* A block of any attached heap, made by any process; NULL does nothing. errno is kept. */
SHMA_API void shma_free(void *block);

/* Bytes that may be used in `block`, at least what was asked for; 0 for NULL. */
SHMA_API size_t shma_usable_size(const void *block);

/* From `heap`; `alignment` 0 is 16. A realloc gives a block of the kind that `flags` say, whatever `block` was; with SHMA_ZERO what
 * is added beyond its old usable size is zero. */
SHMA_API void *shma_heap_alloc(shma_heap *heap, size_t size, size_t alignment, unsigned flags);
SHMA_API void *shma_heap_realloc(shma_heap *heap, void *block, size_t size, unsigned flags);

/* A reference to pass on to a process that may have the heap elsewhere. 0 for NULL and for what is in no heap. */
SHMA_API shma_off shma_to_off(const void *block);

/* NULL and EINVAL if `off` is outside the heap; NULL for 0. */
SHMA_API void *shma_from_off(shma_heap *heap, shma_off off);

/* The attached heap in whose address range `block` lies; NULL if it is in none. */
SHMA_API shma_heap *shma_heap_of(const void *block);

/* A page of 8 KiB at the heap's base that is this process's own, while all else there is shared. So a pointer to it that lies in a block
 * is good in every process that has the heap at its base, and leads each to bytes of its own: for what cannot be shared, such as
 * addresses of code. Zeros at first; every call gives the same page, a child of a fork has a copy of it, the last shma_detach unmaps
 * it. Before its first call a process has nothing there that it could use. NULL and errno (ENOMEM, EINVAL; ENOTSUP where the system's
 * pages are longer). shmalloc.hpp uses the first 256 bytes. */
SHMA_API void *shma_own_page(shma_heap *heap);

/* Named roots: how processes find the first block. Names are 1 to 95 bytes. A root does not keep its block alive.
 * set: 0, or -1 and errno (EINVAL, ENOSPC when all 1024 are taken, EAGAIN: it may take effect later); replaces.
 * add: the same, but EEXIST if the name is taken: of processes that add it at once one gets 0. After EAGAIN, as after that of a set,
 * the block must stay until another request to the daemon has been answered and a get says whose the name is.
 * get: NULL and ENOENT.
 * del: 0, or -1 and ENOENT. */
SHMA_API int shma_root_set(shma_heap *heap, const char *name, const void *block);
SHMA_API int shma_root_add(shma_heap *heap, const char *name, const void *block);
SHMA_API void *shma_root_get(shma_heap *heap, const char *name);
SHMA_API int shma_root_del(shma_heap *heap, const char *name);

/* Gives back what this process's caches hold: at once what the calling thread and the process hold, the other threads'
 * share when they next run out of blocks; and what the daemon grants to a call that has given up waiting for it. Returns 0 or -1 and
 * errno. */
SHMA_API int shma_trim(shma_heap *heap);

/* Returns 0 or -1 and EINVAL. Sends no message. */
SHMA_API int shma_stats_get(shma_heap *heap, struct shma_stats *stats);

/* "0.1.0" */
SHMA_API const char *shma_version(void);

#ifdef __cplusplus
}
#endif
#endif
