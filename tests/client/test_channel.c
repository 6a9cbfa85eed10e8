/* The control channel, seen from its callers. */
#include "tests/client/api.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/fakedaemon.h"
#include "tests/lib/witness.h"

TestSuite(channel, .timeout = 60);

#define TIMEOUT_MS 300
#define SMALL 40000
#define LARGE 40

/* A program that cleans up while the daemon is away waits for it once, not at every span that is given back. */
Test(channel, frees_wait_once)
{
	static struct test_daemon d;
	static void *small[SMALL], *large[LARGE];
	shma_heap *heap;

	pid_t witness = witness_start();

	api_start(&d, NULL);
	heap = api_attach(&d, TIMEOUT_MS);
	cr_assert_not_null(heap);
	for (size_t i = 0; i < SMALL; i++)
		cr_assert_not_null(small[i] = shma_heap_alloc(heap, 1000, 0, 0));
	for (size_t i = 0; i < LARGE; i++)
		cr_assert_not_null(large[i] = shma_heap_alloc(heap, (i % 8 + 1) * MIB, 0, 0));
	test_daemon_kill(&d);
	long long began = test_now_ms();

	for (size_t i = 0; i < SMALL; i++)
		shma_free(small[i]);
	for (size_t i = 0; i < LARGE; i++)
		shma_free(large[i]);
	/* A wait for each large block alone would be twice as long. */
	cr_expect_lt(test_now_ms() - began - 4 * witness_ms(), LARGE / 2 * TIMEOUT_MS);
	witness_end(witness);
	cr_expect_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_eq(shma_trim(heap), 0);
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

#define EACH 20

static void *some[3 * EACH];
static struct test_daemon away;
static shma_heap *its;

/* Blocks of a class, blocks of one for which this thread has no magazines, and large ones: none of them waits anew. */
static void *free_some(void *unused)
{
	long long began = test_now_ms();

	for (size_t i = 0; i < 3 * EACH; i++)
		shma_free(some[i]);
	child_check(test_now_ms() - began < 10 * TIMEOUT_MS); /* twenty of each kind: else it were more */
	return unused;
}

static int free_some_in_a_child(void *arg)
{
	return free_some(arg) != NULL;
}

static void *make_some(void *unused)
{
	for (size_t i = 0; i < EACH; i++) {
		child_check(some[3 * i] = shma_heap_alloc(its, 1000, 0, 0));
		child_check(some[3 * i + 1] = shma_heap_alloc(its, 1000, 0, SHMA_NOSCAN));
		child_check(some[3 * i + 2] = shma_heap_alloc(its, 400000, 0, 0));
	}
	return unused;
}

static void attach_to_one(void)
{
	api_start(&away, NULL);
	its = api_attach(&away, TIMEOUT_MS);
	cr_assert_not_null(its);
}

static void daemon_is_back(void)
{
	its->timeout_ms = 10000;
	cr_expect_eq(test_daemon_start_again(&away, NULL), 0);
	cr_expect_eq(shma_trim(its), 0);
	cr_expect_eq(shma_detach(its), 0);
	api_end(&away);
}

static void in_a_thread(void *(*run)(void *unused))
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, run, NULL), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* Nor does a thread that has no cache yet: who only frees needs none. */
Test(channel, frees_of_a_new_thread_wait_once)
{
	attach_to_one();
	make_some(NULL);
	test_daemon_kill(&away);
	in_a_thread(free_some);
	daemon_is_back();
}

/* A thread that has one, but not for these attributes. */
Test(channel, frees_of_other_attributes_wait_once)
{
	attach_to_one();
	shma_free(shma_heap_alloc(its, 1000, 0, 0)); /* with the daemon there: a cache for the one kind */
	in_a_thread(make_some);
	test_daemon_kill(&away);
	free_some(NULL);
	daemon_is_back();
}

/* Nor a child of a fork, which is no client yet. */
Test(channel, frees_of_a_child_wait_once)
{
	attach_to_one();
	make_some(NULL);
	test_daemon_kill(&away);
	cr_expect_eq(child_run(free_some_in_a_child, NULL), 0);
	daemon_is_back();
}

/* A program closes what it does not know, and the number goes to a file of its own: that is left alone. */
Test(channel, a_descriptor_that_is_another_file)
{
	static struct test_daemon d;
	int pair[2];
	char byte;

	api_start(&d, NULL);
	shma_heap *heap = shma_attach(NULL);

	cr_assert_not_null(heap);
	int fd = heap->proc->sock;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	cr_assert_eq(dup2(pair[0], fd), fd);
	(void)close(pair[0]);
	cr_expect_not_null(shma_malloc(100));
	cr_expect_eq(recv(pair[1], &byte, 1, MSG_DONTWAIT), -1, "it was written to");
	cr_expect_eq(send(pair[1], "x", 1, MSG_NOSIGNAL), 1, "it was closed");
	cr_expect_eq(shma_detach(heap), 0);
	cr_expect_eq(send(pair[1], "x", 1, MSG_NOSIGNAL), 1, "it was closed");
	api_end(&d);
}

/* The connection is gone when the answer has been sent and not yet read: the request is repeated under its number, and what it brought the
 * first time is what the repeated one brings. */
Test(channel, a_repeated_request_is_carried_out_once)
{
	static struct test_daemon d;

	api_start(&d, NULL);
	shma_heap *heap = shma_attach(NULL);

	cr_assert_not_null(heap);
	shmi_a64 *granted = &heap->env.img.super->counters.large_granted;
	uint64_t before = shmi_load(granted);

	heap->timeout_ms = 50;
	cr_assert_eq(kill(d.pid, SIGSTOP), 0);
	cr_expect_null(shma_heap_alloc(heap, MIB, 0, 0));
	cr_assert_eq(kill(d.pid, SIGCONT), 0);
	heap->timeout_ms = 20000;
	struct pollfd answer = {.fd = heap->proc->sock, .events = POLLIN};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	cr_assert_eq(poll(&answer, 1, 20000), 1);
	cr_assert_eq(dup2(null, answer.fd), answer.fd);
	(void)close(null);
	cr_expect_not_null(shma_heap_alloc(heap, MIB, 0, 0));
	cr_expect_eq(shmi_load(granted) - before, 2);
	cr_expect_eq(shma_detach(heap), 0);
	(void)close(answer.fd);
	api_end(&d);
}

static enum fake_answer knows_nobody(struct fake_daemon *fake, const struct wire_msg *request, struct wire_msg *reply)
{
	(void)fake;
	(void)request;
	reply->kind = WIRE_ERROR;
	reply->u.error.code = WIRE_E_NOT_FOUND;
	return FAKE_SEND;
}

/* A daemon has carried out a detach and is killed before it says so: the next one does not know the client. That is what was asked
 * for. */
Test(channel, a_detach_that_was_done_by_a_daemon_that_is_dead)
{
	static struct test_daemon d;
	static struct fake_daemon next;

	api_start(&d, NULL);
	shma_heap *heap = shma_attach(NULL);

	cr_assert_not_null(heap);
	test_daemon_kill(&d);
	fake_daemon_start(&next, knows_nobody, NULL);
	(void)snprintf(heap->socket, sizeof(heap->socket), "%s", next.socket);
	cr_expect_eq(shma_detach(heap), 0, "%s", strerror(errno));
	cr_expect_eq(next.last.kind, WIRE_ATTACH);
	cr_expect(next.last.u.attach.resume);
	fake_daemon_stop(&next);
	test_daemon_remove(&d);
}

struct greeting {
	uint32_t hellos, attaches;
	uint64_t nonce[3];
};

/* Dies after the first hello, then after the first attach, then once more. The last attach is refused. */
static enum fake_answer dies_in_the_greeting(
        struct fake_daemon *d, const struct wire_msg *request, struct wire_msg *reply)
{
	struct greeting *g = d->ctx;

	if (request->kind == WIRE_HELLO) {
		reply->kind = WIRE_HELLO_OK;
		reply->u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .version = "9.9.9"};
		return g->hellos++ ? FAKE_SEND : FAKE_HANG_UP;
	}
	g->nonce[g->attaches % 3] = request->u.attach.nonce;
	reply->kind = WIRE_ERROR;
	reply->u.error.code = WIRE_E_NO_HEAP;
	return g->attaches++ < 2 ? FAKE_HANG_UP : FAKE_SEND;
}

/* A greeting that breaks off is begun again, and its attach is the same each time, so that it takes one place. */
Test(channel, a_greeting_that_breaks_off)
{
	static struct fake_daemon d;
	struct greeting g = {0};

	fake_daemon_start_mute(&d, dies_in_the_greeting, &g);
	struct shma_options options = {.size = sizeof(options), .socket = d.socket, .timeout_ms = 20000};

	errno = 0;
	cr_expect_null(shma_attach(&options));
	cr_expect_eq(errno, ENXIO, "%s", strerror(errno));
	cr_expect_eq(g.hellos, 4);
	cr_expect_eq(g.attaches, 3);
	cr_expect(g.nonce[0] && g.nonce[0] == g.nonce[1] && g.nonce[1] == g.nonce[2]);
	fake_daemon_stop(&d);
}
