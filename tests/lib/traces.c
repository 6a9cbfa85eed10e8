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

/* "%s/%s.trace.zst" into `path`; NULL if it is not there. */
static const char *file_in(const char *dir, const char *name)
{
	static char path[PATH_MAX];
	int len = snprintf(path, sizeof(path), "%s/%s.trace.zst", dir, name);

	return len > 0 && (size_t)len < sizeof(path) && access(path, R_OK) == 0 ? path : NULL;
}

const char *test_trace_path(const char *name)
{
	static const char mark[] = "README.md";
	const char *given = getenv("SHMALLOC_TRACES"), *readme = test_build_path("tests/data/README.md"), *path = NULL;
	char dir[PATH_MAX + 32];

	if (readme) {
		memccpy(dir, readme, 0, sizeof(dir));
		dir[strlen(dir) - strlen(mark)] = 0; /* the folder of the README */
		path = file_in(dir, name);
		memccpy(dir + strlen(dir), "../../../shared/traces", 0, sizeof(dir) - strlen(dir));
	}
	if (!path && given && *given)
		return file_in(given, name);
	return path || !readme ? path : file_in(dir, name);
}
