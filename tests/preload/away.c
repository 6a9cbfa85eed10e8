/* Goes on while its daemon is away. Reads what to do: "keep" more blocks than it has cached, "look" for one in the heap until there is
 * one; answers each with a line: how many of the blocks were the heap's. Each block is checked at the end. */
#include "tests/preload/program.h"

#define MOST 60000

static unsigned char *block[MOST];
static size_t n_blocks;

static int keep(size_t n)
{
	int ours = 0;

	for (size_t i = 0; i < n; i++, n_blocks++) {
		size_t size = 500 + n_blocks % 1000;

		expect(n_blocks < MOST);
		errno = 77; /* is nobody's business, whoever serves */
		block[n_blocks] = malloc(size);
		expect(block[n_blocks] && errno == 77);
		memset(block[n_blocks], (int)(n_blocks & 0xff), size);
		ours += in_heap(block[n_blocks]);
	}
	return ours;
}

static int look(void)
{
	void *made[400]; /* so that none comes twice */
	int ours = 0;

	while (!ours) {
		for (size_t i = 0; i < 400; i++) {
			made[i] = malloc(9000 + i * 50);
			ours += in_heap(made[i]);
		}
		for (size_t i = 0; i < 400; i++)
			free(made[i]);
	}
	return ours;
}

int main(void)
{
	char line[20];

	while (fgets(line, sizeof(line), stdin)) {
		int ours = strcmp(line, "keep\n") == 0 ? keep(10000) : strcmp(line, "look\n") == 0 ? look() : -1;

		expect(ours >= 0 && printf("%d\n", ours) > 0 && fflush(stdout) == 0);
	}
	for (size_t i = 0; i < n_blocks; i++)
		for (size_t at = 0; at < 500 + i % 1000; at += 100)
			expect(block[i][at] == (i & 0xff));
	for (size_t i = 0; i < n_blocks; i++)
		free(block[i]);
	return 0;
}
