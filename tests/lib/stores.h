/* Every store of a function to some memory, one by one: what a death after each of them would leave.
 *
 * While stores_record runs a function, the watched ranges are write-protected. Each store faults; the handler opens the page, lets
 * the processor do that one instruction (trap flag), notes which bytes have changed, and closes the page again. A string instruction
 * traps after each of its rounds. So the code runs as it was compiled, and the log has its stores in the order in which it did
 * them: the state after the first k changes is exactly what is left in shared memory when the process is killed there. Private memory
 * is lost in a death, so the shared bytes are the whole of it; instructions between two stores leave nothing new.
 *
 * A log is played forwards and backwards over any copy of the ranges:
 *
 *	stores_record(&log, ranges, n, run, ctx);        the ranges are as the function left them
 *	stores_apply(&log, ranges, log.count, 0)         ... as before
 *	stores_apply(&log, ranges, 0, k)                 ... as after k changes
 *
 * What the kernel would write into the ranges (getrandom, read) fails with EFAULT meanwhile; a function that stands in for a
 * system call on them uses stores_set. One recording at a time. x86-64 only; not under a sanitizer.
 */
#ifndef TESTS_LIB_STORES_H
#define TESTS_LIB_STORES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORES_RANGES 4u

struct stores_range {
	unsigned char *start; /* aligned to 4 KiB */
	uint64_t len;
};

struct stores_change {
	uint64_t off;
	uint32_t range, len;
	size_t bytes; /* in the pool: `len` bytes as they were, then as they are */
};

struct stores {
	struct stores_change *change;
	unsigned char *pool;
	size_t count, room, used, pool_room;
	uint64_t traps; /* stores, those included that changed nothing */
};

/* False where stores cannot be watched, and why. */
bool stores_possible(const char **why);

void stores_init(struct stores *log);
void stores_deinit(struct stores *log);

/* Runs the function and logs its stores to the ranges, which are writable before and afterwards. */
void stores_record(
        struct stores *log, const struct stores_range *ranges, uint32_t n, void (*run)(void *ctx), void *ctx);

/* memset that is one change for each 4 KiB, and none where nothing changes; watched or not. */
void stores_set(void *at, int byte, size_t len);

/* Where the log of the recording that is going on stands. */
size_t stores_now(void);

/* Brings a copy of the ranges from the state after `from` changes to that after `to`. */
void stores_apply(const struct stores *log, const struct stores_range *ranges, size_t from, size_t to);

static inline const unsigned char *stores_before(const struct stores *log, const struct stores_change *change)
{
	return log->pool + change->bytes;
}

static inline const unsigned char *stores_after(const struct stores *log, const struct stores_change *change)
{
	return log->pool + change->bytes + change->len;
}

#endif
