/* OSSP mm: a heap over a file, whose lock needs that file: it is in the directory that the runner removes. */
#include <mm.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/bench/micro/heap.h"

static MM *heap;

bool heap_open(void)
{
	const char *dir = getenv("BENCH_DIR");
	char path[256];
	size_t want = (size_t)512 << 20;

	snprintf(path, sizeof(path), "%s/mm-%d", dir ? dir : "/dev/shm", (int)getpid());
	heap = mm_create(want < mm_maxsize() ? want : mm_maxsize(), path);
	if (!heap)
		fprintf(stderr, "mm: %s\n", mm_error());
	return heap != NULL;
}

void heap_close(void)
{
	mm_destroy(heap);
}

bool heap_is_shared(void)
{
	return true;
}

void *peer_alloc(size_t size)
{
	return mm_malloc(heap, size);
}

void peer_free(void *block)
{
	mm_free(heap, block);
}

void *peer_at(void *block)
{
	return block;
}
