#include "daemon/aside.h"

#include "daemon/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct objects_path aside_path(const struct objects *o, unsigned number, enum heap_object i)
{
	char part[32];

	snprintf(part, sizeof(part), "aside-%u.%s", number, objects_suffix[i]);
	return objects_path(o, part);
}

static bool is_there(struct objects_path path)
{
	struct stat st;

	return lstat(path.text, &st) == 0;
}

/* The name of one part is free, or has been taken. */
static int move(const struct objects *o, unsigned number, enum heap_object i)
{
	struct objects_path from = objects_path(o, objects_suffix[i]), to = aside_path(o, number, i);

	return renameat2(AT_FDCWD, from.text, AT_FDCWD, to.text, RENAME_NOREPLACE) ? -errno : 0;
}

void aside_finish(const struct objects *o)
{
	unsigned last = 0;

	if (objects_exist(o))
		return;
	for (unsigned n = 1; n <= ASIDE_MOST; n++)
		if (is_there(aside_path(o, n, HEAP_META)) && !is_there(aside_path(o, n, HEAP_STATE)))
			last = n; /* its state, which goes last, is not there yet */
	for (int i = HEAP_CTL; last && i < HEAP_OBJECTS; i++)
		(void)move(o, last, (enum heap_object)i);
}

/* A number of which nothing is left, so that a heap never gets parts of another. */
static unsigned free_number(const struct objects *o)
{
	for (unsigned n = 1; n <= ASIDE_MOST; n++) {
		bool taken = false;

		for (int i = 0; i < HEAP_OBJECTS; i++)
			taken = taken || is_there(aside_path(o, n, (enum heap_object)i));
		if (!taken)
			return n;
	}
	return 0;
}

static int set_aside_not(struct objects *o, int error, const char *what)
{
	if (error == -EEXIST)
		snprintf(o->why, sizeof(o->why), "%u heaps are set aside already", ASIDE_MOST);
	else if (error)
		snprintf(o->why, sizeof(o->why), "cannot %s: %s", what, strerror(-error));
	return error;
}

/* Of what comes from its store the service manager takes no second descriptor, but a second description of the same memory. */
static int keep_again(int fd, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDWR | O_CLOEXEC);
	int error = again < 0 ? -errno : passed_keep(again, name);

	if (again >= 0)
		close(again);
	return error;
}

/* Sealed memory, which is open still, is kept under another name: meta last, so that a number is taken when all of it is there. */
static int keep_aside(struct objects *o, unsigned *number)
{
	char part[32];
	int error = 0;

	for (*number = 1; *number <= ASIDE_MOST; ++*number) {
		snprintf(part, sizeof(part), "aside-%u.meta", *number);
		if (!passed_has(memfd_name(o->heap, part).text))
			break;
	}
	if (*number > ASIDE_MOST)
		return -EEXIST;
	for (int i = HEAP_OBJECTS - 1; i >= 0 && !error; i--) {
		snprintf(part, sizeof(part), "aside-%u.%s", *number, objects_suffix[i]);
		error = o->fd[i] >= 0 ? keep_again(o->fd[i], memfd_name(o->heap, part).text) : 0;
	}
	if (error)
		return error;
	objects_unlink(o);
	objects_close(o);
	return 0;
}

int aside_set(struct objects *o, unsigned *number)
{
	if (o->sealed)
		return set_aside_not(o, keep_aside(o, number), "have it kept by the service manager");
	objects_close(o);
	*number = free_number(o);
	int error = *number ? 0 : -EEXIST;

	for (int i = 0; !error && i < HEAP_OBJECTS; i++) {
		error = move(o, *number, (enum heap_object)i);
		if (error == -ENOENT && i != HEAP_META)
			error = 0; /* a part that was lost before */
	}
	return set_aside_not(o, error, "rename its objects in /dev/shm");
}
