#include "tests/lib/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

void child_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: process %d: not so: %s (errno: %s)\n", file, line, (int)getpid(), what,
	        strerror(errno));
	_exit(1);
}

pid_t child_start(int (*fn)(void *arg), void *arg)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		int status = fn(arg);

		fflush(NULL);
		_exit(status);
	}
	return pid;
}

int child_join(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	if (WIFSIGNALED(status)) {
		fprintf(stderr, "process %d was killed by %s\n", (int)pid, strsignal(WTERMSIG(status)));
		return 128 + WTERMSIG(status);
	}
	if (WEXITSTATUS(status) != 0)
		fprintf(stderr, "process %d ended with %d\n", (int)pid, WEXITSTATUS(status));
	return WEXITSTATUS(status);
}

int child_run(int (*fn)(void *arg), void *arg)
{
	return child_join(child_start(fn, arg));
}

pid_t program_start(const char *const *argv, int *in, int *out)
{
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC) != 0)
		return -1;
	if (pipe2(from, O_CLOEXEC) != 0) {
		close(to[0]);
		close(to[1]);
		return -1;
	}
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		const char *path = test_build_path(argv[0]);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		if (path)
			execv(path, (char *const *)(uintptr_t)argv);
		dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	*in = to[1];
	*out = from[0];
	return pid;
}

int program_run(const char *const *argv, char **out)
{
	int in, from;
	size_t size = 0;
	pid_t pid = program_start(argv, &in, &from);
	char *text = NULL;
	FILE *keep = open_memstream(&text, &size);
	char part[4096];

	if (pid < 0 || !keep)
		return -1;
	close(in);
	for (ssize_t got; (got = read(from, part, sizeof(part))) > 0;)
		fwrite(part, 1, (size_t)got, keep);
	close(from);
	fclose(keep);
	if (out)
		*out = text;
	else
		free(text);
	return child_join(pid);
}
