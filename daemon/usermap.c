#include "daemon/usermap.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TEXT_MAX 16384u /* the kernel has at most 340 lines */
#define IDS UINT32_MAX /* the last one, -1, is nobody's */

/* False: it cannot be read. An empty file is no error: a namespace that maps nobody has one. */
static bool read_text(const char *path, char *text, size_t room)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	size_t got = fread(text, 1, room - 1, file);
	bool good = !ferror(file);

	text[got] = 0;
	fclose(file);
	return good;
}

bool usermap_is_whole(const char *text)
{
	uint64_t ids = 0;

	while (*text) {
		char *end;
		uint64_t count = 0;

		for (int field = 0; field < 3; field++, text = end) { /* inside, outside, how many */
			count = strtoull(text, &end, 10);
			if (end == text)
				return ids == IDS;
		}
		if (count > IDS)
			return false;
		ids += count;
	}
	return ids == IDS;
}

int64_t usermap_unmapped(void)
{
	static char text[TEXT_MAX];
	char *end;

	if (!read_text("/proc/self/uid_map", text, sizeof(text)))
		return access("/proc/self", F_OK) ? (int64_t)USERMAP_OVERFLOW
		                                  : -1; /* a kernel without such namespaces */
	if (usermap_is_whole(text))
		return -1;
	if (!read_text("/proc/sys/kernel/overflowuid", text, sizeof(text)))
		return USERMAP_OVERFLOW;
	uint64_t id = strtoull(text, &end, 10);

	return end == text || id > UINT32_MAX ? USERMAP_OVERFLOW : (int64_t)id;
}
