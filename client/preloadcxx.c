/* new and delete of C++, under their mangled names: libstdc++'s would come to malloc and free by a detour.
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

typedef void *plain(size_t size);
typedef void *plain_nothrow(size_t size, const void *nothrow);
typedef void *aligned(size_t size, size_t alignment);
typedef void *aligned_nothrow(size_t size, size_t alignment, const void *nothrow);

/* NEW(symbol): void *operator new(size_t), and so on. */
#define NEW(symbol)                                                                                                    \
	SHMI_EXPORT void *symbol(size_t size);                                                                         \
	SHMI_EXPORT void *symbol(size_t size)                                                                          \
	{                                                                                                              \
		void *block = malloc(size);                                                                            \
		if (!block)                                                                                            \
			block = FAILED(#symbol, plain *)(size);                                                        \
		return block;                                                                                          \
	}

#define NEW_NOTHROW(symbol)                                                                                            \
	SHMI_EXPORT void *symbol(size_t size, const void *nothrow);                                                    \
	SHMI_EXPORT void *symbol(size_t size, const void *nothrow)                                                     \
	{                                                                                                              \
		void *block = malloc(size);                                                                            \
		if (!block)                                                                                            \
			block = FAILED(#symbol, plain_nothrow *)(size, nothrow);                                       \
		return block;                                                                                          \
	}

#define NEW_ALIGNED(symbol)                                                                                            \
	SHMI_EXPORT void *symbol(size_t size, size_t alignment);                                                       \
	SHMI_EXPORT void *symbol(size_t size, size_t alignment)                                                        \
	{                                                                                                              \
		void *block = aligned_alloc(alignment, size);                                                          \
		if (!block)                                                                                            \
			block = FAILED(#symbol, aligned *)(size, alignment);                                           \
		return block;                                                                                          \
	}

#define NEW_ALIGNED_NOTHROW(symbol)                                                                                    \
	SHMI_EXPORT void *symbol(size_t size, size_t alignment, const void *nothrow);                                  \
	SHMI_EXPORT void *symbol(size_t size, size_t alignment, const void *nothrow)                                   \
	{                                                                                                              \
		void *block = aligned_alloc(alignment, size);                                                          \
		if (!block)                                                                                            \
			block = FAILED(#symbol, aligned_nothrow *)(size, alignment, nothrow);                          \
		return block;                                                                                          \
	}

NEW(_Znwm)
NEW(_Znam)
NEW_NOTHROW(_ZnwmRKSt9nothrow_t)
NEW_NOTHROW(_ZnamRKSt9nothrow_t)
NEW_ALIGNED(_ZnwmSt11align_val_t)
NEW_ALIGNED(_ZnamSt11align_val_t)
NEW_ALIGNED_NOTHROW(_ZnwmSt11align_val_tRKSt9nothrow_t)
NEW_ALIGNED_NOTHROW(_ZnamSt11align_val_tRKSt9nothrow_t)

/* The size, the alignment and the tag that some of them get say nothing that the heap does not know. */
void shmi_delete(void *block);
void shmi_delete(void *block)
{
	free(block);
}

#define DELETE(symbol) SHMI_EXPORT void symbol(void *block) __attribute__((alias("shmi_delete")))

DELETE(_ZdlPv);
DELETE(_ZdaPv);
DELETE(_ZdlPvm);
DELETE(_ZdaPvm);
DELETE(_ZdlPvRKSt9nothrow_t);
DELETE(_ZdaPvRKSt9nothrow_t);
DELETE(_ZdlPvSt11align_val_t);
DELETE(_ZdaPvSt11align_val_t);
DELETE(_ZdlPvmSt11align_val_t);
DELETE(_ZdaPvmSt11align_val_t);
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t);
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t);
