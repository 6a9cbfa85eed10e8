#include "client/sockpath.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_there(const char *path, int len)
{
	return len > 0 && len < SHMI_PATH_MAX && access(path, F_OK) == 0;
}

/* A daemon without $XDG_RUNTIME_DIR makes this directory. Anybody can make one of that name: it must be ours. */
static bool tmp_is_ours(void)
{
	char dir[SHMI_PATH_MAX];
	struct stat st;

	(void)snprintf(dir, sizeof(dir), "/tmp/shmalloc-%u", (unsigned)geteuid());
	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 0022);
}

bool shmi_socket_default(char path[SHMI_PATH_MAX])
{
	const char *given = secure_getenv("SHMALLOC_SOCKET"), *runtime = secure_getenv("XDG_RUNTIME_DIR");

	if (given && *given)
		return snprintf(path, SHMI_PATH_MAX, "%s", given) < SHMI_PATH_MAX;
	if (runtime && *runtime && is_there(path, snprintf(path, SHMI_PATH_MAX, "%s/shmalloc/shmalloc.sock", runtime)))
		return true;
	if (tmp_is_ours() &&
	        is_there(path, snprintf(path, SHMI_PATH_MAX, "/tmp/shmalloc-%u/shmalloc.sock", (unsigned)geteuid())))
		return true;
	return snprintf(path, SHMI_PATH_MAX, "/run/shmalloc/shmalloc.sock") < SHMI_PATH_MAX;
}
