/* Programs that are killed at random moments: started with their output in a pipe that they share, whose lines are read as they
 * come. A line is written by one call and shorter than PIPE_BUF, so it is there as a whole or not at all. */
#ifndef TEST_KILLING_H
#define TEST_KILLING_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/lib/random.h"
#include "tests/system/system.h"

struct killing {
	FILE *lines; /* what the programs write */
	int out; /* where they write it; -1: closed here, so that `lines` ends with the last of them */
	uint32_t kills;
	struct test_random random;
	char *line;
	size_t room;
};

static inline void killing_init(struct killing *k, const char *what)
{
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	*k = (struct killing){.lines = fdopen(ends[0], "r"), .out = ends[1], .random = test_random_init(what)};
	cr_assert_not_null(k->lines);
	setvbuf(k->lines, NULL, _IONBF, 0); /* what poll() does not see has been read */
}

static inline void killing_end(struct killing *k)
{
	fclose(k->lines);
	if (k->out >= 0)
		close(k->out);
	free(k->line);
}

static inline pid_t killing_start(struct killing *k, const char *const *argv)
{
	const char *path = test_build_path(argv[0]);

	cr_assert_not_null(path, "%s", argv[0]);
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(k->out, STDOUT_FILENO);
		execv(path, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	cr_assert_gt(pid, 0);
	return pid;
}

/* The next line, waited for; NULL when all who could write one have ended. */
static inline const char *killing_line(struct killing *k)
{
	return getline(&k->line, &k->room, k->lines) > 0 ? k->line : NULL;
}

/* True if a line is there or nobody can write one, false if the process has ended and is to be reaped; waits for either. */
static inline bool killing_line_or_end(struct killing *k, int pidfd)
{
	struct pollfd fd[2] = {{.fd = fileno(k->lines), .events = POLLIN}, {.fd = pidfd, .events = POLLIN}};

	while (poll(fd, 2, -1) < 0)
		cr_assert_eq(errno, EINTR);
	return fd[0].revents != 0;
}

/* Does not wait. With `out` open here a line can be there, but no end. */
static inline bool killing_line_is_there(struct killing *k)
{
	struct pollfd fd = {.fd = fileno(k->lines), .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

/* Up to `most` microseconds, so that what is killed is not always at the same place after what the test has heard of it. */
static inline void killing_linger(struct killing *k, uint32_t most)
{
	struct timespec time = {.tv_nsec = 1000L * test_random_below(&k->random, most + 1)};

	nanosleep(&time, NULL);
}

/* kill -9. False if it had ended by itself, with status 0. */
static inline bool killing_kill(struct killing *k, pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0, "status %x", status);
	k->kills += WIFSIGNALED(status);
	return WIFSIGNALED(status);
}

/* When the last process has gone: at most `more` blocks are allocated beyond one for each that was killed. Returns how many are. */
static inline int64_t killing_expect_blocks(const struct killing *k, const struct test_daemon *d, int64_t more)
{
	int64_t last, live;

	cr_expect_eq(test_ctl_settle(d, "clients", 0, 0, &last), 0);
	live = test_ctl_stat(d, "live_blocks");
	cr_expect_geq(live, more);
	cr_expect_leq(live, more + k->kills, "%lld blocks after %u kills", (long long)live, k->kills);
	cr_expect_eq(test_ctl_check(d), 0);
	return live;
}

#endif
