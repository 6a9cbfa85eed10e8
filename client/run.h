/* shmalloc-run: a program with its malloc on a heap, that of a daemon which is there or of one for this program alone. */
#ifndef CLIENT_RUN_H
#define CLIENT_RUN_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "client/sockpath.h"

#define RUN_FAILED 125 /* exit status: shmalloc-run itself failed; 126 and 127 are as a shell's */

struct run {
	const char *socket, *heap, *label, *size; /* NULL: not given */
	bool verbose, stats;
	bool usual, private; /* what serves: the daemon that was found without --socket, one for this run */
	char *const *program; /* its arguments */
	char library[PATH_MAX]; /* to preload */
	char path[SHMI_PATH_MAX]; /* of the socket that the program gets */
};

/* "shmalloc-run: ..." on standard error; gives RUN_FAILED. */
int run_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void run_say(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3))); /* if verbose */

/* Which heap the program will ask for. */
const char *run_heap(const struct run *run);

/* ---- runplaces.c ---- */

enum run_place { RUN_LIBRARY, RUN_DAEMON, RUN_CTL };

/* Finds one of our files: beside this program, where it was to be installed, or near this program. False: nowhere. */
bool run_find(enum run_place what, char path[PATH_MAX]);

/* ---- runtry.c ---- */

/* Attaches to the heap as the program will, and leaves it. Returns 0 or RUN_FAILED, having said what the daemon has against it. */
int run_try(const struct run *run);

/* ---- runchild.c ---- */

/* Becomes the program: returns 126 or 127 if that fails, having said so. */
int run_become(const struct run *run);

/* Runs it as a child, to which signals are passed on. Returns its wait status, or -1. */
int run_child(const struct run *run);

/* Ends this process as a process ended whose wait status this is. */
int run_end_like(int status);

/* ---- runprivate.c ---- */

/* A daemon for this run, with a keeper between it and us: a process that ends the daemon and removes all that it had as soon as we
 * are gone, however we went. */
struct run_private {
	pid_t keeper;
	int line; /* to the keeper; closed when we end */
	char dir[SHMI_PATH_MAX], log[SHMI_PATH_MAX]; /* with the socket and the log */
	char instance[32]; /* of the daemon */
};

/* Fills run->path. Returns 0 or RUN_FAILED, having said why. */
int run_private_start(struct run_private *priv, struct run *run);

/* Ends it and waits until all is removed. False if the keeper had been killed. */
bool run_private_end(struct run_private *priv, const struct run *run);

#endif
