/* The dynamic loader's lock, and the heap: a library whose constructor waits for threads that allocate comes and goes, while other threads
 * allocate, look up names and end, with destructors that allocate. Who waits for a lock in vain is ended by the alarm. */
#include <pthread.h>

#include "tests/preload/program.h"

#define ROUNDS 3
#define CHURNERS 2

extern int __cxa_thread_atexit_impl(void (*destructor)(void *object), void *object, void *dso);
extern void *__dso_handle;

static int stop;

static void at_thread_end(void *block)
{
	char *more = malloc(70000);

	expect(more && in_heap(block) && strcmp(block, "to the end") == 0);
	memset(more, 1, 70000);
	free(more);
	free(block);
}

static void *live(void *unused)
{
	void *first = NULL, **block;

	for (size_t i = 0; i < 300; i++) {
		block = malloc(i * 97 + sizeof(void *));
		expect(block);
		*block = first;
		first = block;
	}
	expect(dlsym(RTLD_DEFAULT, "malloc"));
	for (; first; first = block) {
		block = *(void **)first;
		free(first);
	}
	expect(__cxa_thread_atexit_impl(at_thread_end, strdup("to the end"), &__dso_handle) == 0);
	return unused;
}

static void *churn(void *unused)
{
	pthread_t thread;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		expect(pthread_create(&thread, NULL, live, NULL) == 0 && pthread_join(thread, NULL) == 0);
	return unused;
}

static void come_and_go(const char *path)
{
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	int (*text)(const char *);

	expect(library);
	*(void **)&text = dlsym(library, "loaded_text");
	expect(text && text("made there"));
	expect(dlclose(library) == 0 && !dlopen(path, RTLD_NOW | RTLD_NOLOAD));
}

int main(int argc, char **argv)
{
	pthread_t thread[CHURNERS];

	expect(argc == 2);
	(void)alarm(100);
	come_and_go(argv[1]); /* with nobody there: the first threads are its own */
	for (size_t i = 0; i < CHURNERS; i++)
		expect(pthread_create(&thread[i], NULL, churn, NULL) == 0);
	for (size_t i = 0; i < ROUNDS; i++)
		come_and_go(argv[1]);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (size_t i = 0; i < CHURNERS; i++)
		expect(pthread_join(thread[i], NULL) == 0);
	return 0;
}
