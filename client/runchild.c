/* The program: as this process, or as a child to which signals are passed on and whose end becomes ours.
 *
 * A child is to whoever started us what we are: a signal that is sent to us comes to it, once, and what becomes of it becomes of us. Of the
 * signals that stop a job none stops us by itself: SIGTSTP may be one that the program does not stop at, or not at once, and
 * a shell takes the terminal as soon as we are stopped. We stop when the program has stopped, by a signal of job control; SIGSTOP is for
 * tools that stop a process and continue it, which know nothing of us.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/run.h"

static const int passed[] = {
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU};

#define N_PASSED (sizeof(passed) / sizeof(passed[0]))

/* Ours goes first, before what is preloaded already; once. */
static int set_preload(const struct run *run)
{
	const char *old = getenv("LD_PRELOAD");
	size_t len = strlen(run->library);
	char *all;

	if (!old || !*old)
		return setenv("LD_PRELOAD", run->library, 1);
	if (strncmp(old, run->library, len) == 0 && (!old[len] || old[len] == ':' || old[len] == ' '))
		return 0;
	if (asprintf(&all, "%s:%s", run->library, old) < 0)
		return -1;
	int error = setenv("LD_PRELOAD", all, 1);

	free(all);
	return error;
}

static int set_environment(const struct run *run)
{
	int error = set_preload(run) | setenv("SHMALLOC_SOCKET", run->path, 1);

	if (run->heap)
		error |= setenv("SHMALLOC_HEAP", run->heap, 1);
	if (run->label)
		error |= setenv("SHMALLOC_LABEL", run->label, 1);
	return error;
}

int run_become(const struct run *run)
{
	if (set_environment(run) != 0)
		return run_fail("no memory for the environment");
	(void)execvpe(run->program[0], run->program, environ); /* found by $PATH, as in the caller's shell */
	int error = errno;

	(void)run_fail("%s: %s", run->program[0], strerror(error));
	return error == ENOENT || error == ENOTDIR ? 127 : 126;
}

static bool is_stop(int sig)
{
	return sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

/* What a key at the terminal or its size sends comes to all processes of its group, the program among them. The kernel sends others as
 * well, to us alone: a timer's that was set before we were started, the SIGHUP to the leader of a session. */
static bool from_terminal(const siginfo_t *info)
{
	int sig = info->si_signo;

	return info->si_code == SI_KERNEL && (sig == SIGINT || sig == SIGQUIT || sig == SIGWINCH || is_stop(sig));
}

/* Returns when we are continued; then the program is, or SIGCONT waits to be passed on. */
static void stop_too(int sig)
{
	sigset_t set, old;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, sig);
	(void)signal(sig, SIG_DFL);
	(void)raise(sig); /* one that the terminal has sent us and that is still waiting is the same */
	(void)sigprocmask(SIG_UNBLOCK, &set, &old);
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
}

static int follow(pid_t pid, const sigset_t *set)
{
	siginfo_t info;
	int status, sig;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG | WUNTRACED);

		if (got < 0)
			return -1;
		if (got == pid && !WIFSTOPPED(status))
			return status;
		if (got == pid && is_stop(WSTOPSIG(status)))
			stop_too(WSTOPSIG(status));
		sig = sigwaitinfo(set, &info);
		if (sig > 0 && sig != SIGCHLD && !from_terminal(&info))
			(void)kill(pid, sig);
	}
}

int run_child(const struct run *run)
{
	struct sigaction plain = {.sa_handler = SIG_DFL}, chld;
	sigset_t set, old;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < N_PASSED; i++)
		(void)sigaddset(&set, passed[i]);
	(void)sigprocmask(SIG_BLOCK, &set, &old);
	(void)sigaction(SIGCHLD, &plain, &chld); /* ignored, there would be nothing to wait for */
	pid_t pid = fork();

	if (pid == 0) {
		(void)sigaction(SIGCHLD, &chld, NULL);
		(void)sigprocmask(SIG_SETMASK, &old, NULL);
		_exit(run_become(run));
	}
	if (pid < 0) {
		(void)run_fail("fork: %s", strerror(errno));
		return -1;
	}
	return follow(pid, &set);
}

int run_end_like(int status)
{
	const struct rlimit no_core = {0};
	sigset_t set;

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	int sig = WTERMSIG(status);

	(void)setrlimit(RLIMIT_CORE, &no_core); /* there is one already */
	(void)signal(sig, SIG_DFL);
	(void)sigemptyset(&set);
	(void)sigaddset(&set, sig);
	(void)raise(sig);
	(void)sigprocmask(SIG_UNBLOCK, &set, NULL);
	return 128 + sig;
}
