/* Threads that come and go, with destructors that free and allocate after the thread's cache is gone. More of them, one after the other,
 * than a process can have at a time: what one leaves behind, all later ones would miss. */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/stat.h>

#include "tests/preload/program.h"

#define THREADS 1500
#define AT_ONCE 6

static pthread_key_t first, last;
static _Thread_local char *local;

static void in_destructor(void *block)
{
	char *more = malloc(300);

	expect(more);
	memset(more, 1, 300);
	free(more);
	free(block);
	free(local);
	local = strdup("made in a destructor");
	expect(local);
}

static void again(void *count)
{
	free(local);
	local = NULL;
	free(malloc(40));
	if ((uintptr_t)count > 1)
		expect(pthread_setspecific(last, (void *)((uintptr_t)count - 1)) == 0);
}

static void *live(void *passed)
{
	char *mine = malloc(5000);

	expect(mine && in_heap(mine));
	memset(mine, 2, 5000);
	local = strdup("made by the thread");
	expect(pthread_setspecific(first, mine) == 0);
	expect(pthread_setspecific(last, (void *)4) == 0);
	free(passed);
	return malloc(70);
}

extern void *__libc_malloc(size_t size);
extern void __libc_free(void *block);

/* The C library's malloc asks for random bytes when it is first called, which is a point of cancellation. */
static void *libc_under_cancellation(void *done)
{
	expect(pthread_cancel(pthread_self()) == 0);
	void *block = __libc_malloc(100);

	__libc_free(block);
	*(int *)done = block != NULL;
	pthread_testcancel();
	return NULL;
}

/* So are the calls by which the heap asks its daemon, here for large blocks and the first of a class. */
static void *heap_under_cancellation(void *done)
{
	void *block[20];

	expect(pthread_cancel(pthread_self()) == 0);
	for (size_t i = 0; i < 20; i++) {
		block[i] = malloc((i + 1) * 333333 / (i % 2 ? 1 : 1000));
		expect(block[i] && in_heap(block[i]));
	}
	for (size_t i = 0; i < 20; i++)
		free(block[i]);
	*(int *)done = 1;
	pthread_testcancel();
	return NULL;
}

static void look_whose(void *done)
{
	char *block = malloc(100);

	*(int *)done = in_heap(block);
	free(block);
}

/* fopen is a point of cancellation: what it allocates is the C library's, and what the thread allocates on its way out the heap's. */
static void *open_under_cancellation(void *done)
{
	free(malloc(100));
	pthread_cleanup_push(look_whose, done);
	expect(pthread_cancel(pthread_self()) == 0);
	FILE *stream = fopen("/dev/null", "r");

	expect(!stream && "fopen was no point of cancellation");
	pthread_cleanup_pop(0);
	return NULL;
}

static sigjmp_buf out;

static void jump(int sig)
{
	siglongjmp(out, sig);
}

/* A signal handler jumps out of fopen: what the thread frees from then on is free all the same, whatever serves it. */
static void jump_out_of_fopen(void)
{
	char fifo[] = "/tmp/shmalloc-fifo-XXXXXX";
	FILE *volatile stream = NULL;

	expect(mkdtemp(fifo) && rmdir(fifo) == 0 && mkfifo(fifo, 0600) == 0);
	expect(signal(SIGALRM, jump) != SIG_ERR);
	char *large = malloc(40 << 20), *small = malloc(100);

	expect(large && in_heap(large));
	if (sigsetjmp(out, 1) == 0) {
		(void)alarm(1);
		stream = fopen(fifo, "r"); /* nobody writes there */
	}
	size_t before = mallinfo2().uordblks;

	free(large);
	free(small);
	free(malloc(1000));
	(void)malloc_trim(0);
	expect(!stream && unlink(fifo) == 0 && mallinfo2().uordblks < before - (30 << 20));
}

static void *jump_in_a_thread(void *alarms)
{
	expect(pthread_sigmask(SIG_UNBLOCK, alarms, NULL) == 0);
	jump_out_of_fopen();
	return NULL;
}

static void jumped(void)
{
	pthread_t thread;
	sigset_t alarms;

	(void)sigemptyset(&alarms);
	(void)sigaddset(&alarms, SIGALRM);
	expect(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
	expect(pthread_create(&thread, NULL, jump_in_a_thread, &alarms) == 0 && pthread_join(thread, NULL) == 0);
}

static void cancelled(void *(*in)(void *done))
{
	pthread_t thread;
	void *result;
	int done = 0;

	expect(pthread_create(&thread, NULL, in, &done) == 0);
	expect(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED && done);
}

int main(void)
{
	pthread_t thread[AT_ONCE];
	pthread_key_t many[40];

	cancelled(libc_under_cancellation); /* first: nothing has called the C library's malloc yet */
	cancelled(heap_under_cancellation);
	cancelled(open_under_cancellation);
	jumped();
	expect(pthread_key_create(&first, in_destructor) == 0);
	for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) /* a later key needs memory of its own */
		expect(pthread_key_create(&many[i], NULL) == 0);
	expect(pthread_key_create(&last, again) == 0);
	for (int i = 0; i < THREADS; i += AT_ONCE) {
		for (int j = 0; j < AT_ONCE; j++)
			expect(pthread_create(&thread[j], NULL, live, malloc(90)) == 0);
		for (int j = 0; j < AT_ONCE; j++) {
			void *made;

			expect(pthread_join(thread[j], &made) == 0 && in_heap(made));
			free(made);
		}
	}
	return 0;
}
