/* Two processes, one heap: `hello WORDS` leaves a greeting and ends; `hello`, another process, finds it and frees it. */
#include <shmalloc.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	shma_heap *heap = shma_default();
	char *text = NULL;

	if (heap && argc > 1 && (text = shma_malloc(strlen(argv[1]) + 1)) != NULL) {
		strcpy(text, argv[1]);
		if (shma_root_set(heap, "hello", text) == 0)
			return 0;
	} else if (heap && argc == 1 && (text = shma_root_get(heap, "hello")) != NULL) {
		puts(text);
		shma_root_del(heap, "hello");
		shma_free(text);
		return 0;
	}
	perror("hello");
	return 1;
}
