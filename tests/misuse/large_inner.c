/* A pointer into the first page of a large block. */
#include "client/shmalloc.h"

int main(void)
{
	char *block = shma_malloc(1 << 20);

	shma_free(block + 64);
	return 0;
}
