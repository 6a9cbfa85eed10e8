/* The daemon and a service manager, played by this test: what it is told and when, the watchdog, a passed socket; whose socket
 * file is removed; and what --reset and the check at the start leave alone. */
#include "tests/system/system.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "shm/image.h"

#define WAIT_MS 30000

struct service {
	struct test_daemon d;
	int notify;
	char notify_name[64];
	int pass[2]; /* descriptors to pass; -1 */
	int n_pass;
	const char *names; /* of these, with colons between; NULL: not told */
	const char *watchdog_usec;
	const char *option;
};

static struct service *begin(void)
{
	static struct service s;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(address.sun_family);

	alarm(system_limit());
	s = (struct service){.pass = {-1, -1}};
	cr_assert_eq(test_daemon_init(&s.d, NULL), 0);
	setenv("SHMALLOC_SOCKET", s.d.socket, 1);
	s.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(s.notify, (struct sockaddr *)&address, len), 0);
	len = sizeof(address);
	cr_assert_eq(getsockname(s.notify, (struct sockaddr *)&address, &len), 0);
	snprintf(s.notify_name, sizeof(s.notify_name), "@%.50s", address.sun_path + 1);
	return &s;
}

static void become_service(const struct service *s)
{
	const char *argv[] = {test_build_path("shmallocd"), "--socket", s->d.socket, "--instance", s->d.instance,
	        "--heap", s->d.heap, s->option, NULL};
	char number[16];
	int log = open(s->d.log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	dup2(log, STDERR_FILENO);
	for (int i = 0; i < s->n_pass; i++)
		dup2(s->pass[i], 100 + i); /* not on top of each other */
	for (int i = 0; i < s->n_pass; i++)
		dup2(100 + i, 3 + i);
	setenv("NOTIFY_SOCKET", s->notify_name, 1);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
	snprintf(number, sizeof(number), "%d", s->n_pass);
	if (s->n_pass)
		setenv("LISTEN_FDS", number, 1);
	if (s->names)
		setenv("LISTEN_FDNAMES", s->names, 1);
	if (s->watchdog_usec)
		setenv("WATCHDOG_USEC", s->watchdog_usec, 1);
	execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static void start(struct service *s)
{
	fflush(NULL);
	s->d.pid = fork();
	if (!s->d.pid)
		become_service(s);
	cr_assert_gt(s->d.pid, 0);
	s->d.pidfd = (int)syscall(SYS_pidfd_open, s->d.pid, 0);
}

/* The next message, NULL after `ms` milliseconds without one or with the daemon gone and none left. */
static const char *hear(struct service *s, int ms)
{
	static char said[512];
	struct pollfd heard = {.fd = s->notify, .events = POLLIN};

	if (poll(&heard, 1, ms) <= 0)
		return NULL;
	ssize_t n = recv(s->notify, said, sizeof(said) - 1, 0);

	said[n > 0 ? n : 0] = 0;
	return said;
}

static void expect_heard(struct service *s, const char *want)
{
	const char *said = hear(s, WAIT_MS);

	cr_expect(said && strstr(said, want), "'%s' instead of '%s'", said ? said : "nothing", want);
}

static void start_ready(struct service *s)
{
	const char *said = "";

	start(s);
	while (said && !strstr(said, "READY=1"))
		said = hear(s, WAIT_MS);
	cr_assert_not_null(said, "it does not get ready");
}

/* It ends by itself; what it said last is in `log`. */
static int ended(struct service *s, char *log, size_t room)
{
	struct pollfd end = {.fd = s->d.pidfd, .events = POLLIN};
	siginfo_t info = {0};

	cr_assert_eq(poll(&end, 1, WAIT_MS), 1);
	cr_assert_eq(waitid(P_PID, (id_t)s->d.pid, &info, WEXITED), 0);
	int fd = open(s->d.log, O_RDONLY | O_CLOEXEC);
	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, log, room - 1, size > (off_t)room ? size - (off_t)room : 0);

	log[n > 0 ? n : 0] = 0;
	close(fd);
	close(s->d.pidfd);
	s->d.pid = -1;
	return info.si_code == CLD_EXITED ? info.si_status : -1;
}

static void end(struct service *s)
{
	for (int i = 0; i < 2; i++)
		if (s->pass[i] >= 0)
			close(s->pass[i]);
	close(s->notify);
	cr_expect_eq(test_daemon_end(&s->d), 0);
}

static char root_name[] = "kept";

/* ---- what it says ---- */

/* Most of these would end it, if they were not ignored once it has ended its loop. */
Test(service, is_told_to_stop_over_and_over)
{
	for (int run = 0; run < 4; run++) {
		struct test_daemon d;
		siginfo_t info = {0};

		system_start(&d, NULL);
		struct pollfd end = {.fd = d.pidfd, .events = POLLIN};

		while (poll(&end, 1, 0) == 0)
			for (int i = 0; i < 20; i++)
				cr_assert_eq(kill(d.pid, SIGTERM), 0);
		cr_assert_eq(waitid(P_PID, (id_t)d.pid, &info, WEXITED | WNOWAIT), 0);
		cr_expect_eq(info.si_code, CLD_EXITED, "a signal has ended it");
		system_end(&d);
	}
}

Test(service, is_told_in_order)
{
	struct service *s = begin();

	start(s);
	expect_heard(s, "STATUS=opening heap 'default'");
	expect_heard(s, "STATUS=serving heap 'default' on ");
	expect_heard(s, "READY=1");
	cr_expect_eq(test_daemon_objects(&s->d), 5);
	kill(s->d.pid, SIGTERM);
	expect_heard(s, "STOPPING=1");
	end(s);
}

/* Fed once in half the time that it allows (at its best: the machine may be busy), by a loop that turns and by no other. */
Test(service, watchdog)
{
	struct service *s = begin();
	long long shortest = WAIT_MS, last;
	int status;

	s->watchdog_usec = "2000000";
	start_ready(s);
	last = test_now_ms();
	for (int i = 0; i < 4; i++) {
		const char *said = hear(s, WAIT_MS);
		long long took = test_now_ms() - last;

		cr_expect(said && strstr(said, "WATCHDOG=1"), "feed %d: %s", i, said ? said : "nothing");
		shortest = i && took < shortest ? took : shortest;
		last += took;
	}
	cr_expect_lt(shortest, 1500);
	kill(s->d.pid, SIGSTOP);
	cr_assert_eq(waitpid(s->d.pid, &status, WUNTRACED), s->d.pid);
	while (hear(s, 0)) /* what was said before */
		;
	cr_expect_null(hear(s, 2500), "a stopped daemon feeds nothing");
	kill(s->d.pid, SIGCONT);
	expect_heard(s, "WATCHDOG=1");
	end(s);
}

Test(service, no_watchdog)
{
	struct service *s = begin();

	start_ready(s);
	cr_expect_null(hear(s, 500));
	end(s);
}

/* A start that fails is not repeated at once, for ever, by a manager that restarts without a pause. */
Test(service, backs_off)
{
	struct service *s = begin();
	char log[4096];
	long long begun = test_now_ms();

	s->option = "--size=nonsense";
	start(s);
	expect_heard(s, "STATUS=cannot start");
	cr_expect_eq(ended(s, log, sizeof(log)), 2);
	cr_expect_geq(test_now_ms() - begun, 900);
	end(s);
}

/* ---- the socket ---- */

static int bound(const char *path, int type, bool listening)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	cr_assert_eq(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
	if (listening)
		cr_assert_eq(listen(sock, 16), 0);
	return sock;
}

static bool connects(const char *path)
{
	int sock, error = shmi_chan_connect(path, &sock);

	if (!error)
		close(sock);
	return !error;
}

/* Clients that come before the daemon wait; the socket outlives each daemon; no connect fails. */
Test(service, passed_socket)
{
	struct service *s = begin();
	struct stat before, after;

	s->pass[0] = bound(s->d.socket, SOCK_SEQPACKET, true);
	s->n_pass = 1;
	cr_assert_eq(stat(s->d.socket, &before), 0);
	pid_t waiting = child_start(system_leave_root, root_name);

	start_ready(s);
	cr_expect_eq(child_join(waiting), 0);
	cr_expect_eq(test_daemon_stop(&s->d), 0);
	cr_expect(connects(s->d.socket), "while it is stopped");
	waiting = child_start(system_find_root, root_name);
	start_ready(s);
	cr_expect_eq(child_join(waiting), 0);
	test_daemon_kill(&s->d);
	cr_expect(connects(s->d.socket), "after a kill");
	start_ready(s);
	cr_expect_eq(child_run(system_find_root, root_name), 0);
	cr_expect_eq(test_daemon_stop(&s->d), 0);
	cr_assert_eq(stat(s->d.socket, &after), 0, "it was removed");
	cr_expect_eq(before.st_ino, after.st_ino);
	end(s);
}

Test(service, passed_what_is_no_use)
{
	static const char *const why[] = {"not a listening Unix socket", "not a listening Unix socket",
	        "not a listening Unix socket", "passed 2 descriptors", "'http' that the service manager passed is not"};

	for (int i = 0; i < 5; i++) {
		struct service *s = begin();
		char log[4096];

		s->n_pass = 1;
		if (i == 0)
			s->pass[0] = bound(s->d.socket, SOCK_STREAM, true);
		else if (i == 1)
			s->pass[0] = bound(s->d.socket, SOCK_SEQPACKET, false);
		else if (i == 2)
			s->pass[0] = memfd_create("no socket", MFD_CLOEXEC);
		else if (i == 4)
			s->pass[0] = bound(s->d.socket, SOCK_SEQPACKET, true), s->names = "http";
		else
			s->pass[0] = bound(s->d.socket, SOCK_SEQPACKET, true), s->pass[1] = dup(s->pass[0]),
			s->n_pass = 2;
		start(s);
		cr_expect_eq(ended(s, log, sizeof(log)), 1);
		cr_expect_not_null(strstr(log, why[i]), "%d: %s", i, log);
		cr_expect_eq(test_daemon_objects(&s->d), 0, "it made a heap");
		end(s);
	}
}

/* Whether HTTP is served there. */
static bool serves_http(const char *path)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char said[64] = "";
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	bool good = !connect(sock, (struct sockaddr *)&address, sizeof(address)) &&
	            send(sock, request, sizeof(request) - 1, MSG_NOSIGNAL) > 0 &&
	            recv(sock, said, sizeof(said) - 1, 0) > 0;

	close(sock);
	return good && strstr(said, " 200 ");
}

/* The socket for HTTP is told by its name, in whatever order they come, and outlives each daemon as well. */
Test(service, passed_for_http)
{
	static const char *const names[] = {"shmallocd.socket:http", "http:unknown", "http"};

	for (int i = 0; i < 3; i++) {
		struct service *s = begin();
		char path[96];
		struct stat st;

		snprintf(path, sizeof(path), "%.80s/http", s->d.dir);
		s->names = names[i];
		s->n_pass = i == 2 ? 1 : 2;
		s->pass[i == 0] = bound(path, SOCK_STREAM, true);
		if (i < 2)
			s->pass[i != 0] = bound(s->d.socket, SOCK_SEQPACKET, true);
		start_ready(s);
		cr_expect(serves_http(path), "%s", names[i]);
		cr_expect(connects(s->d.socket), "%s", names[i]);
		cr_expect_eq(test_daemon_stop(&s->d), 0);
		cr_expect_eq(stat(path, &st), 0, "it was removed");
		end(s);
	}
}

/* A stop removes the socket file that this daemon made, and not one that lies there now. */
Test(service, somebody_elses_socket_stays)
{
	struct service *s = begin();
	struct stat st;

	start_ready(s);
	cr_expect_eq(test_daemon_stop(&s->d), 0);
	cr_expect(stat(s->d.socket, &st), "its own is gone");
	start_ready(s);
	cr_assert_eq(unlink(s->d.socket), 0);
	int other = bound(s->d.socket, SOCK_SEQPACKET, true);

	cr_expect_eq(test_daemon_stop(&s->d), 0);
	cr_expect_eq(stat(s->d.socket, &st), 0, "it removed another's");
	cr_expect(connects(s->d.socket));
	close(other);
	end(s);
}

/* ---- the heap ---- */

Test(service, reset_without_a_socket_drops_nothing)
{
	struct service *s = begin();
	struct test_daemon nowhere;
	char said[4096];
	static const char *const reset[] = {"--reset", NULL};

	start_ready(s);
	cr_expect_eq(child_run(system_leave_root, root_name), 0);
	cr_expect_eq(test_daemon_stop(&s->d), 0);
	nowhere = s->d;
	snprintf(nowhere.socket, sizeof(nowhere.socket), "%s/no/such/place", s->d.dir);
	cr_expect_eq(
	        test_daemon_refused(&nowhere, &(struct test_daemon_options){.args = reset}, said, sizeof(said)), 1);
	cr_expect_not_null(strstr(said, "cannot listen on"), "%s", said);
	start_ready(s);
	cr_expect_eq(child_run(system_find_root, root_name), 0);
	cr_expect_eq(test_daemon_stop(&s->d), 0);
	s->option = "--reset";
	start_ready(s);
	cr_expect_eq(test_ctl_stat(&s->d, "roots"), 0);
	end(s);
}

/* However often a daemon that serves is killed, its heap is not set aside. */
Test(service, kills_do_not_count)
{
	struct service *s = begin();

	for (int i = 0; i < 6; i++) {
		start_ready(s);
		if (i == 0)
			cr_expect_eq(child_run(system_leave_root, root_name), 0);
		test_daemon_kill(&s->d);
	}
	start_ready(s);
	cr_expect_eq(child_run(system_find_root, root_name), 0);
	end(s);
}

static struct shmi_root *root_of(struct shmi_image *img, const char *name)
{
	for (uint32_t i = 0; i < SHMI_MAX_ROOTS; i++)
		if (shmi_load(&shmi_root_at(img, i)->off) && !strcmp(shmi_root_at(img, i)->name, name))
			return shmi_root_at(img, i);
	return NULL;
}

/* What no death of a daemon leaves: two roots of one name. */
static void damage(const struct test_daemon *d)
{
	char path[256];
	struct stat st;
	struct shmi_image img;

	snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.%s.meta", d->instance, d->heap);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_eq(fstat(fd, &st), 0);
	void *meta = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	cr_assert_eq(shmi_image_open(&img, meta, (uint64_t)st.st_size, NULL, 0), 0);
	struct shmi_root *root = root_of(&img, "twin");

	cr_assert_not_null(root);
	memcpy(root->name, "kept", 5);
	munmap(meta, (size_t)st.st_size);
	close(fd);
}

Test(service, a_damaged_heap_is_refused_again_and_again)
{
	struct service *s = begin();
	char said[8192], twin[] = "twin";

	start_ready(s);
	cr_expect_eq(child_run(system_leave_root, root_name), 0);
	cr_expect_eq(child_run(system_leave_root, twin), 0);
	test_daemon_kill(&s->d);
	damage(&s->d);
	for (int i = 0; i < 5; i++) { /* refused in words each time, and never set aside */
		cr_expect_eq(test_daemon_refused(&s->d, NULL, said, sizeof(said)), 1);
		cr_expect_not_null(strstr(said, "refused heap"), "%s", said);
		cr_expect_not_null(strstr(said, "--reset"), "%s", said);
	}
	cr_expect_eq(test_daemon_objects(&s->d), 4, "it is still there");
	s->option = "--reset";
	start_ready(s);
	end(s);
}
