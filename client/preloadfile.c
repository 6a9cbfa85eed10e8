/* Streams come from the C library's own malloc. A fork of a process with threads resets the locks of all streams, in the child and before
 * any handler has run: were they in the heap, the parent's would be reset, perhaps under a thread that holds one. Their buffers
 * have no locks, and are the heap's like all else. */
#include <stdio.h>
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
