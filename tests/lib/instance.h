/* A name for an instance of one's own, whose shared objects are gone when this process ends, also if its test fails. For tests that
 * are the daemon themselves; tests/lib/daemon.h has those that start one. */
#ifndef TEST_INSTANCE_H
#define TEST_INSTANCE_H

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char instance_objects[96];
static pid_t instance_keeper; /* a forked child has no business with them */

static inline void instance_remove(void)
{
	glob_t found;

	if (instance_keeper != getpid() || glob(instance_objects, 0, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		unlink(found.gl_pathv[i]);
	globfree(&found);
}

/* $TEST_INSTANCE begins it, as with tests/lib/daemon.h. */
static inline void instance_name(char *name, size_t room, const char *suite)
{
	const char *prefix = getenv("TEST_INSTANCE");

	snprintf(name, room, "%.30s-%s-%d", prefix ? prefix : "test", suite, (int)getpid());
	snprintf(instance_objects, sizeof(instance_objects), "/dev/shm/shmalloc.%.60s.*", name);
	if (instance_keeper != getpid())
		atexit(instance_remove);
	instance_keeper = getpid();
}

#endif
