/* Large blocks that were freed while the daemon was away, by a process that dies before it is back: they are free all the same. */
#include "tests/client/api.h"

#include <sys/wait.h>
#include <unistd.h>

TestSuite(owed, .timeout = 60);

#define BLOCKS 12
#define TIMEOUT_MS 50

static struct test_daemon d;
static shma_heap *heap;

static void start(void)
{
	api_start(&d, NULL);
	heap = api_attach(&d, 10000);
	cr_assert_not_null(heap);
}

static void end(void)
{
	cr_expect_eq(shma_detach(heap), 0);
	api_end(&d);
}

static uint64_t live(void)
{
	return (uint64_t)test_ctl_stat(&d, "live_bytes");
}

/* Short enough to be kept, too long, lazy: each goes another way. */
static void *make(shma_heap *h, size_t i)
{
	if (i % 3 == 0)
		return shma_heap_alloc(h, 300000, 0, 0);
	return shma_heap_alloc(h, i % 3 == 1 ? 5 * MIB : 400000, 0, i % 3 == 1 ? 0 : SHMA_LAZY);
}

/* A process with its own blocks; frees them when it is told to, says so, and is killed. */
static pid_t start_child(int *go, int *done)
{
	int in[2], out[2];

	cr_assert_eq(pipe(in) | pipe(out), 0);
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (!child) {
		shma_heap *h = api_attach(&d, 10000);
		void *block[BLOCKS];
		char c = 0;

		for (size_t i = 0; i < BLOCKS; i++)
			if (!h || !(block[i] = make(h, i)))
				_exit(1);
		h->timeout_ms = TIMEOUT_MS;
		if (write(out[1], &c, 1) != 1 || read(in[0], &c, 1) != 1)
			_exit(2);
		for (size_t i = 0; i < BLOCKS; i++)
			shma_free(block[i]);
		if (write(out[1], &c, 1) != 1 || read(in[0], &c, 1) != 1)
			_exit(3);
		_exit(0);
	}
	close(in[0]);
	close(out[1]);
	*go = in[1];
	*done = out[0];
	return child;
}

Test(owed, a_death_while_the_daemon_is_away, .init = start, .fini = end)
{
	int go, done, status;
	char c = 0;
	pid_t child = start_child(&go, &done);

	cr_assert_eq(read(done, &c, 1), 1);
	cr_assert_geq(live(), BLOCKS * 300000ul);
	test_daemon_kill(&d);
	cr_assert_eq(write(go, &c, 1), 1);
	cr_assert_eq(read(done, &c, 1), 1, "all are freed");
	cr_assert_eq(kill(child, SIGKILL), 0);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status));
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect(api_settles(live() == 0), "%llu bytes are left", (unsigned long long)live());
	cr_expect_eq(test_ctl_check(&d), 0);
	close(go);
	close(done);
}

/* The same process goes on: it tells the daemon when it is back, once, and its cache works as before. */
Test(owed, the_daemon_comes_back, .init = start, .fini = end)
{
	void *block[BLOCKS];

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < BLOCKS; i++)
			cr_assert_not_null(block[i] = make(heap, i));
		test_daemon_kill(&d);
		heap->timeout_ms = TIMEOUT_MS;
		for (size_t i = 0; i < BLOCKS; i++)
			shma_free(block[i]);
		heap->timeout_ms = 10000;
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
		cr_assert_not_null(block[0] = shma_malloc(9 * MIB));
		shma_free(block[0]);
		cr_assert_eq(shma_trim(heap), 0);
		cr_expect(api_settles(live() == 0), "%llu bytes are left", (unsigned long long)live());
		cr_expect_eq(test_ctl_check(&d), 0);
	}
}

#define MANY 560

/* More than there is room for notes. A process that neither refills nor trims tells the daemon with its next frees. */
Test(owed, more_than_there_is_room_for, .init = start, .fini = end)
{
	static void *block[MANY];

	for (size_t i = 0; i < MANY; i++)
		cr_assert_not_null(block[i] = shma_malloc(300000));
	test_daemon_kill(&d);
	heap->timeout_ms = TIMEOUT_MS;
	for (size_t i = 0; i < MANY - 5; i++)
		shma_free(block[i]);
	heap->timeout_ms = 10000;
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_assert_eq(shma_root_set(heap, "a", block[MANY - 1]), 0, "the daemon is back, and we know it");
	cr_assert_eq(shma_root_del(heap, "a"), 0);
	for (size_t i = MANY - 5; i < MANY; i++)
		shma_free(block[i]);
	cr_expect_eq(live(), 0, "%llu bytes are left", (unsigned long long)live());
}

/* A process that has a scoped block, says where, and waits for its end. */
static pid_t start_owner(size_t size, shma_off *off)
{
	int out[2];

	cr_assert_eq(pipe(out), 0);
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (!child) {
		shma_heap *h = api_attach(&d, 10000);
		void *block = h ? shma_heap_alloc(h, size, 0, SHMA_SCOPED) : NULL;
		shma_off at = block ? shma_to_off(block) : 0;

		if (write(out[1], &at, sizeof(at)) != sizeof(at))
			_exit(1);
		(void)pause();
		_exit(0);
	}
	cr_assert_eq(read(out[0], off, sizeof(*off)), sizeof(*off));
	cr_assert_neq(*off, 0);
	close(out[0]);
	close(out[1]);
	return child;
}

/* Another's scoped block, freed without a daemon; before there is one again that process dies, and the block with it. Whoever had
 * freed it does not notice. */
Test(owed, the_owner_of_what_is_owed_dies, .init = start, .fini = end)
{
	shma_off off[2];
	int status;
	pid_t owner[2] = {start_owner(300000, &off[0]), start_owner(5 * MIB, &off[1])};
	void *mine = shma_malloc(5 * MIB);

	test_daemon_kill(&d);
	heap->timeout_ms = TIMEOUT_MS;
	shma_free(shma_from_off(heap, off[0]));
	shma_free(mine);
	shma_free(shma_from_off(heap, off[1]));
	for (size_t i = 0; i < 2; i++) {
		cr_assert_eq(kill(owner[i], SIGKILL), 0);
		cr_assert_eq(waitpid(owner[i], &status, 0), owner[i]);
	}
	heap->timeout_ms = 10000;
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect(api_settles(live() == 5 * MIB || live() == 0), "theirs are gone");
	cr_expect_eq(shma_trim(heap), 0);
	cr_expect_eq(live(), 0);
}
