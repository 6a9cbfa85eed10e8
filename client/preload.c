#include "client/preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/chan.h"

#define TIMEOUT_MS 1000 /* unless $SHMALLOC_TIMEOUT_MS says otherwise */
#define HURRY_MS 10 /* the longest wait while the daemon is away */
#define AGAIN_NS 200000000ll /* a thread that could not have a cache asks again after that */
#define ALIGN_MOST (64 * SHMI_MIB) /* what is aligned further comes from the C library */

struct shmi_preload shmi_preload;
__thread struct shmi_preload_self shmi_preload_self;

/* Who calls before the start, if anybody does, looks then; all find the same. */
const struct shmi_preload_next *shmi_preload_next(void)
{
	static struct shmi_preload_next next;
	static shmi_a32 found;

	if (shmi_load_acquire(&found))
		return &next;
#define FIND(name) next.name = (__typeof__(next.name))dlsym(RTLD_NEXT, #name);
	SHMI_PRELOAD_NEXT(FIND)
#undef FIND
	shmi_store_release(&found, 1);
	return &next;
}

/* ---- attaching ---- */

/* Where there is no socket nothing is waited for: each program that is started would wait anew. One that is there and does not
 * answer belongs to a daemon that comes back. */
static struct shma_heap *attach(const char *label)
{
	struct shma_options options = {.size = sizeof(options),
	        .label = shmi_env("SHMALLOC_LABEL"),
	        .timeout_ms = shmi_env_timeout_ms(TIMEOUT_MS)};
	struct shmi_target target;

	if (!options.label)
		options.label = label;
	if (shmi_target_resolve(&options, &target) != 0 || access(target.socket, F_OK) != 0)
		return NULL;
	return shma_attach(&options);
}

/* Run before all other constructors (-z initfirst), the C library's included: what that sets up for us is missing yet. */
static __attribute__((constructor)) void start(int argc, char **argv, char **envp)
{
	const char *name = argc > 0 && argv[0] ? argv[0] : "";
	const char *slash = strrchr(name, '/'), *debug;
	int keep = errno;

	if (!environ)
		environ = envp;
	/* glibc's malloc sets itself up here, and not in a thread whose cancellation would cut that short. */
	__libc_free(__libc_malloc(1));
	(void)shmi_preload_next();
	shmi_preload_watch_forks();
	shmi_preload_self.inside++;
	struct shma_heap *heap = attach(slash ? slash + 1 : name);

	shmi_place_0_closed = true; /* what the program attaches later, or after a fork, is not where malloc looks */
	shmi_preload_self.inside--;
	debug = shmi_env("SHMALLOC_DEBUG");
	if (heap) {
		heap->hurry_ms = HURRY_MS;
		shmi_preload.base = heap->env.base;
		shmi_preload.bytes = shmi_npages_bytes((shmi_npages){heap->env.img.geo.limit_pages});
		shmi_preload.heap = heap;
	} else if (debug && strcmp(debug, "0") != 0) {
		(void)dprintf(STDERR_FILENO,
		        "shmalloc: %d: no heap, so the C library's is used: is shmallocd running?\n", (int)getpid());
	}
	errno = keep;
}

/* ---- who serves ---- */

/* In the library nothing must end the thread: malloc is no point of cancellation. */
static void go_in(int *cancel)
{
	shmi_preload_self.inside++;
	(void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, cancel);
}

static void come_out(int cancel)
{
	(void)pthread_setcancelstate(cancel, &cancel);
	shmi_preload_self.inside--;
}

struct shmi_tcache *shmi_preload_aside(void)
{
	struct shmi_tcache *tc = shmi_tls[0];

	shmi_tls[0] = &shmi_tcache_none;
	shmi_preload_self.aside++;
	return tc;
}

void shmi_preload_back(struct shmi_tcache *tc)
{
	shmi_preload_self.aside--;
	shmi_tls[0] = tc;
}

/* Whether the daemon may be asked, as far as one knows: what is read without the lock may be a moment old. */
static bool may_ask(const struct shma_heap *heap)
{
	int64_t look = shmi_load(&heap->proc->look_ns);

	return !look || shmi_chan_now_ns() >= look;
}

/* Whether the thread has a cache. One is made once: a thread whose cache is gone is in its last destructors, and what it made there
 * would stay until the process ends. */
static bool has_cache(struct shma_heap *heap, bool to_free)
{
	struct shmi_preload_self *self = &shmi_preload_self;
	int error;

	if (shmi_tls[0]->env)
		return true;
	if (!shmi_load_acquire(&heap->proc->attached))
		shmi_preload_cloned();
	if (self->entered || self->aside || (self->again_ns && shmi_chan_now_ns() < self->again_ns) ||
	        (!to_free && !may_ask(heap)))
		return false;
	self->entered = shmi_thread_cache(heap, SHMI_SCOPED, to_free, &error) != NULL;
	self->again_ns = self->entered ? 0 : shmi_chan_now_ns() + AGAIN_NS;
	return self->entered;
}

static void *from_libc(size_t size, size_t alignment, unsigned flags)
{
	if (alignment <= 16)
		return flags & SHMA_ZERO ? __libc_calloc(1, size) : __libc_malloc(size);
	return __libc_memalign(alignment, size); /* nobody asks for zeros that are aligned further */
}

void *shmi_preload_alloc(size_t size, size_t alignment, unsigned flags)
{
	struct shma_heap *heap = shmi_preload.heap;
	int cancel, error = EAGAIN, keep = errno;
	void *block = NULL;

	if (!heap || shmi_preload_self.inside || shmi_preload_self.aside || alignment > ALIGN_MOST)
		return from_libc(size, alignment, flags);
	go_in(&cancel);
	if (has_cache(heap, false) && may_ask(heap)) {
		block = shma_heap_alloc(heap, size, alignment, SHMA_SCOPED | flags);
		error = block ? 0 : errno;
	}
	come_out(cancel);
	errno = error == ENOMEM ? ENOMEM : keep;
	return error && error != ENOMEM ? from_libc(size, alignment, flags) : block;
}

/* ---- free, sizes ---- */

/* Without a cache: into the bitmap. From inside, large blocks stay: their locks may be held by this thread. */
static void free_bare(struct shma_heap *heap, const void *block)
{
	uint64_t off = (uint64_t)(uintptr_t)block - heap->env.base;
	enum shmi_tc_free what = shmi_tcache_free_bare(&heap->env, off);

	if (what == SHMI_FREE_LARGE)
		what = shmi_preload_self.inside > 1 ? SHMI_FREED : shmi_large_free(heap, off);
	if (what != SHMI_FREED)
		shmi_misuse(&heap->env, what, off);
}

void shmi_preload_free(void *block)
{
	struct shma_heap *heap = shmi_preload.heap;
	int cancel, keep = errno;

	if (!shmi_preload_is_ours(block)) {
		__libc_free(block);
	} else if (heap) { /* else it is inherited, and nobody needs the place */
		go_in(&cancel);
		if (shmi_preload_self.inside == 1 && has_cache(heap, true))
			shma_free(block);
		else
			free_bare(heap, block);
		come_out(cancel);
	}
	errno = keep;
}

size_t shmi_preload_size(const void *block)
{
	struct shma_heap *heap = shmi_preload.heap;
	uint64_t off = (uint64_t)(uintptr_t)block - shmi_preload.base;
	size_t size;

	if (!heap)
		return shmi_inherited_size(shmi_off_page((shmi_off){off}).i);
	size = shma_usable_size(block);
	if (!size)
		shmi_misuse(&heap->env, SHMI_FREE_NOTHING, off);
	return size;
}

static uint64_t held(struct shma_heap *heap)
{
	return shmi_owner_at(&heap->env.img, heap->proc->client)->pages;
}

bool shmi_preload_trim(void)
{
	struct shma_heap *heap = shmi_preload.heap;
	bool less = false;
	int cancel, keep = errno;

	if (!heap || shmi_preload_self.inside)
		return false;
	go_in(&cancel);
	if (has_cache(heap, false) && may_ask(heap)) {
		uint64_t before = held(heap);

		less = shma_trim(heap) == 0 && held(heap) < before;
	}
	come_out(cancel);
	errno = keep;
	return less;
}
