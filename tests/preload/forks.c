/* Processes that a program makes, each way that there is. Parent and child see their own data only. */
#include <fcntl.h>
#include <mntent.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <threads.h>
#include <ucontext.h>

#include "tests/preload/program.h"

#define BLOCKS 1000
#define ROUNDS 10

struct set {
	unsigned char *block[BLOCKS];
};

static size_t size_of(size_t i)
{
	return i % 500 == 7 ? 700000 : 1 + i * 37 % 6000;
}

static void fill(struct set *set, int seed)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		expect(set->block[i]);
		memset(set->block[i], (int)(i + (size_t)seed) & 0xff, size_of(i));
	}
}

static void make(struct set *set, int seed)
{
	for (size_t i = 0; i < BLOCKS; i++)
		set->block[i] = malloc(size_of(i));
	fill(set, seed);
}

static void check(const struct set *set, int seed)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0, n = size_of(i); at < n; at += at + 64 < n || at + 1 == n ? 64 : n - 1 - at)
			expect(set->block[i][at] == ((i + (size_t)seed) & 0xff));
}

static void drop(struct set *set)
{
	for (size_t i = 0; i < BLOCKS; i++)
		free(set->block[i]);
}

/* Writes to inherited and new blocks for a while, and looks whether anybody else did. */
static void live(struct set *old, int seed)
{
	struct set mine;

	for (int round = 0; round < ROUNDS; round++) {
		make(&mine, seed + round);
		fill(old, seed - round);
		(void)sched_yield();
		check(&mine, seed + round);
		check(old, seed - round);
		drop(&mine);
	}
}

static void both_write(void)
{
	struct set set;

	make(&set, 1);
	pid_t pid = fork();

	if (pid == 0) {
		check(&set, 1);
		expect(!in_heap(malloc(10)));
		for (size_t i = 0; i < BLOCKS; i += 3) { /* what realloc moves is what it was */
			set.block[i] = realloc(set.block[i], size_of(i) + 40);
			expect(set.block[i]);
		}
		check(&set, 1);
		live(&set, 100);
		drop(&set);
		_exit(0);
	}
	live(&set, 200);
	expect_ended(pid);
	check(&set, 200 - ROUNDS + 1);
	drop(&set);
}

/* Each process forks the next, and changes what it has meanwhile. */
static void deep(void)
{
	struct set set;

	make(&set, 0);
	for (int depth = 0; depth < 8; depth++) {
		pid_t pid = fork();

		if (pid != 0) {
			fill(&set, 77);
			expect_ended(pid);
			check(&set, 77);
			drop(&set);
			if (depth)
				_exit(0);
			return;
		}
		check(&set, depth);
		fill(&set, depth + 1);
	}
	drop(&set);
	_exit(0);
}

static int stop;

static void *churn(void *path)
{
	unsigned seed = 1;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		FILE *file = fopen(path, "a"); /* a stream that is locked at some of the forks */
		unsigned char *block = malloc(seed % 3000 + 1);

		expect(block && file && fprintf(file, "%u\n", seed) > 0);
		memset(block, 9, seed % 3000 + 1);
		free(block);
		expect(fclose(file) == 0);
		seed = seed * 1103515245 + 12345;
	}
	return NULL;
}

static void among_threads(void)
{
	char path[] = "/dev/null";
	pthread_t thread[3];
	struct set set;

	make(&set, 3);
	for (int i = 0; i < 3; i++)
		expect(pthread_create(&thread[i], NULL, churn, path) == 0);
	for (int i = 0; i < 12; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			check(&set, 3 + i);
			fill(&set, 4000);
			drop(&set);
			_exit(0);
		}
		fill(&set, 4 + i);
		check(&set, 4 + i);
		expect_ended(pid);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		expect(pthread_join(thread[i], NULL) == 0);
	check(&set, 15);
	drop(&set);
}

/* A stream that another thread has locked stays locked over a fork, and is unlocked by that thread. */
static int locked[2], unlock[2];

static void *hold(void *stream)
{
	char byte;

	flockfile(stream);
	expect(write(locked[1], "x", 1) == 1 && read(unlock[0], &byte, 1) == 1);
	funlockfile(stream);
	return NULL;
}

static void stays_locked(FILE *stream)
{
	pthread_t thread;
	char byte;

	expect(stream && pipe(locked) == 0 && pipe(unlock) == 0);
	expect(pthread_create(&thread, NULL, hold, stream) == 0 && read(locked[0], &byte, 1) == 1);
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	expect_ended(pid);
	expect(ftrylockfile(stream) != 0);
	expect(write(unlock[1], "x", 1) == 1 && pthread_join(thread, NULL) == 0);
	for (int i = 0; i < 2; i++) {
		expect(ftrylockfile(stream) == 0);
		funlockfile(stream);
		expect(close(locked[i]) == 0 && close(unlock[i]) == 0);
	}
	expect(fclose(stream) == 0);
}

static void locked_stream(void)
{
	for (size_t size = 16; size < 2000; size += 16) /* a stream's memory would be at hand */
		free(malloc(size));
	stays_locked(fopen("/dev/null", "w"));
	stays_locked(setmntent("/dev/null", "r")); /* the C library opens it, by its own fopen */
}

#define KEYS 100 /* more than a thread has room for without an allocation */

static pthread_key_t key[KEYS];
static int by_pthread; /* or by tss_set */

static void *keep_values(void *unused)
{
	char byte;

	for (size_t i = 0; i < KEYS; i++)
		expect((by_pthread ? pthread_setspecific(key[i], &key[i]) : tss_set(key[i], &key[i])) == 0);
	expect(write(locked[1], "x", 1) == 1 && read(unlock[0], &byte, 1) == 1);
	for (size_t i = 0; i < KEYS; i++)
		expect(pthread_getspecific(key[i]) == &key[i]);
	return unused;
}

/* What a thread has under its keys, it has after another one's fork. */
static void stay_known(int so)
{
	pthread_t thread;
	char byte;

	by_pthread = so;
	expect(pipe(locked) == 0 && pipe(unlock) == 0);
	expect(pthread_create(&thread, NULL, keep_values, NULL) == 0 && read(locked[0], &byte, 1) == 1);
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	expect_ended(pid);
	expect(write(unlock[1], "x", 1) == 1 && pthread_join(thread, NULL) == 0);
}

static void values_of_threads(void)
{
	for (size_t i = 0; i < KEYS; i++)
		expect(pthread_key_create(&key[i], NULL) == 0);
	stay_known(1);
	stay_known(0);
}

static char self[300]; /* its path */

/* As another program: the heap is a new one. */
static int again(void)
{
	struct set set;

	make(&set, 5);
	expect(in_heap(set.block[0]));
	check(&set, 5);
	drop(&set);
	return 0;
}

static void others(void)
{
	char *argv[] = {self, (char *)(uintptr_t) "again", NULL};
	char text[100] = "", command[400];
	struct set set;
	pid_t pid;

	make(&set, 6);
	pid = fork();
	if (pid == 0) {
		(void)execv(self, argv);
		_exit(9);
	}
	fill(&set, 7);
	expect_ended(pid);
	pid = vfork();
	if (pid == 0) {
		(void)execv(self, argv);
		_exit(9);
	}
	fill(&set, 8);
	expect_ended(pid);
	expect(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
	fill(&set, 9);
	expect_ended(pid);
	(void)snprintf(command, sizeof(command), "%s again && echo fine", self);
	FILE *out = popen(command, "r");

	expect(out && fgets(text, sizeof(text), out) && strcmp(text, "fine\n") == 0 && pclose(out) == 0);
	expect(system(command) == 0);
	check(&set, 9);
	drop(&set);
}

/* Becomes a daemon, which goes on with what its dead parent had. */
static void to_daemon(void)
{
	int done[2];
	char byte;
	pid_t pid;

	expect(pipe(done) == 0);
	pid = fork();
	if (pid == 0) {
		struct set set;

		make(&set, 10);
		expect(daemon(1, 1) == 0);
		check(&set, 10);
		live(&set, 11);
		drop(&set);
		expect(write(done[1], "x", 1) == 1);
		_exit(0);
	}
	expect_ended(pid);
	expect(close(done[1]) == 0);
	expect(read(done[0], &byte, 1) == 1);
}

/* Goes around fork(): of that process nothing is left but a line. */
static void cloned(void)
{
	int status;
	long pid;

	free(malloc(10));
	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		void *volatile block = malloc(10);

		_exit(block ? 3 : 4);
	}
	expect(pid > 0 && waitpid((pid_t)pid, &status, 0) == pid);
	expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	pid = _Fork();
	if (pid == 0)
		_exit(execl(self, self, "again", (char *)NULL)); /* this needs no memory of its own */
	expect_ended((pid_t)pid);
}

/* The same for what such a process forks: that may call exec, and else ends with the same line. */
static void cloned_forks(void)
{
	int status;

	free(malloc(10));
	pid_t pid = _Fork();

	if (pid == 0) {
		pid = fork();
		if (pid == 0)
			_exit(execl(self, self, "again", (char *)NULL));
		expect_ended(pid);
		pid = fork();
		if (pid == 0) {
			void *volatile block = malloc(10);

			_exit(block ? 3 : 4);
		}
		expect(pid > 0 && waitpid(pid, &status, 0) == pid);
		expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
		_exit(0);
	}
	expect_ended(pid);
}

static ucontext_t back, there;

static void fork_there(void)
{
	if (fork() == 0)
		_exit(0);
}

/* On a stack from malloc: parent and child would write to the same one. */
static void on_a_stack(void)
{
	char *stack = malloc(1 << 20);

	expect(stack && in_heap(stack) && getcontext(&there) == 0);
	there.uc_stack.ss_sp = stack;
	there.uc_stack.ss_size = 1 << 20;
	there.uc_link = &back;
	makecontext(&there, fork_there, 0);
	expect(swapcontext(&back, &there) == 0);
}

static const struct {
	const char *name;
	void (*run)(void);
} ways[] = {{"both_write", both_write}, {"deep", deep}, {"among_threads", among_threads},
        {"locked_stream", locked_stream}, {"values_of_threads", values_of_threads}, {"others", others},
        {"to_daemon", to_daemon}, {"on_a_stack", on_a_stack}, {"cloned", cloned}, {"cloned_forks", cloned_forks}};

int main(int argc, char **argv)
{
	expect(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	if (argc == 2 && strcmp(argv[1], "again") == 0)
		return again();
	for (size_t i = 0; argc == 2 && i < sizeof(ways) / sizeof(ways[0]); i++)
		if (strcmp(argv[1], ways[i].name) == 0) {
			ways[i].run();
			return 0;
		}
	return 2;
}
