/* A client across a service's deaths: what tests/system/systemd.sh runs inside its container.
 *
 *	across hold NAME        leaves a table of blocks with patterns under the root NAME and works until SIGTERM
 *	across verify NAME      checks that table, from another process
 *	across kills N          kills the daemon N times; prints how long it was away
 *	across hang             stops the daemon with SIGSTOP; prints how long until somebody answers again
 *	across refused          fails unless the socket cannot be connected to for want of rights
 *
 * The daemon is the one whose pid is in the lock of instance `system`. Exit status 0 and a line on standard output, or 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "tests/lib/random.h"

#define SOCKET "/run/shmalloc/shmalloc.sock"
#define LOCK "/dev/shm/shmalloc.system.lock"
#define TIMEOUT_MS 30000 /* the machine may have a lot else to do */
#define BLOCKS 500
#define TURN 200 /* blocks that come and go */

#define check(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "across: line %d: %s (errno %d: %s)\n", __LINE__, #what, errno,                \
			        strerror(errno));                                                                      \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static double now_ms(void)
{
	return (double)shmi_chan_now_ns() / 1e6;
}

static shma_heap *attach(int timeout_ms)
{
	struct shma_options options = {.size = sizeof(options), .timeout_ms = timeout_ms};
	shma_heap *heap = shma_attach(&options);

	check(heap != NULL);
	return heap;
}

/* ---- blocks with patterns ---- */

struct table {
	struct {
		shma_off off;
		size_t len;
		unsigned char seed;
	} block[BLOCKS];
};

static void fill(unsigned char *block, size_t len, unsigned char seed)
{
	for (size_t i = 0; i < len; i++)
		block[i] = (unsigned char)(seed + i * 7);
}

static int is_intact(const unsigned char *block, size_t len, unsigned char seed)
{
	for (size_t i = 0; i < len; i++)
		if (block[i] != (unsigned char)(seed + i * 7))
			return 0;
	return 1;
}

/* Up to some 100 KiB, mostly small; now and then a large block, which the daemon is asked for. */
static size_t some_size(struct test_random *random)
{
	uint32_t kind = test_random_below(random, 20);

	return 1 + test_random_below(random, kind == 0 ? 1u << 20 : kind < 4 ? 1u << 16 : 2000);
}

static void leave_table(shma_heap *heap, const char *name, struct test_random *random)
{
	struct table *table = shma_heap_alloc(heap, sizeof(*table), 0, SHMA_ZERO);

	check(table != NULL);
	for (size_t i = 0; i < BLOCKS; i++) {
		size_t len = some_size(random);
		unsigned char *block = shma_heap_alloc(heap, len, 0, 0);

		check(block != NULL);
		fill(block, len, (unsigned char)i);
		table->block[i].off = shma_to_off(block);
		table->block[i].len = len;
		table->block[i].seed = (unsigned char)i;
	}
	check(shma_root_set(heap, name, table) == 0);
}

static void verify_table(shma_heap *heap, const char *name)
{
	const struct table *table = shma_root_get(heap, name);

	check(table != NULL);
	for (size_t i = 0; i < BLOCKS; i++) {
		const unsigned char *block = shma_from_off(heap, table->block[i].off);

		check(block && is_intact(block, table->block[i].len, table->block[i].seed));
	}
}

/* ---- hold ---- */

static volatile sig_atomic_t stopping;

static void on_term(int signo)
{
	(void)signo;
	stopping = 1;
}

static int hold(const char *name)
{
	static struct {
		unsigned char *block;
		size_t len;
	} turn[TURN];
	struct test_random random = test_random_init(name);
	uint64_t n = 0;
	double longest = 0;

	signal(SIGTERM, on_term);
	shma_heap *heap = attach(TIMEOUT_MS);

	leave_table(heap, name, &random);
	printf("holding %s\n", name);
	fflush(stdout);
	while (!stopping) {
		size_t i = test_random_below(&random, TURN);
		double began = now_ms();

		if (turn[i].block) {
			check(is_intact(turn[i].block, turn[i].len, (unsigned char)i));
			shma_free(turn[i].block);
		}
		turn[i].len = some_size(&random);
		check((turn[i].block = shma_heap_alloc(heap, turn[i].len, 0, 0)) != NULL);
		fill(turn[i].block, turn[i].len, (unsigned char)i);
		if (now_ms() - began > longest)
			longest = now_ms() - began;
		if (++n % 16 == 0) /* there are others on this machine */
			poll(NULL, 0, 1);
	}
	for (size_t i = 0; i < TURN; i++)
		check(!turn[i].block || is_intact(turn[i].block, turn[i].len, (unsigned char)i));
	verify_table(heap, name);
	printf("%s: %llu calls, none failed, the longest %.0f ms\n", name, (unsigned long long)n, longest);
	return 0;
}

/* ---- the daemon's process ---- */

static pid_t daemon_pid(void)
{
	char text[32] = "";
	int fd = open(LOCK, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	return n > 0 && strchr(text, '\n') ? (pid_t)atol(text) : 0;
}

static void wait_dead(int pidfd)
{
	struct pollfd end = {.fd = pidfd, .events = POLLIN};

	check(poll(&end, 1, 30000) == 1);
}

/* ---- kills ---- */

static atomic_bool done;
static atomic_uint connects, connects_failed, calls, calls_failed;
static _Atomic double longest_call;

/* Connects all the time. systemd holds the socket: none may fail, whoever is there to accept. */
static void *connect_always(void *arg)
{
	while (!atomic_load(&done)) {
		int sock, error = shmi_chan_connect(SOCKET, &sock);

		if (error)
			atomic_fetch_add(&connects_failed, 1);
		else
			close(sock);
		atomic_fetch_add(&connects, 1);
		poll(NULL, 0, 1);
	}
	return arg;
}

/* Always has a request with the daemon, so that kills find one outstanding. */
static void *ask_always(void *heap)
{
	void *block = shma_heap_alloc(heap, 64, 0, 0);

	check(block != NULL);
	while (!atomic_load(&done)) {
		double began = now_ms();

		if (shma_root_set(heap, "asked", block))
			atomic_fetch_add(&calls_failed, 1);
		if (now_ms() - began > atomic_load(&longest_call))
			atomic_store(&longest_call, now_ms() - began);
		atomic_fetch_add(&calls, 1);
	}
	return NULL;
}

/* From the kill to the first answer of the next daemon. */
static double kill_once(shma_heap *heap, void *block)
{
	pid_t pid;

	while (!(pid = daemon_pid()))
		poll(NULL, 0, 1);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	check(pidfd >= 0);
	double began = now_ms();

	check(kill(pid, SIGKILL) == 0);
	wait_dead(pidfd);
	close(pidfd);
	check(shma_root_set(heap, "killer", block) == 0);
	return now_ms() - began;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int kills(size_t n)
{
	static double away[100000];
	struct test_random random = test_random_init("kills");
	pthread_t connecting, asking;
	shma_heap *heap = attach(TIMEOUT_MS);
	void *block = shma_heap_alloc(heap, 64, 0, 0);

	check(n && n <= sizeof(away) / sizeof(away[0]) && block);
	check(pthread_create(&connecting, NULL, connect_always, NULL) == 0);
	check(pthread_create(&asking, NULL, ask_always, heap) == 0);
	for (size_t i = 0; i < n; i++) {
		poll(NULL, 0, (int)test_random_below(&random, 60)); /* it may be in the middle of anything */
		away[i] = kill_once(heap, block);
		if (system("shmallocctl check >/dev/null") != 0) {
			fprintf(stderr, "across: the heap is not clean after kill %zu\n", i);
			return 1;
		}
	}
	atomic_store(&done, true);
	pthread_join(connecting, NULL);
	pthread_join(asking, NULL);
	qsort(away, n, sizeof(away[0]), compare);
	printf("kill -9: injections %zu, violations %u, away p50 %.0f ms, p99 %.0f ms, max %.0f ms; connects %u, "
	       "failed %u; "
	       "calls %u, failed %u, the longest %.0f ms\n",
	        n, atomic_load(&connects_failed) + atomic_load(&calls_failed), away[n / 2], away[(n * 99) / 100],
	        away[n - 1], atomic_load(&connects), atomic_load(&connects_failed), atomic_load(&calls),
	        atomic_load(&calls_failed), atomic_load(&longest_call));
	return atomic_load(&connects_failed) || atomic_load(&calls_failed);
}

/* ---- the rest ---- */

static int hang(void)
{
	shma_heap *heap = attach(TIMEOUT_MS);
	void *block = shma_heap_alloc(heap, 64, 0, 0);
	pid_t pid = daemon_pid();
	double began = now_ms();

	check(block && pid && kill(pid, SIGSTOP) == 0);
	check(shma_root_set(heap, "hang", block) == 0);
	check(daemon_pid() != pid);
	printf("hung loop: injections 1, violations 0, away %.0f ms\n", now_ms() - began);
	return 0;
}

static int refused(void)
{
	int sock, error = shmi_chan_connect(SOCKET, &sock);

	check(error == -EACCES);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "", *arg = argc > 2 ? argv[2] : "";

	if (!strcmp(what, "hold"))
		return hold(arg);
	if (!strcmp(what, "verify"))
		return verify_table(attach(TIMEOUT_MS), arg), 0;
	if (!strcmp(what, "kills"))
		return kills(strtoul(arg, NULL, 10));
	if (!strcmp(what, "hang"))
		return hang();
	if (!strcmp(what, "refused"))
		return refused();
	fprintf(stderr, "usage: across hold|verify|kills|hang|refused [NAME|N]\n");
	return 2;
}
