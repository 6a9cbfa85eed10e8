/* A client of another user has the daemon's metadata for reading only, whatever it tries. Needs root. */
#include "tests/system/system.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"

#define NOBODY 65534

static struct codec_scratch scratch;
static struct wire_msg msg;
static unsigned char bytes[WIRE_MAX];

static void become_nobody(void)
{
	child_check(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* One request; the reply is in msg. */
static void ask(int sock, enum wire_kind want, int *fds, unsigned *n_fds)
{
	size_t len = 0;

	child_check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
	child_check(shmi_chan_send(sock, bytes, len, NULL, 0) == 0);
	child_check(shmi_chan_wait(sock, 0, shmi_chan_now_ns() + 5000000000ll) == 0);
	child_check(shmi_chan_recv(sock, bytes, sizeof(bytes), &len, fds, n_fds) == 0);
	child_check(shmi_codec_decode(&msg, &scratch, bytes, len) == 0);
	child_check(msg.kind == want);
}

/* Attaches by hand, so as to have the descriptors themselves. */
static void attach(const struct test_daemon *d, int *fds)
{
	unsigned n = WIRE_FDS;
	int sock = -1;

	child_check(shmi_chan_connect(d->socket, &sock) == 0);
	msg = (struct wire_msg){.serial = 1, .kind = WIRE_HELLO};
	msg.u.hello.protocol = WIRE_PROTOCOL;
	msg.u.hello.layout_hash = shmi_layout_hash();
	ask(sock, WIRE_HELLO_OK, NULL, NULL);
	msg = (struct wire_msg){.serial = 2, .kind = WIRE_ATTACH};
	snprintf(msg.u.attach.heap, sizeof(msg.u.attach.heap), "%s", d->heap);
	ask(sock, WIRE_ATTACH_OK, fds, &n);
	child_check(n == WIRE_FDS);
}

static void expect_cannot_reopen(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	child_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(truncate(path, 0) != 0 && errno == EACCES);
	child_check(fchmod(fd, 0666) != 0 && errno == EPERM);
}

static int try_to_write(void *arg)
{
	const struct test_daemon *d = arg;
	char path[256];
	int fds[WIRE_FDS];
	struct stat st;

	become_nobody();
	attach(d, fds);
	int meta = fds[0];

	child_check(fstat(meta, &st) == 0 && st.st_size > 4096 && st.st_uid != NOBODY);
	child_check(pwrite(meta, "x", 1, 0) < 0 && errno == EBADF);
	child_check(ftruncate(meta, 0) != 0 && (errno == EINVAL || errno == EBADF));
	child_check(fallocate(meta, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0 && errno == EBADF);
	child_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, meta, 0) == MAP_FAILED && errno == EACCES);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, meta, 0);

	child_check(map != MAP_FAILED);
	child_check(mprotect(map, 4096, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
	expect_cannot_reopen(meta);
	for (unsigned i = 1; i < WIRE_FDS; i++) /* ctl and data are for writing, but not for taking away their modes */
		child_check(fchmod(fds[i], 0666) != 0 && errno == EPERM);
	snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.%s.meta", d->instance, d->heap);
	child_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(unlink(path) != 0);
	snprintf(path, sizeof(path), "/dev/shm/shmalloc.%s.%s.state", d->instance, d->heap);
	child_check(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	return 0;
}

/* The library's own mapping of meta: the only read-only map of a shared object. */
static int try_mprotect(void *arg)
{
	char line[512], path[64], mode[8];
	FILE *maps;
	int seen = 0;

	(void)arg;
	become_nobody();
	void *block = shma_malloc(100);

	child_check(block);
	maps = fopen("/proc/self/maps", "r");
	child_check(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long from, to;

		if (!strstr(line, ".meta") || sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3)
			continue;
		seen++;
		child_check(mode[1] == '-');
		child_check(mprotect((void *)from, to - from, PROT_READ | PROT_WRITE) != 0 && errno == EACCES);
		snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", from, to);
		child_check(open(path, O_RDWR | O_CLOEXEC) < 0);
	}
	fclose(maps);
	child_check(seen > 0);
	shma_free(block);
	return 0;
}

static bool start_for_all(struct test_daemon *d)
{
	if (geteuid() != 0) {
		fprintf(stderr, "skipped: becoming another user needs root\n");
		return false;
	}
	system_start(d, NULL);
	cr_assert_eq(chmod(d->dir, 0755), 0);
	cr_assert_eq(chmod(d->socket, 0666), 0);
	return true;
}

Test(uid, another_user_cannot_write_meta)
{
	struct test_daemon d;

	if (!start_for_all(&d))
		return;
	cr_expect_eq(child_run(try_to_write, &d), 0);
	system_expect_empty(&d);
	system_end(&d);
}

Test(uid, nor_make_the_librarys_map_writable)
{
	struct test_daemon d;

	if (!start_for_all(&d))
		return;
	cr_expect_eq(child_run(try_mprotect, NULL), 0);
	system_expect_empty(&d);
	system_end(&d);
}
