/* The library allocates nothing by malloc on its own way, and what a function that it calls allocates is the C library's. This program
 * stands before both: it counts what the library asks of the C library, and allocates within sendmsg. */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tests/preload/program.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);

static int asked, sent, nested;

static void *next(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	expect(found);
	return found;
}

void *__libc_malloc(size_t size)
{
	void *(*real)(size_t);

	*(void **)&real = next("__libc_malloc");
	__atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED);
	return real(size);
}

void *__libc_calloc(size_t count, size_t size)
{
	void *(*real)(size_t, size_t);

	*(void **)&real = next("__libc_calloc");
	__atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED);
	return real(count, size);
}

ssize_t sendmsg(int sock, const struct msghdr *msg, int flags)
{
	if (nested) {
		char *small = malloc(100), *large = calloc(1, 700000);

		expect(small && large && !in_heap(large));
		free(large);
		large = realloc(NULL, 3000000);
		expect(large && !in_heap(large));
		free(small);
		free(large);
	}
	sent++;
	return syscall(SYS_sendmsg, sock, msg, flags);
}

static void *use(void *unused)
{
	static char *block[4000];

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < 4000; i++) {
			block[i] = malloc(i % 100 == 1 ? 400000 : i * 7);
			expect(block[i] && in_heap(block[i]));
		}
		for (size_t i = 0; i < 4000; i++)
			free(block[i]);
	}
	return unused;
}

int main(void)
{
	pthread_t thread;
	int before;

	(void)use(NULL);
	expect(pthread_create(&thread, NULL, use, NULL) == 0 && pthread_join(thread, NULL) == 0);
	expect(sent > 0);
	before = asked;
	sent = 0;
	expect(pthread_create(&thread, NULL, use, NULL) == 0 && pthread_join(thread, NULL) == 0);
	expect(sent > 0 && asked == before);
	nested = 1;
	(void)use(NULL);
	expect(asked > before);
	return 0;
}
