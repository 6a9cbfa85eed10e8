/* _shmalloc, the part of the Python package that is C: two types over the functions of shmalloc.h.
 *
 * A Heap has one attachment, counted by the library, and knows its Blocks, so that a detach can end them. A Block refers to its
 * Heap and to a run of bytes in it; it owns the block (owned.h) or borrows it. What Python programs see beside them (roots,
 * arrays, hand-over) is Python.
 *
 * Locks: the interpreter's alone. It is released around every call that may wait for the daemon. Such calls are counted in the
 * Heap, and it is not detached while one is under way.
 *
 * The module keeps what is per process in static variables, which the interpreter's lock guards: sub-interpreters that share
 * the lock may import it, others are refused (by default), and an interpreter without that lock takes it up on import.
 */
#ifndef CLIENT_PYTHON_MODULE_H
#define CLIENT_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include "client/python/owned.h"
#include "client/shmalloc.h"

struct shmi_py_block;

struct shmi_py_heap {
	PyObject ob_base;
	shma_heap *handle; /* NULL: detached */
	char *socket; /* NULL: found by the library */
	char *name;
	PyTypeObject *block_type;
	struct shmi_py_block *blocks; /* those of them that are not free */
	unsigned calls; /* under way without the interpreter's lock, in process ... */
	unsigned process; /* ... shmi_py_process() */
	PyObject *weakrefs;
};

struct shmi_py_block {
	PyObject ob_base;
	struct shmi_py_heap *heap;
	struct shmi_py_block *prev, *next; /* of the heap; not linked when `address` is NULL */
	void *address; /* NULL: free */
	shma_off offset;
	Py_ssize_t size;
	Py_ssize_t exports; /* buffers that refer to it */
	size_t wipe;
	struct shmi_py_owned *owned; /* NULL: borrowed */
	PyObject *weakrefs;
};

extern PyType_Spec shmi_py_heap_spec, shmi_py_block_spec;

/* Around what is done without the interpreter's lock. */
#define SHMI_PY_CALL(heap, call)                                                                                       \
	do {                                                                                                           \
		shmi_py_enter(heap);                                                                                   \
		Py_BEGIN_ALLOW_THREADS;                                                                                \
		call;                                                                                                  \
		Py_END_ALLOW_THREADS;                                                                                  \
		(heap)->calls--;                                                                                       \
	} while (0)

void shmi_py_enter(struct shmi_py_heap *heap);

/* False and ValueError, if it is detached. */
bool shmi_py_attached(const struct shmi_py_heap *heap);

/* Sets the exception for an errno of the library: MemoryError, TimeoutError or the subclass of OSError, with errno and `what`
 * failed. Returns NULL. */
PyObject *shmi_py_fail(int error, const char *what);

/* A Block of what is at `address`, borrowed if `owned` is NULL. On failure what is owned is freed: NULL and an exception. */
PyObject *shmi_py_block_new(struct shmi_py_heap *heap, void *address, Py_ssize_t size, struct shmi_py_owned *owned);

/* It is free from here on, as far as Python is concerned; what is to be freed is pushed on `chain`. */
void shmi_py_block_end(struct shmi_py_block *block, struct shmi_py_owned **chain);

#endif
