/* Two users on one daemon: what one of them does to the other's memory, connections and log lines, and to the daemon's objects. Needs
 * root, to become them. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/image.h"
#include "shm/span.h"

#define ALICE 61001u
#define MALLORY 61002u
#define SHARED64 (4 * SHMI_ATTRS)
#define PAGES_LARGE 300u

static struct test_daemon d;
static struct codec_scratch scratch;
static struct wire_msg msg;
static unsigned char bytes[WIRE_MAX];

/* ---- a client by hand ---- */

struct client {
	int sock, fds[WIRE_FDS];
	uint64_t serial;
	struct wire_attach_ok ok;
	struct shmi_image img; /* of meta alone */
	unsigned char *data;
};

static void become(uint32_t uid)
{
	child_check(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0);
}

static void send_bytes(int sock, size_t len)
{
	child_check(shmi_chan_send(sock, bytes, len, NULL, 0) == 0);
}

/* One request; the answer is in msg. */
static enum wire_kind ask(struct client *c)
{
	unsigned n = WIRE_FDS;
	size_t len = 0;

	child_check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
	send_bytes(c->sock, len);
	child_check(shmi_chan_wait(c->sock, 0, shmi_chan_now_ns() + 20000000000ll) == 0);
	if (shmi_chan_recv(c->sock, bytes, sizeof(bytes), &len, c->fds, &n))
		return WIRE_NONE;
	child_check(shmi_codec_decode(&msg, &scratch, bytes, len) == 0);
	return msg.kind;
}

static enum wire_kind ask_numbered(struct client *c)
{
	msg.serial = ++c->serial;
	return ask(c);
}

static void greet(struct client *c)
{
	*c = (struct client){.sock = -1};
	child_check(shmi_chan_connect(d.socket, &c->sock) == 0);
	msg = (struct wire_msg){.serial = 1, .kind = WIRE_HELLO};
	msg.u.hello =
	        (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "tenant"};
	child_check(ask(c) == WIRE_HELLO_OK);
}

static void attach(struct client *c)
{
	greet(c);
	msg = (struct wire_msg){.serial = 2, .kind = WIRE_ATTACH};
	snprintf(msg.u.attach.heap, sizeof(msg.u.attach.heap), "%s", d.heap);
	child_check(ask(c) == WIRE_ATTACH_OK);
	c->ok = msg.u.attach_ok;
	void *meta = mmap(NULL, c->ok.meta_bytes, PROT_READ, MAP_SHARED, c->fds[0], 0);

	child_check(meta != MAP_FAILED && shmi_image_open(&c->img, meta, c->ok.meta_bytes, NULL, 0) == 0);
	c->data = mmap(NULL, c->ok.data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, c->fds[2], 0);
	child_check(c->data != MAP_FAILED);
}

static struct wire_span refill(struct client *c)
{
	msg = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_wants = 1, .wants = {{SHARED64, 1}}}};
	child_check(ask_numbered(c) == WIRE_REFILL_OK && msg.u.refill_ok.n_grants == 1);
	return (struct wire_span){msg.u.refill_ok.grants[0].page, msg.u.refill_ok.grants[0].generation};
}

static struct wire_span large(struct client *c)
{
	msg = (struct wire_msg){.kind = WIRE_LARGE};
	msg.u.large = (struct wire_large){
	        .bytes = (uint64_t)PAGES_LARGE << SHMI_PAGE_SHIFT, .pages = PAGES_LARGE, .align_pages = 1};
	child_check(ask_numbered(c) == WIRE_LARGE_OK);
	return (struct wire_span){msg.u.large_ok.page, msg.u.large_ok.generation};
}

static uint32_t refused(struct client *c)
{
	return ask_numbered(c) == WIRE_ERROR ? msg.u.error.code : 0;
}

static unsigned char *page_at(const struct client *c, uint32_t page)
{
	return c->data + ((uint64_t)page << SHMI_PAGE_SHIFT);
}

static bool is_zero(const unsigned char *at, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (at[i])
			return false;
	return true;
}

static bool starts(const char *const *args)
{
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: becoming another user needs root\n");
		return false;
	}
	system_start(&d, args);
	cr_assert_eq(chmod(d.dir, 0755), 0);
	cr_assert_eq(chmod(d.socket, 0666), 0);
	return true;
}

/* ---- spans and sessions of another ---- */

/* What Alice has, as Mallory comes to know it: she reads it in meta. */
static struct known *shared;

struct known {
	struct wire_span span, block;
	struct wire_attach_ok ok;
	uint32_t low, high; /* pages that Alice has soiled lie there */
	int ready[2], done[2];
};

static void share(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert(shared != MAP_FAILED && pipe(shared->ready) == 0 && pipe(shared->done) == 0);
}

static int be_alice(void *arg)
{
	struct client c;
	char byte = 0;

	(void)arg;
	become(ALICE);
	attach(&c);
	shared->span = refill(&c);
	shared->block = large(&c);
	shared->ok = c.ok;
	child_check(write(shared->ready[1], &byte, 1) == 1);
	child_check(read(shared->done[0], &byte, 1) == 1);
	struct shmi_word word = shmi_span_word(&c.img, (shmi_page){shared->span.page});

	child_check(word.owner == c.ok.client && word.generation == shared->span.generation);
	child_check(refill(&c).page != shared->span.page);
	return 0;
}

static int be_mallory(void *arg)
{
	struct client c, other;

	(void)arg;
	become(MALLORY);
	attach(&c);
	msg = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_returns = 1, .returns = {shared->span}}};
	child_check(refused(&c) == WIRE_E_INVALID);
	msg = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_reports = 1, .reports = {shared->span.page}}};
	child_check(ask_numbered(&c) == WIRE_REFILL_OK); /* looked at, and nothing done */
	msg = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {shared->span}}};
	child_check(refused(&c) == WIRE_E_BAD_FREE);
	for (int i = 0; i < 200; i++)
		child_check(refill(&c).page != shared->span.page);
	msg = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = shared->ok.thread, .parts = 2}};
	child_check(refused(&c) == WIRE_E_INVALID);
	for (int fresh = 0; fresh < 2; fresh++) { /* with her very nonce, to resume or as if the answer had been lost */
		greet(&other);
		msg = (struct wire_msg){.serial = 2, .kind = WIRE_ATTACH};
		snprintf(msg.u.attach.heap, sizeof(msg.u.attach.heap), "%s", d.heap);
		msg.u.attach.resume = !fresh;
		msg.u.attach.client = shared->ok.client;
		msg.u.attach.nonce = shared->ok.nonce;
		enum wire_kind got = ask(&other);

		child_check(fresh ? got == WIRE_ATTACH_OK && msg.u.attach_ok.client != shared->ok.client
		                  : got == WIRE_ERROR && msg.u.error.code == WIRE_E_NOT_FOUND);
	}
	return 0;
}

Test(tenants, what_another_has_cannot_be_given_back_or_claimed)
{
	char byte = 0;

	if (!starts(NULL))
		return;
	share();
	pid_t alice = child_start(be_alice, NULL);

	cr_assert_eq(read(shared->ready[0], &byte, 1), 1);
	cr_expect_eq(child_run(be_mallory, NULL), 0);
	cr_assert_eq(write(shared->done[1], &byte, 1), 1);
	cr_expect_eq(child_join(alice), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	system_end(&d);
}

/* ---- memory that passes from one to the other ---- */

static void soil(struct client *c, uint32_t page, uint32_t pages)
{
	memset(page_at(c, page), 'A', (size_t)pages << SHMI_PAGE_SHIFT);
	shared->low = shared->low && shared->low < page ? shared->low : page;
	shared->high = shared->high > page + pages ? shared->high : page + pages;
}

/* Whether the pages are zero; *met: some of them were Alice's. */
static bool are_clean(const struct client *c, uint32_t page, uint32_t pages, bool *met)
{
	*met |= page < shared->high && page + pages > shared->low;
	return is_zero(page_at(c, page), (uint64_t)pages << SHMI_PAGE_SHIFT);
}

static int soil_and_go(void *arg)
{
	struct client c;

	become(ALICE);
	attach(&c);
	for (int i = 0; i < 40; i++) {
		struct wire_span span = refill(&c);

		soil(&c, span.page, 1);
		if (!arg) {
			msg = (struct wire_msg){.kind = WIRE_REFILL, .u.refill = {.n_returns = 1, .returns = {span}}};
			child_check(ask_numbered(&c) == WIRE_REFILL_OK);
		}
	}
	shared->block = large(&c);
	soil(&c, shared->block.page, PAGES_LARGE);
	if (!arg) {
		msg = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {shared->block}}};
		child_check(ask_numbered(&c) == WIRE_OK);
		return 0;
	}
	raise(SIGKILL);
	return 1;
}

static int find_zeros(void *arg)
{
	struct client c;
	bool met = false;

	(void)arg;
	become(MALLORY);
	attach(&c);
	struct wire_span block = large(&c);

	child_check(are_clean(&c, block.page, PAGES_LARGE, &met));
	for (int i = 0; i < 400; i++)
		child_check(are_clean(&c, refill(&c).page, 1, &met));
	child_check(met); /* else this has said nothing */
	return 0;
}

static void passes(bool killed)
{
	int64_t last;

	share();
	cr_expect_eq(child_run(soil_and_go, killed ? &d : NULL), killed ? 128 + SIGKILL : 0);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	cr_expect_eq(child_run(find_zeros, NULL), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
}

Test(tenants, memory_that_was_given_back_is_zero_for_another)
{
	if (!starts(NULL))
		return;
	passes(false);
	system_end(&d);
}

Test(tenants, memory_of_a_client_that_was_killed_is_zero_for_another)
{
	if (!starts(NULL))
		return;
	passes(true);
	system_end(&d);
}

Test(tenants, memory_is_zero_for_another_after_a_restart)
{
	int64_t last;

	if (!starts(NULL))
		return;
	share();
	cr_expect_eq(child_run(soil_and_go, NULL), 0);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
	cr_assert_eq(chmod(d.socket, 0666), 0);
	cr_expect_eq(child_run(find_zeros, NULL), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	system_end(&d);
}

/* ---- what is sent to the daemon ---- */

static void send_descriptors(int sock, int fd)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int) * 8)];
	} control = {0};
	struct iovec iov = {.iov_base = "x", .iov_len = 1};
	struct msghdr message = {
	        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof(control.room)};
	int fds[8];

	for (int i = 0; i < 8; i++)
		fds[i] = fd;
	control.head =
	        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fds))};
	memcpy(CMSG_DATA(&control.head), fds, sizeof(fds));
	(void)sendmsg(sock, &message, MSG_NOSIGNAL);
}

static int send_hundreds(void *arg)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)arg;
	become(MALLORY);
	for (int i = 0; i < 100; i++) {
		int sock;

		child_check(shmi_chan_connect(d.socket, &sock) == 0);
		for (int n = 0; n < 8; n++)
			send_descriptors(sock, fd);
		close(sock);
	}
	return 0;
}

Test(tenants, descriptors_that_are_sent_are_not_kept)
{
	if (!starts(NULL))
		return;
	int before = test_daemon_fds(&d);

	cr_expect_eq(child_run(send_hundreds, NULL), 0);
	cr_expect_eq(test_daemon_settle_fds(&d, before), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	system_end(&d);
}

static uint64_t rss_kib(void)
{
	char path[64], line[256];
	unsigned long kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)d.pid);
	FILE *f = fopen(path, "r");

	cr_assert(f != NULL);
	while (fgets(line, sizeof(line), f))
		(void)sscanf(line, "RssAnon: %lu", &kib);
	fclose(f);
	cr_assert_gt(kib, 0);
	return kib;
}

/* As many connections as it gets, each with as many requests as the socket takes, whose answers it never reads. */
static int hog(void *arg)
{
	int got = 0;
	size_t len;

	(void)arg;
	become(MALLORY);
	for (int i = 0; i < 700; i++) {
		int sock = -1;

		if (shmi_chan_connect(d.socket, &sock))
			continue;
		msg = (struct wire_msg){.serial = 1, .kind = WIRE_HELLO};
		msg.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
		child_check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
		bool taken = shmi_chan_send(sock, bytes, len, NULL, 0) == 0;

		msg = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CLASSES}};
		snprintf(msg.u.query.heap, sizeof(msg.u.query.heap), "%s", d.heap);
		child_check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
		for (int n = 0; taken && n < 1000; n++)
			taken = send(sock, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
		got += taken || errno == EAGAIN;
	}
	child_check(got > 100);
	char byte = 0;

	child_check(write(shared->ready[1], &byte, 1) == 1);
	child_check(read(shared->done[0], &byte, 1) == 1);
	return 0;
}

static int is_served(void *arg)
{
	struct client c;

	become(*(uint32_t *)arg);
	attach(&c);
	return refill(&c).page ? 0 : 1;
}

Test(tenants, one_user_is_bounded_and_others_are_served)
{
	char byte = 0;

	if (!starts(NULL))
		return;
	share();
	uint64_t before = rss_kib();
	int fds = test_daemon_fds(&d);
	pid_t mallory = child_start(hog, NULL);

	cr_assert_eq(read(shared->ready[0], &byte, 1), 1);
	cr_expect_leq(test_daemon_fds(&d), fds + 2 * 512 + 64, "of one user: connections, and a pidfd each");
	/* One answer for each connection at most: 512 of 64 KiB. */
	cr_expect_lt(rss_kib(), before + 512 * 64 + 8192, "%llu KiB before", (unsigned long long)before);
	cr_expect_eq(child_run(is_served, &(uint32_t){ALICE}), 0);
	cr_expect_eq(test_ctl_check(&d), 0);
	cr_assert_eq(write(shared->done[1], &byte, 1), 1);
	cr_expect_eq(child_join(mallory), 0);
	cr_expect_eq(test_daemon_settle_fds(&d, fds), 0);
	system_end(&d);
}

/* ---- the log ---- */

static int talk_rubbish(void *arg)
{
	become(*(uint32_t *)arg);
	for (int i = 0; i < 400; i++) {
		int sock;

		child_check(shmi_chan_connect(d.socket, &sock) == 0);
		(void)send(sock, "rubbish", 7, MSG_NOSIGNAL);
		(void)shmi_chan_wait(sock, 0, shmi_chan_now_ns() + 5000000000ll);
		close(sock);
	}
	return 0;
}

static uint32_t lines_about(uint32_t uid)
{
	char line[1024], want[32];
	FILE *f = fopen(d.log, "r");
	uint32_t n = 0;

	cr_assert(f != NULL);
	snprintf(want, sizeof(want), "uid=%u", uid);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, want) != NULL;
	fclose(f);
	return n;
}

static int misbehave_once(void *arg)
{
	int sock;

	become(*(uint32_t *)arg);
	child_check(shmi_chan_connect(d.socket, &sock) == 0);
	(void)send(sock, "rubbish", 7, MSG_NOSIGNAL);
	child_check(shmi_chan_wait(sock, 0, shmi_chan_now_ns() + 20000000000ll) == 0);
	return 0;
}

Test(tenants, a_flood_of_lines_hides_nobody_elses)
{
	uint32_t mallory = MALLORY, alice = ALICE;
	long long begin = test_now_ms();

	if (!starts(NULL))
		return;
	cr_expect_eq(child_run(talk_rubbish, &mallory), 0);
	cr_expect_eq(child_run(misbehave_once, &alice), 0);
	cr_expect_geq(lines_about(MALLORY), 1);
	cr_expect_leq(lines_about(MALLORY), 20 + (test_now_ms() - begin) / 1000 + 2);
	cr_expect_eq(lines_about(ALICE), 1, "Alice's line was swallowed");
	system_end(&d);
}

/* ---- the objects, and the daemon's maps ---- */

static int try_objects(void *arg)
{
	static const char *const objects[] = {"meta", "ctl", "data", "state"};
	char path[256], other[256];

	(void)arg;
	become(MALLORY);
	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.%s.%s", d.instance, d.heap, objects[i]);
		snprintf(other, sizeof(other), "/dev/shm/shmalloc.%s.%s.%s.mine", d.instance, d.heap, objects[i]);
		child_check(access(path, F_OK) == 0);
		child_check(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
		child_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
		child_check(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) < 0 && errno == EACCES);
		child_check(truncate(path, 0) != 0 && errno == EACCES);
		child_check(chmod(path, 0666) != 0 && errno == EPERM);
		child_check(chown(path, MALLORY, MALLORY) != 0 && errno == EPERM);
		child_check(rename(path, other) != 0 && (errno == EPERM || errno == EACCES));
		child_check(unlink(path) != 0 && (errno == EPERM || errno == EACCES));
		child_check(link(path, other) != 0 ||
		            unlink(other) != 0); /* protected_hardlinks; without it the next start objects */
	}
	return 0;
}

/* The same file through every name that the system has for a descriptor. */
static int try_descriptors(void *arg)
{
	static const char *const ways[] = {"/proc/self/fd", "/dev/fd", "/proc/thread-self/fd"};
	struct client c;
	char path[64];

	(void)arg;
	become(MALLORY);
	attach(&c);
	int meta = c.fds[0], self = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);

	child_check(fchmod(meta, 0666) != 0 && fchown(meta, MALLORY, MALLORY) != 0);
	child_check(
	        ftruncate(meta, 0) != 0 && fallocate(meta, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0);
	child_check(fallocate(meta, 0, 0, 4096) != 0 && write(meta, "x", 1) < 0 && pwrite(meta, "x", 1, 0) < 0);
	child_check(fcntl(meta, F_SETFL, O_RDWR) == 0 || errno == EPERM); /* it leaves the access mode as it is */
	child_check((fcntl(meta, F_GETFL) & O_ACCMODE) == O_RDONLY);
	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%d", ways[i], meta);
		child_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
		child_check(open(path, O_WRONLY | O_CLOEXEC) < 0 && errno == EACCES);
	}
	snprintf(path, sizeof(path), "%d", meta);
	child_check(self >= 0 && openat(self, path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(linkat(meta, "", AT_FDCWD, "/dev/shm/shmalloc.mine", AT_EMPTY_PATH) != 0);
	child_check(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, meta, 0) == MAP_FAILED);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, meta, 0);

	child_check(map != MAP_FAILED && mprotect(map, 4096, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
	child_check(madvise(map, 4096, MADV_REMOVE) != 0);
	return 0;
}

Test(tenants, the_daemons_objects_are_its_own)
{
	if (!starts(NULL))
		return;
	cr_expect_eq(child_run(try_objects, NULL), 0);
	cr_expect_eq(child_run(try_descriptors, NULL), 0);
	system_expect_empty(&d);
	system_end(&d);
}

/* While there are clients, with blocks, a reclaim and a trim behind it. */
Test(tenants, the_daemon_maps_no_data)
{
	char path[64], line[512];
	int meta = 0, data = 0;

	if (!starts(NULL))
		return;
	share();
	cr_expect_eq(child_run(soil_and_go, &d), 128 + SIGKILL);
	cr_expect_eq(test_ctl_trim(&d), 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", (int)d.pid);
	FILE *f = fopen(path, "r");

	cr_assert(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		meta += strstr(line, ".meta") != NULL;
		data += strstr(line, ".data") != NULL;
	}
	fclose(f);
	cr_expect_gt(meta, 0, "or the objects have other names");
	cr_expect_eq(data, 0);
	system_end(&d);
}
