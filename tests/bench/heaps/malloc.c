/* The C library's malloc, or whatever LD_PRELOAD puts in its place. */
#include "tests/bench/micro/heap.h"

bool heap_open(void)
{
	return true;
}

bool heap_is_shared(void)
{
	return false;
}
