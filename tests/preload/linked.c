/* Calls libshmalloc itself, too: there is one instance of it in the process, and one client. */
#include "client/shmalloc.h"
#include "tests/preload/program.h"

/* A block of another client, a child that attached for itself. Its own view of the heap is a copy: it gives the offset. */
static void make_there(int to, int until)
{
	char *block = shma_heap_alloc(shma_default(), 100000, 0, 0), byte;

	expect(block);
	memset(block, 'x', 100000);
	shma_off off = shma_to_off(block);

	expect(write(to, &off, sizeof(off)) == sizeof(off) && read(until, &byte, 1) == 0);
	shma_free(block);
	_exit(0);
}

/* What is another's is not copied. */
static void of_another(void)
{
	int to[2], until[2];
	shma_off off = 0;

	expect(pipe(to) == 0 && pipe(until) == 0);
	pid_t maker = fork();

	if (maker == 0) {
		(void)close(until[1]);
		make_there(to[1], until[0]);
	}
	expect(read(to[0], &off, sizeof(off)) == sizeof(off));
	const char *block = shma_from_off(shma_default(), off);

	expect(block && block[0] == 'x' && block[99999] == 'x');
	pid_t pid = fork();

	if (pid == 0) {
		(void)close(until[1]);
		expect(block[0] == 0 && block[50000] == 0 && block[99999] == 0);
		_exit(0);
	}
	expect_ended(pid);
	expect(close(until[1]) == 0);
	expect_ended(maker);
}

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
	of_another();
	shma_free(ours);
	free(shared);
	expect(shma_detach(heap) == 0);
	ours = malloc(100);
	expect(ours && shma_to_off(ours));
	free(ours);
	return 0;
}
