/* The same block is freed twice in a row; seen when the magazine is put, at the latest by a trim. */
#include "client/shmalloc.h"

int main(void)
{
	void *block = shma_malloc(100);

	shma_free(block);
	shma_free(block);
	return shma_trim(shma_default());
}
