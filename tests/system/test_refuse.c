/* What must not work: no daemon, another version, a second daemon, objects that are not ours. Each is refused in words. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"

/* ---- no daemon ---- */

struct no_daemon {
	const char *socket;
	int error;
};

static int attach_in_vain(void *arg)
{
	const struct no_daemon *want = arg;
	struct shma_options options = {.size = sizeof(options), .socket = want->socket, .timeout_ms = 300};
	long long begin = test_now_ms();

	child_check(shma_attach(&options) == NULL && errno == want->error);
	child_check(test_now_ms() - begin >= 250 && test_now_ms() - begin < 5000);
	return 0;
}

/* Runs fn with standard error in a file, and returns how much it wrote there. */
static off_t bytes_said(int (*fn)(void *arg), void *arg, int *status)
{
	char path[] = "/tmp/shmalloc-test.said.XXXXXX";
	int said = mkstemp(path), kept = dup(STDERR_FILENO);
	struct stat st;

	unlink(path);
	fflush(NULL);
	dup2(said, STDERR_FILENO);
	*status = child_run(fn, arg);
	fflush(NULL);
	dup2(kept, STDERR_FILENO);
	close(kept);
	fstat(said, &st);
	close(said);
	return st.st_size;
}

Test(refuse, attach_without_a_daemon)
{
	struct test_daemon d;
	struct no_daemon none = {.socket = "/tmp/there-is-no-such-socket/sock", .error = ENOENT};
	int status;

	cr_expect_eq(bytes_said(attach_in_vain, &none, &status), 0, "the library says nothing");
	cr_expect_eq(status, 0);
	system_start(&d, NULL);
	test_daemon_kill(&d);
	none = (struct no_daemon){.socket = d.socket, .error = ECONNREFUSED};
	cr_expect_eq(bytes_said(attach_in_vain, &none, &status), 0, "the library says nothing");
	cr_expect_eq(status, 0);
	test_daemon_remove(&d);
}

/* ---- another version ---- */

static struct codec_scratch scratch;
static struct wire_msg msg;

/* Says hello with these numbers; the reply is in msg. */
static void hello(const struct test_daemon *d, uint32_t protocol, uint64_t layout)
{
	static unsigned char bytes[WIRE_MAX];
	size_t len = 0;
	int sock = -1;

	memset(&msg, 0, sizeof(msg));
	msg.serial = 1;
	msg.kind = WIRE_HELLO;
	msg.u.hello =
	        (struct wire_hello){.protocol = protocol, .layout_hash = layout, .version = "9.8.7", .label = "old"};
	cr_assert_eq(shmi_chan_connect(d->socket, &sock), 0);
	cr_assert_eq(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len), 0);
	cr_assert_eq(shmi_chan_send(sock, bytes, len, NULL, 0), 0);
	cr_assert_eq(shmi_chan_wait(sock, 0, shmi_chan_now_ns() + 5000000000ll), 0);
	cr_assert_eq(shmi_chan_recv(sock, bytes, sizeof(bytes), &len, NULL, NULL), 0);
	cr_assert_eq(shmi_codec_decode(&msg, &scratch, bytes, len), 0);
	close(sock);
}

Test(refuse, another_version)
{
	struct test_daemon d;

	system_start(&d, NULL);
	hello(&d, WIRE_PROTOCOL + 41, shmi_layout_hash());
	cr_expect_eq(msg.kind, WIRE_ERROR);
	cr_expect_eq(msg.u.error.code, WIRE_E_VERSION);
	cr_expect_not_null(strstr(msg.u.error.text, "protocol 46"), "both sides' versions: %s", msg.u.error.text);
	cr_expect_not_null(strstr(msg.u.error.text, "9.8.7"), "both sides' versions: %s", msg.u.error.text);
	cr_expect_not_null(strstr(msg.u.error.text, shma_version()), "both sides' versions: %s", msg.u.error.text);
	hello(&d, WIRE_PROTOCOL, shmi_layout_hash() + 1);
	cr_expect_eq(msg.kind, WIRE_ERROR);
	cr_expect_eq(msg.u.error.code, WIRE_E_VERSION);
	hello(&d, WIRE_PROTOCOL, shmi_layout_hash());
	cr_expect_eq(msg.kind, WIRE_HELLO_OK);
	system_expect_empty(&d);
	system_end(&d);
}

/* ---- a second daemon ---- */

Test(refuse, second_daemon_on_the_same_instance)
{
	struct test_daemon d, other;
	char said[4096] = "";

	system_start(&d, NULL);
	int objects = test_daemon_objects(&d);

	other = d;
	snprintf(other.socket, sizeof(other.socket), "%s/other", d.dir);
	cr_expect_gt(test_daemon_refused(&other, NULL, said, sizeof(said)), 0, "another socket");
	cr_expect_not_null(strstr(said, d.instance), "it names the instance: %s", said);
	other = d;
	snprintf(other.instance, sizeof(other.instance), "%.60s-b", d.instance);
	cr_expect_gt(test_daemon_refused(&other, NULL, said, sizeof(said)), 0, "another instance on the same socket");
	cr_expect_not_null(strstr(said, d.socket), "it names the socket: %s", said);
	cr_expect_eq(test_daemon_objects(&other), 0, "it leaves nothing");
	cr_expect_eq(test_daemon_objects(&d), objects);
	system_expect_empty(&d); /* the first one still serves */
	system_end(&d);
}

/* ---- objects that are not ours ---- */

static void object_path(const struct test_daemon *d, const char *what, char *path, size_t room)
{
	snprintf(path, room, "/dev/shm/shmalloc.%s.%s.%s", d->instance, d->heap, what);
}

/* The daemon refuses to start, says which heap's objects and that it left them alone, and did. */
static void expect_refused_untouched(const struct test_daemon *d, const char *what)
{
	char path[256], name[256], said[4096] = "";
	struct stat before, after;

	object_path(d, what, path, sizeof(path));
	cr_assert_eq(stat(path, &before), 0);
	cr_expect_gt(test_daemon_refused(d, NULL, said, sizeof(said)), 0, "%s", what);
	snprintf(name, sizeof(name), "/shmalloc.%s.%s.", d->instance, d->heap);
	cr_expect_not_null(strstr(said, name), "%s", said);
	cr_expect_not_null(strstr(said, "not touched"), "%s", said);
	cr_assert_eq(stat(path, &after), 0, "%s is gone", what);
	cr_expect_eq(before.st_size, after.st_size, "%s", what);
	cr_expect_eq(before.st_ino, after.st_ino, "%s", what);
	cr_expect_eq(before.st_mtim.tv_sec, after.st_mtim.tv_sec, "%s was written to", what);
	cr_expect_eq(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec, "%s was written to", what);
}

Test(refuse, foreign_object)
{
	struct test_daemon d;
	char path[256], text[64] = "";
	static const char garbage[] = "somebody else's data, by chance of the same name";

	cr_assert_eq(test_daemon_init(&d, NULL), 0);
	object_path(&d, "meta", path, sizeof(path));
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, 1 << 20), 0);
	cr_assert_eq(pwrite(fd, garbage, sizeof(garbage), 0), (ssize_t)sizeof(garbage));
	expect_refused_untouched(&d, "meta");
	cr_expect_eq(pread(fd, text, sizeof(garbage), 0), (ssize_t)sizeof(garbage));
	cr_expect_str_eq(text, garbage);
	close(fd);
	test_daemon_remove(&d);
}

static int leave_a_block(void *arg)
{
	void *block = shma_malloc(1000);

	(void)arg;
	child_check(block && shma_root_set(shma_default(), "left", block) == 0);
	return 0;
}

Test(refuse, cut_object)
{
	static const char *const objects[] = {"meta", "ctl", "data", "state"};
	struct test_daemon d;

	for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		char path[256];
		struct stat st;

		system_start(&d, NULL);
		cr_assert_eq(child_run(leave_a_block, NULL), 0);
		test_daemon_kill(&d);
		object_path(&d, objects[i], path, sizeof(path));
		cr_assert_eq(stat(path, &st), 0);
		cr_assert_eq(truncate(path, st.st_size / 2), 0);
		expect_refused_untouched(&d, objects[i]);
		cr_assert_eq(truncate(path, 0), 0);
		expect_refused_untouched(&d, objects[i]);
		test_daemon_remove(&d);
	}
}
