/* Where recorded traces are: tests/data/ of the source tree has three, and the folder ../shared/traces beside it, or the one that
 * $SHMALLOC_TRACES names, may have more. */
#ifndef TEST_TRACES_H
#define TEST_TRACES_H

#include <stddef.h>

/* Names, NULL-terminated: what every clone has, and all. */
extern const char *const test_traces_own[], *const test_traces_all[];

/* Path of a trace by name; NULL where it is not there. The result is a static buffer. */
const char *test_trace_path(const char *name);

#endif
