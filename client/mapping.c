/* The memory of an attached heap: the three shared objects and the private maps beside them. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/heap.h"

#define MEET_SHIFT 16u /* 64 KiB: the system maps so many bytes around a page that is read, by its usual setting */

void *shmi_wiped_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (madvise(p, bytes, MADV_WIPEONFORK) == 0)
		return p;
	(void)munmap(p, bytes);
	return NULL;
}

/* A core dump of one process would have, and fault in, what all have. Without effect where the system knows no such advice. */
static void *no_core(void *p, uint64_t bytes)
{
	if (p != MAP_FAILED)
		(void)madvise(p, bytes, MADV_DONTDUMP);
	return p;
}

static void *map_shared(int fd, uint64_t bytes, int prot)
{
	return no_core(mmap(NULL, bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0), bytes);
}

/* Where there is room: as blocks are aligned by their offsets, the mapping is as far as a caller can ask for. */
static void *map_data_anywhere(int fd, uint64_t bytes)
{
	uint64_t align = SHMI_ARENA_PAGES * SHMI_PAGE_SIZE;
	char *room = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (room == MAP_FAILED)
		return MAP_FAILED;
	uint64_t lead = -(uint64_t)(uintptr_t)room & (align - 1);
	void *p = mmap(room + lead, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);

	if (p == MAP_FAILED) {
		(void)munmap(room, bytes + align);
		return p;
	}
	if (lead)
		(void)munmap(room, lead);
	(void)munmap(room + lead + bytes, align - lead);
	return p;
}

/* At the address `at`, where everybody else has it, or where there is room. */
static void *map_data(int fd, uint64_t bytes, uint64_t at)
{
	void *hint = (void *)(uintptr_t)at; /* cast: an address that the daemon chose */

#ifdef __SANITIZE_THREAD__ /* which turns a hint outside its address ranges into address 0 */
	return map_data_anywhere(fd, bytes);
#endif
	void *p = mmap(hint, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, fd, 0);

	if (p == hint)
		return p;
	if (p != MAP_FAILED) /* a kernel that does not know the flag */
		(void)munmap(p, bytes);
	return map_data_anywhere(fd, bytes);
}

static int image_errno(int error)
{
	return error == SHMI_E_IMAGE_VERSION ? EPROTO : error ? EIO : 0;
}

/* Maps the three objects. What is mapped when an error is returned is unmapped by shmi_heap_drop. */
static int map_objects(struct shma_heap *heap, const int *fds, const struct wire_attach_ok *ok)
{
	struct stat meta, ctl, data;
	void *m, *c, *d;

	if (fstat(fds[0], &meta) != 0 || fstat(fds[1], &ctl) != 0 || fstat(fds[2], &data) != 0)
		return errno;
	if ((uint64_t)meta.st_size < ok->meta_bytes || (uint64_t)ctl.st_size < ok->ctl_bytes ||
	        (uint64_t)data.st_size < ok->data_bytes)
		return EIO;
	m = map_shared(fds[0], ok->meta_bytes, PROT_READ);
	if (m == MAP_FAILED)
		return errno;
	heap->env.img.meta = m;
	heap->env.img.geo.meta_bytes = ok->meta_bytes;
	c = map_shared(fds[1], ok->ctl_bytes, PROT_READ | PROT_WRITE);
	if (c == MAP_FAILED)
		return errno;
	int error = image_errno(shmi_image_open(&heap->env.img, m, ok->meta_bytes, c, ok->ctl_bytes));

	if (error) {
		heap->env.img.ctl = NULL; /* how long it is may not be known */
		(void)munmap(c, ok->ctl_bytes);
		return error;
	}
	if ((uint64_t)heap->env.img.geo.limit_pages << SHMI_PAGE_SHIFT > ok->data_bytes)
		return EIO;
	d = no_core(map_data(fds[2], ok->data_bytes, ok->base), ok->data_bytes);
	if (d == MAP_FAILED)
		return errno;
	if (shmi_load(&heap->env.img.super->advice) & SHMI_ADVICE_HUGE)
		(void)madvise(d, ok->data_bytes, MADV_HUGEPAGE); /* without effect where the system has none */
	heap->env.base = (uint64_t)(uintptr_t)d;
	heap->meta_dev = meta.st_dev;
	heap->meta_ino = meta.st_ino;
	return 0;
}

static uint64_t data_bytes(const struct shma_heap *heap)
{
	return (uint64_t)heap->env.img.geo.limit_pages << SHMI_PAGE_SHIFT;
}

static uint64_t bitmap_bytes(const struct shma_heap *heap)
{
	return ((uint64_t)heap->env.img.geo.limit_pages + 63) / 64 * 8;
}

static uint64_t met_bytes(const struct shma_heap *heap)
{
	return ((data_bytes(heap) >> MEET_SHIFT) + 64) / 64 * 8;
}

static uint64_t held_bytes(const struct shma_heap *heap)
{
	return (uint64_t)heap->env.img.geo.limit_pages * sizeof(struct shmi_held);
}

/* The private maps, one node or bit per page: address space, touched where the process has spans. */
static int map_private(struct shma_heap *heap)
{
	heap->env.held = shmi_wiped_map(held_bytes(heap));
	heap->env.own_scoped = shmi_wiped_map(bitmap_bytes(heap));
	heap->met = shmi_wiped_map(met_bytes(heap));
	return heap->env.held && heap->env.own_scoped && heap->met ? 0 : ENOMEM;
}

/* Maps what is there, by a call that fails where a load would be a SIGBUS: the daemon may have taken the pages back meanwhile, if we were
 * stopped for long (shm/seize.h), and the system may have none left. Where it is not known, pages are mapped as they are used. */
static void populate(const struct shma_heap *heap, uint64_t from, uint64_t to)
{
#ifdef MADV_POPULATE_READ
	if (from < to)
		(void)madvise((void *)(uintptr_t)(heap->env.base + from), to - from, MADV_POPULATE_READ);
#else
	(void)heap, (void)from, (void)to;
#endif
}

/* A bit may be set though the pages are not mapped, as the system has taken them back since and we were not told: they cost what they
 * cost without this then. */
void shmi_heap_meet(const struct shma_heap *heap, uint32_t page, uint32_t pages, bool fresh)
{
	uint64_t at = shmi_page_off((shmi_page){page}).b, end = at + shmi_npages_bytes((shmi_npages){pages}), next;
	uint64_t from = at; /* what is to be mapped at once */

	for (; at < end; at = next) {
		shmi_a64 *word = &heap->met[at >> (MEET_SHIFT + 6)];
		uint64_t bit = 1ull << (at >> MEET_SHIFT & 63);

		next = ((at >> MEET_SHIFT) + 1) << MEET_SHIFT;
		if (!fresh && shmi_load(word) & bit) {
			populate(heap, from, at);
			from = next;
		} else {
			(void)shmi_fetch_or(word, bit);
		}
	}
	populate(heap, from, end);
}

int shmi_heap_map(struct shma_heap *heap, const int *fds, const struct wire_attach_ok *ok)
{
	int error = map_objects(heap, fds, ok);

	return error ? error : map_private(heap);
}

static void unmap(void *p, uint64_t bytes)
{
	if (p)
		(void)munmap(p, bytes);
}

static size_t lease_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* Of the ids that we hold leases of none can be another's: the places do not collide. */
int shmi_heap_lease(struct shma_heap *heap, uint32_t client, int fd)
{
	size_t page = lease_bytes();

	if (!heap->leases) {
		void *room = mmap(
		        NULL, SHMI_MAX_CLIENTS * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (room == MAP_FAILED)
			return ENOMEM;
		heap->leases = room;
	}
	void *at = heap->leases + client * page;

	return mmap(at, page, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, 0) == at ? 0 : ENOMEM;
}

void *shmi_heap_own_page(struct shma_heap *heap)
{
	void *at = (void *)(uintptr_t)heap->env.base;

	if (!heap->own_page &&
	        mmap(at, SHMI_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		return NULL;
	heap->own_page = true;
	return at;
}

void shmi_heap_unlease(struct shma_heap *heap)
{
	if (heap->env.base)
		(void)munmap((void *)(uintptr_t)heap->env.base, data_bytes(heap));
	unmap(heap->leases, SHMI_MAX_CLIENTS * lease_bytes());
	heap->env.base = 0;
	heap->leases = NULL;
}

/* Undoes what shmi_heap_new and the two functions above have done so far. */
void shmi_heap_drop(struct shma_heap *heap)
{
	shmi_heap_unlease(heap);
	unmap(heap->env.held, held_bytes(heap));
	unmap(heap->env.own_scoped, bitmap_bytes(heap));
	unmap(heap->met, met_bytes(heap));
	unmap(heap->env.img.ctl, heap->env.img.geo.ctl_bytes);
	unmap(heap->env.img.meta, heap->env.img.geo.meta_bytes);
	shmi_sock_close(&heap->last_sock);
	unmap(heap->proc, sizeof(*heap->proc));
	unmap(heap->buffers, sizeof(*heap->buffers));
	(void)munmap(heap, sizeof(*heap));
}

/* Not from malloc: under a preloaded library that would be us. */
struct shma_heap *shmi_heap_new(const struct shmi_target *t, uint32_t index)
{
	struct shma_heap *heap = mmap(NULL, sizeof(*heap), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *harden = shmi_env("SHMALLOC_HARDEN"), *debug = shmi_env("SHMALLOC_DEBUG");

	if (heap == MAP_FAILED)
		return NULL;
	heap->last_sock.fd = -1;
	heap->index = index;
	heap->refs = 1;
	heap->timeout_ms = t->timeout_ms;
	memcpy(heap->socket, t->socket, sizeof(heap->socket));
	memcpy(heap->name, t->name, sizeof(heap->name));
	memcpy(heap->label, t->label, sizeof(heap->label));
	heap->env.harden = harden && strcmp(harden, "0") != 0;
	heap->debug = debug && strcmp(debug, "0") != 0;
	heap->env.ops = &shmi_ops;
	heap->env.ctx = heap;
	heap->proc = shmi_wiped_map(sizeof(*heap->proc));
	heap->buffers = mmap(NULL, sizeof(*heap->buffers), PROT_READ | PROT_WRITE,
	        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (heap->buffers == MAP_FAILED)
		heap->buffers = NULL;
	if (heap->proc && heap->buffers)
		return heap;
	shmi_heap_drop(heap);
	return NULL;
}
