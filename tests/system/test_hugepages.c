/* Clients advise huge pages where the heap is configured so and its tmpfs takes advice; elsewhere the log says why not. In a mount
 * namespace with a /dev/shm of our own, which needs root. */
#include "tests/system/system.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

#include "client/shmalloc.h"

/* A /dev/shm with this option, for this process and its children. */
static bool mount_shm(const char *option)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	return mount("tmpfs", "/dev/shm", "tmpfs", 0, option) == 0;
}

/* Whether the kernel has been advised of the heap's data: "hg" among the flags of the mapping. */
static int is_advised(void *arg)
{
	char line[512];
	bool in_data = false, advised = false, seen = false;

	(void)arg;
	child_check(shma_malloc(100));
	FILE *maps = fopen("/proc/self/smaps", "re");

	child_check(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (strchr(line, '-') && strchr(line, '/'))
			in_data = strstr(line, ".data") != NULL;
		if (!in_data || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		seen = true;
		advised = advised || strstr(line, " hg") != NULL;
	}
	fclose(maps);
	child_check(seen);
	return advised ? 10 : 20;
}

static bool says(const struct test_daemon *d, const char *what)
{
	char text[8192] = "";
	FILE *log = fopen(d->log, "re");
	size_t n = log ? fread(text, 1, sizeof(text) - 1, log) : 0;

	if (log)
		fclose(log);
	text[n] = 0;
	return strstr(text, what) != NULL;
}

static void expect_advice(const char *mounted, const char *configured, bool advised, const char *said)
{
	struct test_daemon d;
	const char *const args[] = {"--huge-pages", configured, "--size", "256MiB", NULL};

	if (!mount_shm(mounted)) {
		fprintf(stderr, "skipped: a /dev/shm of our own with %s needs root and a kernel that has it\n",
		        mounted);
		return;
	}
	system_start(&d, args);
	pid_t pid = child_start(is_advised, NULL);

	cr_expect_eq(child_join(pid), advised ? 10 : 20, "mounted with %s, configured %s", mounted, configured);
	if (said)
		cr_expect(says(&d, said), "the log does not say '%s'", said);
	else
		cr_expect_not(says(&d, "huge-pages"), "the log complains");
	system_end(&d);
}

Test(hugepages, are_advised_where_the_tmpfs_takes_advice)
{
	expect_advice("huge=advise", "advise", true, NULL);
}

Test(hugepages, are_not_advised_unless_configured)
{
	expect_advice("huge=advise", "never", false, NULL);
}

Test(hugepages, are_not_advised_where_there_are_none)
{
	expect_advice("huge=never", "advise", false,
	        "heap 'default': huge-pages = advise, but its tmpfs says never: there are none");
}

Test(hugepages, what_the_mount_is_to_do_is_said)
{
	expect_advice("huge=advise", "within_size", true,
	        "huge-pages = within_size, but its tmpfs says advise: clients advise them");
}

Test(hugepages, a_mount_that_does_so_is_right)
{
	expect_advice("huge=within_size", "within_size", true, NULL);
}
