/* micro: what single operations of an allocator cost. One source for all of them (heap.h); each row that is named on the command
 * line runs in the order given, in one process, and prints its figures as lines "NAME VALUE UNIT".
 *
 * Times are wall-clock: where a daemon works for a program, or another thread, the program waits, and that is part of the price.
 *
 *	main      the table of rows
 *	measure   clock, medians, sizes of blocks
 *	pairs     one block or a few, again and again; large ones; memory that nobody has touched; instructions
 *	sets      many live blocks, replaced at random
 *	burst     a million blocks, freed in three orders
 *	duo       two at once, threads or processes: working sets, and a ring from one to the other
 *	service   the daemon: start, messages, requests
 */
#ifndef BENCH_MICRO_H
#define BENCH_MICRO_H

#include "tests/bench/micro/heap.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KIB 1024u
#define MIB (1024u * KIB)

/* ---- measure ---- */

int64_t now_ns(void);
void say(const char *name, double value, const char *unit);
void give_up(const char *why) __attribute__((noreturn));

/* `n` operations, with whatever `arg` says. */
typedef void loop_fn(void *arg, long n);

/* Nanoseconds per operation: the median of three runs, each of `run_ms` to twice that, after as long to get warm. */
double ns_per_op(loop_fn *loop, void *arg, int run_ms);

/* For callgrind, which instructions.sh runs with --dump-before=instructions_mark: some operations to get warm, then between two marks
 * 1,000, then 2,000. Their difference is 1,000 operations and nothing else. */
void count_instructions(const char *name, loop_fn *loop, void *arg);
void instructions_mark(void);

/* Sorts them. */
double median(double *values, int n);

/* xorshift64*; the state is not 0. */
static inline uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* Sizes as servers ask for them: 8 B to 16 KiB, two thirds below 64 B, 130 B on average. A table, so that no time goes into
 * drawing them: pick with 12 random bits. */
#define SIZES 4096u
extern uint32_t sizes[SIZES];
void sizes_init(void);

static inline void touch(void *block)
{
	*(volatile char *)heap_at(block) = 1;
}

/* Pages that no allocator under test knows; shared with processes that are forked later. */
void *pages_new(size_t bytes);

/* ---- a set of live blocks ---- */

struct set {
	void **block;
	uint64_t count, random;
};

void set_open(struct set *set, uint64_t count, uint64_t seed);
void set_replace(void *set, long n); /* a loop_fn: frees a block at random and makes another */
void set_close(struct set *set);

/* ---- rows ---- */

void row_pair(void);
void row_batch(void);
void row_large(void);
void row_touch(void);
void row_instructions(void);
void row_set(void);
void row_live(void);
void row_burst(void);
void row_threads(void);
void row_processes(void);
void row_start(void);
void row_messages(void);
void row_requests(void);

/* What row_start starts: makes one block, and says when it had it. */
void first_block(void);

#ifdef __cplusplus
}
#endif
#endif
