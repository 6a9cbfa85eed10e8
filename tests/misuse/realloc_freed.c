/* A block whose span is gone is resized. */
#include "client/shmalloc.h"

int main(void)
{
	void *block = shma_malloc(2 << 20), *other;

	shma_free(block);
	if (shma_trim(shma_default()) != 0)
		return 1;
	other = shma_realloc(block, 4 << 20);
	return other != NULL;
}
