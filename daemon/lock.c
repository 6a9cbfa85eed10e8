#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_DIR "/dev/shm"

/* The object may have been removed between our open and our lock: then we hold nothing. */
static bool is_still_named(int fd, const char *name)
{
	struct stat mine, named;
	int again = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
	bool same = again >= 0 && !fstat(fd, &mine) && !fstat(again, &named) && mine.st_ino == named.st_ino;

	if (again >= 0)
		close(again);
	return same;
}

/* Anybody can make an object of that name in /dev/shm, and lock it. */
static bool is_ours(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & 0077);
}

static long holder(int fd)
{
	char pid[32] = "";
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	return n > 0 ? strtol(pid, NULL, 10) : 0;
}

static int write_pid(int fd)
{
	char pid[32];
	int len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());

	return ftruncate(fd, 0) || pwrite(fd, pid, (size_t)len, 0) != len ? -ENOSPC : 0;
}

/* Returns 0 when the lock is ours; -ENOENT: it has been removed meanwhile, and has to be tried again; or an error with the reason in words. */
static int take(const char *name, const char *instance, int fd, char *why, size_t room)
{
	if (!is_ours(fd)) {
		snprintf(why, room,
		        "the lock " SHM_DIR "%s is not ours: it must be a file of uid %u with mode 0600; remove it, or "
		        "choose another --instance",
		        name, geteuid());
		return -EPERM;
	}
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		snprintf(why, room, "instance '%s' is already served by the shmallocd with pid %ld", instance,
		        holder(fd));
		return -EWOULDBLOCK;
	}
	if (!is_still_named(fd, name))
		return -ENOENT;
	int error = write_pid(fd);

	if (error)
		snprintf(why, room, "cannot write the lock %s: %s", name, strerror(-error));
	return error;
}

int lock_take(struct lock *lock, const char *instance, char *why, size_t room)
{
	int error;

	lock->fd = -1;
	snprintf(lock->name, sizeof(lock->name), "/shmalloc.%s.lock", instance);
	do {
		int fd = shm_open(lock->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0) {
			error = -errno;
			snprintf(why, room, "cannot open the lock %s: %s", lock->name, strerror(-error));
			return error;
		}
		error = take(lock->name, instance, fd, why, room);
		if (error)
			close(fd);
		else
			lock->fd = fd;
	} while (error == -ENOENT);
	return error;
}

void lock_drop(struct lock *lock)
{
	if (lock->fd < 0)
		return;
	shm_unlink(lock->name);
	close(lock->fd);
	lock->fd = -1;
}
