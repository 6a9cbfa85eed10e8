/* Frees a block twice, a small or a large one, or one that was inherited and is none. */
#include <malloc.h>

#include "tests/preload/program.h"

int main(int argc, char **argv)
{
	size_t size = argc == 2 && strcmp(argv[1], "large") == 0 ? 1000000 : 100;
	char *volatile block = malloc(size), *volatile other = malloc(size);

	if (argc == 2 && strcmp(argv[1], "inside") == 0) {
		free(block + 32);
		malloc_trim(0);
		return 0;
	}
	free(block);
	free(other);
	free(block);
	malloc_trim(0); /* all that is cached is looked at */
	return 0;
}
