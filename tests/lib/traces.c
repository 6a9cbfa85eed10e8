#include "tests/lib/traces.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/daemon.h"

const char *const test_traces_own[] = {"jq-json", "gs-png", "ffmpeg-x264", NULL};
const char *const test_traces_all[] = {"jq-json", "gs-png", "ffmpeg-x264", "sqlite-mix", "python-json", "perl-text",
        "cc1-sqlite", "redis-mixed", "mariadb-oltp", "git-pack", NULL};

const char *test_trace_path(const char *name)
{
	static char path[PATH_MAX];
	const char *given = getenv("SHMALLOC_TRACES"), *data = test_build_path("tests/data/README.md");
	char root[PATH_MAX] = "";

	if (data)
		snprintf(root, sizeof(root), "%.*s", (int)(strlen(data) - strlen("/tests/data/README.md")), data);
	snprintf(path, sizeof(path), "%s/tests/data/%s.trace.zst", root, name);
	if (access(path, R_OK) == 0)
		return path;
	if (given && *given)
		snprintf(path, sizeof(path), "%s/%s.trace.zst", given, name);
	else
		snprintf(path, sizeof(path), "%s/../shared/traces/%s.trace.zst", root, name);
	return access(path, R_OK) == 0 ? path : NULL;
}
