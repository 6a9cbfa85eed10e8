/* APR: relocatable memory (apr_rmm) in a shared segment, under a mutex of APR's choice that processes share. A block is an offset. */
#include <apr_general.h>
#include <apr_proc_mutex.h>
#include <apr_rmm.h>
#include <apr_shm.h>
#include <stdio.h>

#include "tests/bench/micro/heap.h"

static apr_pool_t *pool;
static apr_rmm_t *heap;
static apr_anylock_t lock = {.type = apr_anylock_procmutex};

bool heap_open(void)
{
	const apr_size_t bytes = (apr_size_t)512 << 20;
	apr_shm_t *segment;

	return apr_initialize() == APR_SUCCESS && apr_pool_create(&pool, NULL) == APR_SUCCESS &&
	       apr_shm_create(&segment, bytes, NULL, pool) == APR_SUCCESS &&
	       apr_proc_mutex_create(&lock.lock.pm, NULL, APR_LOCK_DEFAULT, pool) == APR_SUCCESS &&
	       apr_rmm_init(&heap, &lock, apr_shm_baseaddr_get(segment), bytes, pool) == APR_SUCCESS;
}

void heap_close(void)
{
	apr_terminate();
}

bool heap_is_shared(void)
{
	return true;
}

void heap_join(void)
{
	if (apr_proc_mutex_child_init(&lock.lock.pm, NULL, pool) != APR_SUCCESS)
		exit(1);
}

void *peer_alloc(size_t size)
{
	return (void *)(uintptr_t)apr_rmm_malloc(heap, size);
}

void peer_free(void *block)
{
	apr_rmm_free(heap, (apr_rmm_off_t)(uintptr_t)block);
}

void *peer_at(void *block)
{
	return apr_rmm_addr_get(heap, (apr_rmm_off_t)(uintptr_t)block);
}
