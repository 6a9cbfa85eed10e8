#include "daemon/hugepages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define SYSTEM_FILE "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define MOUNTS_FILE "/proc/self/mountinfo"

/* What a tmpfs does, in its own words; never where nobody has said anything. */
struct huge {
	char word[32];
};

/* The word in brackets: "always within_size advise [never] deny force". */
static struct huge of_system(void)
{
	struct huge huge = {"never"};
	char line[128] = "";
	FILE *file = fopen(SYSTEM_FILE, "re");

	if (file && fgets(line, sizeof(line), file)) {
		const char *word = strchr(line, '[');

		if (word)
			snprintf(huge.word, sizeof(huge.word), "%.*s", (int)strcspn(word + 1, "]"), word + 1);
	}
	if (file)
		(void)fclose(file);
	return huge;
}

/* "36 35 98:0 /mnt1 ...": the third field is the device. */
static dev_t device_in(const char *line)
{
	char *at;

	(void)strtoul(line, &at, 10);
	(void)strtoul(at, &at, 10);
	unsigned long major = strtoul(at, &at, 10), minor = *at == ':' ? strtoul(at + 1, NULL, 10) : 0;

	return makedev((unsigned)major, (unsigned)minor);
}

/* That of the mount with this device; false: it is none that we see, as with memory files. */
static bool of_mount(dev_t device, struct huge *huge)
{
	char line[4096];
	bool found = false;
	FILE *file = fopen(MOUNTS_FILE, "re");

	while (file && !found && fgets(line, sizeof(line), file)) {
		found = device_in(line) == device;
		const char *options = found ? strstr(line, " - ") : NULL;
		const char *word = options ? strstr(options, "huge=") : NULL;

		if (found)
			snprintf(huge->word, sizeof(huge->word), "%.*s", word ? (int)strcspn(word + 5, ",\n ") : 5,
			        word ? word + 5 : "never");
	}
	if (file)
		(void)fclose(file);
	return found;
}

static struct huge of_object(int fd)
{
	struct huge system = of_system(), mount;
	struct stat st;

	if (!strcmp(system.word, "deny") || !strcmp(system.word, "force") || fstat(fd, &st) ||
	        !of_mount(st.st_dev, &mount))
		return system;
	return mount;
}

bool hugepages_advised(int fd, enum config_huge want, char *why, size_t room)
{
	static const char *const words[] = {"never", "advise", "always", "within_size"};
	const struct huge huge = of_object(fd);
	bool none = !strcmp(huge.word, "never") || !strcmp(huge.word, "deny");
	bool in_full = want == HUGE_ADVISE ? !none : !strcmp(huge.word, words[want]) || !strcmp(huge.word, "force");

	*why = 0;
	if (want == HUGE_NEVER)
		return false;
	if (!in_full)
		snprintf(why, room, "huge-pages = %s, but its tmpfs says %s: %s", words[want], huge.word,
		        none ? "there are none" : "clients advise them, and get what that brings");
	return !none;
}
