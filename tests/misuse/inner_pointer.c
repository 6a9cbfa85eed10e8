/* A pointer into the middle of a block. */
#include "client/shmalloc.h"

int main(void)
{
	char *block = shma_malloc(100);

	shma_free(block + 16);
	return shma_trim(shma_default());
}
