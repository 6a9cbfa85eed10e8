/* new and delete of C++, under their mangled names: libstdc++'s would come to malloc and free by a detour.
 *
 * Only the two base forms, plain and aligned. All others (arrays, nothrow, delete with a size) are libstdc++'s, which call a base form
 * by its name: a program may have one of its own, with a block of another shape, and ours of the others would go past it.
 *
 * Where there is no memory, what must happen is C++'s business: the handler, std::bad_alloc, and for the nothrow forms what the handler
 * throws. So the same operator of libstdc++ is called, which asks malloc once more and does all that. It is found also where
 * it was loaded for a plug-in alone; in a process without libstdc++ there is nobody to say it to.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/preload.h"

static void *in_libstdcxx(const char *name)
{
	void *library = dlopen("libstdc++.so.6", RTLD_NOLOAD | RTLD_LAZY); /* counted, for good: this happens seldom */
	void *found = library ? dlsym(library, name) : NULL;

	if (found)
		return found;
	(void)dprintf(STDERR_FILENO,
	        "shmalloc: %d: no memory for an operator new, and no libstdc++ to throw std::bad_alloc\n",
	        (int)getpid());
	abort();
}

#define FAILED(name, type) ((type)in_libstdcxx(name))

/* void *operator new(size_t) */
SHMI_EXPORT void *_Znwm(size_t size);
SHMI_EXPORT void *_Znwm(size_t size)
{
	void *block = malloc(size);

	if (!block)
		block = FAILED("_Znwm", void *(*)(size_t))(size);
	return block;
}

/* void *operator new(size_t, std::align_val_t) */
SHMI_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t alignment);
SHMI_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
	void *block = aligned_alloc(alignment, size);

	if (!block)
		block = FAILED("_ZnwmSt11align_val_t", void *(*)(size_t, size_t))(size, alignment);
	return block;
}

/* void operator delete(void *) */
SHMI_EXPORT void _ZdlPv(void *block);
SHMI_EXPORT void _ZdlPv(void *block)
{
	free(block);
}

/* void operator delete(void *, std::align_val_t): the heap knows what was aligned */
SHMI_EXPORT void _ZdlPvSt11align_val_t(void *block, size_t alignment);
SHMI_EXPORT void _ZdlPvSt11align_val_t(void *block, size_t alignment)
{
	(void)alignment;
	free(block);
}
