/* One daemon for an instance. */
#include "daemon/lock.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lib/instance.h"

static char instance[64], why[256];

static void begin(void)
{
	instance_name(instance, sizeof(instance), "lock");
}

static int take(struct lock *lock)
{
	return lock_take(lock, instance, why, sizeof(why));
}

Test(lock, one_daemon_per_instance, .init = begin)
{
	struct lock lock, other;
	char pid[32];

	cr_assert_eq(take(&lock), 0);
	cr_assert_eq(take(&other), -EWOULDBLOCK);
	snprintf(pid, sizeof(pid), "pid %d", (int)getpid());
	cr_assert(strstr(why, pid), "%s", why);
	cr_assert(strstr(why, instance), "%s", why);
	lock_drop(&other);
	cr_assert_eq(take(&other), -EWOULDBLOCK, "the refused one has not removed it");
	lock_drop(&lock);
	cr_assert_eq(take(&other), 0);
	lock_drop(&other);
	lock_drop(&other); /* harmless */
}

/* Somebody else has made it, to lock us out: that is no daemon of ours. */
Test(lock, of_another_user, .init = begin)
{
	struct lock lock;
	char name[128];

	if (geteuid() != 0)
		cr_skip_test("needs root");
	snprintf(name, sizeof(name), "/shmalloc.%s.lock", instance);
	int fd = shm_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(fchown(fd, 1234, 1234), 0);
	cr_assert_eq(flock(fd, LOCK_EX), 0);
	cr_assert_eq(take(&lock), -EPERM);
	cr_assert(strstr(why, "not ours"), "%s", why);
	cr_assert_eq(fchown(fd, 0, 0), 0);
	cr_assert_eq(take(&lock), -EWOULDBLOCK);
	close(fd);
	cr_assert_eq(take(&lock), 0);
	lock_drop(&lock);
}

Test(lock, goes_with_its_process, .init = begin)
{
	struct lock lock;
	pid_t child = fork();
	int status;

	if (!child)
		_exit(take(&lock) ? 1 : 0); /* dies holding it */
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert_eq(take(&lock), 0);
	lock_drop(&lock);
}
