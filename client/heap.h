/* An attached heap, as this process knows it.
 *
 * Two kinds of private memory: struct shma_heap survives a fork, since its mappings do; struct shmi_proc and all else that
 * says "this process is a client, and holds this and that" lies in pages that a fork wipes (MADV_WIPEONFORK), locks included:
 * a child finds them zeroed, which is unlocked, and `attached` 0, and attaches for itself.
 *
 * Each client's descriptor of `data` is a file of its own to the kernel, its lease: as long as it is mapped anywhere, the client's
 * scoped blocks live, also after its death. A process maps all of data from the first that it gets. A child inherits that, and
 * maps one page of its own, at the place of its id among the leases; so the blocks of a process and of each of its ancestors live
 * as long as the last of its descendants that has not left the heap.
 */
#ifndef CLIENT_HEAP_H
#define CLIENT_HEAP_H

#include <pthread.h>
#include <sys/types.h>

#include "client/shmalloc.h"
#include "client/sockpath.h"
#include "client/tcache.h"
#include "client/waits.h"
#include "proto/codec.h"

#define SHMI_MAX_HEAPS 16u /* attached at a time by one process; [0] is the default heap */
#define SHMI_GHOSTS 16u

/* Wiped on fork. */
struct shmi_proc {
	pthread_mutex_t lock; /* channel: one request at a time; attach */
	shmi_a32 attached; /* 1: the fields below are good */
	int sock; /* -1: to be connected again */
	uint32_t client;
	uint32_t thread; /* the process's own thread record */
	uint64_t nonce;
	uint64_t serial; /* of the last request */
	shmi_a64 messages; /* requests sent; read without the lock */
	uint32_t outstanding; /* the reply to `serial` has not come yet; the request is 1: yet to be sent, 2: sent */
	uint32_t posted; /* that request is a refill that nobody waits for: thread record + 1 of who asked; else 0 */
	uint32_t posted_free; /* page of the first large span that it names; 0: none */
	bool for_record; /* that request is for a new thread record ... */
	bool detaching; /* ... or asks to be detached */
	uint32_t spares[2],
	        n_spares; /* thread records that came too late: one of a late reply, one of the request after it */
	int lost; /* EIO: the daemon no longer knows us; EACCES: we have been evicted; what needs it fails so from then on */
	/* 0, or the daemon was away: when a request that only gives back may try again. Read without the lock, too. */
	_Atomic int64_t look_ns;
	int64_t deadline; /* of whoever has the lock, for all its requests */
	struct shmi_waits waits; /* for refills */

	pthread_mutex_t pool_lock;
	struct shmi_queue pool[SHMI_SPAN_CLASSES]; /* spans that no thread holds */
	uint32_t
	        seizures; /* of the owner: as last seen when the pool was looked through for spans that the daemon has taken */
	bool seized; /* there may be others in it */
	uint32_t pool_clock; /* which class was last looked at for spans that have become wholly free */
	struct shmi_tcache *caches; /* all of them; those of threads that have ended are idle */

	pthread_mutex_t big_lock;
	uint64_t big_bytes; /* in the cache of freed large spans */
	uint32_t big_noted; /* the first entries of it: the daemon is to be told, or has been and owes an answer */
	uint32_t n_named; /* the last of these: named in the request under way ... */
	uint32_t named[WIRE_BIGS]; /* ... and their pages */
	uint64_t big_bound; /* how much it may keep */
	uint32_t big_idle; /* refills since the last large request */
	uint32_t big_newest; /* generation of the last large span that was granted; 0: none was */
	struct shmi_queue owed; /* large spans that the daemon has yet to be told are free */
	uint32_t next_ghost;
	uint32_t ghosts[SHMI_GHOSTS]; /* pages of spans that it gave back lately */
};

/* Where messages are made; used under proc->lock. */
struct shmi_buffers {
	struct wire_msg request, reply;
	struct codec_scratch scratch;
	unsigned char out[WIRE_MAX], in[WIRE_MAX];
	size_t out_len;
};

/* A socket and which file it is: programs close descriptors that they do not know, and the number is another file's then. */
struct shmi_sock {
	int fd; /* -1: none */
	dev_t dev;
	ino_t ino;
};

struct shma_heap {
	struct shmi_tc_env env; /* with the image; env.ctx is this heap */
	struct shmi_proc *proc;
	struct shmi_buffers *buffers;
	uint32_t index; /* in the table of heaps */
	uint32_t refs;
	bool debug;
	int timeout_ms; /* the longest wait for the daemon; -1: for ever */
	int hurry_ms; /* 0, or the longest wait when the last one was in vain */
	shmi_a64 *met; /* bit per 64 KiB of data: mapped by shmi_heap_meet */
	bool own_page; /* mapped over page 0 of data; under the lock of the table of heaps */
	char *leases; /* NULL, or address space of a page for each client id: what we and our ancestors got after a fork */
	struct shmi_sock last_sock; /* our own; a child finds its parent's there, and closes it */
	dev_t meta_dev;
	ino_t meta_ino;
	char socket[SHMI_PATH_MAX], name[WIRE_NAME], label[WIRE_NAME];
};

/* ---- channel.c, greeting.c, sock.c ---- */

/* Lock order: channel, then big_lock or pool_lock.
 *
 * One request: lock, fill heap->buffers->request (kind and body), call, read heap->buffers->reply, unlock. Returns 0 or an errno:
 * EAGAIN when the daemon did not answer in time, EFAULT for WIRE_E_BAD_FREE. After EAGAIN *sent (may be NULL) says whether the request will take effect
 * all the same: it is repeated, and its late reply dealt with, before the next one.
 *
 * The time for an answer counts from before the lock: who stood behind others that waited for the daemon does not wait anew. */
void shmi_channel_lock(struct shma_heap *heap);
void shmi_channel_lock_until(struct shma_heap *heap, int64_t deadline); /* for who has waited for another lock before */

/* The lock, for what can be done without the daemon: false, without the lock, if it was waited for in vain just now; and if that was
 * a while ago, the wait for an answer is short. */
bool shmi_channel_try(struct shma_heap *heap);
int shmi_channel_call(struct shma_heap *heap, bool *sent);

/* Waits for the answer to the request before, if whoever asked has given up or did not wait, and deals with it. Returns 0 or an errno,
 * EAGAIN as above. */
int shmi_channel_settle(struct shma_heap *heap);

/* Sends the request, a refill for thread record `thread`, and waits for nothing: false, and nothing was sent, if an earlier one is
 * not answered yet or the daemon is away. Its answer is fetched with shmi_channel_collect, or dealt with as a late one before the
 * next request. */
bool shmi_channel_post(struct shma_heap *heap, uint32_t thread);

/* Fetches the answer to what was posted: with `wait` it is waited for, else looked for. True: it is in heap->buffers->reply, no
 * error, and the caller deals with it. */
bool shmi_channel_collect(struct shma_heap *heap, bool wait);

/* The lock, for what can be put off: false if another thread has it. */
bool shmi_channel_lock_if_idle(struct shma_heap *heap);
void shmi_channel_unlock(struct shma_heap *heap);

/* The last words to a daemon that owes an answer: asks to be detached after all that it has been asked before, and waits for
 * nothing. */
void shmi_channel_farewell(struct shma_heap *heap);

/* Connects and attaches, or resumes; with proc->lock held. `fds` (WIRE_FDS of them, or NULL) receives meta, ctl and data.
 * Returns 0 or an errno. */
int shmi_channel_open(struct shma_heap *heap, bool resume, int *fds, struct wire_attach_ok *ok, int64_t deadline);
int64_t shmi_channel_deadline(const struct shma_heap *heap);

/* Closes it, unless the number is another file's by now. */
void shmi_sock_close(struct shmi_sock *sock);

/* ---- target.c ---- */

struct shmi_target {
	char socket[SHMI_PATH_MAX], name[WIRE_NAME], label[WIRE_NAME];
	int timeout_ms;
};

/* `given` may be NULL. Returns 0, EINVAL or ENAMETOOLONG. */
int shmi_target_resolve(const struct shma_options *given, struct shmi_target *t);

/* A variable of the environment that is set and not empty, else NULL. */
const char *shmi_env(const char *name);

/* $SHMALLOC_TIMEOUT_MS, for programs that have no options of their own to say it; `otherwise` if it is not set or no time. */
int shmi_env_timeout_ms(int otherwise);

/* ---- mapping.c ---- */

/* Memory that a fork wipes; NULL on failure. */
void *shmi_wiped_map(size_t bytes);

/* A heap that is not attached yet; NULL without memory. */
struct shma_heap *shmi_heap_new(const struct shmi_target *t, uint32_t index);

/* Maps meta, ctl and data, in this order in `fds`. Returns 0 or an errno; either way shmi_heap_drop undoes it. */
int shmi_heap_map(struct shma_heap *heap, const int *fds, const struct wire_attach_ok *ok);

/* Maps pages that the daemon has granted here, before they are used, unless that was done before and they are not `fresh`. What is backed
 * and zeroed the system maps by 64 KiB when it is read, but page by page when it is written first, at five times the cost. */
void shmi_heap_meet(const struct shma_heap *heap, uint32_t page, uint32_t pages, bool fresh);

/* Maps zeros of this process's own over page 0 of data, where no block ever lies, unless it was done before. NULL without memory. */
void *shmi_heap_own_page(struct shma_heap *heap);

/* In a child of a fork that is client `client` now: maps its lease, a descriptor of data. Returns 0 or ENOMEM. */
int shmi_heap_lease(struct shma_heap *heap, uint32_t client, int fd);

/* Unmaps data, and so gives up all leases: from here on the daemon may take our scoped blocks. */
void shmi_heap_unlease(struct shma_heap *heap);

/* Unmaps and closes all that the heap has, and the heap itself. */
void shmi_heap_drop(struct shma_heap *heap);

/* ---- attach.c ---- */

extern struct shma_heap *_Atomic shmi_heaps[SHMI_MAX_HEAPS];

/* The place of the default heap, 0, is given to nobody any more: set once, by a malloc that serves from its thread caches. */
extern bool shmi_place_0_closed;

/* Between the two no heap is left and unmapped: a thread that ends gives back its caches in its own time, perhaps while another one
 * detaches. At least one heap has been attached. */
void shmi_heaps_hold(void);
void shmi_heaps_release(void);

/* In a child of a fork: becomes a client of its own. Returns 0 or an errno; `to_free`: a free wants it, which need not wait. */
int shmi_attach_again(struct shma_heap *heap, bool to_free);

/* The heap in whose address range `block` lies, or NULL. */
struct shma_heap *shmi_heap_of(const void *block);

/* ---- thread.c ---- */

extern __thread struct shmi_tcache *shmi_tls[SHMI_MAX_HEAPS]
        __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* The calling thread's cache for this heap, made if need be; NULL and *error. `attrs` is what it is wanted for; `to_free`: a free
 * wants it, which can do without. */
struct shmi_tcache *shmi_thread_cache(struct shma_heap *heap, uint32_t attrs, bool to_free, int *error);

/* The calling thread's cache is given up, as at thread exit. */
void shmi_thread_leave(struct shma_heap *heap);

/* A thread record that a late reply brought is kept for the next thread. With the channel's lock held. */
void shmi_thread_late(struct shma_heap *heap, uint32_t thread);

/* Whether thread record `thread` is the client's, with these parts, by what meta says: a message alone is not enough to write there. */
bool shmi_record_ok(const struct shma_heap *heap, uint32_t client, uint32_t thread, uint32_t parts);

/* What ended threads could not give back goes back. */
void shmi_thread_trim_idle(struct shma_heap *heap);

/* The heap is gone: idle caches are unmapped, those of other living threads read as zeros from here on. */
void shmi_thread_forget(struct shma_heap *heap);

/* ---- pool.c ---- */

extern const struct shmi_tc_ops shmi_ops;

/* Keeps a span that no thread holds any more. */
void shmi_pool_keep(void *heap, uint32_t page, shmi_sclass sclass);

/* Gives back the wholly free spans of the pool, through `tc`. */
void shmi_pool_trim(struct shma_heap *heap, struct shmi_tcache *tc);

/* Spans that a late reply brought. */
void shmi_pool_late(struct shma_heap *heap, const struct wire_refill_ok *ok);

/* ---- large.c ---- */

/* A block of its own span: `size` bytes, aligned to `alignment` (a power of two). NULL and *error. */
void *shmi_large_alloc(struct shma_heap *heap, uint64_t size, uint64_t alignment, unsigned flags, int *error);

/* Frees the large block at page-aligned `off`. SHMI_FREED or what is wrong with it. */
enum shmi_tc_free shmi_large_free(struct shma_heap *heap, uint64_t off);

/* Around a request for memory, with the channel's lock held: names in it what is to go back with it, and deals with the answer. */
void shmi_large_name(struct shma_heap *heap, struct wire_free *body);
void shmi_large_named(struct shma_heap *heap, bool sent, int error);

/* The answer to a request that was posted has come; with the channel's lock held. */
void shmi_large_answered(struct shma_heap *heap);

/* Gives back all freed large spans that are kept. Returns 0 or an errno. */
int shmi_large_trim(struct shma_heap *heap);

#endif
