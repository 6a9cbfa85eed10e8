/* A library whose constructor, under the lock of the dynamic loader, allocates in every way, waits for a thread that does the same, and
 * forks. Its destructor does as well. */
#include <malloc.h>
#include <pthread.h>

#include "tests/preload/program.h"

int loaded_text(const char *text);

static _Thread_local char *mine; /* of a library that came later: allocated when a thread first asks for it */
static pthread_key_t key[40];

static void in_destructor(void *block)
{
	char *more = malloc(3000), *large = malloc(400000);

	expect(more && large);
	free(large);
	free(more);
	free(block);
	free(mine);
	mine = NULL;
}

static void use(void)
{
	void *block[400];
	FILE *stream = fopen("/dev/null", "r");

	expect(stream && fclose(stream) == 0);
	for (size_t i = 0; i < 400; i++) {
		block[i] = i % 3 ? malloc(i * 61) : i % 2 ? calloc(i, 700) : aligned_alloc(4096, i * 900 + 1);
		expect(block[i] && malloc_usable_size(block[i]) >= i * 61);
	}
	for (size_t i = 0; i < 400; i++)
		free(block[i]);
	block[0] = realloc(malloc(10), 600000);
	expect(block[0]);
	free(block[0]);
	free(mine);
	mine = strdup("mine");
	expect(mine);
}

static void *in_thread(void *unused)
{
	use();
	for (size_t i = 0; i < 40; i++)
		expect(pthread_setspecific(key[i], malloc(i + 1)) == 0);
	return unused;
}

static void in_all_ways(void)
{
	pthread_t thread[3];

	for (size_t i = 0; i < 3; i++)
		expect(pthread_create(&thread[i], NULL, in_thread, NULL) == 0);
	use();
	for (size_t i = 0; i < 3; i++)
		expect(pthread_join(thread[i], NULL) == 0);
	pid_t pid = fork();

	if (pid == 0) {
		use();
		_exit(0);
	}
	expect_ended(pid);
	(void)malloc_trim(0);
}

__attribute__((constructor)) static void begin(void)
{
	for (size_t i = 0; i < 40; i++)
		expect(pthread_key_create(&key[i], in_destructor) == 0);
	in_all_ways();
}

__attribute__((destructor)) static void end(void)
{
	in_all_ways();
	free(mine);
	mine = NULL;
	for (size_t i = 0; i < 40; i++)
		expect(pthread_key_delete(key[i]) == 0);
}

int loaded_text(const char *text)
{
	free(mine);
	mine = strdup(text);
	return mine && strcmp(mine, text) == 0;
}
