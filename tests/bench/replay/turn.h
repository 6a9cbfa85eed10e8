/* A word that one party advances and others wait for: a count of 31 bits, and a bit that says that somebody sleeps.
 *
 * Whoever advances it makes a system call only if that bit is set. Waiting spins for a moment first, as the other side is
 * usually a few instructions away. The word may lie in memory that processes share.
 */
#ifndef REPLAY_TURN_H
#define REPLAY_TURN_H

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef _Atomic uint32_t turn_word;

#define TURN_SLEEPER (1u << 31)
#define TURN_SPINS 200 /* some microseconds */

static inline uint32_t turn_get(turn_word *word)
{
	return atomic_load_explicit(word, memory_order_acquire) & ~TURN_SLEEPER;
}

static inline void turn_set(turn_word *word, uint32_t value)
{
	if (atomic_exchange_explicit(word, value, memory_order_acq_rel) & TURN_SLEEPER)
		syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Returns the new value, once the word is not `value` any more. */
static inline uint32_t turn_wait_past(turn_word *word, uint32_t value)
{
	uint32_t now;

	for (int i = 0; i < TURN_SPINS; i++) {
		if ((now = turn_get(word)) != value)
			return now;
		__builtin_ia32_pause();
	}
	for (;;) {
		now = atomic_load_explicit(word, memory_order_acquire);
		if ((now & ~TURN_SLEEPER) != value)
			return now & ~TURN_SLEEPER;
		if (!(now & TURN_SLEEPER) && !atomic_compare_exchange_strong(word, &now, now | TURN_SLEEPER))
			continue;
		syscall(SYS_futex, word, FUTEX_WAIT, value | TURN_SLEEPER, NULL, NULL, 0);
	}
}

/* Waits until the word is exactly `value`. */
static inline void turn_wait(turn_word *word, uint32_t value)
{
	for (uint32_t now = turn_get(word); now != value;)
		now = turn_wait_past(word, now);
}

#endif
