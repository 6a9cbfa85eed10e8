#include "tests/lib/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
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
#include <time.h>
#include <unistd.h>

#define START_MS                                                                                                       \
	30000 /* the longest wait for a daemon to come up or go down; machines may be busy, and sanitizers are slow */
#define RETRY_MS 5
#define MAX_ARGS 32
#define MAX_KNOWN 16

long long test_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

const char *test_build_path(const char *name)
{
	static char path[PATH_MAX];
	struct stat st;
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (len < 0)
		return NULL;
	path[len] = 0;
	for (char *slash; (slash = strrchr(path, '/')) != NULL; *slash = 0) {
		if ((size_t)(slash - path) + strlen(name) + 2 > sizeof(path))
			return NULL;
		strcpy(slash + 1, name);
		if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
			return path;
	}
	return NULL;
}

/* ---- start ---- */

static void name_it(struct test_daemon *d, const struct test_daemon_options *options)
{
	snprintf(d->socket, sizeof(d->socket), "%s/sock", d->dir);
	snprintf(d->log, sizeof(d->log), "%s/log", d->dir);
	/* as unique as the directory; who starts tests that may leave objects behind knows them by a prefix of its own */
	const char *prefix = getenv("TEST_INSTANCE");

	snprintf(d->instance, sizeof(d->instance), "%.40s-%s", prefix ? prefix : "test", strrchr(d->dir, '.') + 1);
	snprintf(d->heap, sizeof(d->heap), "%s", options->heap ? options->heap : "default");
}

/* The daemon's process, from fork to exec. */
static void become_daemon(const struct test_daemon *d, const struct test_daemon_options *options)
{
	const char *argv[MAX_ARGS] = {options->program ? options->program : test_build_path("shmallocd"), "--socket",
	        d->socket, "--instance", d->instance, "--heap", d->heap};
	int n = 7, log = open(d->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (const char *const *arg = options->args; arg && *arg && n < MAX_ARGS - 1; arg++)
		argv[n++] = *arg;
	dup2(log, STDERR_FILENO);
	if (argv[0])
		execv(argv[0], (char *const *)(uintptr_t)argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", argv[0] ? argv[0] : "shmallocd", strerror(errno));
	_exit(127);
}

/* The socket on which a service manager hears of its services; the kernel picks its name, in the abstract. */
static int notify_open(char name[64])
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address.sun_family);
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (sock < 0 || bind(sock, (const struct sockaddr *)&address, len) ||
	        (len = sizeof(address), getsockname(sock, (struct sockaddr *)&address, &len)))
		perror("a socket for notifications");
	snprintf(name, 64, "@%.60s", address.sun_path + 1);
	return sock;
}

/* `notify`: where it is to say that it is ready, or NULL. */
static int spawn(struct test_daemon *d, const struct test_daemon_options *options, const char *notify)
{
	fflush(NULL);
	d->pid = fork();
	if (d->pid == 0) {
		unsetenv("NOTIFY_SOCKET");
		unsetenv("WATCHDOG_USEC");
		unsetenv("LISTEN_FDS");
		setenv("SHMALLOCD_CONFIG", "/dev/null", 0); /* not what this machine's daemon has */
		/* What else runs on this machine must not make a daemon of a test think that memory is short. */
		setenv("MEMORY_PRESSURE_WATCH",
		        getenv("TEST_PRESSURE_WATCH") ? getenv("TEST_PRESSURE_WATCH") : "/dev/null", 1);
		if (notify)
			setenv("NOTIFY_SOCKET", notify, 1);
		become_daemon(d, options);
	}
	d->pidfd = d->pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, d->pid, 0);
	return d->pidfd < 0 ? -1 : 0;
}

static bool ended(const struct test_daemon *d, int wait_ms)
{
	struct pollfd end = {.fd = d->pidfd, .events = POLLIN};

	return poll(&end, 1, wait_ms) > 0;
}

/* Waits until it says that it is ready, or ends. */
static int wait_ready(const struct test_daemon *d, int notify)
{
	long long deadline = test_now_ms() + START_MS, left;

	while ((left = deadline - test_now_ms()) > 0) {
		struct pollfd events[2] = {{.fd = d->pidfd, .events = POLLIN}, {.fd = notify, .events = POLLIN}};
		char said[512] = "";

		if (poll(events, 2, (int)left) <= 0 || events[0].revents)
			return -1;
		if (recv(notify, said, sizeof(said) - 1, MSG_DONTWAIT) > 0 && strstr(said, "READY=1"))
			return 0;
	}
	return -1;
}

static void show_log(const struct test_daemon *d)
{
	char text[4096] = "";
	int fd = open(d->log, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	off_t size = lseek(fd, 0, SEEK_END), from = size > 2048 ? size - 2048 : 0;
	ssize_t got = pread(fd, text, sizeof(text) - 1, from);

	close(fd);
	if (got > 0)
		fprintf(stderr, "the daemon's log ends:\n%.*s\n", (int)got, text);
}

int test_daemon_spawn(struct test_daemon *d, const struct test_daemon_options *options)
{
	return spawn(d, options ? options : &(struct test_daemon_options){0}, NULL);
}

int test_daemon_start_again(struct test_daemon *d, const struct test_daemon_options *options)
{
	char name[64];
	int notify = notify_open(name);
	bool ready =
	        spawn(d, options ? options : &(struct test_daemon_options){0}, name) == 0 && wait_ready(d, notify) == 0;

	close(notify);
	if (ready)
		return 0;
	fprintf(stderr, "the daemon does not come up (%s)\n", d->socket);
	show_log(d);
	test_daemon_kill(d);
	return -1;
}

/* ---- what a test that fails does not come to ---- */

static struct test_daemon known[MAX_KNOWN]; /* names that were made and not yet removed; dir[0] is 0: free */
static pid_t keeper; /* the process that made them: a forked child has a copy, and no business with it */

/* The daemons themselves die with this process. */
static void remove_known(void)
{
	for (int i = 0; i < MAX_KNOWN && keeper == getpid(); i++)
		if (known[i].dir[0])
			test_daemon_remove(&known[i]);
}

static void know(const struct test_daemon *d)
{
	if (keeper != getpid()) {
		memset(known, 0, sizeof(known));
		keeper = getpid();
		atexit(remove_known);
	}
	for (int i = 0; i < MAX_KNOWN; i++)
		if (!known[i].dir[0]) {
			known[i] = *d;
			return;
		}
}

static void forget(const struct test_daemon *d)
{
	for (int i = 0; i < MAX_KNOWN; i++)
		if (strcmp(known[i].dir, d->dir) == 0)
			known[i].dir[0] = 0;
}

int test_daemon_init(struct test_daemon *d, const struct test_daemon_options *options)
{
	*d = (struct test_daemon){.pid = -1, .pidfd = -1, .dir = "/tmp/shmalloc-test.XXXXXX"};
	if (!mkdtemp(d->dir)) {
		perror("mkdtemp");
		return -1;
	}
	name_it(d, options ? options : &(struct test_daemon_options){0});
	know(d);
	return 0;
}

int test_daemon_start(struct test_daemon *d, const struct test_daemon_options *options)
{
	if (test_daemon_init(d, options) != 0)
		return -1;
	if (test_daemon_start_again(d, options) == 0)
		return 0;
	test_daemon_remove(d);
	return -1;
}

/* ---- end ---- */

/* Reaps it. Returns the status as waitpid gives it. */
static int reap(struct test_daemon *d)
{
	int status = 0;

	while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(d->pidfd);
	d->pid = -1;
	d->pidfd = -1;
	return status;
}

int test_daemon_refused(const struct test_daemon *d, const struct test_daemon_options *options, char *said, size_t room)
{
	struct test_daemon other = *d;

	snprintf(other.log, sizeof(other.log), "%s/refused", d->dir);
	unlink(other.log);
	if (spawn(&other, options ? options : &(struct test_daemon_options){0}, NULL) != 0)
		return -1;
	if (!ended(&other, START_MS)) {
		test_daemon_kill(&other);
		return -1;
	}
	int status = reap(&other), fd = open(other.log, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, said, room - 1);

	said[got < 0 ? 0 : got] = 0;
	if (fd >= 0)
		close(fd);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int test_daemon_stop(struct test_daemon *d)
{
	if (d->pid <= 0)
		return 0;
	kill(d->pid, SIGTERM);
	bool in_time = ended(d, START_MS);

	if (!in_time)
		kill(d->pid, SIGKILL);
	int status = reap(d);

	if (in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	fprintf(stderr, "the daemon %s (status %#x)\n", in_time ? "did not end well" : "did not stop when asked",
	        status);
	show_log(d);
	return -1;
}

void test_daemon_kill(struct test_daemon *d)
{
	if (d->pid <= 0)
		return;
	kill(d->pid, SIGKILL);
	reap(d);
}

/* Calls fn for the instance's objects; returns how many there are. */
static int each_object(const struct test_daemon *d, void (*fn)(const char *path))
{
	char prefix[96], path[PATH_MAX];
	int len = snprintf(prefix, sizeof(prefix), "shmalloc.%s.", d->instance), found = 0;
	DIR *dir = opendir("/dev/shm");

	for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
		if (strncmp(entry->d_name, prefix, (size_t)len) != 0)
			continue;
		found++;
		snprintf(path, sizeof(path), "/dev/shm/%s", entry->d_name);
		if (fn)
			fn(path);
	}
	if (dir)
		closedir(dir);
	return found;
}

static void remove_path(const char *path)
{
	unlink(path);
}

int test_daemon_objects(const struct test_daemon *d)
{
	return each_object(d, NULL);
}

void test_daemon_remove(struct test_daemon *d)
{
	DIR *dir = opendir(d->dir);

	for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(d->dir);
	each_object(d, remove_path);
	forget(d);
}

int test_daemon_end(struct test_daemon *d)
{
	int status = test_daemon_stop(d);

	test_daemon_remove(d);
	return status;
}

int test_daemon_fds(const struct test_daemon *d)
{
	char path[64];
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)d->pid);
	DIR *dir = opendir(path);

	for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

int test_daemon_settle_fds(const struct test_daemon *d, int most)
{
	long long deadline = test_now_ms() + START_MS;
	int n;

	while ((n = test_daemon_fds(d)) > most && test_now_ms() < deadline)
		poll(NULL, 0, RETRY_MS);
	if (n > most)
		fprintf(stderr, "the daemon has %d descriptors open, not %d\n", n, most);
	return n > most ? -1 : 0;
}
