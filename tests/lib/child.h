/* Processes of a test: forked, run, reaped. A child never returns into the test framework, and dies with the test. */
#ifndef TEST_CHILD_H
#define TEST_CHILD_H

#include <stddef.h>
#include <sys/types.h>

/* In the child: on failure says where and ends it with status 1. */
#define child_check(what)                                                                                              \
	do {                                                                                                           \
		if (!(what))                                                                                           \
			child_fail(__FILE__, __LINE__, #what);                                                         \
	} while (0)

void child_fail(const char *file, int line, const char *what) __attribute__((noreturn));

/* Forks; the child runs fn(arg) and exits with what it returns. */
pid_t child_start(int (*fn)(void *arg), void *arg);

/* Waits for its end: the exit status, or 128 + the signal that killed it. Prints what is not 0. */
int child_join(pid_t pid);

/* child_start and child_join. */
int child_run(int (*fn)(void *arg), void *arg);

/* Runs a program of this build: argv[0] is its name below the build directory ("bench/replay"). With `out`, its standard
 * output goes there (freed by the caller). Returns as child_join. */
int program_run(const char *const *argv, char **out);

/* Starts one with pipes: *in is what it reads, *out what it writes. Reap with child_join. */
pid_t program_start(const char *const *argv, int *in, int *out);

#endif
