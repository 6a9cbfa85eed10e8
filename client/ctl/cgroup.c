#include "client/ctl/cgroup.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/fd.h"
#include "proto/report/report.h"

#define CGROUP_TEXT 4096u /* of /proc/PID/cgroup: a dozen lines */

/* Lines are HIERARCHY:CONTROLLERS:PATH; 0:: is the unified one. */
const char *ctl_cgroup_parse(char *text)
{
	const char *systemd = NULL;
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n")) != NULL) {
		if (strncmp(line, "0::", 3) == 0 && line[3] == '/' && line[4])
			return line + 3;
		char *path = strstr(line, ":name=systemd:");

		if (path)
			systemd = path + strlen(":name=systemd:");
		else if (strcmp(line, "0::/") == 0 && !systemd)
			systemd = line + 3;
	}
	return systemd;
}

void ctl_cgroup(uint32_t pid, char *to, size_t room)
{
	char path[64], text[CGROUP_TEXT];
	const char *group = NULL;

	snprintf(path, sizeof(path), "/proc/%u/cgroup", pid);
	FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	if (len > 0) {
		text[len] = 0;
		group = ctl_cgroup_parse(text);
	}
	report_clean(group && *group ? group : "-", to, room);
}
