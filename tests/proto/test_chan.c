/* The channel: packets, descriptors, hang-ups and socket files. */
#include <criterion/criterion.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/chan.h"
#include "proto/fd.h"
#include "proto/wire.h"

#define MS 1000000ll

static int a = -1, b = -1; /* the two ends; b does not block */
static int base_fds; /* descriptors open before the test's own */
static char dir[64], path[80];
static char buf[WIRE_MAX];
static size_t len;

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	cr_assert_not_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void setup(void)
{
	int pair[2];

	strcpy(dir, "/tmp/test_chan.XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	a = pair[0];
	b = pair[1];
	cr_assert_eq(fcntl(b, F_SETFL, O_NONBLOCK), 0);
	base_fds = open_fds();
}

static void teardown(void)
{
	char lock[96];

	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(lock);
	unlink(path);
	cr_expect_eq(rmdir(dir), 0, "something was left in %s", dir);
	shmi_fd_close(&a);
	shmi_fd_close(&b);
}

TestSuite(chan, .init = setup, .fini = teardown, .timeout = 30);

/* ---- packets ---- */

Test(chan, a_packet_comes_whole)
{
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_AGAIN);
	cr_assert_eq(shmi_chan_send(a, "one", 3, NULL, 0), 0);
	cr_assert_eq(shmi_chan_send(a, "second", 6, NULL, 0), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, 3);
	cr_assert_eq(memcmp(buf, "one", 3), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, 6);
}

Test(chan, the_longest_packet)
{
	static char big[WIRE_MAX];

	memset(big, 'x', sizeof(big));
	cr_assert_eq(shmi_chan_send(a, big, sizeof(big), NULL, 0), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, sizeof(big));
	cr_assert_eq(memcmp(buf, big, sizeof(big)), 0);
}

Test(chan, a_packet_longer_than_the_room_is_dropped)
{
	cr_assert_eq(shmi_chan_send(a, "123456789", 9, NULL, 0), 0);
	cr_assert_eq(shmi_chan_send(a, "12345678", 8, NULL, 0), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, 8, &len, NULL, NULL), CHAN_E_TOO_LONG);
	cr_assert_eq(shmi_chan_recv(b, buf, 8, &len, NULL, NULL), 0);
	cr_assert_eq(len, 8);
}

Test(chan, a_packet_that_no_queue_can_hold)
{
	int size = 4096;
	static char big[WIRE_MAX];

	cr_assert_eq(setsockopt(a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	cr_assert_eq(shmi_chan_send(a, big, sizeof(big), NULL, 0), CHAN_E_TOO_LONG);
}

Test(chan, a_full_queue)
{
	int error, sent = 0;

	while ((error = shmi_chan_send(b, buf, 1000, NULL, 0)) == 0)
		sent++;
	cr_assert_eq(error, CHAN_E_AGAIN);
	cr_assert_gt(sent, 0);
	cr_assert_eq(shmi_chan_wait(b, 1, shmi_chan_now_ns()), -ETIMEDOUT);
	for (; sent > 0; sent--)
		cr_assert_eq(shmi_chan_recv(a, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(shmi_chan_wait(b, 1, shmi_chan_now_ns()), 0);
	cr_assert_eq(shmi_chan_send(b, buf, 1000, NULL, 0), 0);
}

Test(chan, a_peer_that_has_closed)
{
	cr_assert_eq(shmi_chan_send(a, "last", 4, NULL, 0), 0);
	shmi_fd_close(&a);
	cr_assert_eq(shmi_chan_wait(b, 0, INT64_MAX), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, 4);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_CLOSED);
	cr_assert_eq(shmi_chan_send(b, "x", 1, NULL, 0), CHAN_E_CLOSED); /* and no SIGPIPE */
}

Test(chan, a_peer_that_closed_on_unread_packets)
{
	cr_assert_eq(shmi_chan_send(b, "x", 1, NULL, 0), 0);
	shmi_fd_close(&a);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_CLOSED);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_CLOSED);
}

/* What it said before is there all the same. */
Test(chan, the_last_words_of_a_peer_that_did_not_listen)
{
	cr_assert_eq(shmi_chan_send(b, "x", 1, NULL, 0), 0);
	cr_assert_eq(shmi_chan_send(a, "last", 4, NULL, 0), 0);
	shmi_fd_close(&a);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, 4);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_CLOSED);
}

Test(chan, what_is_no_socket)
{
	unsigned n = WIRE_FDS + 1;
	int fds[WIRE_FDS + 1] = {0};

	cr_expect_eq(shmi_chan_send(-1, "x", 1, NULL, 0), -EBADF);
	cr_expect_eq(shmi_chan_recv(-1, buf, 1, &len, NULL, NULL), -EBADF);
	cr_expect_eq(shmi_chan_send(a, "x", 0, NULL, 0), -EINVAL);
	cr_expect_eq(shmi_chan_send(a, "x", 1, fds, n), -EINVAL);
	cr_expect_eq(shmi_chan_recv(b, buf, 1, &len, fds, &n), -EINVAL);
}

/* ---- descriptors ---- */

/* Sends `n` descriptors of /dev/null with a packet of `size` bytes, by hand: more than shmi_chan_send would. */
static void send_fds(size_t size, unsigned n)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * 64)];
	} control = {0};
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov,
	        .msg_iovlen = 1,
	        .msg_control = &control,
	        .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
	FD_AUTO int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fds[64];

	for (unsigned i = 0; i < n; i++)
		fds[i] = null;
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int) * n);
	memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n);
	cr_assert_eq(sendmsg(a, &msg, 0), (ssize_t)size);
}

Test(chan, descriptors_come_with_their_packet)
{
	int pipes[2], fds[WIRE_FDS] = {-1, -1, -1};
	unsigned n = WIRE_FDS;
	struct stat sent, came;

	cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
	cr_assert_eq(shmi_chan_send(a, "x", 1, (int[]){pipes[0], pipes[1], pipes[0]}, 3), 0);
	cr_assert_eq(shmi_chan_send(a, "y", 1, pipes, 1), 0);
	cr_assert_eq(shmi_chan_send(a, "z", 1, NULL, 0), 0);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n), 0);
	cr_assert_eq(n, 3);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		fstat(pipes[i % 2], &sent);
		fstat(fds[i], &came);
		cr_expect_eq(sent.st_ino, came.st_ino);
		close(fds[i]);
	}
	n = WIRE_FDS;
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n), 0);
	cr_assert_eq(n, 1);
	close(fds[0]);
	n = WIRE_FDS;
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n), 0);
	cr_assert_eq(n, 0);
	close(pipes[0]);
	close(pipes[1]);
	cr_assert_eq(open_fds(), base_fds);
}

/* Every number of descriptors against every number wanted; with 3 wanted there would be room for 4 in the padding. */
Test(chan, more_descriptors_than_wanted_are_closed)
{
	for (unsigned sent = 1; sent <= 5; sent++) {
		for (unsigned want = 0; want <= WIRE_FDS; want++) {
			int fds[WIRE_FDS];
			unsigned n = want;

			send_fds(1, sent);

			int error = shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n);

			cr_expect_eq(error, sent > want ? CHAN_E_TOO_LONG : 0, "%u sent, %u wanted", sent, want);
			cr_expect_eq(n, sent > want ? 0 : sent);
			for (unsigned i = 0; i < n; i++)
				close(fds[i]);
			cr_expect_eq(open_fds(), base_fds, "%u sent, %u wanted", sent, want);
		}
	}
}

Test(chan, no_descriptors_wanted)
{
	send_fds(1, 1);
	send_fds(1, 60);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_TOO_LONG);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, NULL, NULL), CHAN_E_TOO_LONG);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, descriptors_of_a_packet_that_is_too_long_are_closed)
{
	int fds[WIRE_FDS];
	unsigned n = WIRE_FDS;

	send_fds(9, 2);
	cr_assert_eq(shmi_chan_recv(b, buf, 8, &len, fds, &n), CHAN_E_TOO_LONG);
	cr_assert_eq(n, 0);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, descriptors_of_an_empty_packet_are_closed)
{
	int fds[WIRE_FDS];
	unsigned n = WIRE_FDS;

	send_fds(0, 2);
	cr_assert_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n), CHAN_E_CLOSED);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, descriptors_that_the_table_has_no_room_for)
{
	struct rlimit limit;
	int fds[WIRE_FDS];
	unsigned n = WIRE_FDS;

	send_fds(1, 3);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);

	rlim_t before = limit.rlim_cur;
	int next = dup(a); /* the lowest that is free */

	close(next);
	limit.rlim_cur = (rlim_t)next + 2; /* room for two of the three, at most */
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_expect_eq(shmi_chan_recv(b, buf, sizeof(buf), &len, fds, &n), -EMFILE);
	limit.rlim_cur = before;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(n, 0);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, an_automatic_descriptor)
{
	{
		FD_AUTO int fd = dup(a), none = -1;

		cr_assert_geq(fd, 0);
		errno = EXDEV;
		(void)none;
	}
	cr_assert_eq(errno, EXDEV);
	cr_assert_eq(open_fds(), base_fds);
}

/* ---- waiting ---- */

Test(chan, a_wait_ends_at_its_deadline)
{
	int64_t start = shmi_chan_now_ns();

	cr_assert_eq(shmi_chan_wait(b, 0, start + 20 * MS), -ETIMEDOUT);
	cr_assert_geq(shmi_chan_now_ns() - start, 20 * MS);
	cr_assert_eq(shmi_chan_wait(b, 0, 0), -ETIMEDOUT);
	cr_assert_eq(shmi_chan_wait(b, 0, INT64_MIN), -ETIMEDOUT);
	cr_assert_eq(shmi_chan_wait(b, 1, 0), 0);
	cr_assert_eq(shmi_chan_send(a, "x", 1, NULL, 0), 0);
	cr_assert_eq(shmi_chan_wait(b, 0, 0), 0);
	cr_assert_eq(shmi_chan_wait(b, 0, INT64_MAX), 0);
	close(b);
	cr_assert_eq(shmi_chan_wait(b, 0, INT64_MAX), -EBADF);
	b = -1;
}

static void nothing(int signal)
{
	(void)signal;
}

static void interrupt_each_ms(void)
{
	struct sigaction sa = {.sa_handler = nothing}; /* no SA_RESTART */
	struct itimerval each_ms = {{0, 1000}, {0, 1000}};

	cr_assert_eq(sigaction(SIGALRM, &sa, NULL), 0);
	cr_assert_eq(setitimer(ITIMER_REAL, &each_ms, NULL), 0);
}

Test(chan, signals_do_not_shorten_a_wait)
{
	int64_t start = shmi_chan_now_ns();

	interrupt_each_ms();
	cr_assert_eq(shmi_chan_wait(b, 0, start + 30 * MS), -ETIMEDOUT);
	cr_assert_geq(shmi_chan_now_ns() - start, 30 * MS);
}

/* The child answers only after our recv, and its send on a full queue, have been interrupted many times. */
Test(chan, signals_do_not_end_a_blocking_call)
{
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		shmi_chan_wait(-1, 0, shmi_chan_now_ns() + 30 * MS); /* a negative descriptor never gets ready */
		_exit(shmi_chan_send(b, "x", 1, NULL, 0) != 0);
	}
	interrupt_each_ms();
	cr_assert_eq(shmi_chan_recv(a, buf, sizeof(buf), &len, NULL, NULL), 0);
	cr_assert_eq(len, 1);

	int status;

	while (waitpid(pid, &status, 0) < 0)
		cr_assert_eq(errno, EINTR);
	cr_assert_eq(status, 0);
}

/* ---- socket files ---- */

Test(chan, listen_and_connect)
{
	struct stat st;
	int listener, sock;

	umask(077);
	cr_assert_eq(shmi_chan_listen(path, 0666, 5, &listener), 0);
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0666);
	cr_assert_eq(fcntl(listener, F_GETFD), FD_CLOEXEC);
	cr_assert(fcntl(listener, F_GETFL) & O_NONBLOCK);
	cr_assert_eq(accept(listener, NULL, NULL), -1);
	cr_assert_eq(errno, EAGAIN);
	cr_assert_eq(shmi_chan_connect(path, &sock), 0);
	cr_assert_eq(fcntl(sock, F_GETFD), FD_CLOEXEC);
	cr_assert_not(fcntl(sock, F_GETFL) & O_NONBLOCK);

	int peer = accept(listener, NULL, NULL);

	cr_assert_eq(shmi_chan_send(sock, "x", 1, NULL, 0), 0);
	cr_assert_eq(shmi_chan_recv(peer, buf, sizeof(buf), &len, NULL, NULL), 0);
	close(peer);
	close(sock);
	close(listener);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, a_socket_in_use_is_left_alone)
{
	int first, second = 5, sock;

	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &first), 0);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), -EADDRINUSE);
	cr_assert_eq(second, -1);
	cr_assert_eq(shmi_chan_connect(path, &sock), 0);
	close(sock);
	close(first);
	cr_assert_eq(open_fds(), base_fds);
}

Test(chan, a_full_backlog_is_in_use_and_does_not_block)
{
	int listener, second, socks[64], n = 0, error = 0;

	cr_assert_eq(shmi_chan_listen(path, 0600, 1, &listener), 0);
	while (n < 64 && (error = shmi_chan_connect(path, &socks[n])) == 0)
		n++;
	cr_assert_eq(error, -EAGAIN);
	cr_assert_eq(shmi_chan_listen(path, 0600, 1, &second), -EADDRINUSE);
	while (n > 0)
		close(socks[--n]);
	close(listener);
}

Test(chan, a_stale_socket_is_replaced)
{
	int first, second, sock = 5;

	cr_assert_eq(shmi_chan_connect(path, &sock), -ENOENT);
	cr_assert_eq(sock, -1);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &first), 0);
	close(first);
	cr_assert_eq(shmi_chan_connect(path, &sock), -ECONNREFUSED);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), 0);
	cr_assert_eq(shmi_chan_connect(path, &sock), 0);
	close(sock);
	close(second);
	cr_assert_eq(open_fds(), base_fds);
}

/* A socket of another type that somebody listens on is theirs. */
Test(chan, a_foreign_socket_is_left_alone)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int stream = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), second;

	strcpy(addr.sun_path, path);
	cr_assert_eq(bind(stream, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(stream, 5), 0);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), -EADDRINUSE);
	close(stream);
}

Test(chan, other_files_are_left_alone)
{
	struct stat st;
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600), second;

	close(fd);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), -ENOTSOCK);
	cr_assert_eq(stat(path, &st), 0);
	unlink(path);
	cr_assert_eq(symlink("/dev/null", path), 0); /* which any user may write */
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), -ENOTSOCK);
	cr_assert_eq(lstat(path, &st), 0);
	unlink(path);
	cr_assert_eq(mkdir(path, 0700), 0);
	cr_assert_eq(shmi_chan_listen(path, 0600, 5, &second), -ENOTSOCK);
	rmdir(path);
	cr_assert_eq(open_fds(), base_fds);
}

/* Waits until `go` is closed, tries to listen, tells how it went and keeps what it got until `end` is closed. */
static void starter(int go, int told, int end)
{
	int listener;
	char c;

	while (read(go, &c, 1) > 0)
		;

	/* the others' looks wait in the winner's backlog */
	int error = shmi_chan_listen(path, 0600, 64, &listener);

	c = error == 0 ? 'w' : error == -EADDRINUSE ? 'l' : '?';
	if (write(told, &c, 1) != 1)
		_exit(1);
	while (read(end, &c, 1) > 0)
		;
	_exit(0);
}

Test(chan, one_of_many_starters_wins)
{
	enum { STARTERS = 8, ROUNDS = 20 };
	int stale, go[2], told[2], end[2], sock;
	char c;

	for (int round = 0; round < ROUNDS; round++) {
		cr_assert_eq(shmi_chan_listen(path, 0600, 5, &stale), 0);
		close(stale);
		cr_assert_eq(pipe2(go, O_CLOEXEC) | pipe2(told, O_CLOEXEC) | pipe2(end, O_CLOEXEC), 0);
		for (int i = 0; i < STARTERS; i++) {
			if (fork() != 0)
				continue;
			close(go[1]);
			close(end[1]);
			starter(go[0], told[1], end[0]);
		}
		close(go[1]);
		close(told[1]);

		int won = 0;

		for (int i = 0; i < STARTERS; i++) {
			cr_assert_eq(read(told[0], &c, 1), 1);
			cr_assert_neq(c, '?');
			won += c == 'w';
		}
		cr_assert_eq(won, 1);
		cr_assert_eq(shmi_chan_connect(path, &sock), 0);
		close(sock);
		close(end[1]);
		while (wait(NULL) > 0)
			;
		close(go[0]);
		close(told[0]);
		close(end[0]);
	}
}

Test(chan, paths_that_cannot_be)
{
	char name[200];
	int sock;

	memset(name, 'x', sizeof(name));
	memcpy(name, "/tmp/", 5);
	name[108] = 0;
	cr_expect_eq(shmi_chan_connect(name, &sock), -ENAMETOOLONG);
	cr_expect_eq(shmi_chan_listen(name, 0600, 5, &sock), -ENAMETOOLONG);
	name[107] = 0;
	cr_expect_eq(shmi_chan_connect(name, &sock), -ENOENT);
	cr_expect_eq(shmi_chan_connect("", &sock), -EINVAL);
	cr_expect_eq(shmi_chan_listen("", 0600, 5, &sock), -EINVAL);
	cr_expect_eq(shmi_chan_listen("/nowhere/sock", 0600, 5, &sock), -ENOENT);
	cr_expect_eq(shmi_chan_connect("/etc/passwd/sock", &sock), -ENOTDIR);
}
