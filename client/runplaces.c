#include "client/run.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* In this order. The relative ones are for a tree that was moved. */
static const struct {
	const char *name, *places[4];
} files[] = {
        [RUN_LIBRARY] = {"libshmalloc-preload.so", {SHMALLOC_LIBDIR, "../lib", "../lib/x86_64-linux-gnu"}},
        [RUN_DAEMON] = {"shmallocd", {SHMALLOC_SBINDIR, "../sbin"}},
        [RUN_CTL] = {"shmallocctl", {SHMALLOC_BINDIR}},
};

static bool is_there(char path[PATH_MAX], const char *dir, const char *place, const char *name)
{
	int len = place && *place == '/' ? snprintf(path, PATH_MAX, "%s/%s", place, name)
	          : place                ? snprintf(path, PATH_MAX, "%s/%s/%s", dir, place, name)
	                                 : snprintf(path, PATH_MAX, "%s/%s", dir, name);

	return len > 0 && len < PATH_MAX && access(path, R_OK) == 0;
}

bool run_find(enum run_place what, char path[PATH_MAX])
{
	char dir[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", dir, sizeof(dir) - 1);

	if (len <= 0)
		return false;
	dir[len] = 0;
	*strrchr(dir, '/') = 0;
	if (is_there(path, dir, NULL, files[what].name))
		return true;
	for (unsigned i = 0; i < 4 && files[what].places[i]; i++)
		if (is_there(path, dir, files[what].places[i], files[what].name))
			return true;
	return false;
}
