/* A program of somebody else's: what it needs is what is installed. Prints the library's version. */
#include <shmalloc.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	static const char text[] = "from a consumer in C";
	char *block = shma_malloc(sizeof(text)), *found;

	if (!block) {
		perror("consumer: shma_malloc");
		return 1;
	}
	memcpy(block, text, sizeof(text));
	if (shma_root_set(shma_default(), "consumer", block) || !(found = shma_root_get(shma_default(), "consumer")) ||
	        strcmp(found, text) || shma_root_del(shma_default(), "consumer")) {
		perror("consumer: a root");
		return 1;
	}
	shma_free(block);
	printf("shmalloc %s\n", shma_version());
	return 0;
}
