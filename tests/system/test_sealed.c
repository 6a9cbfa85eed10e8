/* A heap of sealed memory, which this test keeps while no daemon runs, as a service manager does. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/shmalloc.h"
#include "shm/layout.h"

#define WAIT_MS 30000
#define KEPT 16

/* The manager's side: its socket, and what it keeps. */
static struct manager {
	struct test_daemon d;
	int notify;
	char notify_name[64];
	int n;
	struct {
		int fd;
		char name[64];
	} kept[KEPT];
} m;

static void begin(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address.sun_family);

	alarm(system_limit());
	cr_assert_eq(test_daemon_init(&m.d, NULL), 0);
	setenv("SHMALLOC_SOCKET", m.d.socket, 1);
	m.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(m.notify, (struct sockaddr *)&address, len), 0);
	len = sizeof(address);
	cr_assert_eq(getsockname(m.notify, (struct sockaddr *)&address, &len), 0);
	snprintf(m.notify_name, sizeof(m.notify_name), "@%.50s", address.sun_path + 1);
}

static void become_daemon(void)
{
	const char *argv[] = {test_build_path("shmallocd"), "--socket", m.d.socket, "--instance", m.d.instance,
	        "--heap", m.d.heap, "--backing", "memfd", NULL};
	char names[KEPT * 64] = "", number[16];
	int log = open(m.d.log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	dup2(log, STDERR_FILENO);
	for (int i = 0; i < m.n; i++)
		dup2(m.kept[i].fd, 100 + i);
	for (int i = 0; i < m.n; i++) {
		dup2(100 + i, 3 + i);
		strcat(strcat(names, i ? ":" : ""), m.kept[i].name);
	}
	setenv("SHMALLOCD_CONFIG", "/dev/null", 1);
	setenv("MEMORY_PRESSURE_WATCH", "/dev/null", 1);
	setenv("NOTIFY_SOCKET", m.notify_name, 1);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
	snprintf(number, sizeof(number), "%d", m.n);
	if (m.n)
		setenv("LISTEN_FDS", number, 1), setenv("LISTEN_FDNAMES", names, 1);
	execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static void forget(const char *name)
{
	for (int i = m.n - 1; i >= 0; i--)
		if (!strcmp(m.kept[i].name, name)) {
			close(m.kept[i].fd);
			m.kept[i] = m.kept[--m.n];
		}
}

/* A service manager keeps no second descriptor of one open file. */
static bool is_kept(int fd)
{
	for (int i = 0; i < m.n; i++)
		if (syscall(SYS_kcmp, getpid(), getpid(), 0 /* KCMP_FILE */, fd, m.kept[i].fd) == 0)
			return true;
	return false;
}

/* Does what one message asks for. True if the daemon is ready. */
static bool obey(char *said, int fd)
{
	char *name = strstr(said, "FDNAME=");

	if (name)
		*(name += strlen("FDNAME=") + strcspn(name + strlen("FDNAME="), "\n")) = 0;
	name = strstr(said, "FDNAME=");
	if (strstr(said, "FDSTOREREMOVE=1")) {
		forget(name + strlen("FDNAME="));
	} else if (strstr(said, "FDSTORE=1") && is_kept(fd)) {
		close(fd);
	} else if (strstr(said, "FDSTORE=1")) {
		cr_assert_lt(m.n, KEPT);
		m.kept[m.n].fd = fd;
		snprintf(m.kept[m.n++].name, sizeof(m.kept[0].name), "%.60s", name + strlen("FDNAME="));
	} else if (fd >= 0) {
		close(fd); /* a barrier */
	}
	return strstr(said, "READY=1") != NULL;
}

/* Listens until the daemon is ready, or has ended. */
static bool listen_to(void)
{
	struct pollfd fds[2] = {{.fd = m.notify, .events = POLLIN}, {.fd = m.d.pidfd, .events = POLLIN}};
	bool ready = false;

	while (!ready && poll(fds, 2, WAIT_MS) > 0 && (fds[0].revents || !fds[1].revents)) {
		union {
			char bytes[CMSG_SPACE(sizeof(int))];
			struct cmsghdr align;
		} control;
		char said[512];
		struct iovec io = {said, sizeof(said) - 1};
		struct msghdr msg = {.msg_iov = &io,
		        .msg_iovlen = 1,
		        .msg_control = control.bytes,
		        .msg_controllen = sizeof(control.bytes)};
		ssize_t n = recvmsg(m.notify, &msg, MSG_CMSG_CLOEXEC);
		const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		int fd = -1;

		cr_assert_gt(n, 0);
		said[n] = 0;
		if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		ready = obey(said, fd);
	}
	return ready;
}

static void start(void)
{
	fflush(NULL);
	m.d.pid = fork();
	if (!m.d.pid)
		become_daemon();
	cr_assert_gt(m.d.pid, 0);
	m.d.pidfd = (int)syscall(SYS_pidfd_open, m.d.pid, 0);
	cr_assert(listen_to(), "it does not get ready");
}

static int kept(const char *part)
{
	char name[64];

	snprintf(name, sizeof(name), "%.40s.%s", m.d.heap, part);
	for (int i = 0; i < m.n; i++)
		if (!strcmp(m.kept[i].name, name))
			return m.kept[i].fd;
	return -1;
}

static void end(void)
{
	close(m.notify);
	cr_expect_eq(test_daemon_end(&m.d), 0);
}

static char name[] = "sealed";

Test(sealed, survives_the_daemon_but_has_no_name)
{
	begin();
	start();
	cr_expect_eq(m.n, 4, "meta, ctl, data and state are kept, not %d", m.n);
	cr_expect_eq(test_daemon_objects(&m.d), 1, "nothing but the lock is in /dev/shm");
	cr_expect_eq(child_run(system_leave_root, name), 0);
	for (int i = 0; i < 3; i++) {
		test_daemon_kill(&m.d);
		start();
		cr_expect_eq(m.n, 4, "the same four");
		cr_expect_eq(child_run(system_find_root, name), 0);
	}
	cr_expect_eq(test_daemon_stop(&m.d), 0);
	cr_expect_eq(m.n, 4, "it is in use");
	start();
	cr_expect_eq(child_run(system_find_root, name), 0);
	end();
}

/* A client goes on over the daemon's death, and what it holds is its own still. */
static int go_on(void *arg)
{
	int *pipes = arg;
	char *block = shma_malloc(100), byte;

	child_check(block && write(pipes[1], "r", 1) == 1 && read(pipes[2], &byte, 1) == 1);
	for (int i = 0; i < 2000; i++) /* beyond what is cached */
		child_check(shma_malloc(10000) != NULL);
	shma_free(block);
	return 0;
}

Test(sealed, a_client_goes_on)
{
	int pipes[4];
	char byte;

	begin();
	start();
	cr_assert_eq(pipe(pipes) | pipe(pipes + 2), 0);
	pid_t client = child_start(go_on, pipes);

	cr_assert_eq(read(pipes[0], &byte, 1), 1);
	test_daemon_kill(&m.d);
	start();
	cr_assert_eq(write(pipes[3], "g", 1), 1);
	cr_expect_eq(child_join(client), 0);
	end();
}

Test(sealed, is_cut_by_nobody)
{
	begin();
	start();
	for (int i = 0; i < m.n; i++) {
		cr_expect_eq(ftruncate(m.kept[i].fd, 4096), -1, "%s", m.kept[i].name);
		cr_expect_eq(errno, EPERM);
	}
	end();
}

Test(sealed, goes_when_nobody_wants_it)
{
	begin();
	start();
	cr_expect_eq(test_daemon_stop(&m.d), 0);
	m.d.pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0); /* the daemon is gone: only what it has said is left */
	while (recv(m.notify, (char[1]){0}, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
		char said[512];
		ssize_t n = recv(m.notify, said, sizeof(said) - 1, 0);

		said[n] = 0;
		(void)obey(said, -1);
	}
	cr_expect_eq(m.n, 0, "an empty heap is not kept: %d", m.n);
	end();
}

static int find_no_root(void *arg)
{
	child_check(shma_root_get(shma_default(), arg) == NULL && errno == ENOENT);
	return 0;
}

/* A heap that three starts died of is kept under another name, and a new one takes its place. */
Test(sealed, is_set_aside)
{
	uint32_t starts = 3;

	begin();
	start();
	cr_expect_eq(child_run(system_leave_root, name), 0);
	test_daemon_kill(&m.d);
	cr_assert_eq(
	        pwrite(kept("state"), &starts, sizeof(starts), offsetof(struct shmi_state, boots)), sizeof(starts));
	start();
	cr_expect_eq(m.n, 8, "two heaps are kept: %d", m.n);
	cr_expect_geq(kept("aside-1.meta"), 0);
	cr_expect_geq(kept("aside-1.data"), 0);
	cr_expect_eq(child_run(find_no_root, name), 0);
	end();
}

/* What comes back is not what was put there. */
Test(sealed, what_was_swapped_is_refused)
{
	char said[4096];

	begin();
	start();
	cr_expect_eq(child_run(system_leave_root, name), 0);
	test_daemon_kill(&m.d);
	cr_assert_eq(fchmod(kept("data"), 0644), 0);
	fflush(NULL);
	m.d.pid = fork();
	if (!m.d.pid)
		become_daemon();
	m.d.pidfd = (int)syscall(SYS_pidfd_open, m.d.pid, 0);
	cr_expect_not(listen_to());
	cr_expect_eq(child_join(m.d.pid), 1);
	m.d.pid = -1;
	int log = open(m.d.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(log, said, sizeof(said) - 1);

	said[n > 0 ? n : 0] = 0;
	close(log);
	cr_expect_not_null(strstr(said, "is not sealed memory"), "%s", said);
	end();
}
