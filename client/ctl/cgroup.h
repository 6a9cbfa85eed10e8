/* The control group of a process, from /proc: the daemon's service does not see that, whoever runs shmallocctl may. */
#ifndef CLIENT_CTL_CGROUP_H
#define CLIENT_CTL_CGROUP_H

#include <stddef.h>
#include <stdint.h>

/* The path in the unified hierarchy, else in that of systemd; "-" if it cannot be read. */
void ctl_cgroup(uint32_t pid, char *to, size_t room);

/* The same from the text of /proc/PID/cgroup, which is changed. NULL: none is told. */
const char *ctl_cgroup_parse(char *text);

#endif
