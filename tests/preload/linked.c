/* Calls libshmalloc itself, too: there is one instance of it in the process, and one client. */
#include "client/shmalloc.h"
#include "tests/preload/program.h"

int main(void)
{
	struct shma_stats stats = {.size = sizeof(stats)};
	char *ours = malloc(100), *shared = shma_malloc(100);
	uint32_t client;

	expect(ours && shared && shma_to_off(ours) && shma_to_off(shared));
	expect(shma_stats_get(shma_default(), &stats) == 0);
	client = stats.client;
	shma_heap *heap = shma_attach(NULL);

	expect(heap == shma_default() && shma_stats_get(heap, &stats) == 0 && stats.client == client);
	char *own = shma_own_page(heap);

	expect(own);
	strcpy(own, "the parent's");
	pid_t pid = fork();

	if (pid == 0) {
		expect(strcmp(own, "the parent's") == 0);
		strcpy(own, "the child's");
		/* It may attach for itself: its malloc stays the C library's, whatever lies in that heap's caches. */
		shma_heap *again = shma_default();

		expect(again && again == shma_default());
		shma_free(shma_heap_alloc(again, 100, 0, SHMA_SCOPED));
		ours = malloc(100);
		expect(ours && !shma_to_off(ours));
		ours = realloc(ours, 5000);
		expect(ours && !shma_to_off(ours));
		free(ours);
		_exit(0);
	}
	expect_ended(pid);
	expect(strcmp(own, "the parent's") == 0);
	shma_free(ours);
	free(shared);
	expect(shma_detach(heap) == 0);
	ours = malloc(100);
	expect(ours && shma_to_off(ours));
	free(ours);
	return 0;
}
