/* Kills under load: what the processes of the campaign share, beside the heap under test.
 *
 *	kills.c     the nemesis: starts all, kills clients and the daemon, reaps, replaces, reports
 *	client.c    a client: two threads that play traces or mix everything; thread exits, detach and attach
 *	steps.c     what a thread does from one step to the next
 *	journal.c   every call into the heap, journaled so that a death at any instruction leaves a decidable state
 *	auditor.c   a client that is never killed: times its own calls, probes the daemon, and audits
 *	audit.c     with all clients parked, compares the heap, slot by slot, with the journal
 *	restarts.c  kills of the daemon
 *	report.c    counters, the table at the end
 *
 * The board is anonymous shared memory that the nemesis makes and all inherit. A block has an entry on it: a word that says
 * whose it is, where, and what is being done with it, stored before and after each call. What a killed thread left:
 *
 *	ALLOCATING  at most one block that nobody knows of
 *	FILLING     a block that is known; its bytes are not
 *	LIVE        a block whose bytes follow from its offset and the entry's sequence number
 *	FREEING     a block that is free, or is not (as if death had come before the call): in doubt
 *	RESIZING    the same, and perhaps one more that nobody knows of
 *	MAILED      whoever takes it out of its place has it; in no place: it was on its way
 *
 * An audit finds each block that is allocated and that no entry knows: it must be one of those in doubt, or one of the at most one
 * per killed thread that nobody was told of, and then of a size that fits the thread's last request, or a slot that the daemon has
 * written off. Then it is freed, so that the next audit starts from nothing. So no block in doubt stays undecided, and the last audit
 * finds an empty heap.
 */
#ifndef STRESS_KILLS_H
#define STRESS_KILLS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/shmalloc.h"
#include "tests/bench/replay/replay.h"
#include "tests/lib/random.h"

#define CLIENTS 8u
#define PLAYERS 4u /* the first of them play traces */
#define THREADS (CLIENTS * 2u)
#define AUDITOR THREADS /* its slot */
#define SLOTS (THREADS + 1)
#define REGION 65536u /* entries of a slot; of those that mix, the first MIX_REGION are used */
#define MIX_REGION 400u
#define PLACES 256u
#define DOUBTS 65536u
#define TIMEOUT_MS 120000 /* of the clients: a call that fails has found a bug, not a busy machine */
#define HASTY (CLIENTS - 1) /* but for this one, which gives up soon: EAGAIN is what it may get */
#define HASTY_MS 10
#define GIVEN_UP 256u /* the request under way is the first of those that gave up behind it */

enum entry_state { E_EMPTY, E_ALLOCATING, E_FILLING, E_LIVE, E_FREEING, E_RESIZING, E_MAILED };

struct entry {
	_Atomic uint64_t word; /* bits 0..47 offset, 48..55 owner's slot, 56..59 state, 60 scoped */
	uint32_t size; /* while ALLOCATING or RESIZING: what is asked for */
	uint32_t seq; /* bit 0: noscan; while ALLOCATING or RESIZING the alignment */
};

static inline uint64_t entry_word(enum entry_state state, uint32_t owner, bool scoped, uint64_t off)
{
	return off | (uint64_t)owner << 48 | (uint64_t)state << 56 | (uint64_t)scoped << 60;
}

static inline enum entry_state entry_state(uint64_t word)
{
	return (enum entry_state)(word >> 56 & 15);
}

static inline uint32_t entry_owner(uint64_t word)
{
	return (uint32_t)(word >> 48 & 255);
}

static inline bool entry_scoped(uint64_t word)
{
	return word >> 60 & 1;
}

static inline uint64_t entry_off(uint64_t word)
{
	return word & ((1ull << 48) - 1);
}

/* What is being killed: longest calls are kept apart. */
enum phase { PHASE_CLIENTS, PHASE_DAEMON, PHASE_BOTH, PHASES };

/* One thread's place on the board; outlives the thread. [W that thread; R nemesis] */
struct slot {
	_Alignas(64) _Atomic uint32_t current; /* entry + 1 that a call is about */
	_Atomic uint32_t parked;
	uint64_t longest_ns[PHASES]; /* of malloc, free and realloc */
	uint64_t slow[PHASES]; /* how many of them took over SLOW_NS */
	uint64_t longest_other_ns[PHASES]; /* of trim, detach and attach */
	uint64_t calls, checked, gave_up;
	uint32_t given_up[GIVEN_UP]; /* the last large sizes: one may be granted, for nobody, when it dies */
	uint32_t n_given_up;
};

#define SLOW_NS 100000000ll

enum command { DO_NOTHING, DO_PROBE, DO_AUDIT, DO_CLOSE };

/* What a death leaves open: whether the block at `off` is free; or, with 0, whether one was allocated for a request of so
 * many bytes. */
struct doubt {
	uint64_t off;
	uint32_t size, alignment; /* size 0: settled */
};

struct board {
	_Atomic uint32_t pause; /* futex; 1: park */
	_Atomic uint32_t phase;
	_Atomic uint32_t violations;
	_Atomic uint32_t client_id[CLIENTS + 1]; /* id + 1 */
	_Atomic uint32_t stops[CLIENTS]; /* bumped before SIGSTOP and before SIGCONT */
	/* nemesis to auditor */
	_Atomic uint32_t ask, done; /* futexes: numbers of commands */
	_Atomic uint32_t command;
	int64_t late_ns; /* how late somebody woke who only sleeps; [W witness] */
	int64_t probed_ns; /* when the last probe was answered */
	bool trim; /* the daemon was away since the last audit: clients pay what they owe before they park */
	/* what deaths since the last audit allow; [W nemesis, auditor in an audit] */
	uint32_t n_doubts;
	struct doubt doubt[DOUBTS];
	/* found by audits; [W auditor] */
	uint64_t audits, audited, lost, undone, written_off, written_off_counter, orphans, most_live;
	_Atomic uint32_t place[PLACES]; /* entry + 1 */
	struct slot slot[SLOTS];
	struct entry entry[SLOTS * REGION];
};

struct campaign {
	struct board *board;
	const char *socket;
	struct trace trace[16]; /* events in shared memory */
	unsigned traces;
};

extern struct campaign campaign;

/* ---- report.c ---- */

void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
void report(double seconds);

/* ---- journal.c ---- */

/* A thread at work. */
struct worker {
	struct slot *slot;
	uint32_t number; /* of the slot */
	shma_heap *heap;
	struct test_random random;
	bool busy; /* of those who mix, every third life: asks the daemon for something at every turn */
};

/* Fills or checks the bytes that an entry's offset, size and sequence stand for. check: false if they differ. */
void pattern_fill(void *block, uint64_t off, uint32_t size, uint32_t seq);
bool pattern_check(const void *block, uint64_t off, uint32_t size, uint32_t seq);

void journal_alloc(struct worker *w, uint32_t entry, uint32_t size, uint32_t alignment, unsigned flags);
void journal_realloc(struct worker *w, uint32_t entry, uint32_t size);
void journal_free(struct worker *w, uint32_t entry);
bool journal_mail(struct worker *w, uint32_t entry, uint32_t place); /* false: the place was taken */
uint32_t journal_take(struct worker *w, uint32_t place); /* the entry, or UINT32_MAX */

/* What a dead process had: called by the nemesis for each of its slots, before a new one begins. */
void journal_bury(uint32_t slot);

/* Did a call that failed just now fail as it may? */
bool may_give_up(struct worker *w);

/* Times one call: `before` from call_begin. */
int64_t call_begin(const struct worker *w, uint32_t *stops);
void call_end(struct worker *w, int64_t before, uint32_t stops, bool other);

/* ---- steps.c ---- */

/* Frees some or all of what the thread that had the slot before left. */
void inherit(struct worker *w);
void play_trace(struct worker *w, const struct trace *trace, uint64_t *at, bool scoped);
void mix(struct worker *w);
void ask_for_much(struct worker *w); /* asks the daemon for a block of its own */
uint32_t first_entry(uint32_t slot);

/* ---- client.c ---- */

int client_main(uint32_t client, uint64_t seed);
void park(struct worker *w);

/* ---- auditor.c ---- */

int auditor_main(uint64_t seed);

/* Called by the nemesis: numbers of commands. */
uint32_t auditor_ask(enum command command);
bool auditor_wait(uint32_t number, int64_t deadline_ns);

/* ---- audit.c ---- */

void audit(struct worker *w, bool last);

/* ---- waiting ---- */

void futex_wait_ns(_Atomic uint32_t *word, uint32_t value, int64_t ns);
void futex_wake(_Atomic uint32_t *word);
void sleep_ns(int64_t ns);

#endif
