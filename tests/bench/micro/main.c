#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
	const char *name;
	void (*run)(void);
	const char *help;
} rows[] = {
        {"pair", row_pair, "a block is made and freed: 16 B to 256 KiB"},
        {"batch", row_batch, "200 blocks of 64 B are made, then freed"},
        {"set", row_set, "100,000 live blocks, one at random freed and made anew"},
        {"threads", row_threads, "the same by two threads; and one makes blocks, another frees them"},
        {"processes", row_processes, "the same by two processes that share a heap"},
        {"burst", row_burst, "1,000,000 blocks of 64 B are made, then freed in three orders"},
        {"large", row_large, "2 MiB are made and freed; all touched, or one byte"},
        {"touch", row_touch, "the first touch of fresh memory, per page of 4 KiB"},
        {"start", row_start, "from the start of a process to its first block"},
        {"messages", row_messages, "messages to the daemon in a warm working set"},
        {"requests", row_requests, "what requests cost the daemon"},
        {"live", row_live, "10,000 to 10,000,000 live blocks"},
        {"instructions", row_instructions, "to be counted by callgrind: see instructions.sh"},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int usage(void)
{
	fputs("usage: micro ROW...\n       micro run COMMAND...     which finds the heap by its environment\n\n",
	        stderr);
	for (size_t i = 0; i < ROWS; i++)
		fprintf(stderr, "  %-13s %s\n", rows[i].name, rows[i].help);
	return 2;
}

/* For what must not start the heap's daemon by itself, as a program under valgrind. Returns the exit status. */
static int run_command(char **argv)
{
	int status = 0;
	pid_t pid = heap_open() ? fork() : -1;

	if (pid == 0) {
		execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	heap_close();
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static bool run_row(const char *name)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(name, rows[i].name) == 0) {
			rows[i].run();
			return true;
		}
	return false;
}

int main(int argc, char **argv)
{
	sizes_init();
	if (argc == 2 && strcmp(argv[1], "first-block") == 0) {
		first_block();
		return 0;
	}
	if (argc > 2 && strcmp(argv[1], "run") == 0)
		return run_command(argv + 2);
	if (argc < 2)
		return usage();
	if (!heap_open())
		return 1;
	for (int i = 1; i < argc; i++)
		if (!run_row(argv[i]))
			return usage();
	heap_close();
	return 0;
}
