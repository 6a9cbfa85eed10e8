/* shmallocctl on a test's daemon: what the heap says about itself, as JSON. */
#ifndef TEST_CTL_H
#define TEST_CTL_H

#include <jansson.h>
#include <stdint.h>

#include "tests/lib/daemon.h"

/* Runs `shmallocctl --socket … --heap … ARGS`; `args` ends with NULL. Returns its exit status, -1 if it did not run or was
 * killed; *out (the caller frees it; may be NULL) is its standard output. */
int test_ctl_run(const struct test_daemon *d, const char *const *args, char **out);

/* `shmallocctl --format json COMMAND`. NULL, and the reason printed, on failure. The caller decrefs it. */
json_t *test_ctl_json(const struct test_daemon *d, const char *command);

/* A figure or counter of `stats`, -1 if there is none. */
int64_t test_ctl_stat(const struct test_daemon *d, const char *field);

/* `check`: 0 clean; else prints what it found. */
int test_ctl_check(const struct test_daemon *d);

/* `trim`: 0 or -1. */
int test_ctl_trim(const struct test_daemon *d);

/* Waits until a number of `stats` lies in [low, high]. 0, or -1 after ten seconds and some hundred looks; *last is the last value. */
int test_ctl_settle(const struct test_daemon *d, const char *field, int64_t low, int64_t high, int64_t *last);

#endif
