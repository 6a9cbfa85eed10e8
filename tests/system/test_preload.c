/* Programs that know nothing of the heap, on the heap: tests/preload has them, each about one thing. */
#include "tests/system/system.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct test_daemon d;

static void preload(const char *library)
{
	cr_assert_not_null(library);
	setenv("LD_PRELOAD", library, 1);
}

static void start(void)
{
	system_start(&d, NULL);
}

/* What a program had is gone with it, or it never got any. */
static void end(void)
{
	unsetenv("LD_PRELOAD");
	system_expect_empty(&d);
	system_end(&d);
}

static int run(const char *program, const char *argument)
{
	const char *argv[] = {program, argument, NULL};

	preload(test_build_path("libshmalloc-preload.so"));
	int status = program_run(argv, NULL);

	unsetenv("LD_PRELOAD");
	return status;
}

TestSuite(preload, .init = start, .fini = end);

Test(preload, each_function_keeps_its_contract)
{
	cr_expect_eq(run("preload/contract", NULL), 0);
}

Test(preload, each_free_looked_at)
{
	setenv("SHMALLOC_HARDEN", "1", 1);
	cr_expect_eq(run("preload/contract", NULL), 0);
	cr_expect_eq(run("preload/operators", NULL), 0);
	unsetenv("SHMALLOC_HARDEN");
}

Test(preload, operators_of_cxx)
{
	cr_expect_eq(run("preload/operators", NULL), 0);
}

/* Plug-ins of a program in C, with three kinds of a C++ library. */
Test(preload, operators_of_plugins)
{
	static const char *const plugins[] = {
	        "preload/libthrows.so", "preload/libthrows-static.so", "preload/libthrows-libcxx.so"};

	for (size_t i = 0; i < sizeof(plugins) / sizeof(plugins[0]); i++) {
		const char *found = test_build_path(plugins[i]);
		char path[300];

		if (!found && i == 2) {
			fprintf(stderr, "skipped: no libc++ to build a plug-in with\n");
			continue;
		}
		cr_assert_not_null(found);
		snprintf(path, sizeof(path), "%s", found);
		cr_expect_eq(run("preload/thrown", path), 0, "%s", path);
	}
}

Test(preload, a_program_with_operators_of_its_own)
{
	cr_expect_eq(run("preload/replaced", NULL), 0);
}

Test(preload, calls_before_main_and_after_exit)
{
	char plugin[300];

	snprintf(plugin, sizeof(plugin), "%s", test_build_path("preload/libguest.so"));
	cr_expect_eq(run("preload/early", plugin), 0);
}

Test(preload, libraries_whose_constructors_wait_for_threads)
{
	char library[300];

	snprintf(library, sizeof(library), "%s", test_build_path("preload/libloaded.so"));
	cr_expect_eq(run("preload/loading", library), 0);
}

Test(preload, threads_that_end)
{
	cr_expect_eq(run("preload/threads", NULL), 0);
}

Test(preload, more_threads_than_there_is_room_for)
{
	int status = run("preload/crowd", NULL);

	if (status == 77)
		fprintf(stderr, "skipped: the system does not let a process have so many threads\n");
	else
		cr_expect_eq(status, 0);
}

Test(preload, the_library_itself_allocates_nothing)
{
	cr_expect_eq(run("preload/inside", NULL), 0);
}

/* ---- fork ---- */

Test(preload, fork_both_write)
{
	cr_expect_eq(run("preload/forks", "both_write"), 0);
}

Test(preload, fork_deep)
{
	cr_expect_eq(run("preload/forks", "deep"), 0);
}

Test(preload, fork_among_threads)
{
	cr_expect_eq(run("preload/forks", "among_threads"), 0);
}

Test(preload, fork_under_a_locked_stream)
{
	cr_expect_eq(run("preload/forks", "locked_stream"), 0);
}

Test(preload, fork_and_values_of_threads)
{
	cr_expect_eq(run("preload/forks", "values_of_threads"), 0);
}

Test(preload, exec_vfork_spawn_popen_system)
{
	cr_expect_eq(run("preload/forks", "others"), 0);
}

Test(preload, daemon)
{
	cr_expect_eq(run("preload/forks", "to_daemon"), 0);
}

/* Runs a program with its standard error in `said`. Returns its wait status. */
static int listen_to(const char *program, const char *argument, char *said, size_t room)
{
	char path[300];
	int out[2], status;
	size_t len = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "%s", test_build_path(program));
	cr_assert_eq(pipe(out), 0);
	preload(test_build_path("libshmalloc-preload.so"));
	pid_t pid = fork();

	if (pid == 0) {
		dup2(out[1], STDERR_FILENO);
		close(out[0]);
		close(out[1]);
		execl(path, path, argument, (char *)NULL);
		_exit(127);
	}
	unsetenv("LD_PRELOAD");
	close(out[1]);
	while (len < room - 1 && (n = read(out[0], said + len, room - 1 - len)) > 0)
		len += (size_t)n;
	said[len] = 0;
	close(out[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect_one_line(const char *how)
{
	char said[1000];
	int status = listen_to("preload/forks", how, said, sizeof(said));

	cr_expect_eq(status, 0, "status %#x", status);
	cr_expect_not_null(strstr(said, "this process was cloned without fork()"), "said: %s", said);
	cr_expect_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
}

Test(preload, a_clone_without_fork_ends_with_one_line)
{
	expect_one_line("cloned");
}

Test(preload, a_fork_in_a_clone_ends_with_one_line)
{
	expect_one_line("cloned_forks");
}

/* ---- a fork where something is missing ---- */

Test(preload, fork_where_calls_are_refused)
{
	cr_expect_eq(run("preload/forkfaults", "refused"), 0);
}

Test(preload, fork_while_a_block_is_freed)
{
	char said[1000];

	cr_expect_eq(listen_to("preload/forkfaults", "freed_meanwhile", said, sizeof(said)), 0, "%s", said);
	cr_expect_not_null(strstr(said, "no block of the parent of this process begins there"), "said: %s", said);
}

Test(preload, fork_without_memory)
{
	char said[1000];

	cr_expect_eq(listen_to("preload/forkfaults", "no_memory", said, sizeof(said)), 0, "%s", said);
	cr_expect_not_null(strstr(said, "no memory for a copy"), "said: %s", said);
}

Test(preload, a_fork_on_a_block_ends_with_a_line)
{
	char said[1000];
	int status = listen_to("preload/forks", "on_a_stack", said, sizeof(said));

	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", status);
	cr_expect_not_null(strstr(said, "fork() on a stack that malloc gave"), "said: %s", said);
}

static void expect_misuse(const char *how, const char *message)
{
	char said[1000];
	int status = listen_to("preload/twice", how, said, sizeof(said));

	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %#x", how, status);
	cr_expect_not_null(strstr(said, message), "%s said: %s", how, said);
	cr_expect_eq(strncmp(said, "shmalloc: ", 10), 0);
}

Test(preload, misuse_is_named)
{
	for (int harden = 0; harden < 2; harden++) {
		setenv("SHMALLOC_HARDEN", harden ? "1" : "0", 1);
		expect_misuse("small", "double free of 0x");
		expect_misuse("large", "double free of 0x");
		expect_misuse("inside", "into the middle of a block");
	}
	unsetenv("SHMALLOC_HARDEN");
}

/* ---- the daemon ---- */

/* One word to the program of preload/away, and its answer. */
static int ask(int in, FILE *from, const char *what)
{
	char line[20] = "";

	cr_assert_eq(write(in, what, strlen(what)), (ssize_t)strlen(what));
	cr_assert_not_null(fgets(line, sizeof(line), from), "no answer to %s", what);
	return atoi(line);
}

Test(preload, the_daemon_is_killed_and_comes_back)
{
	const char *argv[] = {"preload/away", NULL};
	int in, out;

	preload(test_build_path("libshmalloc-preload.so"));
	setenv("SHMALLOC_TIMEOUT_MS", "300", 1);
	pid_t pid = program_start(argv, &in, &out);
	FILE *from = fdopen(out, "r");

	unsetenv("LD_PRELOAD");
	unsetenv("SHMALLOC_TIMEOUT_MS");
	cr_assert(pid > 0 && from);
	cr_expect_eq(ask(in, from, "keep\n"), 10000);
	test_daemon_kill(&d);
	cr_expect_lt(ask(in, from, "keep\n"), 10000, "all blocks came from caches");
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_expect_gt(ask(in, from, "look\n"), 0);
	cr_expect_eq(ask(in, from, "keep\n"), 10000);
	cr_expect_eq(test_ctl_check(&d), 0);
	close(in);
	cr_expect_eq(child_join(pid), 0);
	fclose(from);
}

Test(preload, there_is_no_daemon)
{
	const char *argv[] = {"preload/away", NULL};
	char nowhere[200];
	int in, out;

	snprintf(nowhere, sizeof(nowhere), "%s/nobody", d.dir);
	setenv("SHMALLOC_SOCKET", nowhere, 1);
	preload(test_build_path("libshmalloc-preload.so"));
	pid_t pid = program_start(argv, &in, &out);
	FILE *from = fdopen(out, "r");

	unsetenv("LD_PRELOAD");
	cr_assert(pid > 0 && from);
	cr_expect_eq(ask(in, from, "keep\n"), 0);
	close(in);
	cr_expect_eq(child_join(pid), 0);
	fclose(from);
}

/* A program that links libshmalloc itself has one instance of it: blocks of malloc are the default heap's, scoped, and one client's. */
Test(preload, a_program_that_links_the_library)
{
	const char *hello[] = {"examples/hello", "from a preloaded program", NULL},
	           *read_it[] = {"examples/hello", NULL};
	char *text = NULL;

	preload(test_build_path("libshmalloc-preload.so"));
	cr_expect_eq(program_run(hello, NULL), 0);
	cr_expect_eq(program_run(read_it, &text), 0);
	unsetenv("LD_PRELOAD");
	cr_expect_str_eq(text, "from a preloaded program\n");
	free(text);
	cr_expect_eq(run("preload/linked", NULL), 0);
}

/* ---- where there is no more: each has a daemon with arguments of its own ---- */

/* The heap is full: that is the program's answer, as it is with the C library. */
Test(preload_full, a_limit_is_no_memory)
{
	static const char *const args[] = {"--size", "256MiB", "--client-limit", "32MiB", NULL};

	system_start(&d, args);
	cr_expect_eq(run("preload/forks", "others"), 0);
	cr_expect_eq(run("preload/full", NULL), 0);
	end();
}

Test(preload_full, fork_over_holes)
{
	static const char *const args[] = {"--size=1GiB", NULL};

	if (!system_private_shm("size=24m"))
		return;
	system_start(&d, args);
	cr_expect_eq(run("preload/forkfaults", "holes"), 0);
	end();
}
