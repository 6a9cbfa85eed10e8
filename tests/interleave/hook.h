/* Takes the place of shm/atomic.h: files of shm/ and client/ that are compiled with `-include` of this one call the explorer
 * (explore.c) at every atomic operation. The names, what they return and what they promise are those of shm/atomic.h. */
#ifndef TESTS_INTERLEAVE_HOOK_H
#define TESTS_INTERLEAVE_HOOK_H
#define SHM_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint16_t shmi_a16;
typedef _Atomic uint32_t shmi_a32;
typedef _Atomic uint64_t shmi_a64;

uint64_t hook_load(const volatile void *at, unsigned size);
void hook_store(volatile void *at, unsigned size, uint64_t value);
uint64_t hook_or(volatile void *at, unsigned size, uint64_t value);
uint64_t hook_and(volatile void *at, unsigned size, uint64_t value);
uint64_t hook_add(volatile void *at, unsigned size, uint64_t value);
bool hook_swap(volatile void *at, unsigned size, uint64_t *expected, uint64_t value); /* of 8 bytes */
void hook_fence(void);

/* The type of the word without its _Atomic. */
#define hook_plain(p) _Generic(*(p), uint16_t : (uint16_t)0, uint32_t : (uint32_t)0, uint64_t : (uint64_t)0)
#define HOOK_AS(p, value) ((__typeof__(hook_plain(p)))(value))
#define shmi_load(p) HOOK_AS(p, hook_load((p), sizeof(*(p))))
#define shmi_load_acquire(p) shmi_load(p)
#define shmi_store(p, v) hook_store((p), sizeof(*(p)), (uint64_t)(v))
#define shmi_store_release(p, v) shmi_store(p, v)
#define shmi_fetch_or(p, v) HOOK_AS(p, hook_or((p), sizeof(*(p)), (uint64_t)(v)))
#define shmi_fetch_and(p, v) HOOK_AS(p, hook_and((p), sizeof(*(p)), (uint64_t)(v)))
#define shmi_fetch_add(p, v) HOOK_AS(p, hook_add((p), sizeof(*(p)), (uint64_t)(v)))
#define shmi_exchange_if(p, expected, v) hook_swap((p), sizeof(*(p)), (uint64_t *)(expected), (uint64_t)(v))
#define shmi_bump(p, by) shmi_store((p), shmi_load(p) + (by))
#define shmi_fence() hook_fence()
#define shmi_then() atomic_signal_fence(memory_order_seq_cst)

#endif
