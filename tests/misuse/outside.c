/* A pointer to something that is not of any heap. */
#include "client/shmalloc.h"

int main(void)
{
	int local = 0;

	if (!shma_malloc(1))
		return 1;
	shma_free(&local);
	return local;
}
