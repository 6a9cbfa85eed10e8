/* fork, seen from the library: the caches of the parent are the parent's, the child has its own, and neither notices what the
 * other does. (What a heap as a whole makes of it: tests/system/test_fork.c.) */
#include "tests/client/api.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(fork_cache, .timeout = 60);

enum { N = 1500 };

static struct test_daemon d;
static shma_heap *heap;
static char *block[N];

static size_t size_of(size_t i)
{
	return i % 200 == 7 ? 300000 + i : 16 + i * 7 % 3000;
}

static void start(void)
{
	api_start(&d, NULL);
	heap = shma_attach(NULL);
	cr_assert_not_null(heap);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

static void fill_blocks(void)
{
	for (size_t i = 0; i < N; i++) {
		block[i] = shma_heap_alloc(heap, size_of(i), 0, i % 2 ? SHMA_SCOPED : 0);
		child_check(block[i]);
		api_fill(block[i], size_of(i), i);
	}
}

static void check_and_free(size_t from, size_t step)
{
	for (size_t i = from; i < N; i += step) {
		child_check(api_filled(block[i], size_of(i), i));
		shma_free(block[i]);
	}
}

/* ---- the parent's caches are the parent's ---- */

/* What a thread has in its magazines, as a number that any change would change. */
static uint64_t print_of_magazines(const shma_heap *h)
{
	const struct shmi_tcache *tc = shmi_tls[h->index];
	uint64_t print = 0;

	for (uint32_t c = 0; c < SHMI_SPAN_CLASSES; c++)
		for (uint32_t i = 0; tc->mag[c] && i < shmi_load(&tc->mag[c]->top); i++)
			print = print * 31 + shmi_load(&tc->mag[c]->entry[i]) + c;
	return print;
}

static int use_the_heap(void *arg)
{
	uint32_t parent = *(uint32_t *)arg;

	check_and_free(0, 2); /* shared and scoped ones of the parent */
	check_and_free(1, 4);
	fill_blocks();
	child_check(api_stats(heap).client != parent);
	check_and_free(0, 1);
	child_check(shma_trim(heap) == 0);
	child_check(api_stats(heap).process_owned == 0);
	return 0;
}

static pthread_barrier_t ready;

static void *sleep_in_the_heap(void *go_on)
{
	void *own = shma_malloc(1000);
	char byte;

	(void)pthread_barrier_wait(&ready);
	child_check(own && read(*(int *)go_on, &byte, 1) == 1);
	shma_free(own);
	return NULL;
}

Test(fork_cache, a_child_leaves_the_parents_caches_alone, .init = start, .fini = end)
{
	pthread_t thread[3];
	int wait[2];

	cr_assert_eq(pipe(wait), 0);
	cr_assert_eq(pthread_barrier_init(&ready, NULL, 4), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&thread[i], NULL, sleep_in_the_heap, &wait[0]), 0);
	(void)pthread_barrier_wait(&ready);
	fill_blocks();
	for (int i = 0; i < 500; i++)
		shma_free(shma_malloc((size_t)i * 5));
	uint64_t print = print_of_magazines(heap);
	struct shma_stats before = api_stats(heap);

	cr_expect_eq(child_run(use_the_heap, &before.client), 0);
	cr_expect_eq(print_of_magazines(heap), print);
	cr_expect_eq(api_stats(heap).client, before.client);
	cr_expect_eq(api_stats(heap).messages, before.messages);
	check_and_free(3, 4);
	cr_assert_eq(write(wait[1], "xxx", 3), 3);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}

/* ---- generations ---- */

static int descend(void *depth)
{
	int left = *(int *)depth - 1;
	char *own = shma_heap_alloc(heap, 5000, 0, SHMA_SCOPED);

	child_check(own);
	api_fill(own, 5000, (size_t)left);
	if (left)
		child_check(child_run(descend, &left) == 0);
	child_check(api_filled(own, 5000, (size_t)left));
	for (size_t i = (size_t)left; i < N; i += 6) {
		child_check(api_filled(block[i], size_of(i), i));
		shma_free(block[i]);
	}
	return 0;
}

/* Six generations, each of which frees its part of what the first one made. */
Test(fork_cache, children_of_children, .init = start, .fini = end)
{
	int depth = 6;

	fill_blocks();
	cr_expect_eq(child_run(descend, &depth), 0);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}

/* A process that has not used the heap itself passes on what it inherited. */
static int fork_untouched(void *depth)
{
	return child_run(descend, depth);
}

Test(fork_cache, a_generation_that_does_not_use_the_heap, .init = start, .fini = end)
{
	int depth = 6;

	fill_blocks();
	cr_expect_eq(child_run(fork_untouched, &depth), 0);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}

/* ---- fork while other threads are inside ---- */

static shmi_a32 done;

static void *churn(void *arg)
{
	struct test_random random = {(uint64_t)(uintptr_t)arg};
	void *own[50] = {NULL};

	while (!shmi_load(&done))
		for (int i = 0; i < 100; i++) {
			void **b = &own[test_random_below(&random, 50)];
			uint32_t most = test_random_one_in(&random, 50) ? 600000 : 3000;

			if (*b)
				shma_free(*b);
			*b = *b ? NULL
			        : shma_heap_alloc(
			                  heap, test_random_length(&random, most), 0, test_random_below(&random, 4));
		}
	for (int i = 0; i < 50; i++)
		shma_free(own[i]);
	return NULL;
}

static int allocate_some(void *unused)
{
	char *own[100];

	(void)unused;
	for (size_t i = 0; i < 100; i++) {
		own[i] = shma_heap_alloc(heap, 20 + i * 50 + (i % 50 ? 0 : 300000), 0, i % 4);
		child_check(own[i]);
		api_fill(own[i], 20 + i * 50, i);
	}
	for (size_t i = 0; i < 100; i++) {
		child_check(api_filled(own[i], 20 + i * 50, i));
		shma_free(own[i]);
	}
	return 0;
}

Test(fork_cache, while_threads_are_inside, .init = start, .fini = end)
{
	struct test_random random = test_random_init("fork among threads");
	pthread_t thread[3];

	for (int i = 0; i < 3; i++)
		cr_assert_eq(
		        pthread_create(&thread[i], NULL, churn, (void *)(uintptr_t)(test_random_next(&random) | 1)), 0);
	for (int i = 0; i < 100; i++)
		cr_assert_eq(child_run(allocate_some, NULL), 0, "child %d", i);
	shmi_store(&done, 1);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(pthread_join(thread[i], NULL), 0);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}

static void *fork_from_here(void *unused)
{
	child_check(child_run(allocate_some, NULL) == 0);
	return unused;
}

/* A thread of the child is another than the parent's that forked. */
static int allocate_in_a_thread(void *unused)
{
	pthread_t thread;

	child_check(pthread_create(&thread, NULL, fork_from_here, NULL) == 0);
	child_check(pthread_join(thread, NULL) == 0);
	return allocate_some(unused);
}

Test(fork_cache, threads_of_a_child, .init = start, .fini = end)
{
	pthread_t thread;

	cr_expect_eq(child_run(allocate_in_a_thread, NULL), 0);
	cr_assert_eq(pthread_create(&thread, NULL, fork_from_here, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}

/* ---- programs that are started ---- */

extern char **environ;

static int spawn_and_look(void)
{
	/* Succeeds if it has inherited no descriptor but 0, 1, 2 and its own. */
	char *const argv[] = {"sh", "-c",
	        "for f in /proc/self/fd/*; do case $(readlink $f) in socket:*|*shmalloc*) exit 3;; esac; "
	        "done",
	        NULL};
	pid_t pid;

	if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) != 0)
		return -1;
	return child_join(pid);
}

/* vfork: the child runs in the parent's memory until it is another program. */
static pid_t start_true(void)
{
	pid_t pid = vfork();

	if (pid == 0) {
		(void)execl("/bin/true", "true", (char *)NULL);
		_exit(127);
	}
	return pid;
}

Test(fork_cache, a_program_that_is_started_changes_nothing, .init = start, .fini = end)
{
	fill_blocks();
	uint64_t print = print_of_magazines(heap);
	struct shma_stats before = api_stats(heap);

	for (int i = 0; i < 10; i++) {
		cr_expect_eq(child_join(start_true()), 0);
		cr_expect_eq(spawn_and_look(), 0);
	}
	cr_expect_eq(print_of_magazines(heap), print);
	cr_expect_eq(api_stats(heap).messages, before.messages);
	cr_expect_eq(api_stats(heap).client, before.client);
	check_and_free(0, 1);
	api_expect_empty(heap);
}

/* ---- who keeps whose scoped blocks ---- */

struct family {
	int to_child[2], from_child[2];
	bool leaves; /* the child detaches */
	uint64_t *shared; /* bytes of the parent's shared blocks */
};

static void say(int fd)
{
	child_check(write(fd, "x", 1) == 1);
}

static void hear(int fd)
{
	char byte;

	child_check(read(fd, &byte, 1) == 1);
}

static int stay_behind(const struct family *f)
{
	char *own = shma_heap_alloc(shma_default(), 1000, 0, SHMA_SCOPED);

	child_check(own);
	if (f->leaves)
		child_check(shma_detach(shma_default()) == 0);
	say(f->from_child[1]);
	hear(f->to_child[0]);
	for (size_t i = 0; !f->leaves && i < N; i++)
		child_check(api_filled(block[i], size_of(i), i));
	say(f->from_child[1]);
	hear(f->to_child[0]);
	return 0;
}

/* Makes blocks and a child, and is killed. */
static int parent_of_one(void *family)
{
	struct family *f = family;

	heap = shma_default();
	fill_blocks();
	for (size_t i = 0; i < N; i += 2)
		*f->shared += shma_usable_size(block[i]);
	if (fork() == 0)
		_exit(stay_behind(f));
	(void)pause();
	return 0;
}

static void family_start(struct family *f, pid_t *parent)
{
	cr_assert_eq(pipe(f->to_child), 0);
	cr_assert_eq(pipe(f->from_child), 0);
	f->shared = mmap(NULL, sizeof(*f->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(f->shared, MAP_FAILED);
	*parent = child_start(parent_of_one, f);
	(void)close(f->from_child[1]);
	hear(f->from_child[0]);
	cr_assert_eq(kill(*parent, SIGKILL), 0);
	cr_expect_eq(child_join(*parent), 128 + SIGKILL);
}

/* The test itself watches through an attachment made after the others': it holds nothing. */
Test(fork_cache, scoped_blocks_live_until_the_child_ends)
{
	struct family f = {.leaves = false};
	pid_t parent;

	api_start(&d, NULL);
	family_start(&f, &parent);
	heap = shma_attach(NULL);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") >= 2));
	cr_expect_gt(api_live(heap), *f.shared);
	say(f.to_child[1]);
	hear(f.from_child[0]); /* it has found them all as they were */
	cr_expect_gt(api_live(heap), *f.shared);
	say(f.to_child[1]);
	cr_expect(api_settles(api_live(heap) == *f.shared), "%llu live", (unsigned long long)api_live(heap));
	cr_expect(api_settles(api_stats(heap).owned == 0), "%llu owned", (unsigned long long)api_stats(heap).owned);
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	end();
}

/* A child that has left the heap no longer uses it. */
Test(fork_cache, a_child_that_detached_keeps_nothing_alive)
{
	struct family f = {.leaves = true};
	pid_t parent;

	api_start(&d, NULL);
	family_start(&f, &parent);
	heap = shma_attach(NULL);
	cr_expect(api_settles(api_live(heap) == *f.shared), "%llu live", (unsigned long long)api_live(heap));
	cr_expect(api_settles(api_stats(heap).owned == 0), "%llu owned", (unsigned long long)api_stats(heap).owned);
	say(f.to_child[1]);
	say(f.to_child[1]);
	end();
}

/* ---- the child and a daemon that is away ---- */

static int free_in_vain(void *unused)
{
	(void)unused;
	heap->timeout_ms = 1;
	child_check(shma_malloc(100) == NULL && errno == EAGAIN);
	check_and_free(0, 1);
	child_check(kill(d.pid, SIGCONT) == 0);
	heap->timeout_ms = 10000;
	child_check(shma_trim(heap) == 0);
	return 0;
}

Test(fork_cache, a_child_frees_while_the_daemon_is_away, .init = start, .fini = end)
{
	fill_blocks();
	cr_assert_eq(kill(d.pid, SIGSTOP), 0);
	cr_expect_eq(child_run(free_in_vain, NULL), 0);
	cr_expect(api_settles(api_live(heap) == 0), "%llu live", (unsigned long long)api_live(heap));
	api_expect_empty(heap);
}

/* ---- many ---- */

Test(fork_cache, many_children_at_once, .init = start, .fini = end)
{
	pid_t child[8];

	for (int round = 0; round < 5; round++) {
		fill_blocks();
		for (int i = 0; i < 8; i++)
			child[i] = child_start(allocate_some, NULL);
		check_and_free(0, 1);
		for (int i = 0; i < 8; i++)
			cr_expect_eq(child_join(child[i]), 0);
	}
	cr_expect(api_settles(test_ctl_stat(&d, "clients") == 1));
	api_expect_empty(heap);
}
