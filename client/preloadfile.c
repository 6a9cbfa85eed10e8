/* Streams come from the C library's own malloc. A fork of a process with threads resets the locks of all streams, in the child and before
 * any handler has run: were they in the heap, the parent's would be reset, perhaps under a thread that holds one. Their buffers
 * have no locks, and are the heap's like all else. */
#include <stdio.h>
#include <wchar.h>

#include "client/preload.h"

#define NEXT(name) ((__typeof__(&(name)))shmi_preload_next(#name))

static FILE *back(struct shmi_tcache *tc, FILE *stream)
{
	shmi_preload_back(tc);
	return stream;
}

SHMI_EXPORT FILE *fopen(const char *restrict path, const char *restrict mode)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(fopen)(path, mode));
}

SHMI_EXPORT FILE *fopen64(const char *restrict path, const char *restrict mode)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(fopen64)(path, mode));
}

SHMI_EXPORT FILE *fdopen(int fd, const char *mode)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(fdopen)(fd, mode));
}

SHMI_EXPORT FILE *popen(const char *command, const char *mode)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(popen)(command, mode));
}

SHMI_EXPORT FILE *tmpfile(void)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(tmpfile)());
}

SHMI_EXPORT FILE *tmpfile64(void)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(tmpfile64)());
}

SHMI_EXPORT FILE *fmemopen(void *buffer, size_t size, const char *mode)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(fmemopen)(buffer, size, mode));
}

SHMI_EXPORT FILE *open_memstream(char **text, size_t *size)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(open_memstream)(text, size));
}

SHMI_EXPORT FILE *open_wmemstream(wchar_t **text, size_t *size)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(open_wmemstream)(text, size));
}

SHMI_EXPORT FILE *fopencookie(void *restrict cookie, const char *restrict mode, cookie_io_functions_t functions)
{
	struct shmi_tcache *tc = shmi_preload_aside();

	return back(tc, NEXT(fopencookie)(cookie, mode, functions));
}
