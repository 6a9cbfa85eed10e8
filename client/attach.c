/* Attaching to a heap and leaving it; the table of this process's heaps. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/heap.h"
#include "proto/chan.h"

struct shma_heap *_Atomic shmi_heaps[SHMI_MAX_HEAPS];

/* In a page that a fork wipes, so that a child finds them unlocked. */
struct locks {
	pthread_mutex_t table; /* guards the table, attach and detach */
	pthread_rwlock_t mapped; /* read-locked by a thread that ends; write-locked while a heap is left */
};

static struct locks *_Atomic locks;

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

/* Made at first use; where there is no memory for it just now, at the next. */
static int lock_table(void)
{
	struct locks *have = shmi_load_acquire(&locks), *made = have ? have : shmi_wiped_map(sizeof(*made));

	if (!have && made && !shmi_exchange_if(&locks, &have, made)) {
		(void)munmap(made, sizeof(*made)); /* another thread was faster */
		made = have;
	}
	return made ? pthread_mutex_lock(&made->table) : ENOMEM;
}

static void unlock_table(void)
{
	(void)pthread_mutex_unlock(&locks->table);
}

void shmi_heaps_hold(void)
{
	(void)pthread_rwlock_rdlock(&locks->mapped);
}

void shmi_heaps_release(void)
{
	(void)pthread_rwlock_unlock(&locks->mapped);
}

/* ---- what to attach to ---- */

/* The environment of a set-user-id program is its caller's: not to be followed. */
static const char *env(const char *name)
{
	const char *value = secure_getenv(name);

	return value && *value ? value : NULL;
}

/* Returns 0, or ENAMETOOLONG. */
static int copy(char *to, size_t room, const char *from)
{
	return (size_t)snprintf(to, room, "%s", from) < room ? 0 : ENAMETOOLONG;
}

static int default_socket(char *path)
{
	const char *given = env("SHMALLOC_SOCKET"), *runtime = env("XDG_RUNTIME_DIR");

	if (given)
		return copy(path, SHMI_PATH_MAX, given);
	if (runtime && (size_t)snprintf(path, SHMI_PATH_MAX, "%s/shmalloc/shmalloc.sock", runtime) < SHMI_PATH_MAX &&
	        access(path, F_OK) == 0)
		return 0;
	return copy(path, SHMI_PATH_MAX, "/run/shmalloc/shmalloc.sock");
}

struct target {
	char socket[SHMI_PATH_MAX], name[WIRE_NAME], label[WIRE_NAME];
	int timeout_ms;
};

static int resolve(const struct shma_options *given, struct target *t)
{
	struct shma_options o = {0};
	int error;

	if (given) {
		if (given->size < offsetof(struct shma_options, socket) + sizeof(o.socket))
			return EINVAL;
		memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
		if (o.timeout_ms < -1)
			return EINVAL;
	}
	error = o.socket ? copy(t->socket, sizeof(t->socket), o.socket) : default_socket(t->socket);
	if (!error)
		error = copy(t->name, sizeof(t->name),
		        o.heap                 ? o.heap
		        : env("SHMALLOC_HEAP") ? env("SHMALLOC_HEAP")
		                               : "default");
	(void)snprintf(t->label, sizeof(t->label), "%s", o.label ? o.label : program_invocation_short_name);
	t->timeout_ms = o.timeout_ms ? o.timeout_ms : 5000;
	return error;
}

/* ---- mappings ---- */

static void *map_shared(int fd, uint64_t bytes, int prot)
{
	return mmap(NULL, bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);
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

/* Maps the three objects. What is mapped when an error is returned is unmapped by drop_heap. */
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
	d = map_data(fds[2], ok->data_bytes, ok->base);
	if (d == MAP_FAILED)
		return errno;
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

static uint64_t held_bytes(const struct shma_heap *heap)
{
	return (uint64_t)heap->env.img.geo.limit_pages * sizeof(struct shmi_held);
}

/* The private maps, one node or bit per page: address space, touched where the process has spans. */
static int map_private(struct shma_heap *heap)
{
	heap->env.held = shmi_wiped_map(held_bytes(heap));
	heap->env.own_scoped = shmi_wiped_map(bitmap_bytes(heap));
	heap->populated = mmap(
	        NULL, bitmap_bytes(heap), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (heap->populated == MAP_FAILED)
		heap->populated = NULL;
	return heap->env.held && heap->env.own_scoped && heap->populated ? 0 : ENOMEM;
}

static void unmap(void *p, uint64_t bytes)
{
	if (p)
		(void)munmap(p, bytes);
}

/* Undoes what new_heap and the two functions above have done so far. */
static void drop_heap(struct shma_heap *heap)
{
	if (heap->env.base)
		(void)munmap((void *)(uintptr_t)heap->env.base, data_bytes(heap));
	unmap(heap->env.held, held_bytes(heap));
	unmap(heap->env.own_scoped, bitmap_bytes(heap));
	unmap(heap->populated, bitmap_bytes(heap));
	unmap(heap->env.img.ctl, heap->env.img.geo.ctl_bytes);
	unmap(heap->env.img.meta, heap->env.img.geo.meta_bytes);
	shmi_sock_close(&heap->last_sock);
	shmi_sock_close(&heap->inherited);
	unmap(heap->proc, sizeof(*heap->proc));
	unmap(heap->buffers, sizeof(*heap->buffers));
	(void)munmap(heap, sizeof(*heap));
}

/* Not from malloc: under a preloaded library that would be us. */
static struct shma_heap *new_heap(const struct target *t, uint32_t index)
{
	struct shma_heap *heap = mmap(NULL, sizeof(*heap), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *harden = env("SHMALLOC_HARDEN"), *debug = env("SHMALLOC_DEBUG");

	if (heap == MAP_FAILED)
		return NULL;
	heap->inherited.fd = heap->last_sock.fd = -1;
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
	drop_heap(heap);
	return NULL;
}

static void close_all(int *fds)
{
	for (unsigned i = 0; i < WIRE_FDS; i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
}

static void set_attached(struct shma_heap *heap, const struct wire_attach_ok *ok)
{
	heap->proc->client = ok->client;
	heap->proc->thread = ok->thread;
	heap->proc->nonce = ok->nonce;
	shmi_store_release(&heap->proc->attached, 1);
}

/* The daemon takes back what we hold, as it would after our death. */
static int give_up_place(struct shma_heap *heap)
{
	int error = 0;

	shmi_channel_lock(heap);
	if (heap->proc->attached) {
		heap->buffers->request.kind = WIRE_DETACH;
		error = shmi_channel_call(heap, NULL);
	}
	shmi_channel_unlock(heap);
	return error;
}

static int connect_and_map(struct shma_heap *heap)
{
	int fds[WIRE_FDS] = {-1, -1, -1};
	struct wire_attach_ok ok;
	int error = shmi_channel_open(heap, false, fds, &ok, shmi_channel_deadline(heap));

	if (error)
		return error;
	set_attached(heap, &ok);
	error = map_objects(heap, fds, &ok);
	close_all(fds);
	if (!error && ok.thread >= SHMI_MAX_THREADS)
		error = EPROTO;
	if (!error)
		error = map_private(heap);
	if (error) /* else our place there would be taken for as long as we live */
		(void)give_up_place(heap);
	return error;
}

/* ---- attach, detach ---- */

static bool same(const struct shma_heap *heap, const struct target *t)
{
	return heap && strcmp(heap->socket, t->socket) == 0 && strcmp(heap->name, t->name) == 0;
}

static int find_place(const struct target *t, uint32_t *index)
{
	struct target def;

	*index = 0; /* the default heap's place is its own; taken, if the default was another when it was first used */
	if (!shmi_load(&shmi_heaps[0]) && resolve(NULL, &def) == 0 && strcmp(def.socket, t->socket) == 0 &&
	        strcmp(def.name, t->name) == 0)
		return 0;
	for (*index = 1; *index < SHMI_MAX_HEAPS; ++*index)
		if (!shmi_load(&shmi_heaps[*index]))
			return 0;
	return EMFILE;
}

static struct shma_heap *attach_locked(const struct target *t, int *error)
{
	uint32_t index;

	for (uint32_t i = 0; i < SHMI_MAX_HEAPS; i++)
		if (same(shmi_load(&shmi_heaps[i]), t)) {
			struct shma_heap *heap = shmi_load(&shmi_heaps[i]);

			heap->refs++;
			return heap;
		}
	*error = find_place(t, &index);
	if (*error)
		return NULL;
	struct shma_heap *heap = new_heap(t, index);

	*error = heap ? connect_and_map(heap) : ENOMEM;
	if (!*error) {
		shmi_store_release(&shmi_heaps[index], heap);
		return heap;
	}
	if (heap)
		drop_heap(heap);
	return NULL;
}

static struct shma_heap *attach(const struct shma_options *options, bool counted)
{
	struct target t;
	struct shma_heap *heap = NULL;
	int error = resolve(options, &t);

	if (!error)
		error = lock_table();
	if (!error) {
		heap = attach_locked(&t, &error);
		if (heap && !counted && heap->refs > 1)
			heap->refs--;
		unlock_table();
	}
	if (error)
		errno = error;
	return heap;
}

SHMA_API struct shma_heap *shma_attach(const struct shma_options *options)
{
	return attach(options, true);
}

SHMA_API struct shma_heap *shma_default(void)
{
	struct shma_heap *heap = shmi_load_acquire(&shmi_heaps[0]);

	return heap ? heap : attach(NULL, false);
}

int shmi_attach_again(struct shma_heap *heap)
{
	int fds[WIRE_FDS] = {-1, -1, -1};
	struct wire_attach_ok ok;
	struct stat meta;
	int error = 0;

	shmi_channel_lock(heap);
	if (!heap->proc->attached) {
		/* The parent's socket, inherited: kept open, so that its scoped blocks outlive it. */
		if (heap->inherited.fd < 0)
			heap->inherited = heap->last_sock;
		heap->last_sock.fd = -1;
		error = shmi_channel_open(heap, false, fds, &ok, heap->proc->deadline);
		if (!error &&
		        (fstat(fds[0], &meta) != 0 || meta.st_dev != heap->meta_dev || meta.st_ino != heap->meta_ino))
			error = EIO; /* another heap than the one that we have mapped */
		close_all(fds);
		if (!error)
			set_attached(heap, &ok);
		else
			shmi_sock_close(&heap->last_sock);
	}
	shmi_channel_unlock(heap);
	return error;
}

struct shma_heap *shmi_heap_of(const void *block)
{
	for (uint32_t i = 0; i < SHMI_MAX_HEAPS; i++) {
		struct shma_heap *heap = shmi_load_acquire(&shmi_heaps[i]);

		if (heap && (uint64_t)(uintptr_t)block - heap->env.base < data_bytes(heap))
			return heap;
	}
	return NULL;
}

/* Ends our time as a client, with all that we hold. */
static int tell_detach(struct shma_heap *heap)
{
	if (heap->proc->attached)
		(void)shmi_large_trim(heap);
	return give_up_place(heap);
}

SHMA_API int shma_detach(struct shma_heap *heap)
{
	int error = heap ? lock_table() : EINVAL;

	if (error) {
		errno = error;
		return -1;
	}
	if (heap->index >= SHMI_MAX_HEAPS || shmi_load(&shmi_heaps[heap->index]) != heap) {
		error = EINVAL;
	} else if (--heap->refs == 0) {
		(void)pthread_rwlock_wrlock(&locks->mapped);
		shmi_thread_leave(heap);
		error = tell_detach(heap);
		shmi_thread_forget(heap);
		shmi_store_release(&shmi_heaps[heap->index], (struct shma_heap *)NULL);
		drop_heap(heap);
		shmi_heaps_release();
	}
	unlock_table();
	errno = error ? error : errno;
	return error ? -1 : 0;
}
