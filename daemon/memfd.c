#include "daemon/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

struct memfd_name memfd_name(const char *heap, const char *part)
{
	struct memfd_name name;

	snprintf(name.text, sizeof(name.text), "%s.%s", heap, part);
	return name;
}

bool memfd_is_part(const char *name)
{
	static const char *const parts[] = {".meta", ".ctl", ".data", ".state"};
	const char *last = strrchr(name, '.');

	for (size_t i = 0; last && i < sizeof(parts) / sizeof(parts[0]); i++)
		if (!strcmp(last, parts[i]))
			return last > name;
	return false;
}

int memfd_new(const char *heap, const char *part, uint64_t bytes)
{
	char name[PASSED_NAME + 16];

	snprintf(name, sizeof(name), "shmalloc.%s", memfd_name(heap, part).text);
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0600) || ftruncate(fd, (off_t)bytes) || fcntl(fd, F_ADD_SEALS, SEALS)) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd;
}

bool memfd_is_good(int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & SEALS) == SEALS && !fstat(fd, &st) && S_ISREG(st.st_mode) &&
	       st.st_uid == geteuid() && !(st.st_mode & 0077);
}

int memfd_open_readonly(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int readonly = open(path, O_RDONLY | O_CLOEXEC);

	return readonly < 0 ? -errno : readonly;
}
