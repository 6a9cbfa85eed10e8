/* A large block is freed twice, the second time after its pages went back. */
#include "client/shmalloc.h"

int main(void)
{
	void *block = shma_malloc(1 << 20);

	shma_free(block);
	if (shma_trim(shma_default()) != 0)
		return 1;
	shma_free(block);
	return 0;
}
