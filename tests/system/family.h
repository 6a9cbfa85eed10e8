/* A family of processes and a test that talks to its last member, whose parents may all be dead: a byte each way. */
#ifndef TEST_FAMILY_H
#define TEST_FAMILY_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "tests/lib/child.h"

struct family {
	int to_child[2], from_child[2];
	const void *arg;
};

static inline void family_init(struct family *f, const void *arg)
{
	f->arg = arg;
	cr_assert_eq(pipe2(f->to_child, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(f->from_child, O_CLOEXEC), 0);
}

/* ---- in the child ---- */

static inline void family_say(const struct family *f)
{
	child_check(write(f->from_child[1], "x", 1) == 1);
}

/* False when the test wants it to end. Its own end of the pipe is closed the first time. */
static inline bool family_hears(struct family *f)
{
	char byte;

	if (f->to_child[1] >= 0)
		(void)close(f->to_child[1]);
	f->to_child[1] = -1;
	return read(f->to_child[0], &byte, 1) == 1;
}

/* As a program does that becomes a daemon, or wants no descriptor that it does not know. */
static inline void family_close_all(struct family *f)
{
	child_check(dup2(f->to_child[0], STDIN_FILENO) == STDIN_FILENO);
	child_check(dup2(f->from_child[1], STDOUT_FILENO) == STDOUT_FILENO);
	child_check(close_range(STDERR_FILENO + 1, ~0u, 0) == 0);
	*f = (struct family){.to_child = {STDIN_FILENO, -1}, .from_child = {-1, STDOUT_FILENO}};
}

/* In a process that lives on and has no part in the talk. */
static inline void family_forget(struct family *f)
{
	for (int i = 0; i < 2; i++) {
		(void)close(f->to_child[i]);
		(void)close(f->from_child[i]);
	}
}

/* ---- in the test ---- */

/* The child is there, or has answered. One that failed is seen as an end of file. */
static inline void family_await(struct family *f)
{
	char byte;

	if (f->from_child[1] >= 0)
		(void)close(f->from_child[1]);
	f->from_child[1] = -1;
	cr_assert_eq(read(f->from_child[0], &byte, 1), 1, "a process of the family has failed");
}

static inline void family_ask(struct family *f)
{
	cr_assert_eq(write(f->to_child[1], "x", 1), 1);
	family_await(f);
}

/* Ends the child, and waits until it has. */
static inline void family_end(struct family *f)
{
	char byte;

	(void)close(f->to_child[1]);
	cr_expect_eq(read(f->from_child[0], &byte, 1), 0);
	(void)close(f->to_child[0]);
	(void)close(f->from_child[0]);
}

#endif
