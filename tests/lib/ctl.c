#include "tests/lib/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ARGS 16
#define SETTLE_MS 10000
#define SETTLE_LOOKS 300u /* at least: a machine that stalls for seconds leaves the daemon no time either */
#define SETTLE_STEP_MS 5 /* nothing tells a test that statistics have changed */

static void become_ctl(const struct test_daemon *d, const char *const *args, int out)
{
	const char *argv[MAX_ARGS] = {test_build_path("shmallocctl"), "--socket", d->socket, "--heap", d->heap};
	int n = 5;

	while (*args && n < MAX_ARGS - 1)
		argv[n++] = *args++;
	dup2(out, STDOUT_FILENO);
	if (argv[0])
		execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "cannot run shmallocctl: %s\n", strerror(errno));
	_exit(127);
}

static char *read_all(int fd)
{
	char *text = NULL;
	size_t len = 0;

	for (ssize_t got = 1; got > 0; len += (size_t)got) {
		char *more = realloc(text, len + 65536 + 1);

		if (!more)
			break;
		text = more;
		got = read(fd, text + len, 65536);
		if (got < 0)
			got = 0;
	}
	if (text)
		text[len] = 0;
	return text;
}

int test_ctl_run(const struct test_daemon *d, const char *const *args, char **out)
{
	int ends[2], status = -1;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return -1;
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0)
		become_ctl(d, args, ends[1]);
	close(ends[1]);
	char *text = read_all(ends[0]);

	close(ends[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		status = -1;
	else
		status = WEXITSTATUS(status);
	if (out)
		*out = text;
	else
		free(text);
	return status;
}

json_t *test_ctl_json(const struct test_daemon *d, const char *command)
{
	const char *args[] = {"--format", "json", command, NULL};
	json_error_t error = {0};
	char *text = NULL;
	int status = test_ctl_run(d, args, &text);
	json_t *json = text ? json_loads(text, 0, &error) : NULL;

	if (status != 0 || !json)
		fprintf(stderr, "shmallocctl %s: status %d, %s\n%s\n", command, status, error.text, text ? text : "");
	free(text);
	if (status == 0)
		return json;
	json_decref(json);
	return NULL;
}

int64_t test_ctl_stat(const struct test_daemon *d, const char *field)
{
	json_t *report = test_ctl_json(d, "stats"), *value = json_object_get(json_object_get(report, "stats"), field);

	if (!value)
		value = json_object_get(json_object_get(report, "counters"), field);
	int64_t n = json_is_integer(value) ? json_integer_value(value) : -1;

	json_decref(report);
	return n;
}

int test_ctl_check(const struct test_daemon *d)
{
	const char *args[] = {"check", NULL};
	char *text = NULL;
	int status = test_ctl_run(d, args, &text);

	if (status != 0)
		fprintf(stderr, "shmallocctl check: status %d\n%s\n", status, text ? text : "");
	free(text);
	return status;
}

int test_ctl_trim(const struct test_daemon *d)
{
	const char *args[] = {"trim", NULL};

	return test_ctl_run(d, args, NULL) == 0 ? 0 : -1;
}

int test_ctl_settle(const struct test_daemon *d, const char *field, int64_t low, int64_t high, int64_t *last)
{
	long long deadline = test_now_ms() + SETTLE_MS;

	for (uint32_t looks = 1;; looks++) {
		*last = test_ctl_stat(d, field);
		if (*last >= low && *last <= high)
			return 0;
		if (test_now_ms() >= deadline && looks >= SETTLE_LOOKS)
			break;
		poll(NULL, 0, SETTLE_STEP_MS);
	}
	fprintf(stderr, "%s is %lld and does not come into [%lld, %lld]\n", field, (long long)*last, (long long)low,
	        (long long)high);
	return -1;
}
