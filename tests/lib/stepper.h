/* Single-stepping a function of this program in a child process, one machine instruction at a time.
 *
 *	static void work(void *arg) { prepare(); stepper_mark(1); operation(); stepper_mark(2); }
 *
 *	struct stepper s = {.at_syscall = serve, .ctx = &world};
 *	stepper_start(&s, work, arg);
 *	stepper_run(&s);                                    // STEPPER_MARK, s.mark is 1: at full speed so far
 *	do {
 *		if (stepper_watch_look(&watch) && stepper_seen_new(&seen, watch.digest))
 *			... the child is dead here: what would become of the shared memory?
 *	} while (stepper_step(&s) == STEPPER_BOUNDARY);     // STEPPER_MARK, s.mark is 2
 *	stepper_kill(&s);
 *
 * The child is a fork and not a new program, so what is stepped is the code that this program was linked with, at the same
 * addresses; what it shares with the tracer must be mapped MAP_SHARED (or be a descriptor) before the fork.
 *
 * Boundaries: each instruction is one, a system call as well. `at_syscall` is called before a system call is let through, in both
 * modes: whatever the child waits for (a reply on a socket, say) must be there when it returns, for then nobody else runs.
 * So one process can be the child's tracer and its daemon, without a thread and without a race.
 *
 * A repeated string instruction (rep movs, rep stos) traps after each iteration. As these copy or clear, the bytes before the end
 * are seldom of interest: it counts as one instruction unless `strings` is set.
 *
 * About 25,000 instructions a second; both processes run on one processor, where it is fastest. x86-64 only, and not under a
 * sanitizer: stepper_why_not says so.
 */
#ifndef TESTS_LIB_STEPPER_H
#define TESTS_LIB_STEPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct stepper {
	void (*at_syscall)(void *ctx); /* NULL: nothing */
	void *ctx;
	bool strings; /* stop after each iteration of a repeated string instruction */
	/* results */
	pid_t pid; /* 0: none */
	uint32_t mark; /* the number of the last marker */
	int status; /* as of waitpid, after STEPPER_ENDED */
	uint64_t boundaries; /* instructions stepped */
	uint64_t pc; /* of the next instruction, after STEPPER_BOUNDARY */
};

enum stepper_stop {
	STEPPER_BOUNDARY, /* one instruction further */
	STEPPER_MARK, /* the child is at a marker */
	STEPPER_ENDED, /* it has exited or was killed */
};

/* Why this program cannot step, or NULL. */
const char *stepper_why_not(void);

/* Forks a child that runs run(arg) and then exits with 0. Returns 0 or a negative errno. */
int stepper_start(struct stepper *s, void (*run)(void *arg), void *arg);

/* Lets it run at full speed, to the next marker or its end. */
enum stepper_stop stepper_run(struct stepper *s);

/* Lets it run one instruction. A marker is reported when it is reached, and is no boundary. Signals are passed on to the child. */
enum stepper_stop stepper_step(struct stepper *s);

/* Kills and reaps it, if it is still there. */
void stepper_kill(struct stepper *s);

/* The child calls this. Without a tracer it would be its end. */
void stepper_mark(uint32_t number);

/* ---- which states are new ---- */

/* Digests already met. All zero is empty. */
struct stepper_seen {
	uint64_t *digest;
	uint32_t room, count;
};

/* Adds a digest; true if it was not there. */
bool stepper_seen_new(struct stepper_seen *seen, uint64_t digest);
void stepper_seen_free(struct stepper_seen *seen);

/* Ranges of memory, a copy of them as last seen, and their digest. All zero is empty. */
struct stepper_watch {
	struct stepper_block *block;
	uint32_t room, count;
	uint64_t digest;
};

/* Watches `len` bytes at `start`. */
void stepper_watch_add(struct stepper_watch *w, const void *start, size_t len);

/* Looks again; true if anything has changed since the last look, or this is the first. Costs little if nothing has. */
bool stepper_watch_look(struct stepper_watch *w);
void stepper_watch_free(struct stepper_watch *w);

#endif
