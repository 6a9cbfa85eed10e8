/* Attaching to a heap and leaving it; the table of this process's heaps. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/heap.h"
#include "proto/chan.h"

struct shma_heap *_Atomic shmi_heaps[SHMI_MAX_HEAPS];
bool shmi_place_0_closed;

/* In a page that a fork wipes, so that a child finds them unlocked. */
struct locks {
	pthread_mutex_t table; /* guards the table, attach and detach */
	pthread_rwlock_t mapped; /* read-locked by a thread that ends; write-locked while a heap is left */
};

static struct locks *_Atomic locks;

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

/* Where the daemon writes what it has to say to us. The heap is mapped, and no thread has a cache yet. */
static void find_owner(struct shma_heap *heap)
{
	const struct shmi_owner *owner = shmi_owner_at(&heap->env.img, heap->proc->client);

	heap->env.owner = owner;
	heap->proc->seizures = shmi_load_acquire(&owner->seizures);
}

/* The daemon takes back what we hold, as it would after our death. */
static int give_up_place(struct shma_heap *heap)
{
	bool sent = false;
	int error = 0;

	shmi_channel_lock(heap);
	if (heap->proc->attached) {
		heap->buffers->request.kind = WIRE_DETACH;
		error = shmi_channel_call(heap, &sent);
		if (error == EAGAIN && !sent)
			shmi_channel_farewell(heap);
		if (error == EACCES && heap->proc->lost == EACCES)
			error = 0; /* evicted: what we held is taken back as our lease has ended, and nothing is asked of us */
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
	error = ok.client < SHMI_MAX_CLIENTS ? shmi_heap_map(heap, fds, &ok) : EPROTO;
	if (!error && !shmi_record_ok(heap, ok.client, ok.thread, 0))
		error = EPROTO;
	close_all(fds);
	if (!error) {
		find_owner(heap);
	} else { /* else our place there would be taken for as long as we live */
		shmi_heap_unlease(heap);
		(void)give_up_place(heap);
	}
	return error;
}

/* ---- attach, detach ---- */

static bool same(const struct shma_heap *heap, const struct shmi_target *t)
{
	return heap && strcmp(heap->socket, t->socket) == 0 && strcmp(heap->name, t->name) == 0;
}

static int find_place(const struct shmi_target *t, uint32_t *index)
{
	struct shmi_target def;

	*index = 0; /* the default heap's place is its own; taken, if the default was another when it was first used */
	if (!shmi_place_0_closed && !shmi_load(&shmi_heaps[0]) && shmi_target_resolve(NULL, &def) == 0 &&
	        strcmp(def.socket, t->socket) == 0 && strcmp(def.name, t->name) == 0)
		return 0;
	for (*index = 1; *index < SHMI_MAX_HEAPS; ++*index)
		if (!shmi_load(&shmi_heaps[*index]))
			return 0;
	return EMFILE;
}

static struct shma_heap *attach_locked(const struct shmi_target *t, int *error)
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
	struct shma_heap *heap = shmi_heap_new(t, index);

	*error = heap ? connect_and_map(heap) : ENOMEM;
	if (!*error) {
		shmi_store_release(&shmi_heaps[index], heap);
		return heap;
	}
	if (heap)
		shmi_heap_drop(heap);
	return NULL;
}

static struct shma_heap *attach(const struct shma_options *options, bool counted)
{
	struct shmi_target t;
	struct shma_heap *heap = NULL;
	int error = shmi_target_resolve(options, &t);

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

SHMA_API void *shma_own_page(struct shma_heap *heap)
{
	int error = !heap ? EINVAL : sysconf(_SC_PAGESIZE) > (long)SHMI_PAGE_SIZE ? ENOTSUP : lock_table();
	void *page = NULL;

	if (!error) {
		page = shmi_heap_own_page(heap);
		error = page ? 0 : ENOMEM;
		unlock_table();
	}
	if (error)
		errno = error;
	return page;
}

/* What the daemon has given us must be of the heap that we have mapped; and our lease is not our parent's. */
static int accept_place(struct shma_heap *heap, const int *fds, const struct wire_attach_ok *ok)
{
	struct stat meta;

	if (fstat(fds[0], &meta) != 0 || meta.st_dev != heap->meta_dev || meta.st_ino != heap->meta_ino)
		return EIO;
	if (ok->client >= SHMI_MAX_CLIENTS || !shmi_record_ok(heap, ok->client, ok->thread, 0))
		return EPROTO;
	return shmi_heap_lease(heap, ok->client, fds[WIRE_FDS - 1]);
}

int shmi_attach_again(struct shma_heap *heap, bool to_free)
{
	int fds[WIRE_FDS] = {-1, -1, -1};
	struct wire_attach_ok ok;
	int error = 0;

	if (!to_free)
		shmi_channel_lock(heap);
	else if (!shmi_channel_try(heap))
		return EAGAIN;
	if (!heap->proc->attached) {
		shmi_sock_close(&heap->last_sock); /* the parent's */
		error = shmi_channel_open(heap, false, fds, &ok, heap->proc->deadline);
		if (!error) {
			error = accept_place(heap, fds, &ok);
			close_all(fds);
			if (!error) {
				heap->proc->client = ok.client;
				find_owner(heap);
				set_attached(heap, &ok);
			} else { /* else our place there would stay taken */
				heap->buffers->request.kind = WIRE_DETACH;
				(void)shmi_channel_call(heap, NULL);
				shmi_sock_close(&heap->last_sock);
			}
		}
	}
	shmi_channel_unlock(heap);
	return error;
}

struct shma_heap *shmi_heap_of(const void *block)
{
	for (uint32_t i = 0; i < SHMI_MAX_HEAPS; i++) {
		struct shma_heap *heap = shmi_load_acquire(&shmi_heaps[i]);

		if (heap && (uint64_t)(uintptr_t)block - heap->env.base <
		                    shmi_npages_bytes((shmi_npages){heap->env.img.geo.limit_pages}))
			return heap;
	}
	return NULL;
}

/* Ends our time as a client, with all that we hold. The blocks go before the daemon is told: it takes the scoped ones at once if
 * nobody has them mapped. */
static int leave(struct shma_heap *heap)
{
	shmi_thread_leave(heap);
	if (heap->proc->attached)
		(void)shmi_large_trim(heap);
	shmi_store_release(&shmi_heaps[heap->index], (struct shma_heap *)NULL);
	shmi_heap_unlease(heap);
	int error = give_up_place(heap);

	shmi_thread_forget(heap);
	shmi_heap_drop(heap);
	return error;
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
		error = leave(heap);
		shmi_heaps_release();
	}
	unlock_table();
	errno = error ? error : errno;
	return error ? -1 : 0;
}
