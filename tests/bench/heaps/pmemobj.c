/* PMDK's libpmemobj: blocks that are allocated atomically, in a pool on tmpfs; run with PMEM_IS_PMEM_FORCE=1, as nothing there needs to be
 * flushed. A pool is for one process at a time. A block is an offset. */
#include <libpmemobj.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/micro/heap.h"

static PMEMobjpool *pool;
static uint64_t uuid;

bool heap_open(void)
{
	const char *dir = getenv("BENCH_DIR");
	char path[256];

	snprintf(path, sizeof(path), "%s/pmemobj-%d", dir ? dir : "/dev/shm", (int)getpid());
	pool = pmemobj_create(path, "bench", (size_t)512 << 20, 0600);
	if (!pool) {
		fprintf(stderr, "pmemobj: %s\n", pmemobj_errormsg());
		return false;
	}
	unlink(path);
	uuid = pmemobj_root(pool, 64).pool_uuid_lo;
	return true;
}

void heap_close(void)
{
	pmemobj_close(pool);
}

bool heap_is_shared(void)
{
	return false;
}

void *peer_alloc(size_t size)
{
	PMEMoid oid;

	return pmemobj_alloc(pool, &oid, size, 0, NULL, NULL) == 0 ? (void *)(uintptr_t)oid.off : NULL;
}

void peer_free(void *block)
{
	PMEMoid oid = {.pool_uuid_lo = uuid, .off = (uint64_t)(uintptr_t)block};

	pmemobj_free(&oid);
}

void *peer_at(void *block)
{
	return (char *)pool + (uintptr_t)block;
}
