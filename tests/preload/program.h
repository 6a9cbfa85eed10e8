/* Programs that know nothing of the heap, run with the library preloaded by tests/system/test_preload.c: each gives 0, or says what is
 * not so. */
#ifndef PRELOAD_PROGRAM_H
#define PRELOAD_PROGRAM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define expect(what)                                                                                                   \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			(void)dprintf(STDERR_FILENO, "%s:%d: process %d: not so: %s (errno: %s)\n", __FILE__,          \
			        __LINE__, (int)getpid(), #what, strerror(errno));                                      \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)

/* Whether a block is the heap's. */
static inline int in_heap(const void *block)
{
	static uint64_t (*to_off)(const void *block);

	if (!to_off) {
		void *found = dlsym(RTLD_DEFAULT, "shma_to_off");

		expect(found);
		memcpy(&to_off, &found, sizeof(to_off));
	}
	return to_off(block) != 0;
}

static inline void expect_ended(pid_t pid)
{
	int status = -1;

	expect(pid > 0 && waitpid(pid, &status, 0) == pid);
	expect(status == 0);
}

#endif
