/* The block went back into its span's bitmap in between. */
#include "client/shmalloc.h"

int main(void)
{
	void *keep = shma_malloc(100), *block = shma_malloc(100);

	shma_free(block);
	if (shma_trim(shma_default()) != 0 || !keep)
		return 1;
	shma_free(block);
	return shma_trim(shma_default());
}
