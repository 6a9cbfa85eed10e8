/* The memory orders in use, by name. Nothing else in the project calls a <stdatomic.h> function on shared memory.
 *
 * Two readers have to be satisfied. Another processor sees our stores in the order that release and acquire give.
 * And whoever finds what a killed thread left sees a prefix of its stores in program order: SIGKILL comes between two
 * instructions, and all that was stored before stays. For that second reader a release store is what keeps the
 * compiler from moving an earlier store behind it; on x86-64 it is a plain mov. Pairs are numbered P1... in README.md.
 */
#ifndef SHM_ATOMIC_H
#define SHM_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint16_t shmi_a16;
typedef _Atomic uint32_t shmi_a32;
typedef _Atomic uint64_t shmi_a64;

/* Our own last value, or a word whose order does not matter. */
#define shmi_load(p) atomic_load_explicit((p), memory_order_relaxed)
#define shmi_store(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)

/* Read what a release published. */
#define shmi_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)

/* Publish: all earlier stores are there for whoever sees this one, a survivor of our death included. */
#define shmi_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)

/* Put: sets bits, returns the word before. Slots put are published to whoever takes them (P1). */
#define shmi_fetch_or(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)

/* Take: clears bits, returns the word before. */
#define shmi_fetch_and(p, v) atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)

/* Adds to a word that has one writer, us: others see the value before or after. */
#define shmi_bump(p, by) shmi_store((p), shmi_load(p) + (by))

#define shmi_fetch_add(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)

/* Stores v where *expected is; else puts what is there into *expected. True if it was stored. */
#define shmi_exchange_if(p, expected, v)                                                                               \
	atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)

/* Store, fence, load of another word, on both sides: at least one sees the other's store (P2). */
#define shmi_fence() atomic_thread_fence(memory_order_seq_cst)

/* Between two of our stores: whoever finds what our death left has the second only with the first. A release store orders
 * what comes before it, not what comes after; where that matters (the word first, then the rest) this does, for the
 * compiler. No instruction. */
#define shmi_then() atomic_signal_fence(memory_order_seq_cst)

#endif
