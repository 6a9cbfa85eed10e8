/* A large block is freed twice while the process keeps it for reuse. */
#include "client/shmalloc.h"

int main(void)
{
	void *block = shma_malloc(1 << 20);

	shma_free(block);
	shma_free(block);
	return 0;
}
