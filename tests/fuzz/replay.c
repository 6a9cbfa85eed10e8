/* Runs a fuzz target without a fuzzer: over its corpus, then over a fixed number of inputs made from it by a seeded generator. So `make
 * check` goes the ways that the fuzzers have found, with any compiler.
 *
 *	replay-NAME [FOLDER...]		tests/fuzz/corpus/NAME, and these
 *
 * SEED= and the number that is printed when it fails replay one made input (MADE=).
 */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 8192u
#define ROOM 70000u
#define MADE 400u /* inputs */
#define SECONDS 60u /* for one input: far more than any takes */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);
size_t LLVMFuzzerMutate(unsigned char *bytes, size_t len, size_t room);
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(unsigned char *bytes, size_t len, size_t room, unsigned seed);

static struct file {
	unsigned char *bytes;
	size_t len;
} files[FILES];

static uint32_t n_files;
static uint64_t state;
static char now[512]; /* what is being run */

static uint32_t below(uint32_t bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 16) % bound;
}

/* ---- files ---- */

static void load(const char *path)
{
	FILE *f = fopen(path, "rb");
	unsigned char *bytes = malloc(ROOM);

	if (!f || !bytes)
		abort();
	files[n_files].len = fread(bytes, 1, ROOM, f);
	files[n_files++].bytes = bytes;
	fclose(f);
}

static uint32_t load_all(const char *folder)
{
	struct dirent **entries;
	int n = scandir(folder, &entries, NULL, alphasort);
	uint32_t before = n_files;
	char path[512];

	for (int i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.' && n_files < FILES) {
			snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
			load(path);
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	return n_files - before;
}

/* ---- made inputs ---- */

static size_t splice(unsigned char *bytes, size_t len, size_t room)
{
	const struct file *other = &files[below(n_files)];
	size_t from = other->len ? below((uint32_t)other->len) : 0, n = other->len - from,
	       at = below((uint32_t)len + 1);

	n = n < room - at ? n : room - at;
	if (n)
		memcpy(bytes + at, other->bytes + from, n);
	return at + n > len ? at + n : len;
}

size_t LLVMFuzzerMutate(unsigned char *bytes, size_t len, size_t room)
{
	size_t at = len ? below((uint32_t)len) : 0;

	switch (below(6)) {
	case 0:
		return splice(bytes, len, room);
	case 1:
		if (len == room)
			return len;
		memmove(bytes + at + 1, bytes + at, len - at);
		bytes[at] = (unsigned char)below(256);
		return len + 1;
	case 2:
		if (len < 2)
			return len;
		memmove(bytes + at, bytes + at + 1, len - at - 1);
		return len - 1;
	case 3:
		if (len)
			bytes[at] ^= (unsigned char)(1u << below(8));
		return len;
	default:
		if (len)
			bytes[at] = (unsigned char)below(256);
		return len;
	}
}

static size_t make(unsigned char *bytes)
{
	const struct file *from = &files[below(n_files)];
	size_t len = from->len;

	memcpy(bytes, from->bytes, len);
	for (uint32_t times = 1 + below(8); times--;)
		len = LLVMFuzzerCustomMutator && below(2) ? LLVMFuzzerCustomMutator(bytes, len, ROOM, below(UINT32_MAX))
		                                          : LLVMFuzzerMutate(bytes, len, ROOM);
	return len;
}

/* ---- running ---- */

static void say_where(int signo)
{
	(void)!write(STDERR_FILENO, now, strlen(now));
	(void)signal(signo, SIG_DFL);
	(void)raise(signo);
}

static void run(const unsigned char *bytes, size_t len)
{
	unsigned char *exact = malloc(len ? len : 1); /* so that a sanitizer sees a step beyond */

	if (!exact)
		abort();
	memcpy(exact, bytes, len);
	alarm(SECONDS);
	(void)LLVMFuzzerTestOneInput(exact, len);
	alarm(0);
	free(exact);
}

static void run_made(uint64_t seed, uint32_t number)
{
	static unsigned char bytes[ROOM];

	state = seed * 0x9e3779b97f4a7c15ull + number + 1;
	for (int i = 0; i < 8; i++)
		(void)below(2);
	snprintf(now, sizeof(now), "in the input SEED=%llu MADE=%u\n", (unsigned long long)seed, number);
	run(bytes, make(bytes));
}

int main(int argc, char **argv)
{
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGALRM, SIGFPE, SIGILL};
	const char *name = strrchr(argv[0], '-'), *seed = getenv("SEED"), *one = getenv("MADE");
	uint32_t made = getenv("SHMALLOC_SOAK") ? 100 * MADE : MADE;
	uint64_t from = seed ? strtoull(seed, NULL, 10) : 1;
	char folder[256];

	snprintf(folder, sizeof(folder), "tests/fuzz/corpus/%s", name ? name + 1 : "");
	if (!load_all(folder)) {
		fprintf(stderr, "there is no corpus in %s\n", folder);
		return 1;
	}
	for (int i = 1; i < argc; i++)
		(void)load_all(argv[i]);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		(void)signal(signals[i], say_where);
	for (uint32_t i = 0; i < n_files && !one; i++) {
		snprintf(now, sizeof(now), "in file %u of %s\n", i, folder);
		run(files[i].bytes, files[i].len);
	}
	for (uint32_t i = one ? (uint32_t)strtoul(one, NULL, 10) : 0; i < made; i++) {
		run_made(from, i);
		if (one)
			break;
	}
	printf("%s: %u files and %u made inputs, nothing wrong\n", name + 1, n_files, made);
	for (uint32_t i = 0; i < n_files; i++)
		free(files[i].bytes);
	return 0;
}
