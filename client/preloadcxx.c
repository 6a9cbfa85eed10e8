/* new and delete of C++, under their mangled names: libstdc++'s would come to malloc and free by a detour.
 *
 * Only the two base forms, plain and aligned. All others (arrays, nothrow, delete with a size) are libstdc++'s, which call a base form
 * by its name: a program may have one of its own, with a block of another shape, and ours of the others would go past it.
 *
 * Where there is no memory, what must happen is C++'s business: the handler, std::bad_alloc, and for the nothrow forms what the handler
 * throws. So the same operator of a C++ library is called, which asks malloc once more and does all that. Of which library matters,
 * since none catches what another one throws: the one that the caller itself or what it was linked with has, whether the caller is
 * the program, a plug-in that was opened for itself, or a plug-in with a libstdc++ of its own inside; then whatever there is. In a process
 * without any there is nobody to say it to. (A program that has libstdc++ inside calls its own operators, and never comes here.)
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/preload.h"

/* Of a library and what it was linked with; NULL if it is not loaded, or that is the function that asks. Opened once more, for good: this
 * happens seldom. */
static void *in_library(const char *library, const char *name, const void *asks)
{
	void *handle = dlopen(library, RTLD_NOLOAD | RTLD_LAZY), *found = handle ? dlsym(handle, name) : NULL;

	return found == asks ? NULL : found;
}

static void *look(const char *name, const void *asks, const void *caller)
{
	static const char *const libraries[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};
	Dl_info info;
	void *found = dladdr(caller, &info) && info.dli_fname ? in_library(info.dli_fname, name, asks) : NULL;

	if (!found)
		found = dlsym(RTLD_NEXT, name);
	for (size_t i = 0; !found && i < sizeof(libraries) / sizeof(libraries[0]); i++)
		found = in_library(libraries[i], name, asks);
	return found;
}

/* The operator that says that there is no memory. What looking allocates is the C library's, as the heap may have nothing. */
static void *of_cxx(const char *name, const void *asks, const void *caller)
{
	struct shmi_tcache *tc = shmi_preload_aside();
	void *found = look(name, asks, caller);

	shmi_preload_back(tc);
	if (found)
		return found;
	(void)dprintf(STDERR_FILENO,
	        "shmalloc: %d: no memory for an operator new, and no C++ library to throw std::bad_alloc\n",
	        (int)getpid());
	abort();
}

#define FAILED(name, self) ((__typeof__(&(self)))of_cxx(name, (const void *)(self), __builtin_return_address(0)))

/* void *operator new(size_t) */
SHMI_EXPORT void *_Znwm(size_t size);
SHMI_EXPORT void *_Znwm(size_t size)
{
	void *block = malloc(size);

	if (!block)
		block = FAILED("_Znwm", _Znwm)(size);
	return block;
}

/* void *operator new(size_t, std::align_val_t) */
SHMI_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t alignment);
SHMI_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t alignment)
{
	void *block = aligned_alloc(alignment, size);

	if (!block)
		block = FAILED("_ZnwmSt11align_val_t", _ZnwmSt11align_val_t)(size, alignment);
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
