/* Several heaps in one daemon, over a real socket and with processes of several users: who gets in, what a heap's misfortune does to
 * the others, restarts, and what SIGHUP changes. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"
#include "tests/lib/child.h"
#include "tests/lib/daemon.h"

#define WAIT_MS 20000

static struct test_daemon d;
static char conf[96];
static struct wire_msg req, reply;
static struct codec_scratch scratch;
static unsigned char bytes[WIRE_MAX];
static int fds[WIRE_FDS];

static void write_conf(const char *heaps)
{
	FILE *out = fopen(conf, "we");

	cr_assert(out && fprintf(out, "[daemon]\nsocket-mode = 0666\n%s", heaps) > 0 && !fclose(out));
}

static struct test_daemon_options options(void)
{
	static const char *args[3];

	args[0] = "--config";
	args[1] = conf;
	return (struct test_daemon_options){.args = args, .heap = "a"};
}

static void start(const char *heaps)
{
	const struct test_daemon_options o = options();

	cr_assert_eq(test_daemon_init(&d, &o), 0);
	cr_assert_eq(chmod(d.dir, 0755), 0);
	snprintf(conf, sizeof(conf), "%s/conf", d.dir);
	write_conf(heaps);
	cr_assert_eq(test_daemon_start_again(&d, &o), 0);
}

static void end(void)
{
	cr_expect_eq(test_daemon_end(&d), 0);
}

/* ---- talking; in children as well ---- */

static enum wire_kind ask(int sock)
{
	static uint64_t serial;
	unsigned n = WIRE_FDS;
	size_t len = 0;

	req.serial = ++serial;
	child_check(shmi_codec_encode(&req, &scratch, bytes, sizeof(bytes), &len) == 0);
	child_check(shmi_chan_send(sock, bytes, len, NULL, 0) == 0);
	child_check(shmi_chan_wait(sock, 0, shmi_chan_now_ns() + WAIT_MS * 1000000ll) == 0);
	child_check(shmi_chan_recv(sock, bytes, sizeof(bytes), &len, fds, &n) == 0);
	child_check(shmi_codec_decode(&reply, &scratch, bytes, len) == 0);
	return reply.kind;
}

static int greet(void)
{
	int sock = -1;

	child_check(shmi_chan_connect(d.socket, &sock) == 0);
	req = (struct wire_msg){.kind = WIRE_HELLO};
	req.u.hello =
	        (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "test"};
	child_check(ask(sock) == WIRE_HELLO_OK);
	return sock;
}

/* 0, or the code of the error. */
static uint32_t attach(int sock, const char *heap)
{
	req = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(req.u.attach.heap, sizeof(req.u.attach.heap), "%s", heap);
	return ask(sock) == WIRE_ATTACH_OK ? 0 : reply.u.error.code;
}

/* How many spans came; with 0, the code of the error is in reply. */
static uint32_t refill(int sock, uint32_t spans)
{
	req = (struct wire_msg){.kind = WIRE_REFILL};
	req.u.refill.n_wants = 1;
	req.u.refill.wants[0] = (struct wire_want){4, spans};
	return ask(sock) == WIRE_REFILL_OK ? reply.u.refill_ok.n_grants : 0;
}

static const struct wire_heap_row *heaps(void)
{
	static struct wire_heaps rows;
	int sock = greet();

	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query.kind = WIRE_Q_HEAPS};
	child_check(ask(sock) == WIRE_HEAPS && reply.u.heaps.n_rows >= 1);
	rows = reply.u.heaps;
	close(sock);
	return rows.rows;
}

static const char *log_text(void)
{
	static char text[65536];
	int fd = open(d.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n < 0 ? 0 : n] = 0;
	return text;
}

static unsigned count(const char *what)
{
	unsigned n = 0;

	for (const char *at = log_text(); (at = strstr(at, what)) != NULL; at++)
		n++;
	return n;
}

static void expect_logged(const char *what)
{
	cr_expect_not_null(strstr(log_text(), what), "'%s' is not in\n%s", what, log_text());
}

/* Sends the signal and waits for the line that ends what it does, which is all that there is to wait for. */
static void reload(const char *last_line)
{
	unsigned before = count(last_line);
	long long limit = test_now_ms() + WAIT_MS;

	kill(d.pid, SIGHUP);
	while (count(last_line) == before) {
		cr_assert_lt(test_now_ms(), limit, "%s", log_text());
		poll(NULL, 0, 5);
	}
}

/* ---- who gets in ---- */

struct person {
	uid_t uid;
	gid_t gid, group; /* supplementary; 0: none */
	uint32_t a, b; /* what an attach says */
};

static int be(void *arg)
{
	const struct person *p = arg;

	child_check(setgroups(p->group ? 1 : 0, &p->group) == 0 && setgid(p->gid) == 0 && setuid(p->uid) == 0);
	const struct wire_heap_row *rows = heaps();

	child_check(rows[0].allowed == !p->a && rows[1].allowed == !p->b);
	child_check(attach(greet(), "a") == p->a);
	child_check(attach(greet(), "b") == p->b);
	return 0;
}

Test(tenants, two_heaps_two_users)
{
	static const struct person people[] = {{1111, 1111, 0, 0, WIRE_E_ACCESS}, {3333, 2222, 0, WIRE_E_ACCESS, 0},
	        {3333, 3333, 2222, WIRE_E_ACCESS, 0}, {3333, 3333, 4444, WIRE_E_ACCESS, WIRE_E_ACCESS},
	        {0, 0, 0, 0, 0}};

	if (geteuid() != 0)
		cr_skip_test("becoming another user needs root");
	start("[heap a]\nallowed-users = 1111\n[heap b]\nallowed-groups = 2222\n");
	for (size_t i = 0; i < sizeof(people) / sizeof(people[0]); i++) {
		struct person person = people[i];

		cr_expect_eq(child_run(be, &person), 0, "person %zu", i);
	}
	expect_logged("uid 1111 may not attach to heap 'b' (1 refused so far)");
	end();
}

/* ---- one heap's misfortune ---- */

static void cut(const char *heap, const char *object)
{
	char path[256];

	snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.%s.%s", d.instance, heap, object);
	cr_assert_eq(truncate(path, 8192), 0);
}

Test(tenants, a_fenced_heap_fences_no_other)
{
	start("[heap a]\n[heap b]\n");
	int a = greet(), b = greet();

	cr_assert_eq(attach(a, "a"), 0);
	cr_assert_eq(attach(b, "b"), 0);
	cut("a", "ctl");
	cr_expect_eq(refill(a, 3), 0);
	cr_expect_eq(reply.u.error.code, WIRE_E_DAMAGED);
	cr_expect_eq(refill(b, 3), 3);
	cr_expect(heaps()[0].damaged && !heaps()[1].damaged);
	cr_expect_eq(attach(greet(), "a"), WIRE_E_DAMAGED);
	cr_expect_eq(attach(greet(), "b"), 0);
	end();
}

Test(tenants, a_refused_heap_keeps_no_other_from_being_served)
{
	start("[heap a]\n[heap b]\n");
	int a = greet(), b = greet();

	cr_assert_eq(attach(a, "a"), 0);
	cr_assert_eq(attach(b, "b"), 0);
	cr_assert_eq(test_daemon_stop(&d), 0);
	cut("a", "data");
	const struct test_daemon_options o = options();

	cr_assert_eq(test_daemon_start_again(&d, &o), 0);
	expect_logged("refused heap 'a'");
	cr_expect(heaps()[0].damaged && !heaps()[1].damaged);
	cr_expect_eq(heaps()[1].clients, 1);
	cr_expect_eq(attach(greet(), "a"), WIRE_E_DAMAGED);
	cr_expect_not_null(strstr(reply.u.error.text, "heap 'a' could not be opened: "), "%s", reply.u.error.text);
	b = greet();
	cr_expect_eq(attach(b, "b"), 0);
	cr_expect_eq(refill(b, 5), 5);
	/* with none that can be served the start fails */
	cr_assert_eq(test_daemon_stop(&d), 0);
	cut("b", "data");
	static char said[8192];

	cr_expect_eq(test_daemon_refused(&d, &o, said, sizeof(said)), 1);
	cr_expect(strstr(said, "refused heap 'a'") && strstr(said, "refused heap 'b'"), "%s", said);
	test_daemon_remove(&d);
}

/* ---- restarts ---- */

Test(tenants, a_restart_adopts_all_with_their_clients)
{
	uint64_t nonce[2];
	uint32_t client[2];

	start("[heap a]\n[heap b]\n");
	for (int i = 0; i < 2; i++) {
		int sock = greet();

		cr_assert_eq(attach(sock, i ? "b" : "a"), 0);
		client[i] = reply.u.attach_ok.client;
		nonce[i] = reply.u.attach_ok.nonce;
		cr_assert_eq(refill(sock, 10), 10);
	}
	test_daemon_kill(&d);
	const struct test_daemon_options o = options();

	cr_assert_eq(test_daemon_start_again(&d, &o), 0);
	expect_logged("took over heap 'a'");
	expect_logged("took over heap 'b'");
	cr_expect_eq(heaps()[0].clients, 1);
	cr_expect_eq(heaps()[1].clients, 1);
	for (int i = 0; i < 2; i++) {
		int sock = greet();

		req = (struct wire_msg){
		        .kind = WIRE_ATTACH, .u.attach = {.resume = true, .client = client[i], .nonce = nonce[!i]}};
		snprintf(req.u.attach.heap, sizeof(req.u.attach.heap), "%s", i ? "b" : "a");
		cr_expect_eq(ask(sock), WIRE_ERROR, "with the nonce of the other heap");
		req.u.attach.nonce = nonce[i];
		cr_expect_eq(ask(sock), WIRE_ATTACH_OK, "%s", reply.u.error.text);
		req = (struct wire_msg){.kind = WIRE_DETACH, .serial = 1000};
		cr_expect_eq(ask(sock), WIRE_OK);
	}
	end();
}

/* All of one user together, whatever the heap. */
Test(tenants, both_stop_and_nothing_is_left)
{
	start("[heap a]\n[heap b]\nsize = 64MiB\n");
	cr_expect_eq(heaps()[1].limit, 64 << 20);
	cr_expect_eq(test_daemon_objects(&d), 9, "four each, and the lock");
	cr_assert_eq(test_daemon_stop(&d), 0);
	cr_expect_eq(test_daemon_objects(&d), 0);
	test_daemon_remove(&d);
}

/* ---- SIGHUP ---- */

#define DONE "read the configuration again"
#define FAILED "nothing is changed"

Test(tenants, a_reload_applies_what_can_change)
{
	struct stat st;

	start("[heap a]\n[heap b]\n");
	int a = greet(), b = greet();

	cr_assert_eq(attach(a, "a"), 0);
	cr_assert_eq(attach(b, "b"), 0);
	cr_assert_eq(refill(a, 100), 100);
	write_conf("log-level = debug\n[heap a]\nuser-limit = 2MiB\nscavenge-delay = 1h\nscavenge-rate = 3MiB\n[heap "
	           "b]\n");
	reload(DONE);
	expect_logged("heap 'a': user-limit = 2MiB; it was 0");
	expect_logged("heap 'a': scavenge-delay = 1h; it was 5s");
	expect_logged("heap 'a': scavenge-rate = 3MiB; it was 100MiB");
	expect_logged("log-level = debug; it was info");
	cr_expect_null(strstr(log_text(), "heap 'b': "), "%s", log_text());
	uint32_t more = refill(a, 500);

	cr_expect(
	        more > 100 && more < 156, "%u; 256 pages are allowed, and 100 are used, besides a thread record", more);
	while (refill(a, 100))
		;
	cr_expect_eq(reply.u.error.code, WIRE_E_LIMIT);
	cr_expect_eq(refill(b, 192), 192, "the other heap has no limit");
	close(b);
	greet(); /* the line about the lost connection is on its way before this is answered */
	expect_logged("debug: client 0");
	/* a fault changes nothing */
	write_conf("[heap a]\nuser-limit = 1GiB\nuser-soft-limit = 2GiB\n[heap b]\n");
	reload("user-soft-limit of 2GiB; at most its user-limit, 1GiB, is allowed");
	expect_logged("the configuration has 1 faults; " FAILED);
	cr_expect_eq(refill(a, 100), 0);
	write_conf("[heap a]\n[heap b]\n");
	reload(DONE);
	cr_expect_eq(refill(a, 100), 100);
	/* the socket is the daemon's own */
	cr_assert_eq(stat(d.socket, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0666);
	FILE *out = fopen(conf, "we");

	fputs("[daemon]\nsocket-mode = 0600\n[heap a]\n[heap b]\n", out);
	fclose(out);
	reload(DONE);
	cr_assert_eq(stat(d.socket, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
	end();
}

Test(tenants, a_reload_says_what_cannot_change)
{
	start("[heap a]\n[heap b]\n");
	write_conf("[heap a]\nsize = 8GiB\nbacking = memfd\n[heap c]\n");
	reload(DONE);
	expect_logged("heap 'a': size = 8GiB takes effect at the next start; it is 4GiB");
	expect_logged("heap 'a': backing = memfd takes effect at the next start; it is shm");
	expect_logged("heap 'b' is no longer configured: takes effect at the next start");
	expect_logged("heap 'c' is new: takes effect at the next start");
	cr_expect_eq(heaps()[0].limit, 4ull << 30);
	cr_expect_str_eq(heaps()[1].name, "b");
	cr_expect_eq(attach(greet(), "b"), 0);
	cr_expect_eq(attach(greet(), "c"), WIRE_E_NO_HEAP);
	end();
}

static int attach_as_1111(void *arg)
{
	child_check(setgroups(0, NULL) == 0 && setgid(1111) == 0 && setuid(1111) == 0);
	child_check(attach(greet(), "a") == *(const uint32_t *)arg);
	return 0;
}

Test(tenants, a_reload_lets_in_and_keeps_out)
{
	uint32_t refused = WIRE_E_ACCESS, none = 0;

	if (geteuid() != 0)
		cr_skip_test("becoming another user needs root");
	start("[heap a]\nallowed-users = 5\n");
	cr_expect_eq(child_run(attach_as_1111, &refused), 0);
	write_conf("[heap a]\nallowed-users = 5 1111\n");
	reload(DONE);
	expect_logged("heap 'a': allowed-users = 5 1111; it was 5");
	cr_expect_eq(child_run(attach_as_1111, &none), 0);
	write_conf("[heap a]\nallowed-groups = root\n");
	reload(DONE);
	cr_expect_eq(child_run(attach_as_1111, &refused), 0);
	end();
}
