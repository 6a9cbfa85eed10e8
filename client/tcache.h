/* The thread cache: what a thread allocates from without a lock, a system call or another thread.
 *
 * Per span class a magazine, a stack of free blocks that lies in the thread's record in shared memory (shm/threadrec.h),
 * and the spans that the thread holds, from whose bitmaps an empty magazine is filled. malloc pops, free pushes; a full
 * magazine puts its older half back into the bitmaps, wherever the blocks came from.
 *
 * Refill, in this order: spans known to have free slots; spans that had their last slot taken, oldest first, as long as
 * the looking pays; the process's pool; the daemon. The last two are functions that the cache is given: it knows no socket
 * and no lock.
 *
 * Demand: a magazine's limit starts small and doubles when it runs empty or over (TCMalloc's slow start); what the limits of a
 * thread together are above that start stays within a budget: beyond it a class that grows takes from one that was not used
 * lately. Spans are asked for in proportion to what the thread holds of the class, and for all classes that grow and will soon
 * run dry along with the one that has, so the number of messages grows with the logarithm of the working set and what is held in
 * vain stays a fraction of it. As many wholly free spans are kept, further ones given back; a class that asks for what it gave
 * back learns to keep more. A clock goes round the classes, a step every few refills, and as often as AGE_ROUNDS says while the
 * thread comes to hold more than it ever did, from AGE_FROM on: it unlearns some of that, and takes half of what it caches from a
 * class that was not refilled for a round.
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

struct shmi_tc_class {
	uint8_t used; /* 1: ran empty or over since the budget's clock came by */
	uint8_t dry; /* 1: ran out of slots since the last message */
	uint8_t asks; /* messages that asked for this class since it last gave a span back, up to 7 */
	uint8_t grows; /* 1: began a wholly free span since the clock of idle classes came by */
	uint8_t active; /* 1: refilled since the clock of idle classes came by */
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
};

struct shmi_tcache;

/* The layers below. Each returns 0 or an errno. */
struct shmi_tc_ops {
	/* Gives what `ask` wants by calling shmi_tcache_grant for each span, and takes what it gives back and reports: those counts
	 * are 0 afterwards, unless the daemon is away and could not be told. */
	int (*refill)(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask);
	/* Spans of `sclass` that the process holds and no thread: calls shmi_tcache_grant for some that have free slots. */
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
	uint32_t trim_epoch;
	uint32_t granted; /* spans that the last refill brought */
	uint32_t refills, age_clock; /* of magazines; where the clock of idle classes stands */
	uint32_t reap_clock; /* which class was last looked at for spans that others have emptied */
	uint32_t return_bytes; /* of ask.returns */
	uint64_t held_bytes; /* of all spans that the thread holds */
	uint64_t peak_bytes; /* the most that it ever held */
	uint64_t keep_bytes; /* of `keep` of all classes */
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

/* The slow path of malloc: fills the magazine and pops. NULL and *error (an errno) on failure. */
void *shmi_tcache_refill(struct shmi_tcache *tc, shmi_sclass sclass, int *error);

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

/* For ops: one more span is held by this thread. `whole`: all its slots are free. */
void shmi_tcache_grant(struct shmi_tcache *tc, uint32_t page, uint32_t generation, shmi_sclass sclass, bool whole);

/* Between tcache.c (refill) and tcput.c (put). */
int shmi_tcache_set_up(struct shmi_tcache *tc, shmi_sclass sclass);
void shmi_tcache_grow(struct shmi_tcache *tc, shmi_sclass sclass);
void shmi_tcache_catch_up(struct shmi_tcache *tc);
uint32_t shmi_tcache_keep_size(const struct shmi_tcache *tc, shmi_sclass sclass);
void shmi_tcache_keep_less(struct shmi_tcache *tc, uint32_t sclass, uint32_t by);
void shmi_tcache_put_oldest(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t entries);
void shmi_tcache_give_back(struct shmi_tcache *tc, uint32_t page);
int shmi_tcache_send(struct shmi_tcache *tc);
/* So many more classes are looked at: one that was not refilled since the last look gives back half of what it caches. */
void shmi_tcache_age(struct shmi_tcache *tc, uint32_t classes);
void shmi_tcache_reap(struct shmi_tcache *tc, uint32_t looks);

/* Empties all magazines and gives back the spans that are wholly free. */
void shmi_tcache_trim(struct shmi_tcache *tc);

/* The thread ends: empties the magazines and hands each span to `keep`; wholly free ones go to the daemon. The cache can be
 * used again by another thread. */
void shmi_tcache_retire(struct shmi_tcache *tc, void (*keep)(void *ctx, uint32_t page, shmi_sclass sclass), void *ctx);

/* Called when a put recognises a double free or an invalid pointer among blocks freed earlier; does not return. */
_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off);

#endif
