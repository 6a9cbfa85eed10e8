/* A client with a label of one's choice: holds so many bytes in blocks of many sizes, and replaces some of them all the time, until its
 * input ends.
 *
 *	tenant LABEL MIB
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/shmalloc.h"

#define BLOCKS 4096u
#define EACH_TURN 64u
#define TURN_MS 5

static unsigned next(unsigned *state)
{
	return *state = *state * 1664525u + 1013904223u;
}

int main(int argc, char **argv)
{
	static char *block[BLOCKS];
	struct shma_options options = {.size = sizeof(options), .label = argv[1]};
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned state = 1, at = 0;
	char byte;

	if (argc != 3)
		return 2;
	size_t mean = strtoul(argv[2], NULL, 10) * 1024 * 1024 / BLOCKS;
	shma_heap *heap = shma_attach(&options);

	if (!heap) {
		perror("tenant");
		return 1;
	}
	for (;;) {
		for (unsigned n = 0; n < EACH_TURN; n++, at = (at + 1) % BLOCKS) {
			size_t size = mean / 4 + (next(&state) >> 8) % (mean + mean / 2);

			shma_free(block[at]);
			block[at] = shma_heap_alloc(heap, size, 0, 0);
			if (block[at])
				memset(block[at], 1, size);
		}
		if (poll(&input, 1, TURN_MS) != 0 && read(STDIN_FILENO, &byte, 1) <= 0)
			return shma_detach(heap) != 0;
	}
}
