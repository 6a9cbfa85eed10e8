/* One tiny program per abuse, and the message that it must get: on one line, naming block, span and holder, then abort. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

TestSuite(misuse, .timeout = 60);

static struct test_daemon d;

static void start(void)
{
	cr_assert_eq(test_daemon_start(&d, NULL), 0);
}

static void end(void)
{
	cr_assert_eq(test_daemon_end(&d), 0);
}

/* Runs the program with its standard error in `said`. Returns its wait status. */
static int run(const char *program, const char *harden, char *said, size_t room)
{
	char path[300];
	int out[2], status;
	size_t len = 0;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "misuse/%s", program);
	(void)snprintf(path, sizeof(path), "%s", test_build_path(path));
	cr_assert_eq(pipe(out), 0);
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		(void)dup2(out[1], STDERR_FILENO);
		(void)close(out[0]);
		(void)setenv("SHMALLOC_SOCKET", d.socket, 1);
		(void)setenv("SHMALLOC_HARDEN", harden, 1);
		(void)execl(path, path, (char *)NULL);
		_exit(127);
	}
	(void)close(out[1]);
	while (len < room - 1 && (n = read(out[0], said + len, room - 1 - len)) > 0)
		len += (size_t)n;
	said[len] = 0;
	(void)close(out[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static void expect(const char *program, const char *harden, const char *message)
{
	char said[1000];
	int status = run(program, harden, said, sizeof(said));

	cr_assert(
	        WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %#x, said: %s", program, status, said);
	cr_assert_not_null(strstr(said, message), "%s said: %s", program, said);
	cr_assert_eq(strchr(said, '\n'), said + strlen(said) - 1, "one line: %s", said);
	cr_assert_eq(strncmp(said, "shmalloc: ", 10), 0);
}

static const struct {
	const char *program, *message;
} abuses[] = {{"double_free", "double free of 0x"}, {"double_free_late", "double free of 0x"},
        {"inner_pointer", "into the middle of a block"}, {"outside", "is in no attached heap"},
        {"no_block", "invalid free: "}, {"large_twice", "double free of 0x"},
        {"large_twice_late", "no block begins at 0x"}, {"large_inner", "into the middle of a block"},
        {"realloc_freed", "no block begins at 0x"}};

Test(misuse, each_is_named, .init = start, .fini = end)
{
	for (size_t i = 0; i < sizeof(abuses) / sizeof(*abuses); i++) {
		expect(abuses[i].program, "0", abuses[i].message);
		expect(abuses[i].program, "1", abuses[i].message);
	}
}

Test(misuse, the_message_says_whose_the_span_is, .init = start, .fini = end)
{
	expect("double_free", "1", "-byte blocks, held by client ");
	expect("inner_pointer", "1", " of 112-byte blocks");
}
