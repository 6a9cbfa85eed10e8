/* A page of the heap where no block begins. */
#include "client/shmalloc.h"

int main(void)
{
	char *block = shma_malloc(100);

	shma_free(block + (32 << 20));
	return shma_trim(shma_default());
}
