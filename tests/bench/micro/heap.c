/* What most heaps have nothing of: their own functions take precedence. */
#include "tests/bench/micro/heap.h"

#define DEFAULT __attribute__((weak))

DEFAULT void heap_close(void)
{
}

DEFAULT void heap_join(void)
{
}

DEFAULT uint64_t heap_messages(void)
{
	return UINT64_MAX;
}

DEFAULT uint64_t heap_daemon_ns(void)
{
	return 0;
}
