/* Streams come from the C library's own malloc. A fork of a process with threads resets the locks of all streams, in the child and before
 * any handler has run: were they in the heap, the parent's would be reset, perhaps under a thread that holds one. Their buffers
 * have no locks, and are the heap's like all else. */
#include <stdio.h>
#include <wchar.h>

#include "client/preload.h"

/* DECLARE: a function that opens a stream, its parameters and the arguments to pass on. */
#define OPENS(name, parameters, arguments)                                                                             \
	SHMI_EXPORT FILE *name parameters;                                                                             \
	SHMI_EXPORT FILE *name parameters                                                                              \
	{                                                                                                              \
		FILE *(*next)parameters = (FILE * (*)parameters) shmi_preload_next(#name);                             \
		struct shmi_tcache *tc = shmi_preload_aside();                                                         \
		FILE *stream = next arguments;                                                                         \
                                                                                                                       \
		shmi_preload_back(tc);                                                                                 \
		return stream;                                                                                         \
	}

OPENS(fopen, (const char *restrict path, const char *restrict mode), (path, mode))
OPENS(fopen64, (const char *restrict path, const char *restrict mode), (path, mode))
OPENS(fdopen, (int fd, const char *mode), (fd, mode))
OPENS(popen, (const char *command, const char *mode), (command, mode))
OPENS(tmpfile, (void), ())
OPENS(tmpfile64, (void), ())
OPENS(fmemopen, (void *buffer, size_t size, const char *mode), (buffer, size, mode))
OPENS(open_memstream, (char **text, size_t *size), (text, size))
OPENS(open_wmemstream, (wchar_t * *text, size_t *size), (text, size))
OPENS(fopencookie, (void *restrict cookie, const char *restrict mode, cookie_io_functions_t functions),
        (cookie, mode, functions))
