/* Under a limit: NULL and ENOMEM, of small blocks and large ones, and all is well when some have been freed. */
#include "tests/preload/program.h"

static void exhaust(size_t size)
{
	void *first = NULL, **at;
	size_t n = 0;

	errno = 0;
	while ((at = malloc(size)) != NULL) {
		*at = first;
		first = at;
		expect(in_heap(at) && ++n * size <= 64u << 20);
	}
	expect(errno == ENOMEM && n * size > 4u << 20);
	for (; first; first = at) {
		at = *(void **)first;
		free(first);
	}
	at = malloc(size);
	expect(at);
	free(at);
}

int main(void)
{
	exhaust(1000);
	exhaust(1000000);
	exhaust(100);
	return 0;
}
