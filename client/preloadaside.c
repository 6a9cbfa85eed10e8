/* What must not be in the heap, as the C library writes to it in the child of a fork before any handler has run: the parent's would
 * be changed. Its own malloc serves instead.
 *
 * Streams: a fork of a process with threads resets the locks of all, perhaps one that a thread of the parent holds. Their buffers
 * have no locks, and are the heap's like all else. What glibc opens for itself does not come through here, and need not: those
 * streams are either marked as locked by their user, as setmntent's and those of getpwent are, which a fork leaves alone, or used by one
 * thread in one call, where a lock that is reset changes nothing.
 *
 * The values of other threads under keys from the 33rd on: a fork clears them. The thread's first call for such a key allocates them.
 *
 * Out of reach is the state of the name service (nsswitch.conf as it was read), allocated at the first look-up: a fork unlocks it, so
 * that two threads of the parent may read a changed file at once.
 */
#include <pthread.h>
#include <stdio.h>
#include <threads.h>
#include <wchar.h>

#include "client/preload.h"

static void back(struct shmi_tcache **tc)
{
	shmi_preload_back(*tc);
}

/* Until the function is left, also by the end of the thread: to open a file is a point of cancellation. */
#define ASIDE struct shmi_tcache *tc __attribute__((cleanup(back), unused)) = shmi_preload_aside()

SHMI_EXPORT FILE *fopen(const char *restrict path, const char *restrict mode)
{
	ASIDE;

	return shmi_preload_next()->fopen(path, mode);
}

SHMI_EXPORT FILE *fopen64(const char *restrict path, const char *restrict mode)
{
	ASIDE;

	return shmi_preload_next()->fopen64(path, mode);
}

SHMI_EXPORT FILE *fdopen(int fd, const char *mode)
{
	ASIDE;

	return shmi_preload_next()->fdopen(fd, mode);
}

SHMI_EXPORT FILE *popen(const char *command, const char *mode)
{
	ASIDE;

	return shmi_preload_next()->popen(command, mode);
}

SHMI_EXPORT FILE *tmpfile(void)
{
	ASIDE;

	return shmi_preload_next()->tmpfile();
}

SHMI_EXPORT FILE *tmpfile64(void)
{
	ASIDE;

	return shmi_preload_next()->tmpfile64();
}

SHMI_EXPORT FILE *fmemopen(void *buffer, size_t size, const char *mode)
{
	ASIDE;

	return shmi_preload_next()->fmemopen(buffer, size, mode);
}

SHMI_EXPORT FILE *open_memstream(char **text, size_t *size)
{
	ASIDE;

	return shmi_preload_next()->open_memstream(text, size);
}

SHMI_EXPORT FILE *open_wmemstream(wchar_t **text, size_t *size)
{
	ASIDE;

	return shmi_preload_next()->open_wmemstream(text, size);
}

SHMI_EXPORT FILE *fopencookie(void *restrict cookie, const char *restrict mode, cookie_io_functions_t functions)
{
	ASIDE;

	return shmi_preload_next()->fopencookie(cookie, mode, functions);
}

SHMI_EXPORT int pthread_setspecific(pthread_key_t key, const void *value)
{
	ASIDE;

	return shmi_preload_next()->pthread_setspecific(key, value);
}

SHMI_EXPORT int tss_set(tss_t key, void *value)
{
	ASIDE;

	return shmi_preload_next()->tss_set(key, value);
}
