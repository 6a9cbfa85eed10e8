/* A daemon of one's own: started in a private directory with a private instance name, so that tests which run at once never
 * meet, and gone with the process that started it.
 *
 *	struct test_daemon d;
 *	test_daemon_start(&d, NULL);
 *	... d.socket, d.heap ...
 *	test_daemon_end(&d);            stop, see that it ended well, remove what it left
 *
 * Functions that return int give 0, or print what is wrong and return -1.
 */
#ifndef TEST_DAEMON_H
#define TEST_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct test_daemon_options {
	const char *program; /* NULL: the shmallocd of this build */
	const char *const *args; /* further arguments, NULL-terminated; or NULL */
	const char *heap; /* NULL: "default" */
};

struct test_daemon {
	pid_t pid;
	int pidfd; /* readable when it has ended */
	char dir[64]; /* private; holds socket and log */
	char socket[96];
	char log[96]; /* its standard error */
	char instance[64];
	char heap[64];
};

/* Only the directory and the names; nothing runs. */
int test_daemon_init(struct test_daemon *d, const struct test_daemon_options *options);

/* Starts it and waits until it says that it is ready. On failure prints the end of its log. `options` may be NULL. */
int test_daemon_start(struct test_daemon *d, const struct test_daemon_options *options);

/* Starts one in the directory and under the names that are there: after test_daemon_init, a stop or a kill. */
int test_daemon_start_again(struct test_daemon *d, const struct test_daemon_options *options);

/* The same, without waiting: it may not even have come to its main function. */
int test_daemon_spawn(struct test_daemon *d, const struct test_daemon_options *options);

/* Runs one that should refuse to start: waits for its end and gives its exit status (-1: it runs, or a signal) and what
 * it said on standard error. */
int test_daemon_refused(
        const struct test_daemon *d, const struct test_daemon_options *options, char *said, size_t room);

/* SIGTERM, and wait. Fails if it needs more than thirty seconds or does not exit with 0. */
int test_daemon_stop(struct test_daemon *d);

/* SIGKILL, and wait. */
void test_daemon_kill(struct test_daemon *d);

/* Removes its directory and the shared objects of its instance. */
void test_daemon_remove(struct test_daemon *d);

/* Stop and remove. */
int test_daemon_end(struct test_daemon *d);

/* Descriptors that it has open. */
int test_daemon_fds(const struct test_daemon *d);

/* Waits until these are at most `most`, as the daemon closes a connection a moment after its peer has. */
int test_daemon_settle_fds(const struct test_daemon *d, int most);

/* Shared objects of its instance in /dev/shm. */
int test_daemon_objects(const struct test_daemon *d);

/* Path of a program or file of this build: searched from the running program's folder upwards. NULL if it is not there. The
 * result is a static buffer. */
const char *test_build_path(const char *name);

/* Milliseconds of CLOCK_MONOTONIC, for deadlines. */
long long test_now_ms(void);

#endif
