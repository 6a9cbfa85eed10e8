/* Sealed memory: what can be done to it and what cannot. */
#include "daemon/memfd.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/child.h"

TestSuite(memfd, .timeout = 60);

#define BYTES (1u << 20)

static int fd;

static void setup(void)
{
	fd = memfd_new("heap", "data", BYTES);
	cr_assert_geq(fd, 0);
}

Test(memfd, has_its_length_and_no_memory, .init = setup)
{
	struct stat st;

	cr_assert_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_size, BYTES);
	cr_expect_eq(st.st_blocks, 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
}

Test(memfd, is_cut_by_nobody, .init = setup)
{
	cr_expect_eq(ftruncate(fd, 4096), -1);
	cr_expect_eq(errno, EPERM);
	cr_expect_eq(ftruncate(fd, 2 * BYTES), -1);
	cr_expect_eq(errno, EPERM);
	cr_expect_eq(fallocate(fd, 0, BYTES, 4096), -1);
	cr_expect_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1, "nor sealed further");
}

Test(memfd, is_backed_and_dropped_as_other_memory, .init = setup)
{
	struct stat st;

	cr_expect_eq(fallocate(fd, FALLOC_FL_KEEP_SIZE, 8192, 8192), 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_blocks * 512, 8192);
	cr_expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 8192), 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_blocks, 0);
}

Test(memfd, readonly_is_for_reading, .init = setup)
{
	int readonly = memfd_open_readonly(fd);
	char byte = 'x';

	cr_assert_geq(readonly, 0);
	cr_expect_eq(pwrite(readonly, "y", 1, 0), -1);
	cr_expect_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, readonly, 0), MAP_FAILED);
	cr_expect_eq(fallocate(readonly, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), -1);
	cr_assert_eq(pwrite(fd, "z", 1, 0), 1);
	cr_expect_eq(pread(readonly, &byte, 1, 0), 1);
	cr_expect_eq(byte, 'z', "it is the same memory");
}

static int reopen_as_another(void *arg)
{
	char path[64];
	int readonly = *(int *)arg;

	child_check(setgid(65534) == 0 && setuid(65534) == 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", readonly);
	child_check(open(path, O_RDWR | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(open(path, O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES);
	child_check(fchmod(readonly, 0666) < 0 && errno == EPERM);
	return 0;
}

Test(memfd, is_not_opened_by_another_user, .init = setup)
{
	int readonly = memfd_open_readonly(fd);

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_expect_eq(child_run(reopen_as_another, &readonly), 0);
}

Test(memfd, what_is_not_ours_is_seen, .init = setup)
{
	int loose = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING),
	    zero = open("/dev/zero", O_RDWR | O_CLOEXEC);

	cr_expect(memfd_is_good(fd));
	cr_expect_not(memfd_is_good(loose), "not sealed");
	cr_expect_not(memfd_is_good(zero), "no memory");
	cr_expect_not(memfd_is_good(-1));
	cr_assert_eq(fchmod(fd, 0644), 0);
	cr_expect_not(memfd_is_good(fd), "others may read it");
}
