/* The configuration file is read, whatever is in it: it is good or each fault is said in words; and what is printed of a good one is
 * a configuration that says the same.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/config.h"
#include "tests/fuzz/input.h"

#define ROOM 262144u

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct {
	int file, printed, out; /* the configuration; what --print-config says; the real standard output */
	char path[32];
	struct config first, second;
	char text[2][ROOM];
} s;

static void insist(bool holds, const char *what)
{
	input_insist(holds ? NULL : what);
}

static void init(void)
{
	s.file = memfd_create("config", MFD_CLOEXEC);
	s.printed = memfd_create("printed", MFD_CLOEXEC);
	s.out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	insist(s.file >= 0 && s.printed >= 0 && s.out >= 0, "no files");
	snprintf(s.path, sizeof(s.path), "/proc/self/fd/%d", s.file);
}

static void fill(const void *bytes, size_t len)
{
	insist(ftruncate(s.file, 0) == 0 && pwrite(s.file, bytes, len, 0) == (ssize_t)len, "the file");
}

static enum config_result parse(struct config *config, const char *what)
{
	static char program[] = "shmallocd", option[] = "--config", show[32];
	static char *argv[5]; /* config_again reads it once more */

	argv[0] = program;
	argv[1] = option;
	argv[2] = s.path;
	argv[3] = what ? show : NULL;
	snprintf(show, sizeof(show), "%s", what ? what : "");
	return config_parse(config, what ? 4 : 3, argv);
}

/* What --print-config says of the file, without the comments, which say where it comes from. Its length. */
static size_t print(struct config *config, char *text)
{
	size_t len = 0;
	char *line, *rest;
	static char all[ROOM];

	insist(fflush(stdout) == 0 && ftruncate(s.printed, 0) == 0 && lseek(s.printed, 0, SEEK_SET) == 0, "the output");
	insist(dup2(s.printed, STDOUT_FILENO) >= 0, "the output");
	enum config_result result = parse(config, "--print-config");

	insist(fflush(stdout) == 0 && dup2(s.out, STDOUT_FILENO) >= 0, "the output");
	insist(result == CONFIG_SHOWN, "a good configuration is not printed");
	ssize_t n = pread(s.printed, all, sizeof(all) - 1, 0);

	insist(n > 0, "nothing is printed");
	all[n] = 0;
	for (line = strtok_r(all, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (*line != '#')
			len += (size_t)snprintf(text + len, ROOM - len, "%s\n", line);
	return len;
}

static void look_at_faults(const struct config *config)
{
	insist(config->faults, "a bad configuration without a fault");
	for (uint32_t i = 0; i < config->faults && i < CONFIG_FAULTS_MAX; i++)
		insist(config->fault[i][0], "a fault without a word");
}

/* Who is listed may attach; who is not may if nobody is. */
static void look_at_access(const struct access *access)
{
	const uint32_t other = UINT32_MAX, owner = UINT32_MAX - 1; /* the first is a number that no list takes */
	struct peer peer = {.uid = other, .gid = other};
	struct peer_groups groups = {.n = 2, .id = {other, other}};

	insist(access_allows(access, &peer, &groups, owner) == (!access->users.n && !access->groups.n), "a stranger");
	for (uint32_t i = 0; i < access->users.n; i++) {
		peer.uid = access->users.id[i];
		insist(access_allows(access, &peer, &groups, owner), "a user who is listed may not attach");
	}
	peer.uid = other;
	for (uint32_t i = 0; i < access->groups.n; i++) {
		groups.id[1] = access->groups.id[i];
		insist(access_allows(access, &peer, &groups, owner), "a member of a group may not attach");
	}
}

static void look_at_heaps(struct config *config)
{
	insist(config->heaps && config->heaps <= CONFIG_HEAPS_MAX, "the number of heaps");
	for (uint32_t i = 0; i < config->heaps; i++) {
		insist(config->heap[i].size, "a heap without a size");
		insist(config_heap_of(config, config->heap[i].name) == &config->heap[i], "two heaps of one name");
		(void)config_limits(&config->heap[i]);
		look_at_access(&config->heap[i].access);
	}
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	if (!s.out)
		init();
	fill(bytes, len);
	enum config_result result = parse(&s.first, NULL);

	if (result == CONFIG_BAD) {
		look_at_faults(&s.first);
		return 0;
	}
	insist(result == CONFIG_RUN && !s.first.faults, "neither good nor bad");
	look_at_heaps(&s.first);
	insist(config_again(&s.second, &s.first) == CONFIG_RUN, "good, and then bad");
	size_t n = print(&s.second, s.text[0]);

	fill(s.text[0], n);
	size_t again = print(&s.second, s.text[1]);

	insist(again == n && memcmp(s.text[0], s.text[1], n) == 0, "what is printed says something else");
	return 0;
}
