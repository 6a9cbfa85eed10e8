/* A daemon for one run. Its heap is of sealed memory, which has no name and ends with those that have it; what does have a name, the
 * directory of its socket and its lock, the keeper removes.
 *
 * The keeper is a child of ours in a session of its own, so that no terminal reaches it, and it holds the other end of a line to us. When we
 * close that, or die, it reads an end of file. The daemon ends with the keeper even if somebody kills that; then we remove. If both
 * of us are killed, names are left and no memory: the directory with the log and a lock, and a lock in /dev/shm.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/run.h"
#include "proto/chan.h"
#include "proto/ourdir.h"

#define START_MS 30000 /* the longest wait for the daemon to serve, */
#define STOP_MS 10000 /* and to end */
#define DIR_MOST 60u /* bytes of the directory's parent: so the path of the socket in it fits */
#define SIZE "16GiB" /* of the heap, unless given: it is address space */

/* What the keeper has. */
struct keep {
	const struct run *run;
	const struct run_private *priv;
	char daemon[PATH_MAX];
	int line, notify, pidfd;
	char notify_name[64];
	pid_t pid;
};

/* ---- the daemon ---- */

static _Noreturn void become_daemon(const struct keep *k, pid_t keeper)
{
	const char *argv[] = {k->daemon, "--config", "/dev/null", "--socket", k->run->path, "--instance",
	        k->priv->instance, "--backing", "memfd", "--heap", run_heap(k->run), "--size",
	        k->run->size ? k->run->size : SIZE, NULL};
	int log = open(k->priv->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != keeper) /* it has ended before we said so */
		_exit(RUN_FAILED);
	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	if (!k->run->verbose && log >= 0)
		(void)dup2(log, STDERR_FILENO);
	(void)setenv("NOTIFY_SOCKET", k->notify_name, 1);
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("LISTEN_FDS");
	(void)unsetenv("LD_PRELOAD");
	(void)execv(k->daemon, (char *const *)(uintptr_t)argv);
	(void)run_fail("%s: %s", k->daemon, strerror(errno));
	_exit(RUN_FAILED);
}

/* The socket on which it says that it serves; the kernel picks its name, in the abstract. Anybody can send there, so each message comes with
 * its sender. */
static bool open_notify(struct keep *k)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address);
	int on = 1;

	k->notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (k->notify < 0 || setsockopt(k->notify, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0 ||
	        bind(k->notify, (const struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path)) != 0 ||
	        getsockname(k->notify, (struct sockaddr *)&address, &len) != 0)
		return false;
	(void)snprintf(k->notify_name, sizeof(k->notify_name), "@%.*s",
	        (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), address.sun_path + 1);
	return true;
}

/* Reads one message. True if it is the daemon's, and says that it serves. */
static bool says_ready(const struct keep *k)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(struct ucred))]; /* no room for descriptors: the kernel drops them */
	} control;
	char said[512];
	struct iovec iov = {.iov_base = said, .iov_len = sizeof(said) - 1};
	struct msghdr msg = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(k->notify, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	const struct cmsghdr *c = got < 0 ? NULL : CMSG_FIRSTHDR(&msg);
	struct ucred from;

	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
		return false;
	memcpy(&from, CMSG_DATA(c), sizeof(from));
	said[got] = 0;
	return from.pid == k->pid && from.uid == geteuid() && strstr(said, "READY=1");
}

/* Until it serves, ends, or nobody wants it any more. */
static bool wait_ready(const struct keep *k)
{
	struct pollfd events[] = {{.fd = k->notify, .events = POLLIN}, {.fd = k->pidfd, .events = POLLIN},
	        {.fd = k->line, .events = POLLIN}};
	int64_t deadline = shmi_chan_now_ns() + START_MS * (int64_t)1000000, left_ms = START_MS;

	while (left_ms > 0 && poll(events, 3, (int)left_ms) > 0 && !events[1].revents && !events[2].revents) {
		if (says_ready(k))
			return true;
		left_ms = (deadline - shmi_chan_now_ns()) / 1000000;
	}
	return false;
}

static bool start_daemon(struct keep *k)
{
	pid_t keeper = getpid();

	if (!open_notify(k))
		return false;
	k->pid = fork();
	if (k->pid == 0)
		become_daemon(k, keeper);
	k->pidfd = k->pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, k->pid, 0);
	return k->pidfd >= 0 && wait_ready(k);
}

static void end_daemon(const struct keep *k)
{
	struct pollfd end = {.fd = k->pidfd, .events = POLLIN};

	if (k->pid <= 0)
		return;
	(void)kill(k->pid, SIGTERM); /* it is not reaped yet, so the pid is its own */
	if (k->pidfd >= 0 && poll(&end, 1, STOP_MS) <= 0)
		(void)kill(k->pid, SIGKILL);
	while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/* ---- the keeper ---- */

static void show_log(const struct keep *k)
{
	char text[2048];
	int log = open(k->priv->log, O_RDONLY | O_CLOEXEC);
	ssize_t got = log < 0 ? 0 : read(log, text, sizeof(text));

	(void)run_fail("the private daemon does not come up%s", got > 0 ? ":" : "");
	if (got > 0 && write(STDERR_FILENO, text, (size_t)got) < 0)
		return;
}

/* What it leaves: the socket, the file by which it was locked, the log, and the lock of the instance. */
static void remove_all(const struct run_private *priv, const struct run *run)
{
	char path[SHMI_PATH_MAX + 32];

	(void)unlink(run->path);
	(void)snprintf(path, sizeof(path), "%s.lock", run->path);
	(void)unlink(path);
	(void)unlink(priv->log);
	(void)rmdir(priv->dir);
	(void)snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.lock", priv->instance);
	(void)unlink(path);
}

static _Noreturn void keep(struct keep *k)
{
	static const int deaf[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;
	char byte;

	(void)setsid();
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL); /* the daemon inherits it, and must hear that it is to end */
	for (size_t i = 0; i < sizeof(deaf) / sizeof(deaf[0]); i++)
		(void)signal(deaf[i], SIG_IGN);
	(void)signal(SIGCHLD, SIG_DFL);
	(void)dup2(null, STDIN_FILENO); /* who reads what the program prints must see its end */
	(void)dup2(null, STDOUT_FILENO);
	(void)fcntl(STDERR_FILENO, F_SETFD, 0); /* the daemon has to have one */
	bool ready = start_daemon(k);

	if (!ready && recv(k->line, &byte, 1, MSG_DONTWAIT) != 0) /* else nobody wants to know */
		show_log(k);
	if (ready && write(k->line, "r", 1) == 1)
		while (read(k->line, &byte, 1) < 0 && errno == EINTR)
			;
	end_daemon(k);
	remove_all(k->priv, k->run);
	_exit(ready ? 0 : RUN_FAILED);
}

/* ---- our side ---- */

static int make_dir(struct run_private *priv, struct run *run)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (!runtime || strlen(runtime) > DIR_MOST || !shmi_dir_is_ours(runtime))
		runtime = "/tmp";
	(void)snprintf(priv->dir, sizeof(priv->dir), "%s/shmalloc-run.XXXXXX", runtime);
	if (!mkdtemp(priv->dir)) {
		(void)snprintf(priv->dir, sizeof(priv->dir), "/tmp/shmalloc-run.XXXXXX");
		if (!mkdtemp(priv->dir))
			return run_fail("%s: %s", priv->dir, strerror(errno));
	}
	(void)snprintf(run->path, sizeof(run->path), "%.90s/sock", priv->dir);
	(void)snprintf(priv->log, sizeof(priv->log), "%.90s/log", priv->dir);
	(void)snprintf(priv->instance, sizeof(priv->instance), "run-%.20s", strrchr(priv->dir, '.') + 1);
	return 0;
}

static int start_keeper(struct run_private *priv, const struct run *run, struct keep *k)
{
	int line[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) != 0)
		return run_fail("socketpair: %s", strerror(errno));
	k->line = line[1];
	k->run = run;
	k->priv = priv;
	priv->line = line[0];
	priv->keeper = fork();
	if (priv->keeper == 0) {
		(void)close(line[0]);
		keep(k);
	}
	(void)close(line[1]);
	return priv->keeper < 0 ? run_fail("fork: %s", strerror(errno)) : 0;
}

int run_private_start(struct run_private *priv, struct run *run)
{
	struct keep k = {.line = -1, .notify = -1, .pidfd = -1};
	char byte;
	ssize_t got;

	if (!run_find(RUN_DAEMON, k.daemon))
		return run_fail("shmallocd is not installed; start one, and name its socket with --socket");
	if (make_dir(priv, run) != 0)
		return RUN_FAILED;
	if (start_keeper(priv, run, &k) != 0) {
		(void)rmdir(priv->dir);
		return RUN_FAILED;
	}
	while ((got = read(priv->line, &byte, 1)) < 0 && errno == EINTR)
		;
	if (got == 1) {
		run_say(run, "a private daemon serves at %s", run->path);
		return 0;
	}
	if (!run_private_end(priv, run))
		return run_fail("the keeper of the private daemon was killed before that served; try again");
	return RUN_FAILED;
}

bool run_private_end(struct run_private *priv, const struct run *run)
{
	int status = 0;

	(void)close(priv->line);
	while (waitpid(priv->keeper, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status))
		return true;
	remove_all(priv, run); /* the daemon has had its SIGTERM */
	return false;
}
