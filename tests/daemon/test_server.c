/* The whole daemon over a real socket: what a hostile or broken peer may do, deaths, restarts, stops, and that nothing is left. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/lease.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/image.h"
#include "tests/lib/daemon.h"

#define WAIT_MS 10000

static struct wire_msg req, reply;
static struct codec_scratch scratch;
static unsigned char bytes[WIRE_MAX];
static int fds[WIRE_FDS];
static unsigned n_fds;

static int64_t deadline(void)
{
	return shmi_chan_now_ns() + WAIT_MS * 1000000ll;
}

static int connect_to(const struct test_daemon *d)
{
	int sock, error;
	long long limit = test_now_ms() + WAIT_MS;

	while ((error = shmi_chan_connect(d->socket, &sock)) == -EAGAIN && test_now_ms() < limit)
		poll(NULL, 0, 10); /* the backlog is full: nothing tells when it no longer is */
	cr_assert_eq(error, 0, "cannot connect: %d", error);
	return sock;
}

static void send_req(int sock)
{
	size_t len;

	cr_assert_eq(shmi_codec_encode(&req, &scratch, bytes, sizeof(bytes), &len), 0);
	int error = shmi_chan_send(sock, bytes, len, NULL, 0);

	cr_assert(!error || error == CHAN_E_CLOSED); /* then there is no reply */
}

/* The kind of the reply; WIRE_NONE if the daemon has closed the connection. */
static enum wire_kind receive(int sock)
{
	size_t len;

	n_fds = WIRE_FDS;
	cr_assert_eq(shmi_chan_wait(sock, 0, deadline()), 0, "no answer");
	if (shmi_chan_recv(sock, bytes, sizeof(bytes), &len, fds, &n_fds))
		return WIRE_NONE;
	cr_assert_eq(shmi_codec_decode(&reply, &scratch, bytes, len), 0);
	return reply.kind;
}

static enum wire_kind ask(int sock)
{
	static uint64_t serial;

	req.serial = ++serial;
	send_req(sock);
	enum wire_kind kind = receive(sock);

	if (kind != WIRE_NONE)
		cr_assert_eq(reply.serial, req.serial);
	return kind;
}

static void fill_hello(void)
{
	req = (struct wire_msg){.kind = WIRE_HELLO};
	req.u.hello = (struct wire_hello){
	        .protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .version = "test", .label = "test"};
}

static int greet(const struct test_daemon *d)
{
	int sock = connect_to(d);

	fill_hello();
	cr_assert_eq(ask(sock), WIRE_HELLO_OK);
	return sock;
}

static int attach(const struct test_daemon *d)
{
	int sock = greet(d);

	req = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(req.u.attach.heap, sizeof(req.u.attach.heap), "%s", d->heap);
	cr_assert_eq(ask(sock), WIRE_ATTACH_OK, "%s", reply.u.error.text);
	cr_assert_eq(n_fds, WIRE_FDS);
	return sock;
}

static void close_fds(void)
{
	for (unsigned i = 0; i < WIRE_FDS; i++)
		close(fds[i]);
}

static uint32_t refill(int sock, uint32_t sclass, uint32_t spans)
{
	req = (struct wire_msg){.kind = WIRE_REFILL};
	req.u.refill.n_wants = 1;
	req.u.refill.wants[0] = (struct wire_want){sclass, spans};
	return ask(sock) == WIRE_REFILL_OK ? reply.u.refill_ok.n_grants : 0;
}

static const struct wire_stats *stats(const struct test_daemon *d)
{
	static struct wire_stats st;
	int sock = greet(d);

	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(ask(sock), WIRE_STATS);
	st = reply.u.stats;
	close(sock);
	return &st;
}

/* Waits until the daemon says so: it has been told of a death or a hang-up, and nothing tells us when it is done. */
static void wait_for_clients(const struct test_daemon *d, uint32_t clients)
{
	long long end = test_now_ms() + WAIT_MS;

	while (stats(d)->clients != clients)
		cr_assert_lt(test_now_ms(), end, "%u clients and not %u", stats(d)->clients, clients);
}

static void is_clean(const struct test_daemon *d)
{
	int sock = greet(d);

	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CHECK}};
	cr_assert_eq(ask(sock), WIRE_CHECK);
	cr_assert_eq(
	        reply.u.check.violations, 0, "I%u: %s", reply.u.check.rows[0].invariant, reply.u.check.rows[0].text);
	close(sock);
}

static void start(struct test_daemon *d, const char *const *args)
{
	const struct test_daemon_options options = {.args = args};

	cr_assert_eq(test_daemon_start(d, &options), 0);
}

/* Ends the daemon, which must have lost neither a descriptor nor an object on the way. */
static void end(struct test_daemon *d, int fds_before)
{
	wait_for_clients(d, 0);
	long long limit = test_now_ms() + WAIT_MS;

	while (fds_before >= 0 && test_daemon_fds(d) > fds_before)
		cr_assert_lt(test_now_ms(), limit, "%d descriptors, and %d before", test_daemon_fds(d), fds_before);
	is_clean(d);
	cr_assert_eq(test_daemon_stop(d), 0);
	cr_assert_eq(test_daemon_objects(d), 0, "objects are left");
	cr_assert_neq(access(d->socket, F_OK), 0, "the socket is left");
	test_daemon_remove(d);
}

/* A process of our own that does something with the daemon and waits to be killed. Returns when it is ready. */
static pid_t in_child(const struct test_daemon *d, void (*act)(const struct test_daemon *d))
{
	int ready[2];
	char c;

	cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		act(d);
		if (write(ready[1], "!", 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	cr_assert_eq(read(ready[0], &c, 1), 1, "the child failed");
	close(ready[0]);
	return pid;
}

static void kill_child(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* ---- talking ---- */

Test(server, attach_and_refill)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), sock = attach(&d);
	uint64_t meta_bytes = reply.u.attach_ok.meta_bytes, ctl_bytes = reply.u.attach_ok.ctl_bytes;
	struct shmi_image img;

	cr_assert_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0), MAP_FAILED, "meta is read-only");
	void *meta = mmap(NULL, meta_bytes, PROT_READ, MAP_SHARED, fds[0], 0);
	void *ctl = mmap(NULL, ctl_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);

	cr_assert(meta != MAP_FAILED && ctl != MAP_FAILED);
	cr_assert_eq(shmi_image_open(&img, meta, meta_bytes, ctl, ctl_bytes), 0);
	cr_assert_eq(refill(sock, 4, 10), 10);
	cr_assert_eq(shmi_load(&img.super->pages.owned), 10);
	close_fds();
	/* Hang-up is not death: we are alive, and so is our client. */
	close(sock);
	cr_assert_eq(stats(&d)->clients, 1);
	sock = greet(&d);
	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CLIENTS}};
	cr_assert_eq(ask(sock), WIRE_CLIENTS);
	cr_assert_eq(reply.u.clients.rows[0].detached, 1);
	cr_assert_eq(reply.u.clients.rows[0].pid, (uint32_t)getpid());
	close(sock);
	(void)before;
	cr_assert_eq(test_daemon_stop(&d), 0);
	cr_assert_eq(test_daemon_objects(&d), 4, "a living client may want it");
	test_daemon_remove(&d);
}

Test(server, detach)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), sock = attach(&d);

	close_fds();
	cr_assert_eq(refill(sock, 4, 100), 100);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	cr_assert_eq(receive(sock), WIRE_NONE, "and it is closed");
	close(sock);
	end(&d, before);
}

Test(server, large_blocks_do_not_stall_others)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), sock = attach(&d), other;

	close_fds();
	other = greet(&d);
	req = (struct wire_msg){.kind = WIRE_LARGE, .serial = 1000000};
	req.u.large = (struct wire_large){.bytes = 256 << 20, .pages = 32768, .align_pages = 1, .attrs = SHMI_SCOPED};
	send_req(sock);
	uint32_t answers = 0;
	struct pollfd done = {.fd = sock, .events = POLLIN};

	while (poll(&done, 1, 0) == 0) {
		req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CLIENTS}};
		cr_assert_eq(ask(other), WIRE_CLIENTS);
		answers++;
	}
	cr_assert_geq(answers, 8, "answers while 256 MiB were backed: %u", answers);
	cr_assert_eq(receive(sock), WIRE_LARGE_OK);
	cr_assert_eq(reply.serial, 1000000);
	req = (struct wire_msg){.kind = WIRE_DETACH, .serial = 1000001};
	send_req(sock);
	cr_assert_eq(receive(sock), WIRE_OK);
	close(sock);
	close(other);
	end(&d, before);
}

Test(server, trim_gives_everything_back)
{
	struct test_daemon d;

	start(&d, (const char *const[]){"--scavenge-delay", "86400000", NULL});
	int before = test_daemon_fds(&d), sock = attach(&d);

	close_fds();
	req = (struct wire_msg){.kind = WIRE_LARGE};
	req.u.large = (struct wire_large){.bytes = 64 << 20, .pages = 8192, .align_pages = 1, .attrs = SHMI_SCOPED};
	cr_assert_eq(ask(sock), WIRE_LARGE_OK);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	cr_assert_eq(stats(&d)->free, 64 << 20);
	sock = greet(&d);
	req = (struct wire_msg){.kind = WIRE_TRIM};
	cr_assert_eq(ask(sock), WIRE_TRIM_OK);
	cr_assert_eq(reply.u.trim_ok.bytes, 64 << 20);
	close(sock);
	cr_assert_eq(stats(&d)->backed, 0);
	end(&d, before);
}

Test(server, the_scavenger_does_so_by_itself)
{
	struct test_daemon d;

	start(&d, (const char *const[]){"--scavenge-delay", "50", NULL});
	int before = test_daemon_fds(&d), sock = attach(&d);

	close_fds();
	req = (struct wire_msg){.kind = WIRE_LARGE};
	req.u.large = (struct wire_large){.bytes = 16 << 20, .pages = 2048, .align_pages = 1, .attrs = SHMI_SCOPED};
	cr_assert_eq(ask(sock), WIRE_LARGE_OK);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	long long limit = test_now_ms() + WAIT_MS;

	while (stats(&d)->backed)
		cr_assert_lt(test_now_ms(), limit);
	end(&d, before);
}

/* ---- misuse ---- */

static void expect_closed(int sock)
{
	enum wire_kind kind = receive(sock);

	if (kind != WIRE_NONE) {
		cr_assert_eq(kind, WIRE_ERROR);
		cr_assert_eq(reply.u.error.code, WIRE_E_PROTOCOL);
		cr_assert_eq(receive(sock), WIRE_NONE);
	}
	close(sock);
}

Test(server, garbage_oversized_and_empty)
{
	struct test_daemon d;
	static unsigned char noise[WIRE_MAX + 1000];

	start(&d, NULL);
	int before = test_daemon_fds(&d), good = attach(&d), size = 4 * WIRE_MAX;

	close_fds();
	memset(noise, 0xa5, sizeof(noise));
	static const size_t lengths[] = {1, 7, 4096, WIRE_MAX, WIRE_MAX + 1, WIRE_MAX + 1000};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		int sock = i % 2 ? connect_to(&d) : greet(&d);

		setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		cr_assert_eq(send(sock, noise, lengths[i], 0), (ssize_t)lengths[i]);
		expect_closed(sock);
	}
	int empty = connect_to(&d);

	cr_assert_eq(send(empty, noise, 0, 0), 0);
	expect_closed(empty);
	cr_assert_eq(refill(good, 4, 3), 3, "others do not notice");
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(good), WIRE_OK);
	close(good);
	end(&d, before);
}

Test(server, out_of_order)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), sock = connect_to(&d);

	req = (struct wire_msg){.kind = WIRE_DETACH, .serial = 1};
	send_req(sock);
	expect_closed(sock);
	sock = greet(&d);
	req = (struct wire_msg){.kind = WIRE_DETACH, .serial = 1};
	send_req(sock);
	expect_closed(sock);
	end(&d, before);
}

Test(server, descriptors_are_not_accepted)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d);

	for (int i = 0; i < 20; i++) {
		int sock = greet(&d), three[WIRE_FDS] = {sock, sock, sock};
		size_t len;

		req = (struct wire_msg){.kind = WIRE_QUERY, .serial = 1, .u.query = {.kind = WIRE_Q_STATS}};
		cr_assert_eq(shmi_codec_encode(&req, &scratch, bytes, sizeof(bytes), &len), 0);
		cr_assert_eq(shmi_chan_send(sock, bytes, len, three, WIRE_FDS), 0);
		expect_closed(sock);
	}
	end(&d, before);
}

/* A peer that asks and never reads: it is served until its queue is full, then dropped. Others are served all the time. */
Test(server, a_peer_that_never_reads)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), deaf = greet(&d), good = greet(&d);
	size_t len;
	int sent = 0, error;

	cr_assert_eq(fcntl(deaf, F_SETFL, O_NONBLOCK), 0);
	req = (struct wire_msg){.kind = WIRE_QUERY, .serial = 1, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(shmi_codec_encode(&req, &scratch, bytes, sizeof(bytes), &len), 0);
	long long limit = test_now_ms() + 2 * WAIT_MS;

	do { /* until we are dropped */
		error = shmi_chan_send(deaf, bytes, len, NULL, 0);
		if (!error)
			sent++;
		else
			poll(NULL, 0, 10);
		cr_assert_lt(test_now_ms(), limit, "not dropped, after %d requests", sent);
	} while (error != CHAN_E_CLOSED);
	cr_assert_gt(sent, 10);
	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(ask(good), WIRE_STATS);
	close(deaf);
	close(good);
	end(&d, before);
}

Test(server, silent_connections_are_dropped)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), silent = connect_to(&d), greeted = greet(&d);
	long long since = test_now_ms();

	cr_assert_eq(receive(silent), WIRE_NONE);
	cr_assert_geq(test_now_ms() - since, 4000);
	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	cr_assert_eq(ask(greeted), WIRE_STATS);
	close(silent);
	close(greeted);
	end(&d, before);
}

/* A daemon with 64 descriptors and 500 peers. */
Test(server, out_of_descriptors)
{
	struct test_daemon d;
	struct rlimit few = {64, 64}, usual;
	static int sock[500];
	int n = 0;

	getrlimit(RLIMIT_NOFILE, &usual);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, usual.rlim_max}), 0);
	start(&d, NULL);
	usual.rlim_cur = usual.rlim_max;
	cr_assert_eq(prlimit(d.pid, RLIMIT_NOFILE, &few, NULL), 0);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &usual), 0);
	int before = test_daemon_fds(&d), good = attach(&d);

	close_fds();
	for (int i = 0; i < 500; i++) {
		int s;

		if (!shmi_chan_connect(d.socket, &s)) /* the rest finds the backlog full */
			sock[n++] = s;
	}
	cr_assert_gt(n, 100);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(refill(good, 4, 1), 1, "whoever is attached is served");
	for (int i = 0; i < n; i++)
		close(sock[i]);
	int late = connect_to(
	        &d); /* and newcomers, when there is room again: as long as there is not, they are hung up on */

	for (fill_hello(); ask(late) == WIRE_NONE; late = connect_to(&d))
		close(late);
	cr_assert_eq(reply.kind, WIRE_HELLO_OK);
	close(late);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(good), WIRE_OK);
	close(good);
	end(&d, before);
}

/* A client cuts ctl short under the daemon. */
Test(server, a_cut_object_fences_the_heap)
{
	struct test_daemon d;

	start(&d, NULL);
	int sock = attach(&d);

	cr_assert_eq(refill(sock, 4, 3), 3);
	cr_assert_eq(ftruncate(fds[1], 4096), 0);
	close_fds();
	cr_assert_eq(refill(sock, 4, 300), 0);
	cr_assert_eq(reply.u.error.code, WIRE_E_DAMAGED);
	cr_assert_eq(stats(&d)->damaged, 1);
	cr_assert_eq(refill(sock, 4, 1), 0);
	int other = greet(&d);

	req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_assert_eq(ask(other), WIRE_ERROR);
	cr_assert_eq(reply.u.error.code, WIRE_E_DAMAGED);
	close(other);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	cr_assert_eq(test_daemon_stop(&d), 0);
	/* The next one refuses it, in words, until it is told to drop it. */
	char said[2048];
	const struct test_daemon_options reset = {.args = (const char *const[]){"--reset", NULL}};

	cr_assert_eq(test_daemon_refused(&d, NULL, said, sizeof(said)), 1);
	cr_assert(strstr(said, "shorter") && strstr(said, "--reset"), "%s", said);
	cr_assert_eq(test_daemon_start_again(&d, &reset), 0);
	end(&d, -1);
}

/* Longer than it has to be is not damage: a client alone could otherwise have the next daemon refuse the heap. */
Test(server, an_object_that_is_too_long)
{
	struct test_daemon d;

	start(&d, NULL);
	int sock = attach(&d);

	cr_assert_eq(refill(sock, 4, 3), 3);
	cr_assert_eq(ftruncate(fds[1], (off_t)1 << 60), 0);
	cr_assert_eq(ftruncate(fds[2], (off_t)1 << 60), 0);
	close_fds();
	cr_expect_eq(refill(sock, 4, 300), 192);
	cr_expect_eq(stats(&d)->damaged, 0);
	test_daemon_kill(&d);
	close(sock);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	is_clean(&d);
	end(&d, -1);
}

static void lock_all_places(void)
{
	for (unsigned i = 0; i < n_fds; i++)
		for (int64_t id = 0; id < 20; id++) {
			struct flock lock = {
			        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LEASE_AT + id, .l_len = 1};

			(void)fcntl(fds[i], F_OFD_SETLK, &lock); /* those that have a lease cannot be locked */
		}
}

/* Locks that a client sets on what it is given end with the client, also on what it is given when it resumes. */
Test(server, locks_end_with_the_client)
{
	struct test_daemon d;

	start(&d, NULL);
	int sock = attach(&d);
	struct wire_attach_ok me = reply.u.attach_ok;

	lock_all_places();
	close_fds();
	close(sock);
	sock = greet(&d);
	req = (struct wire_msg){.kind = WIRE_ATTACH};
	req.u.attach = (struct wire_attach){.heap = "default", .resume = true, .client = me.client, .nonce = me.nonce};
	cr_assert_eq(ask(sock), WIRE_ATTACH_OK, "%s", reply.u.error.text);
	lock_all_places();
	close_fds();
	int other = attach(&d); /* as nobody is there who could have a lock */

	close_fds();
	close(other);
	close(sock);
	end(&d, -1);
}

/* ---- deaths ---- */

static void hold_spans(const struct test_daemon *d)
{
	int sock = attach(d);

	cr_assert_eq(refill(sock, 4, 50), 50);
	cr_assert_eq(refill(sock, 4 + SHMI_SCOPED, 50), 50);
}

Test(server, killed_clients)
{
	struct test_daemon d;
	pid_t pid[8];

	start(&d, NULL);
	int before = test_daemon_fds(&d);

	for (int i = 0; i < 8; i++)
		pid[i] = in_child(&d, hold_spans);
	cr_assert_eq(stats(&d)->clients, 8);
	cr_assert_eq(stats(&d)->owned, 800 * 8192);
	for (int i = 0; i < 8; i++)
		kill_child(pid[i]);
	wait_for_clients(&d, 0);
	cr_assert_eq(stats(&d)->owned, 0);
	cr_assert_eq(stats(&d)->counters[9], 8, "%llu deaths", (unsigned long long)stats(&d)->counters[9]);
	end(&d, before);
}

static int grandchild_pipe[2];

/* Attaches, and forks a child that does nothing but exist. */
static void hold_and_fork(const struct test_daemon *d)
{
	hold_spans(d);
	pid_t pid = fork();

	if (pid == 0) {
		char c;

		prctl(PR_SET_PDEATHSIG, 0);
		close(grandchild_pipe[1]);
		(void)!read(grandchild_pipe[0], &c, 1);
		_exit(0);
	}
}

Test(server, a_forked_child_keeps_scoped_blocks)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d);

	cr_assert_eq(pipe2(grandchild_pipe, O_CLOEXEC), 0);
	pid_t pid = in_child(&d, hold_and_fork);

	kill_child(pid);
	long long limit = test_now_ms() + WAIT_MS;

	while (stats(&d)->owned != 50 * 8192) /* the shared ones have gone */
		cr_assert_lt(test_now_ms(), limit);
	cr_assert_eq(stats(&d)->clients, 1);
	close(grandchild_pipe[0]);
	close(grandchild_pipe[1]); /* the grandchild ends */
	wait_for_clients(&d, 0);
	cr_assert_eq(stats(&d)->owned, 0);
	end(&d, before);
}

/* The daemon is killed; its successor finds the living and the dead, and the living go on. */
Test(server, killed_daemon)
{
	struct test_daemon d;

	start(&d, NULL);
	int before = test_daemon_fds(&d), sock = attach(&d), data = fcntl(fds[WIRE_FDS - 1], F_DUPFD_CLOEXEC, 0);
	struct wire_attach_ok me = reply.u.attach_ok;

	cr_assert_geq(data, 0); /* its lease: without one a client that nobody hears of is taken back after a second */
	close_fds();
	pid_t child = in_child(&d, hold_spans);

	cr_assert_eq(refill(sock, 4, 5), 5);
	struct wire_msg last_req = req;
	uint32_t page = reply.u.refill_ok.grants[4].page;

	test_daemon_kill(&d);
	kill_child(child);
	cr_assert_eq(receive(sock), WIRE_NONE);
	close(sock);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	wait_for_clients(&d, 1);
	sock = greet(&d);
	req = (struct wire_msg){.kind = WIRE_ATTACH};
	req.u.attach = (struct wire_attach){.heap = "default", .resume = true, .client = me.client, .nonce = me.nonce};
	cr_assert_eq(ask(sock), WIRE_ATTACH_OK, "%s", reply.u.error.text);
	cr_assert_eq(reply.u.attach_ok.thread, me.thread);
	cr_assert_eq(reply.u.attach_ok.base, me.base);
	close_fds();
	close(data);
	/* The answer to the last request was perhaps lost. */
	req = last_req;
	send_req(sock);
	cr_assert_eq(receive(sock), WIRE_REFILL_OK);
	cr_assert_eq(reply.u.refill_ok.grants[4].page, page);
	cr_assert_eq(stats(&d)->owned, 5 * 8192);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	end(&d, before);
}

/* ---- start and stop ---- */

Test(server, a_second_one_is_refused)
{
	struct test_daemon d;
	char said[2048], pid[32];

	start(&d, NULL);
	cr_assert_eq(test_daemon_refused(&d, NULL, said, sizeof(said)), 1);
	snprintf(pid, sizeof(pid), "pid %d", (int)d.pid);
	cr_assert(strstr(said, pid) && strstr(said, d.instance), "%s", said);
	cr_assert_eq(strchr(said, '\n') - said, (long)strlen(said) - 1, "one sentence: %s", said);
	is_clean(&d);
	end(&d, -1);
}

Test(server, blocks_outlive_the_daemon)
{
	struct test_daemon d;

	start(&d, NULL);
	int sock = attach(&d);

	close_fds();
	req = (struct wire_msg){.kind = WIRE_LARGE};
	req.u.large = (struct wire_large){.bytes = 8192, .pages = 1, .align_pages = 1};
	cr_assert_eq(ask(sock), WIRE_LARGE_OK);
	struct wire_span span = {reply.u.large_ok.page, reply.u.large_ok.generation};

	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	cr_assert_eq(test_daemon_stop(&d), 0);
	cr_assert_eq(test_daemon_objects(&d), 4);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_assert_eq(stats(&d)->central, 8192);
	sock = attach(&d);
	close_fds();
	req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {span}}};
	cr_assert_eq(ask(sock), WIRE_OK);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	end(&d, -1);
}

Test(server, data_is_never_mapped)
{
	struct test_daemon d;
	char path[64], line[512];

	start(&d, NULL);
	int sock = attach(&d);

	close_fds();
	cr_assert_eq(refill(sock, 4, 50), 50);
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)d.pid);
	FILE *maps = fopen(path, "re");
	int meta = 0;

	cr_assert(maps != NULL);
	while (fgets(line, sizeof(line), maps)) {
		cr_assert_not(strstr(line, ".data") && strstr(line, "shmalloc."), "%s", line);
		meta += strstr(line, ".meta") != NULL;
	}
	fclose(maps);
	cr_assert_eq(meta, 1);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(sock), WIRE_OK);
	close(sock);
	end(&d, -1);
}

Test(server, bad_options)
{
	struct test_daemon d;
	char said[2048];
	const struct test_daemon_options options = {.args = (const char *const[]){"--size", "much", NULL}};

	start(&d, NULL);
	end(&d, -1);
	cr_assert_eq(mkdir(d.dir, 0700), 0);
	cr_assert_eq(test_daemon_refused(&d, &options, said, sizeof(said)), 2);
	cr_assert(strstr(said, "shmallocd: --size: 'much' is not a size"), "%s", said);
	test_daemon_remove(&d);
}
