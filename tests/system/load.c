/* A client that is busy until its standard input ends: blocks of many sizes come and go, some of them large.
 *
 *	load LABEL KIB
 *
 * Prints "ready" when it holds about that much, or cannot get any more, and goes on. LABEL is what statistics call it. Status 0, or 1 if it could not attach. An
 * allocation that fails, as while no daemon runs, is tried again later. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/shmalloc.h"

#define MOST 65536u
#define ROUND 64u /* blocks replaced between two looks at standard input */

static void *block[MOST];
static size_t bytes[MOST];
static size_t held;

static unsigned next(void)
{
	static unsigned state = 12345;

	state = state * 1103515245u + 12345u;
	return state >> 8;
}

/* Mostly small; one in 500 has some hundred KiB. */
static size_t some_size(void)
{
	unsigned kind = next() % 500;

	if (kind == 0)
		return 300000 + next() % 300000;
	if (kind < 20)
		return 1024 + next() % 30000;
	return 16 + next() % 500;
}

/* False if the heap has nothing to give. */
static bool replace(unsigned i, shma_heap *heap, size_t most)
{
	if (block[i]) {
		shma_free(block[i]);
		held -= bytes[i];
		block[i] = NULL;
		return true;
	}
	if (held >= most)
		return true;
	bytes[i] = some_size();
	block[i] = shma_heap_alloc(heap, bytes[i], 0, next() % 4 ? 0 : SHMA_SCOPED);
	if (!block[i])
		return false;
	memset(block[i], 1, bytes[i] < 64 ? bytes[i] : 64);
	held += bytes[i];
	return true;
}

static int ended(int wait_ms)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	char byte;

	return poll(&in, 1, wait_ms) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
}

int main(int argc, char **argv)
{
	struct shma_options options = {.size = sizeof(options), .timeout_ms = 2000};
	size_t most;
	unsigned ready = 0;

	if (argc != 3)
		return 2;
	options.label = argv[1];
	most = strtoul(argv[2], NULL, 10) << 10;
	shma_heap *heap = shma_attach(&options);

	if (!heap) {
		perror("load: cannot attach");
		return 1;
	}
	while (!ended(ready ? 1 : 0)) {
		bool more = true;

		for (unsigned n = 0; n < ROUND && more; n++)
			more = replace(next() % MOST, heap, most);
		if ((more && held < most * 3 / 4) || ready++)
			continue;
		puts("ready");
		fflush(stdout);
	}
	return 0;
}
