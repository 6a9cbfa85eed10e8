#include "tests/bench/replay/replay.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PROCS 256u
#define MAX_REPEAT 1000u

/* Long options without a letter. */
enum { KEY_HEAP = 256, KEY_DAEMON, KEY_SIZE, KEY_PAUSE, KEY_JSON, KEY_ELSEWHERE };

static const struct option_row {
	const char *name;
	int key;
	const char *arg; /* NULL: none */
	const char *help;
} rows[] = {
        {"mode", 'm', "MODE",
                "single: one process, in file order (default)\n"
                "procs: -n processes at once on one heap, each the whole trace\n"
                "handover: one process allocates, another checks and frees\n"
                "threads: a thread for each of the trace's"},
        {"processes", 'n', "N", "how many, in mode procs (default 2)"},
        {"allocator", 'a', "NAME", "shma (default), malloc or both"},
        {"check", 'c', NULL, "fill and check every byte, alignments and sizes; no times"},
        {"repeat", 'r', "R", "runs per result, of which the median counts (default 3; 1 with -c)"},
        {"daemon", KEY_DAEMON, "PATH", "start this shmallocd, private and new, for each run"},
        {"size", KEY_SIZE, "SIZE", "heap size of that daemon (default 8GiB)"},
        {"socket", 's', "PATH", "of a daemon that runs already"},
        {"heap", KEY_HEAP, "NAME", "heap of that daemon"},
        {"pause-at", KEY_PAUSE, "EVENT", "there the first player prints a line and waits for a byte on standard input"},
        {"elsewhere", KEY_ELSEWHERE, NULL, "every second process has the heap at another address"},
        {"json", KEY_JSON, NULL, "one object per line"},
        {"help", 'h', NULL, "this text"},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void help_row(const struct option_row *row)
{
	char flag[64];
	const char *text = row->help;

	snprintf(flag, sizeof(flag), "%s%c%s--%s%s%s", row->key < 256 ? "-" : "  ", row->key < 256 ? row->key : ' ',
	        row->key < 256 ? ", " : " ", row->name, row->arg ? " " : "", row->arg ? row->arg : "");
	for (const char *label = flag; text; label = "") {
		int len = (int)strcspn(text, "\n");

		printf("  %-24s %.*s\n", label, len, text);
		text = text[len] ? text + len + 1 : NULL;
	}
}

static void help(void)
{
	puts("usage: replay [options] TRACE.zst...\n\nReplays recorded allocation traces (tests/data/README.md).\n");
	for (size_t i = 0; i < ROWS; i++)
		help_row(&rows[i]);
	puts("\nExit status: 0, 1 if an error was found or an allocation failed, 2 for a wrong call.");
}

static bool number(const char *text, uint64_t max, uint64_t *n)
{
	char *end;

	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);

	if (errno || end == text || *end || *text == '-' || value > max) {
		fprintf(stderr, "replay: not a number up to %llu: %s\n", (unsigned long long)max, text);
		return false;
	}
	*n = value;
	return true;
}

static bool count(const char *text, unsigned max, unsigned *n)
{
	uint64_t value;

	if (!number(text, max, &value))
		return false;
	*n = value ? (unsigned)value : 1;
	return true;
}

static bool set_mode(struct options *options, const char *text)
{
	for (enum mode m = MODE_SINGLE; m <= MODE_THREADS; m++)
		if (strcmp(text, mode_name(m)) == 0) {
			options->mode = m;
			return true;
		}
	fprintf(stderr, "replay: no mode %s\n", text);
	return false;
}

static bool set_allocator(struct options *options, const char *text)
{
	bool both = strcmp(text, "both") == 0;

	options->use[ALLOC_SHMA] = both || strcmp(text, "shma") == 0;
	options->use[ALLOC_MALLOC] = both || strcmp(text, "malloc") == 0;
	if (options->use[ALLOC_SHMA] || options->use[ALLOC_MALLOC])
		return true;
	fprintf(stderr, "replay: no allocator %s\n", text);
	return false;
}

static bool set_option(struct options *options, int key, const char *arg)
{
	switch (key) {
	case 'm':
		return set_mode(options, arg);
	case 'a':
		return set_allocator(options, arg);
	case 'n':
		return count(arg, MAX_PROCS, &options->procs);
	case 'r':
		return count(arg, MAX_REPEAT, &options->repeat);
	case 'c':
		options->check = true;
		return true;
	case 's':
		options->socket = arg;
		return true;
	case KEY_HEAP:
		options->heap = arg;
		return true;
	case KEY_DAEMON:
		options->daemon = arg;
		return true;
	case KEY_SIZE:
		options->size = arg;
		return true;
	case KEY_PAUSE:
		return number(arg, UINT64_MAX - 1, &options->pause_at);
	case KEY_ELSEWHERE:
		options->elsewhere = true;
		return true;
	case KEY_JSON:
		options->json = true;
		return true;
	default:
		return false;
	}
}

/* Returns -1 to go on, else the exit status. */
static int parse(struct options *options, int argc, char **argv)
{
	struct option longs[ROWS + 1] = {{0}};
	char shorts[2 * ROWS + 1] = "", *at = shorts;

	for (size_t i = 0; i < ROWS; i++) {
		longs[i] = (struct option){.name = rows[i].name, .has_arg = rows[i].arg != NULL, .val = rows[i].key};
		if (rows[i].key < 256)
			*at++ = (char)rows[i].key;
		if (rows[i].key < 256 && rows[i].arg)
			*at++ = ':';
	}
	for (int key; (key = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
		if (key == 'h') {
			help();
			return 0;
		}
		if (!set_option(options, key, optarg))
			return 2;
	}
	if (optind == argc) {
		fputs("replay: no trace given; see --help\n", stderr);
		return 2;
	}
	if (!options->repeat)
		options->repeat = options->check ? 1 : 3;
	return -1;
}

static bool replay_file(const struct options *options, const char *path)
{
	static const struct engine *const engines[ALLOCATORS] = {&engine_shma, &engine_malloc};
	struct trace trace;
	struct result result;
	bool well = trace_load(&trace, path);

	if (!well)
		return false;
	if (options->mode == MODE_THREADS)
		trace_plan_threads(&trace);
	for (int a = 0; a < ALLOCATORS; a++) {
		if (!options->use[a])
			continue;
		well = run_trace(options, &trace, engines[a], &result) && well;
		report_row(options, &result);
	}
	trace_free(&trace);
	return well;
}

int main(int argc, char **argv)
{
	struct options options = {.use = {true, false}, .procs = 2, .size = "8GiB", .pause_at = UINT64_MAX};
	int status = parse(&options, argc, argv);

	if (status >= 0)
		return status;
	status = 0;
	report_head(&options);
	for (int i = optind; i < argc; i++)
		if (!replay_file(&options, argv[i]))
			status = 1;
	report_foot(&options);
	return status;
}
