/* The thread cache: what a thread allocates from without a lock, a system call or another thread.
 *
 * Per span class a magazine, a stack of free blocks that lies in the thread's record in shared memory (shm/threadrec.h),
 * and the spans that the thread holds, from whose bitmaps an empty magazine is filled. malloc pops, free pushes; a full
 * magazine puts its older half back into the bitmaps, wherever the blocks came from.
 *
 * Refill, in this order: spans known to have free slots; what was asked for ahead; spans that had their last slot taken, oldest first,
 * as long as the looking pays; the process's pool; a few blocks of a larger class, if this one does not grow; the daemon. Pool and
 * daemon are functions that the cache is given: it knows no socket and no lock. A span may turn out to be empty though it was seen
 * wholly free: the daemon takes such spans from processes that sleep (shm/seize.h); then the next one is tried.
 *
 * A magazine's limit starts small and doubles when it runs empty or over (TCMalloc's slow start); what the limits of a thread together
 * are above that start stays within a budget: beyond it a class that grows takes from one that was not used lately. A clock goes
 * round the classes, a step every few refills, and faster while the thread comes to hold more than it ever did: a class that was not
 * refilled for a round gives back half of what it caches. How much is asked for and kept, and when: client/tcask.c.
 *
 * The struct lies in pages that a fork wipes: in a child every magazine pointer is NULL and `bytes` 0, so both fast paths
 * take their slow path, which sees that `env` is gone.
 */
#ifndef CLIENT_TCACHE_H
#define CLIENT_TCACHE_H

#include "client/held.h"
#include "shm/threadrec.h"

#define SHMI_TC_BUDGET (1024 * 1024u) /* bytes of blocks in a thread's magazines, above what each may hold at least */
#define SHMI_TC_ASK_MAX (1024 * 1024u) /* bytes of spans of one class that are asked for at a time */
#define SHMI_TC_KEEP_LEAST (4 * 1024 * 1024u) /* bytes of free spans that may be learned to be kept, in all ... */
#define SHMI_TC_KEEP_SHARE 16u /* ... and the part of what the thread holds */
#define SHMI_TC_RETURN_BYTES (2 * 1024 * 1024u) /* that may wait for a message */
#define SHMI_TC_WANTS 64u /* classes served by one message */
#define SHMI_TC_RETURNS 256u /* spans given back at a time */
#define SHMI_TC_REPORTS 64u
#define SHMI_TC_REAP_LEAST 16u /* held spans that are looked at before any are asked for */

#define SHMI_TC_RATE_ONE 256u /* one span */

struct shmi_tc_class {
	uint8_t used; /* 1: ran empty or over since the budget's clock came by */
	uint8_t dry; /* 1: ran out of slots since the last message */
	uint8_t active; /* 1: refilled since the clock of idle classes came by */
	uint8_t borrowed; /* blocks taken from larger classes since it last had slots of its own */
	uint32_t begun; /* spans that were granted to it and that it has begun since the last message */
	uint32_t rate; /* the same, as it is expected of the next while, in parts of SHMI_TC_RATE_ONE */
};

struct shmi_tc_span {
	uint32_t page, generation;
	uint32_t sclass;
};

/* What a thread asks of its process and the daemon. */
struct shmi_tc_ask {
	uint32_t n_wants, n_returns, n_reports;
	struct {
		uint32_t sclass, spans;
	} wants[SHMI_TC_WANTS];
	struct shmi_tc_span returns[SHMI_TC_RETURNS];
	uint32_t reports[SHMI_TC_REPORTS];
	uint32_t remote_freed; /* slots that were put into spans of other threads since the last message */
};

struct shmi_tcache;

/* The layers below. Each returns 0 or an errno. */
struct shmi_tc_ops {
	/* Gives what `ask` wants by calling shmi_tcache_grant for each span, and takes what it gives back and reports: those counts
	 * are 0 afterwards, unless the daemon is away and could not be told. Without `wait` nothing is waited for: the spans come with a
	 * later call of this or of `pool`, and tc->posted is 1 until then; EAGAIN if it cannot be sent just now. */
	int (*refill)(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait);
	/* Spans that were asked for without waiting and have come, of any class; else such of `sclass` as the process holds and no thread:
	 * calls shmi_tcache_grant for some that have free slots. */
	void (*pool)(void *ctx, struct shmi_tcache *tc, shmi_sclass sclass);
	/* Backs the magazines of one more attribute combination; not at any price if tc->to_free. */
	int (*part)(void *ctx, struct shmi_tcache *tc, uint32_t attrs);
};

/* What a cache works in; the same for all threads of a process. */
struct shmi_tc_env {
	struct shmi_image img;
	uint64_t base; /* address of the heap here */
	struct shmi_held *held; /* one node per page */
	shmi_a64 *own_scoped; /* bit per page: in a scoped span of this process */
	const struct shmi_tc_ops *ops;
	void *ctx;
	bool harden; /* every free is checked at once */
	shmi_a32 trim_epoch; /* bumped by a trim: each thread gives back at its next slow path */
	const struct shmi_owner *owner; /* what the daemon says of this process, and to it; NULL: nothing */
};

struct shmi_tcache {
	/* Read by every malloc and free. Arrays of their own, as an index then needs no arithmetic; and first, as the struct begins at
	 * a page: a block that begins at one is written to there first, and a processor that compares addresses by their low 12
	 * bits holds back what is loaded from there until it has seen where that store goes. The first entries are no class's. */
	struct shmi_magazine *mag[SHMI_SPAN_CLASSES]; /* NULL: nothing is cached yet */
	uint32_t limit[SHMI_SPAN_CLASSES]; /* entries that it may hold just now */
	uint64_t base;
	uint64_t bytes; /* of the heap that are published, as last seen; 0: take the slow path */
	const shmi_a16 *page_class;
	struct shmi_tc_env *env;
	/* slow paths */
	struct shmi_tc_class cls[SHMI_SPAN_CLASSES];
	struct shmi_threadrec *rec;
	uint32_t thread, parts;
	uint32_t limit_bytes; /* what all limits are above the least, in bytes of blocks */
	uint32_t clock; /* where the budget's clock stands */
	uint32_t trim_epoch, trim_wanted, seizures; /* of env, of the owner: as last seen */
	bool seized; /* there may be seized spans among the held ones, whatever the owner's count says */
	uint32_t refills, age_clock; /* of magazines; where the clock of idle classes stands */
	uint32_t put_off; /* refills before a request is tried again without waiting for it */
	bool posted; /* a request was sent whose answer has not been looked at yet */
	uint32_t reap_clock; /* which class was last looked at for spans that others have emptied */
	uint32_t return_bytes; /* of ask.returns */
	uint64_t held_bytes; /* of all spans that the thread holds */
	uint64_t peak_bytes; /* the most that it ever held */
	uint64_t keep_bytes; /* of `keep` of all classes */
	uint64_t begun_bytes; /* of `begun` of all classes */
	uint32_t whole[SHMI_SPAN_CLASSES]; /* spans on `ready` that are counted as wholly free */
	uint16_t keep[SHMI_SPAN_CLASSES]; /* wholly free spans that proved worth keeping */
	uint16_t given[SHMI_SPAN_CLASSES]; /* spans given back since the class last asked for one */
	struct shmi_queue ready[SHMI_SPAN_CLASSES], full[SHMI_SPAN_CLASSES];
	struct shmi_tc_ask ask; /* returns and reports that wait for the next message */
	struct shmi_tcache *next; /* all caches of the process for this heap */
	uint32_t idle; /* 1: its thread has ended */
	bool to_free; /* a magazine is set up for a free, which can do without */
	/* scratch of a put */
	struct shmi_group groups[SHMI_SPILL_MAX];
	uint16_t hash[SHMI_SPILL_MAX * 2]; /* where a word's group may be */
};

/* An empty cache that sends everything down the slow path: what a thread starts with. */
extern struct shmi_tcache shmi_tcache_none;

/* Makes a zeroed cache usable; `thread` is its record, of which `parts` are backed and whose magazines are empty. */
void shmi_tcache_init(struct shmi_tcache *tc, struct shmi_tc_env *env, uint32_t thread, uint32_t parts);

/* A block of a span class. False: slow path. */
static inline bool shmi_tcache_pop(struct shmi_tcache *tc, shmi_sclass sclass, void **block)
{
	struct shmi_magazine *mag = tc->mag[sclass.c];

	if (__builtin_expect(!mag, 0))
		return false;
	uint32_t top = shmi_load(&mag->top);

	if (__builtin_expect(!top, 0))
		return false;
	uint64_t entry = shmi_load(&mag->entry[top - 1]);

	shmi_store_release(&mag->top, top - 1);
	*block = (void *)(uintptr_t)(tc->base + entry);
	return true;
}

/* Caches a block. False: slow path. */
static inline bool shmi_tcache_push(struct shmi_tcache *tc, const void *block)
{
	uint64_t off = (uint64_t)(uintptr_t)block - tc->base;

	if (__builtin_expect(off >= tc->bytes, 0))
		return false;
	uint16_t sclass = shmi_load(&tc->page_class[off >> SHMI_PAGE_SHIFT]);

	if (__builtin_expect(sclass & SHMI_SCOPED, 0) &&
	        !(shmi_load(&tc->env->own_scoped[off >> (SHMI_PAGE_SHIFT + 6)]) >> (off >> SHMI_PAGE_SHIFT & 63) & 1))
		return false;
	struct shmi_magazine *mag = tc->mag[sclass];

	if (__builtin_expect(!mag, 0))
		return false;
	uint32_t top = shmi_load(&mag->top);

	if (__builtin_expect(top >= tc->limit[sclass], 0))
		return false;
	shmi_store(&mag->entry[top], off);
	shmi_store_release(&mag->top, top + 1);
	return true;
}

/* The slow path of malloc: fills the magazine and pops. The block may be of a larger class, unless it must be `exact`, whose blocks are
 * aligned further than others. NULL and *error (an errno) on failure. */
void *shmi_tcache_refill(struct shmi_tcache *tc, shmi_sclass sclass, bool exact, int *error);

/* How a block that is not simply pushed ended. The last four are misuse: nothing was changed. */
enum shmi_tc_free {
	SHMI_FREED,
	SHMI_FREE_LARGE, /* a large block: not the cache's business */
	SHMI_FREE_OUTSIDE, /* not in the heap */
	SHMI_FREE_NOTHING, /* no block begins there */
	SHMI_FREE_INSIDE, /* inside a block */
	SHMI_FREE_TWICE /* it is free already */
};

/* The slow path of free: the block at `off`. */
enum shmi_tc_free shmi_tcache_free(struct shmi_tcache *tc, uint64_t off);

/* The same for a thread that has no cache and cannot get one just now. */
enum shmi_tc_free shmi_tcache_free_bare(struct shmi_tc_env *env, uint64_t off);

/* For ops: one more span is held by this thread. `whole`: all its slots are free. A seized one, granted long ago or from the pool, goes
 * back at the next slow path. */
void shmi_tcache_grant(struct shmi_tcache *tc, uint32_t page, uint32_t generation, shmi_sclass sclass, bool whole);

/* ---- between tcache.c (magazines, refill), tcask.c (asking), tcput.c (putting blocks) and tcspan.c (giving back spans) ---- */

static inline const struct shmi_class *shmi_tcache_class(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	return &tc->env->img.classes[shmi_sclass_size_class(sclass)];
}

/* Gives a class its magazine: backed. Returns 0 or an errno. */
int shmi_tcache_set_up(struct shmi_tcache *tc, shmi_sclass sclass);

/* The magazine ran empty or over: it may hold twice as much, within its capacity, a share of the budget and the budget. */
void shmi_tcache_grow(struct shmi_tcache *tc, shmi_sclass sclass);

/* What was said to all threads since the last slow path: the daemon has taken spans of ours, whose address space goes back; a trim was
 * asked for, by the program or by the daemon. */
void shmi_tcache_catch_up(struct shmi_tcache *tc);

/* Spans that the class is expected to begin in a while, as at the last message. */
uint32_t shmi_tcache_expected(const struct shmi_tcache *tc, shmi_sclass sclass);

/* How many wholly free spans are not given back. */
uint32_t shmi_tcache_keep_size(const struct shmi_tcache *tc, shmi_sclass sclass);
void shmi_tcache_keep_less(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t by);

/* Asks the daemon for enough spans for `want` blocks, and waits. When there is no memory, what the thread could do without goes back
 * and the daemon is asked once more. Returns 0 or an errno. */
int shmi_tcache_ask(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want);

/* Whether a class that grows has so little left that an answer had better be on its way: a quarter of what is expected, or what the
 * next refill of the magazine takes, of `want` blocks; and whether one may be asked for. Then it is, and the thread goes on. */
bool shmi_tcache_runs_low(const struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want);
void shmi_tcache_ask_ahead(struct shmi_tcache *tc, shmi_sclass sclass);

/* Sends what waits, and gets the answer if `wait`. Returns 0 or an errno. */
int shmi_tcache_send(struct shmi_tcache *tc, bool wait);

/* The oldest `entries` blocks of a magazine go back into their bitmaps. */
void shmi_tcache_put_oldest(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t entries);

/* All slots of a span that the thread holds are free. The second: it is on `ready` and has just become so; it is kept, unless there are
 * enough of them. */
bool shmi_tcache_is_whole(const struct shmi_tcache *tc, uint32_t page);
void shmi_tcache_found_whole(struct shmi_tcache *tc, uint32_t page);

/* A held span goes back to the daemon, with the next message or when too many of them wait. If the daemon cannot be told it stays. */
void shmi_tcache_give_back(struct shmi_tcache *tc, uint32_t page);

/* So many more classes are looked at: one that was not refilled since the last look gives back half of what it caches. */
void shmi_tcache_age(struct shmi_tcache *tc, uint32_t classes);

/* Others put blocks back into our spans without a word to us. Before the heap grows, some spans of all classes are looked at, in turn,
 * for such as have become wholly free: so what others free is found at least as fast as we ask for more. */
void shmi_tcache_reap(struct shmi_tcache *tc, uint32_t looks);

/* Whether the daemon has taken the span from us: it is address space, and goes back. */
static inline bool shmi_tcache_is_seized(const struct shmi_tcache *tc, uint32_t page)
{
	return shmi_span_word(&tc->env->img, (shmi_page){page}).state == SHMI_SPAN_SEIZED;
}

/* ---- the end ---- */

/* Empties all magazines and gives back the spans that are wholly free. */
void shmi_tcache_trim(struct shmi_tcache *tc);

/* The thread ends: empties the magazines and hands each span to `keep`; wholly free ones go to the daemon. The cache can be
 * used again by another thread. */
void shmi_tcache_retire(struct shmi_tcache *tc, void (*keep)(void *ctx, uint32_t page, shmi_sclass sclass), void *ctx);

/* Called when a put recognises a double free or an invalid pointer among blocks freed earlier; does not return. */
_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off);

#endif
