#include "client/sockpath.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/ourdir.h"

static bool is_there(const char *path, int len)
{
	return len > 0 && len < SHMI_PATH_MAX && access(path, F_OK) == 0;
}

bool shmi_socket_default(char path[SHMI_PATH_MAX])
{
	const char *given = secure_getenv("SHMALLOC_SOCKET"), *runtime = secure_getenv("XDG_RUNTIME_DIR");
	char tmp[SHMI_PATH_MAX]; /* a daemon without $XDG_RUNTIME_DIR makes it */

	if (given && *given)
		return snprintf(path, SHMI_PATH_MAX, "%s", given) < SHMI_PATH_MAX;
	if (runtime && shmi_dir_is_ours(runtime) &&
	        is_there(path, snprintf(path, SHMI_PATH_MAX, "%s/shmalloc/shmalloc.sock", runtime)))
		return true;
	(void)snprintf(tmp, sizeof(tmp), "/tmp/shmalloc-%u", (unsigned)geteuid());
	if (shmi_dir_is_ours(tmp) && is_there(path, snprintf(path, SHMI_PATH_MAX, "%.90s/shmalloc.sock", tmp)))
		return true;
	return snprintf(path, SHMI_PATH_MAX, "/run/shmalloc/shmalloc.sock") < SHMI_PATH_MAX;
}
