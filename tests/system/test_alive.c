/* What looks like death and is none: each of these keeps all that it has, nobody waits for it, and it goes on; also when the daemon
 * is killed meanwhile. And what looks like life: an exec, and a pid that is another process's by now. */
#include "tests/system/system.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/sched.h>

#include "client/shmalloc.h"
#include "tests/system/family.h"
#include "tests/lib/witness.h"

#define BLOCKS 1200

static struct test_daemon d;

static void start(void)
{
	system_start(&d, NULL);
}

static void end(void)
{
	system_expect_empty(&d);
	system_end(&d);
}

static void kill_and_restart(void)
{
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
}

/* ---- a process with blocks ---- */

static unsigned char *block[BLOCKS];

static size_t size_of(size_t i)
{
	return i % 200 == 5 ? 300000 + i : 16 + i * 41 % 4000;
}

static void fill(unsigned flags)
{
	for (size_t i = 0; i < BLOCKS; i++) {
		block[i] = shma_heap_alloc(shma_default(), size_of(i), 0, flags ? flags : i % 2);
		child_check(block[i]);
		memset(block[i], (int)(i & 0xff), size_of(i));
	}
}

static void expect_filled(void)
{
	for (size_t i = 0; i < BLOCKS; i++)
		for (size_t at = 0; at < size_of(i); at += 1 + at / 8)
			child_check(block[i][at] == (i & 0xff));
}

static void free_all(void)
{
	for (size_t i = 0; i < BLOCKS; i++)
		shma_free(block[i]);
}

/* Looks at its blocks, frees and makes them anew, and asks the daemon, whenever the test says so. */
static void serve(struct family *f)
{
	family_say(f);
	while (family_hears(f)) {
		expect_filled();
		free_all();
		fill(0);
		child_check(shma_root_set(shma_default(), "a root", block[0]) == 0);
		family_say(f);
	}
	free_all();
	child_check(shma_root_del(shma_default(), "a root") == 0 || errno == ENOENT);
	_exit(0);
}

static int simple(void *f)
{
	fill(0);
	serve(f);
	return 0;
}

/* The others: they take whatever is to be had, write all over it, and note the longest call. */
static int load(void *arg)
{
	long long longest = 0;

	(void)arg;
	for (int round = 0; round < 4; round++) {
		long long before = test_now_ms();

		fill(0);
		for (size_t i = 0; i < BLOCKS; i++)
			memset(block[i], 0xee, size_of(i));
		free_all();
		longest = test_now_ms() - before > longest ? test_now_ms() - before : longest;
	}
	child_check(longest - witness_ms() < 3000); /* a wait for another client would last for ever */
	return 0;
}

static void expect_others_go_on(void)
{
	pid_t other[3], witness = witness_start();

	for (int i = 0; i < 3; i++)
		other[i] = child_start(load, NULL);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(child_join(other[i]), 0);
	witness_end(witness);
	cr_expect_eq(test_ctl_check(&d), 0);
}

static pid_t begin(struct family *f, int (*fn)(void *))
{
	family_init(f, NULL);
	pid_t pid = child_start(fn, f);

	family_await(f);
	return pid;
}

static void finish(struct family *f, pid_t pid)
{
	family_end(f);
	cr_expect_eq(child_join(pid), 0);
}

/* ---- a closed socket ---- */

static int closes_all(void *arg)
{
	struct family *f = arg;

	fill(0);
	family_close_all(f);
	serve(f);
	return 0;
}

Test(alive, a_process_that_closes_all_descriptors, .init = start, .fini = end)
{
	struct family f;
	pid_t pid = begin(&f, closes_all);

	expect_others_go_on();
	cr_expect_eq(test_ctl_stat(&d, "clients"), 1, "it keeps its place");
	family_ask(&f);
	expect_others_go_on();
	finish(&f, pid);
}

Test(alive, it_does_not_need_the_daemon_that_it_knew, .init = start, .fini = end)
{
	struct family f;
	pid_t pid = begin(&f, closes_all);

	kill_and_restart();
	expect_others_go_on();
	family_ask(&f);
	finish(&f, pid);
}

/* ---- stopped ---- */

static void await_stopped(pid_t pid)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, WUNTRACED), pid);
	cr_assert(WIFSTOPPED(status));
}

static void stop_and_go(bool restarts)
{
	struct family f;
	pid_t pid = begin(&f, simple);

	cr_assert_eq(kill(pid, SIGSTOP), 0);
	await_stopped(pid);
	expect_others_go_on();
	if (restarts) {
		kill_and_restart();
		expect_others_go_on();
	}
	cr_expect_eq(test_ctl_stat(&d, "clients"), 1);
	cr_assert_eq(kill(pid, SIGCONT), 0);
	family_ask(&f);
	finish(&f, pid);
}

Test(alive, a_stopped_process, .init = start, .fini = end)
{
	stop_and_go(false);
}

Test(alive, a_stopped_process_and_the_next_daemon, .init = start, .fini = end)
{
	stop_and_go(true);
}

/* In the middle of its work, at any instruction: a hundred times. */
static int churn(void *arg)
{
	fill(0);
	family_say(arg);
	for (;;) {
		expect_filled();
		free_all();
		fill(0);
	}
	return 0;
}

Test(alive, in_a_debugger, .init = start, .fini = end)
{
	struct family f;
	int status;
	pid_t pid = begin(&f, churn);

	cr_assert_eq(ptrace(PTRACE_SEIZE, pid, NULL, NULL), 0);
	for (int i = 0; i < 100; i++) {
		cr_assert_eq(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, __WALL), pid);
		cr_assert(WIFSTOPPED(status));
		if (i % 25 == 0) {
			expect_others_go_on();
			cr_expect_eq(test_ctl_stat(&d, "clients"), 1);
		}
		cr_assert_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
	}
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, &status, __WALL), pid);
	cr_expect(WIFSIGNALED(status), "it has found its blocks as they were");
	family_forget(&f);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &(int64_t){0}), 0);
	system_end(&d);
	system_start(&d, NULL); /* shared blocks are left: not for the check of an empty heap */
}

/* ---- a group leader that ends ---- */

/* Not on the leader's stack. */
static struct family kept;
static pthread_t leader;

static void *second_thread(void *attach)
{
	(void)pthread_join(leader, NULL);
	if (attach)
		fill(0);
	serve(&kept);
	return NULL;
}

static void end_leader(const struct family *f, void *attach)
{
	pthread_t second;

	kept = *f;
	leader = pthread_self();
	child_check(pthread_create(&second, NULL, second_thread, attach) == 0);
	pthread_exit(NULL);
}

static int leader_ends(void *arg)
{
	fill(0);
	end_leader(arg, NULL);
	return 0;
}

static int leader_ends_first(void *arg)
{
	end_leader(arg, &kept);
	return 0;
}

static char state_of(pid_t pid)
{
	char path[64], line[256] = "";

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *file = fopen(path, "re");

	if (file && !fgets(line, sizeof(line), file))
		line[0] = 0;
	if (file)
		fclose(file);
	const char *end_of_name = strrchr(line, ')');

	return end_of_name ? end_of_name[2] : '?';
}

/* A thread is joined a moment before it is one. */
static void await_zombie(pid_t pid)
{
	long long deadline = test_now_ms() + 10000;

	while (state_of(pid) != 'Z' && test_now_ms() < deadline)
		sched_yield();
	cr_assert_eq(state_of(pid), 'Z', "the test is in vain: the leader lives");
}

static void without_a_leader(bool restarts)
{
	struct family f;
	pid_t pid = begin(&f, leader_ends);

	await_zombie(pid);
	if (restarts)
		kill_and_restart();
	expect_others_go_on();
	cr_expect_eq(test_ctl_stat(&d, "clients"), 1);
	family_ask(&f);
	finish(&f, pid);
}

Test(alive, a_leader_that_ends, .init = start, .fini = end)
{
	without_a_leader(false);
}

Test(alive, a_leader_that_ends_and_the_next_daemon, .init = start, .fini = end)
{
	without_a_leader(true);
}

Test(alive, a_process_that_attaches_without_its_leader, .init = start, .fini = end)
{
	struct family f;
	pid_t pid = begin(&f, leader_ends_first);

	await_zombie(pid);
	expect_others_go_on();
	kill_and_restart();
	family_ask(&f);
	finish(&f, pid);
}

/* ---- exec ---- */

/* Becomes a program that knows no heap and ends when the test closes the pipe. */
static int becomes_cat(void *arg)
{
	struct family *f = arg;

	fill(SHMA_SCOPED);
	child_check(dup2(f->to_child[0], STDIN_FILENO) == STDIN_FILENO);
	family_say(f);
	(void)execl("/bin/cat", "cat", (char *)NULL);
	return 127;
}

static void become(bool restarts)
{
	struct family f;
	int64_t last;
	pid_t pid = begin(&f, becomes_cat);

	if (restarts)
		kill_and_restart();
	cr_expect_eq(test_ctl_settle(&d, "live_bytes", 0, 0, &last), 0, "the process lives, but has no use for it");
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	cr_expect_eq(waitpid(pid, NULL, WNOHANG), 0, "it lives");
	expect_others_go_on();
	(void)close(f.to_child[1]);
	cr_expect_eq(child_join(pid), 0);
}

Test(alive, exec_ends_the_use, .init = start, .fini = end)
{
	become(false);
}

Test(alive, exec_while_the_daemon_is_away, .init = start, .fini = end)
{
	become(true);
}

/* ---- a pid that is used again ---- */

/* A child with a pid of our choice, or -1 and errno. */
static pid_t fork_as(pid_t pid)
{
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static void used_again(bool restarts)
{
	struct family f, g;
	int64_t last;
	pid_t pid = begin(&f, closes_all), again;

	family_init(&g, NULL);
	if (restarts)
		test_daemon_kill(&d);
	kill(pid, SIGKILL);
	cr_expect_eq(child_join(pid), 128 + SIGKILL);
	again = fork_as(pid);
	if (again == 0)
		_exit(simple(&g));
	if (again < 0) {
		fprintf(stderr, "skipped: a process of a chosen pid: %s\n", strerror(errno));
		family_forget(&g);
	} else {
		cr_expect_eq(again, pid);
	}
	if (restarts)
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	family_forget(&f);
	if (again > 0) {
		family_await(&g);
		cr_expect_eq(test_ctl_settle(&d, "clients", 1, 1, &last), 0, "the first one is gone");
		family_ask(&g);
		expect_others_go_on();
		family_ask(&g);
		finish(&g, again);
	}
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	system_end(&d);
	system_start(&d, NULL); /* the shared blocks of the first one are left */
}

Test(alive, a_pid_that_is_used_again_at_once, .init = start, .fini = end)
{
	used_again(false);
}

Test(alive, a_pid_that_is_used_again_and_the_next_daemon, .init = start, .fini = end)
{
	used_again(true);
}
