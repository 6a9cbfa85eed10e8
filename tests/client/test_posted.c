/* Requests that nobody waits for: the daemon thinks, dies or never answers meanwhile, others need the channel, the process forks or
 * leaves. */
#include "tests/client/api.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

TestSuite(posted, .timeout = 60);

#define TIMEOUT_MS 100
#define WARM 20000
#define MANY 400000

static struct test_daemon d;
static shma_heap *heap;
static void *block[MANY];
static size_t n;

static void *get(void)
{
	void *b = shma_heap_alloc(heap, 64, 0, 0);

	if (b)
		block[n++] = b;
	return b;
}

static void free_all(void)
{
	while (n)
		shma_free(block[--n]);
}

/* A heap that this thread has grown for a while: it asks ahead. */
static void start(void)
{
	api_start(&d, NULL);
	heap = api_attach(&d, 20000);
	cr_assert_not_null(heap);
	while (n < WARM)
		cr_assert_not_null(get());
}

static void end(void)
{
	free_all();
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

static void stop(void)
{
	cr_assert_eq(kill(d.pid, SIGSTOP), 0);
}

static void cont(void)
{
	cr_assert_eq(kill(d.pid, SIGCONT), 0);
}

/* With the daemon stopped: until a request has been posted, which it has not seen yet. */
static void post(void)
{
	while (heap->proc->outstanding) /* one that it may have answered */
		cr_assert_not_null(get());
	stop();
	while (!heap->proc->posted || !heap->proc->outstanding)
		cr_assert_not_null(get(), "it is asked before the class is dry: %s", strerror(errno));
}

Test(posted, who_has_asked_goes_on, .init = start, .fini = end)
{
	heap->timeout_ms = TIMEOUT_MS;
	post();
	size_t before = n;

	while (get())
		;
	cr_expect_eq(errno, EAGAIN);
	cr_expect_gt(n, before, "blocks without an answer");
	cont();
	heap->timeout_ms = 20000;
	for (size_t i = 0; i < WARM; i++)
		cr_assert_not_null(get(), "%s", strerror(errno));
}

static bool first_thread_sleeps(void)
{
	char path[64], state = 0;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)getpid());
	FILE *stat = fopen(path, "re");

	child_check(stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1);
	(void)fclose(stat);
	return state == 'S';
}

/* Lets the daemon go on once the first thread waits for it. */
static void *goes_on_when_waited_for(void *unused)
{
	while (!first_thread_sleeps())
		(void)sched_yield();
	cont();
	return unused;
}

/* Who is dry before the answer has come waits for that one, and asks for nothing else first. */
Test(posted, the_answer_is_waited_for, .init = start, .fini = end)
{
	for (int i = 0; i < 5; i++) {
		pthread_t other;

		post();
		uint64_t serial = heap->proc->serial;

		cr_assert_eq(pthread_create(&other, NULL, goes_on_when_waited_for, NULL), 0);
		while (heap->proc->outstanding && heap->proc->serial == serial)
			cr_assert_not_null(get());
		cr_assert_eq(pthread_join(other, NULL), 0);
		cr_expect(heap->proc->serial == serial || (heap->proc->posted && heap->proc->outstanding),
		        "what was sent since is posted, too");
	}
}

/* The next daemon carries it out, once. */
Test(posted, the_daemon_is_killed, .init = start, .fini = end)
{
	for (int i = 0; i < 5; i++) {
		post();
		test_daemon_kill(&d);
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
		for (size_t k = 0; k < WARM; k++)
			cr_assert_not_null(get(), "%s", strerror(errno));
		const struct shmi_counters *c = &heap->env.img.super->counters;

		cr_expect_eq((shmi_load(&c->spans_granted) - shmi_load(&c->spans_returned)) * SHMI_PAGE_SIZE,
		        shmi_load(&heap->env.img.super->pages.owned) * SHMI_PAGE_SIZE);
	}
}

/* The answer has come and was not read when the daemon is killed. */
Test(posted, the_daemon_is_killed_after_its_answer, .init = start, .fini = end)
{
	for (int i = 0; i < 5; i++) {
		post();
		struct pollfd answer = {.fd = heap->proc->sock, .events = POLLIN};

		cont();
		cr_assert_eq(poll(&answer, 1, 20000), 1);
		test_daemon_kill(&d);
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
		for (size_t k = 0; k < WARM; k++)
			cr_assert_not_null(get(), "%s", strerror(errno));
	}
}

static void *sets_a_root(void *unused)
{
	child_check(shma_root_set(heap, "posted", block[0]) == 0);
	child_check(shma_root_del(heap, "posted") == 0);
	return unused;
}

/* Another thread's request comes in between: what the posted one brings is there for whoever asked. */
Test(posted, another_thread_has_a_request, .init = start, .fini = end)
{
	pthread_t other;

	post();
	cr_assert_eq(pthread_create(&other, NULL, sets_a_root, NULL), 0);
	cont();
	cr_assert_eq(pthread_join(other, NULL), 0);
	cr_expect_not(heap->proc->outstanding);
	uint64_t messages = api_stats(heap).messages, owned = api_stats(heap).owned, sent;

	do
		cr_assert_not_null(get());
	while ((sent = api_stats(heap).messages - messages) == 0);
	cr_expect_eq(sent, 1);
	cr_expect_leq(api_stats(heap).process_owned, owned + owned / 8);
}

static void *grows_and_ends(void *unused)
{
	for (size_t i = 0; i < WARM; i++)
		child_check(get());
	post();
	cont();
	free_all();
	return unused;
}

Test(posted, its_thread_ends, .init = start, .fini = end)
{
	pthread_t other;

	cr_assert_eq(pthread_create(&other, NULL, grows_and_ends, NULL), 0);
	cr_assert_eq(pthread_join(other, NULL), 0);
	cr_expect_not(heap->proc->outstanding);
}

static int lives_on(void *unused)
{
	(void)unused;
	for (size_t i = 0; i < WARM; i++)
		child_check(block[i] = shma_heap_alloc(heap, 64, 0, 0));
	for (size_t i = 0; i < WARM; i++)
		shma_free(block[i]);
	return 0;
}

/* The child has asked for nothing; the answer is the parent's. */
Test(posted, the_process_forks, .init = start, .fini = end)
{
	post();
	cont();
	cr_expect_eq(child_run(lives_on, NULL), 0);
	for (size_t i = 0; i < WARM; i++)
		cr_assert_not_null(get());
}

Test(posted, the_process_leaves, .init = start)
{
	post();
	cont();
	free_all();
	cr_expect_eq(shma_detach(heap), 0);
	heap = api_attach(&d, 20000);
	api_expect_empty(heap);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

/* Whoever gives back goes on as well: blocks are freed at the same pace while the daemon does not answer. */
Test(posted, who_gives_back_goes_on, .init = start, .fini = end)
{
	while (n < 100000) /* three messages' worth of spans */
		cr_assert_not_null(get());
	cr_assert_eq(shma_trim(heap), 0);
	stop();
	uint64_t messages = api_stats(heap).messages;

	while (api_stats(heap).messages == messages)
		shma_free(block[--n]);
	cr_expect(heap->proc->posted && heap->proc->outstanding);
	for (size_t i = 0; i < 1000; i++)
		shma_free(block[--n]);
	cr_expect_eq(api_stats(heap).messages, messages + 1);
	cont();
}

/* What the daemon had been told, but had not heard yet when it was killed, is told to the next one. */
Test(posted, what_was_given_back_is_not_lost, .init = start, .fini = end)
{
	while (n < 100000)
		cr_assert_not_null(get());
	cr_assert_eq(shma_trim(heap), 0);
	stop();
	uint64_t messages = api_stats(heap).messages;

	while (api_stats(heap).messages == messages)
		shma_free(block[--n]);
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	free_all(); /* looks for the answer, and does not wait */
}

#define LARGE (512 * KIB)

static int ready[2], go[2];
static void *large;

/* Frees a block that another process frees as well, which the daemon hears of first; and has it named by a request that it does not
 * wait for. */
static int frees_it_too(void *unused)
{
	void *more[4];
	char byte = 0;

	(void)unused;
	heap = shma_default();
	child_check(heap);
	for (size_t i = 0; i < 4; i++)
		child_check(more[i] = shma_heap_alloc(heap, LARGE, 0, 0));
	while (n < WARM || heap->proc->outstanding)
		child_check(get());
	shma_free(large);
	child_check(write(ready[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1);
	for (size_t i = 0; i < 4; i++) /* so much that the oldest goes back with the next request */
		shma_free(more[i]);
	while (n < MANY)
		child_check(get());
	return 0;
}

Test(posted, a_double_free_is_told_late)
{
	char byte = 0;

	api_start(&d, NULL);
	heap = api_attach(&d, 20000);
	cr_assert_not_null(large = shma_heap_alloc(heap, LARGE, 0, 0));
	cr_assert_eq(pipe(ready), 0);
	cr_assert_eq(pipe(go), 0);
	pid_t child = child_start(frees_it_too, NULL);

	cr_assert_eq(read(ready[0], &byte, 1), 1);
	shma_free(large);
	cr_assert_eq(shma_trim(heap), 0);
	cr_assert_eq(write(go[1], &byte, 1), 1);
	cr_expect_eq(child_join(child), 128 + SIGABRT);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}
