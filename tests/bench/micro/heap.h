/* The heap under test, chosen when the rows are compiled, so that a call costs here what it costs a program:
 *
 *	HEAP_MALLOC  malloc and free: the C library's, or those of the library that LD_PRELOAD names (the default)
 *	HEAP_SHMA    this heap
 *	HEAP_PEER    another allocator for shared memory, through its adapter in tests/bench/heaps
 *
 * A block is what an allocator hands out: an address, or for some peers an offset; heap_at() gives its bytes.
 */
#ifndef BENCH_HEAP_H
#define BENCH_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef HEAP_SHMA
#include "client/shmalloc.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What each file of tests/bench/heaps defines; heap.c does so for the functions that few need, marked [d]. */

/* Before all else, in the process that forks the others. False: printed why. */
bool heap_open(void);
void heap_close(void); /* [d] */

/* Can a block be used in another process, forked since heap_open()? */
bool heap_is_shared(void);

/* In a process forked since heap_open(), before its first call. */
void heap_join(void); /* [d] */

/* Requests that this process has sent to a daemon; UINT64_MAX: there is none. */
uint64_t heap_messages(void); /* [d] */

/* CPU time of the daemon in nanoseconds; 0: there is none. */
uint64_t heap_daemon_ns(void); /* [d] */

/* Of HEAP_PEER. NULL: no memory. */
void *peer_alloc(size_t size);
void peer_free(void *block);
void *peer_at(void *block);

#if defined(HEAP_SHMA)
static inline void *heap_alloc(size_t size)
{
	return shma_malloc(size);
}

static inline void heap_free(void *block)
{
	shma_free(block);
}

static inline char *heap_at(void *block)
{
	return (char *)block;
}
#elif defined(HEAP_PEER)
static inline void *heap_alloc(size_t size)
{
	return peer_alloc(size);
}

static inline void heap_free(void *block)
{
	peer_free(block);
}

/* Without a block the row has failed; where blocks are offsets, nobody would notice. */
static inline char *heap_at(void *block)
{
	if (!block)
		exit(3);
	return (char *)peer_at(block);
}
#else
static inline void *heap_alloc(size_t size)
{
	return malloc(size);
}

static inline void heap_free(void *block)
{
	free(block);
}

static inline char *heap_at(void *block)
{
	return (char *)block;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
