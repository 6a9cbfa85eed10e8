/* Heap: an attachment, as an object. */
#include "client/python/module.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

#define MAX_ALIGN ((Py_ssize_t)64 << 20) /* of shma_heap_alloc */

static struct shmi_py_heap *self_of(PyObject *self)
{
	return (struct shmi_py_heap *)self;
}

/* In a child of a fork the calls that other threads had under way are not there. */
void shmi_py_enter(struct shmi_py_heap *heap)
{
	if (heap->process != shmi_py_process()) {
		heap->process = shmi_py_process();
		heap->calls = 0;
	}
	heap->calls++;
}

bool shmi_py_attached(const struct shmi_py_heap *heap)
{
	if (!heap->handle)
		PyErr_SetString(PyExc_ValueError, "the heap is detached: attach() again");
	return heap->handle != NULL;
}

/* ---- attaching and leaving ---- */

/* Seconds to milliseconds; None is the library's default. False and an exception. */
static bool timeout_of(PyObject *given, int *ms)
{
	double seconds = given == Py_None ? 0 : PyFloat_AsDouble(given);

	*ms = 0;
	if (given == Py_None)
		return true;
	if (seconds == -1.0 && PyErr_Occurred())
		return false;
	if (isnan(seconds) || seconds < 0) {
		PyErr_SetString(PyExc_ValueError, "timeout is in seconds, 0 or more; math.inf waits for ever");
		return false;
	}
	*ms = seconds * 1000 >= INT_MAX ? -1 : seconds <= 0.001 ? 1 : (int)(seconds * 1000);
	return true;
}

static char *copy_of(const char *text)
{
	size_t room = text ? strlen(text) + 1 : 0;
	char *copy = text ? PyMem_Malloc(room) : NULL;

	return copy ? memcpy(copy, text, room) : NULL;
}

/* A path of the system: str, bytes or os.PathLike, and a new reference to its bytes; or None and NULL. */
static int path_of(PyObject *given, void *bytes)
{
	return given == Py_None ? 1 : PyUnicode_FSConverter(given, bytes);
}

static PyTypeObject *block_type_of(PyTypeObject *type)
{
	PyObject *base = (PyObject *)type;

	while (base && !PyType_GetModule((PyTypeObject *)base)) { /* a subclass, made in Python, is of no module */
		PyErr_Clear();
		base = (PyObject *)((PyTypeObject *)base)->tp_base;
	}
	PyObject *found = base ? PyObject_GetAttrString(PyType_GetModule((PyTypeObject *)base), "Block") : NULL;

	return (PyTypeObject *)found;
}

static PyObject *attach_as(PyTypeObject *type, const struct shma_options *options)
{
	int error;
	struct shmi_py_heap *heap = self_of(type->tp_alloc(type, 0));

	if (!heap)
		return NULL;
	heap->block_type = block_type_of(type);
	heap->socket = copy_of(options->socket);
	heap->name = copy_of(options->heap ? options->heap : "default");
	if (!heap->block_type || !heap->name || (options->socket && !heap->socket)) {
		Py_DECREF((PyObject *)heap);
		return PyErr_Occurred() ? NULL : PyErr_NoMemory();
	}
	SHMI_PY_CALL(heap, (heap->handle = shma_attach(options), error = errno));
	if (!heap->handle) {
		Py_DECREF((PyObject *)heap);
		return shmi_py_fail(error, options->socket ? options->socket : "attach");
	}
	return (PyObject *)heap;
}

static PyObject *heap_new(PyTypeObject *type, PyObject *args, PyObject *words)
{
	static char *names[] = {"socket", "heap", "label", "timeout", NULL};
	struct shma_options options = {.size = sizeof(options)};
	PyObject *timeout = Py_None, *path = NULL;

	if (!PyArg_ParseTupleAndKeywords(
	            args, words, "|O&zzO:Heap", names, path_of, &path, &options.heap, &options.label, &timeout))
		return NULL;
	options.socket = path ? PyBytes_AS_STRING(path) : NULL;
	PyObject *made = timeout_of(timeout, &options.timeout_ms) ? attach_as(type, &options) : NULL;

	Py_XDECREF(path);
	return made;
}

/* At the end of the interpreter nothing is left to the daemon that it does not see anyway, and nobody wants to wait for it. */
static bool is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030d0000
	return Py_IsFinalizing();
#else
	return _Py_IsFinalizing();
#endif
}

static void heap_dealloc(PyObject *self)
{
	struct shmi_py_heap *heap = self_of(self);
	PyTypeObject *type = Py_TYPE(self);

	if (heap->weakrefs)
		PyObject_ClearWeakRefs(self);
	if (heap->handle && !is_finalizing())
		SHMI_PY_CALL(heap, (void)shma_detach(heap->handle));
	PyMem_Free(heap->socket);
	PyMem_Free(heap->name);
	Py_XDECREF((PyObject *)heap->block_type);
	type->tp_free(self);
	Py_DECREF(type);
}

/* False and BufferError, if somebody uses the heap. */
static bool may_leave(struct shmi_py_heap *heap)
{
	Py_ssize_t exports = 0;

	for (const struct shmi_py_block *block = heap->blocks; block; block = block->next)
		exports += block->exports;
	shmi_py_enter(heap);
	heap->calls--;
	if (exports)
		PyErr_Format(PyExc_BufferError, "%zd buffers refer to blocks of the heap: release them first", exports);
	else if (heap->calls)
		PyErr_SetString(PyExc_BufferError, "another thread uses the heap: wait for it first");
	return !exports && !heap->calls;
}

PyDoc_STRVAR(detach_doc, "detach()\n--\n\n"
                         "Leave the heap: blocks that are owned are freed, and all Block objects of it end. "
                         "BufferError while memoryviews\n"
                         "or arrays refer to one. Nothing happens if it was left before.");

static PyObject *heap_detach(PyObject *self, PyObject *unused)
{
	struct shmi_py_heap *heap = self_of(self);
	struct shmi_py_owned *chain = NULL;
	shma_heap *handle = heap->handle;
	int result, error;

	(void)unused;
	if (!handle)
		Py_RETURN_NONE;
	if (!may_leave(heap))
		return NULL;
	heap->handle = NULL;
	while (heap->blocks)
		shmi_py_block_end(heap->blocks, &chain);
	SHMI_PY_CALL(heap, (shmi_py_free_chain(chain), result = shma_detach(handle), error = errno));
	if (result)
		return shmi_py_fail(error, "detach");
	Py_RETURN_NONE;
}

/* ---- blocks ---- */

PyDoc_STRVAR(alloc_doc,
        "alloc(size, *, scoped=False, zero=False, lazy=False, align=0)\n--\n\n"
        "A new block, owned. scoped: the daemon frees it when this process ends, however it ends. zero: filled with "
        "zeros.\n"
        "lazy: above 256 KiB, backed by memory when it is touched and not before; a full /dev/shm is then a SIGBUS.\n"
        "align: a power of two up to 64 MiB. MemoryError when the heap, /dev/shm or a limit is full.");

static PyObject *heap_alloc(PyObject *self, PyObject *args, PyObject *words)
{
	static char *names[] = {"size", "scoped", "zero", "lazy", "align", NULL};
	struct shmi_py_heap *heap = self_of(self);
	Py_ssize_t size, align = 0;
	int scoped = 0, zero = 0, lazy = 0, error;

	if (!PyArg_ParseTupleAndKeywords(args, words, "n|$pppn:alloc", names, &size, &scoped, &zero, &lazy, &align) ||
	        !shmi_py_attached(heap))
		return NULL;
	if (size < 0 || align < 0 || align > MAX_ALIGN || align & (align - 1)) {
		PyErr_SetString(PyExc_ValueError, "size is 0 or more, align a power of two up to 64 MiB");
		return NULL;
	}
	unsigned flags = (scoped ? SHMA_SCOPED : 0u) | (zero ? SHMA_ZERO : 0u) | (lazy ? SHMA_LAZY : 0u);

	struct shmi_py_owned *owned = shmi_py_own(NULL, 0), none;

	if (!owned)
		return PyErr_NoMemory();
	SHMI_PY_CALL(heap,
	        (owned->block = shma_heap_alloc(heap->handle, (size_t)size, (size_t)align, flags), error = errno));
	if (owned->block)
		return shmi_py_block_new(heap, owned->block, size, owned);
	(void)shmi_py_disown(owned, &none);
	return shmi_py_fail(error, "alloc");
}

/* A borrowed block at `address`; size -1: as large as it is. */
static PyObject *borrow(struct shmi_py_heap *heap, void *address, Py_ssize_t size)
{
	size_t usable = shma_usable_size(address);

	if (!usable || size < -1 || size > (Py_ssize_t)usable) {
		PyErr_SetString(PyExc_ValueError,
		        usable ? "the block is smaller than that" : "no block there: it has been freed");
		return NULL;
	}
	return shmi_py_block_new(heap, address, size == -1 ? (Py_ssize_t)usable : size, NULL);
}

PyDoc_STRVAR(block_doc, "block(offset, size=-1)\n--\n\n"
                        "The block at an offset that a Block had, in any process; borrowed. Without a size it has all "
                        "bytes that may be\n"
                        "used, some more perhaps than were asked for. ValueError where no block is; an offset into the "
                        "middle of one is\n"
                        "not always noticed.");

static PyObject *heap_block(PyObject *self, PyObject *args, PyObject *words)
{
	static char *names[] = {"offset", "size", NULL};
	struct shmi_py_heap *heap = self_of(self);
	PyObject *given;
	Py_ssize_t size = -1;

	if (!PyArg_ParseTupleAndKeywords(args, words, "O!|n:block", names, &PyLong_Type, &given, &size) ||
	        !shmi_py_attached(heap))
		return NULL;
	shma_off offset = PyLong_AsUnsignedLongLong(given);

	if (PyErr_Occurred())
		PyErr_Clear();
	void *address = shma_from_off(heap->handle, offset == ULLONG_MAX ? 0 : offset);

	if (!address) {
		PyErr_SetString(PyExc_ValueError, "the offset is outside the heap");
		return NULL;
	}
	return borrow(heap, address, size);
}

/* ---- roots ---- */

/* What has gone wrong with root `name`. */
static PyObject *fail_root(int error, const char *name)
{
	if (error == ENOENT)
		PyErr_Format(PyExc_KeyError, "%s", name);
	else if (error == EINVAL)
		PyErr_SetString(PyExc_ValueError, "the name of a root has 1 to 95 bytes");
	else
		(void)shmi_py_fail(error, "root");
	return NULL;
}

static PyObject *root_set(PyObject *self, PyObject *args)
{
	struct shmi_py_heap *heap = self_of(self);
	struct shmi_py_block *block;
	const char *name;
	int result, error;

	if (!PyArg_ParseTuple(args, "sO!:_root_set", &name, heap->block_type, &block) || !shmi_py_attached(heap))
		return NULL;
	const void *address = block->address;

	if (!address || block->heap->handle != heap->handle) {
		PyErr_SetString(
		        PyExc_ValueError, address ? "the block is of another heap" : "the block has been freed");
		return NULL;
	}
	SHMI_PY_CALL(heap, (result = shma_root_set(heap->handle, name, address), error = errno));
	if (result)
		return fail_root(error, name);
	Py_RETURN_NONE;
}

static PyObject *root_get(PyObject *self, PyObject *args)
{
	struct shmi_py_heap *heap = self_of(self);
	const char *name;

	if (!PyArg_ParseTuple(args, "s:_root_get", &name) || !shmi_py_attached(heap))
		return NULL;
	void *address = shma_root_get(heap->handle, name);

	return address ? borrow(heap, address, -1) : fail_root(errno, name);
}

static PyObject *root_del(PyObject *self, PyObject *args)
{
	struct shmi_py_heap *heap = self_of(self);
	const char *name;
	int result, error;

	if (!PyArg_ParseTuple(args, "s:_root_del", &name) || !shmi_py_attached(heap))
		return NULL;
	SHMI_PY_CALL(heap, (result = shma_root_del(heap->handle, name), error = errno));
	if (result)
		return fail_root(error, name);
	Py_RETURN_NONE;
}

/* ---- trim, statistics ---- */

PyDoc_STRVAR(trim_doc, "trim()\n--\n\nGive back to the daemon what this process has cached: free blocks and spans.");

static PyObject *heap_trim(PyObject *self, PyObject *unused)
{
	struct shmi_py_heap *heap = self_of(self);
	int result, error;

	(void)unused;
	if (!shmi_py_attached(heap))
		return NULL;
	SHMI_PY_CALL(heap, (result = shma_trim(heap->handle), error = errno));
	if (result)
		return shmi_py_fail(error, "trim");
	Py_RETURN_NONE;
}

#define FIGURE(name)                                                                                                   \
	{                                                                                                              \
#name, offsetof(struct shma_stats, name), sizeof(((struct shma_stats *)NULL)->name)                    \
	}

static const struct figure {
	const char *name;
	size_t offset, size;
} figures[] = {FIGURE(limit), FIGURE(backed), FIGURE(owned), FIGURE(central), FIGURE(free), FIGURE(peak_backed),
        FIGURE(process_owned), FIGURE(messages), FIGURE(base), FIGURE(at_base), FIGURE(client), FIGURE(refills),
        FIGURE(refill_us_sum), FIGURE(refill_us_max), FIGURE(refill_us_p50), FIGURE(refill_us_p99)};

static PyObject *value_of(const struct shma_stats *stats, const struct figure *f)
{
	uint32_t narrow;
	uint64_t value;

	if (f->size == sizeof(value))
		memcpy(&value, (const char *)stats + f->offset, sizeof(value));
	else
		value = (memcpy(&narrow, (const char *)stats + f->offset, sizeof(narrow)), narrow);
	return PyLong_FromUnsignedLongLong(value);
}

PyDoc_STRVAR(stats_doc, "stats()\n--\n\n"
                        "Figures of the heap and of this process's use of it, in bytes unless shmalloc.h says "
                        "otherwise. Sends no message.");

static PyObject *heap_stats(PyObject *self, PyObject *unused)
{
	struct shmi_py_heap *heap = self_of(self);
	struct shma_stats stats = {.size = sizeof(stats)};

	(void)unused;
	if (!shmi_py_attached(heap))
		return NULL;
	if (shma_stats_get(heap->handle, &stats) != 0)
		return shmi_py_fail(errno, "stats");
	PyObject *all = PyDict_New();

	for (size_t i = 0; all && i < sizeof(figures) / sizeof(figures[0]); i++) {
		PyObject *value = value_of(&stats, &figures[i]);

		if (!value || PyDict_SetItemString(all, figures[i].name, value) != 0)
			Py_CLEAR(all);
		Py_XDECREF(value);
	}
	return all;
}

/* ---- the type ---- */

static PyObject *heap_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return shmi_py_attached(self_of(self)) ? Py_NewRef(self) : NULL;
}

static PyObject *get_socket(PyObject *self, void *unused)
{
	(void)unused;
	return self_of(self)->socket ? PyUnicode_DecodeFSDefault(self_of(self)->socket) : Py_NewRef(Py_None);
}

static PyObject *get_detached(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(self_of(self)->handle == NULL);
}

#define WITH_WORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {{"alloc", WITH_WORDS(heap_alloc), METH_VARARGS | METH_KEYWORDS, alloc_doc},
        {"block", WITH_WORDS(heap_block), METH_VARARGS | METH_KEYWORDS, block_doc},
        {"trim", heap_trim, METH_NOARGS, trim_doc}, {"stats", heap_stats, METH_NOARGS, stats_doc},
        {"detach", heap_detach, METH_NOARGS, detach_doc}, {"_root_set", root_set, METH_VARARGS, NULL},
        {"_root_get", root_get, METH_VARARGS, NULL}, {"_root_del", root_del, METH_VARARGS, NULL},
        {"__enter__", heap_enter, METH_NOARGS, NULL}, {"__exit__", heap_detach, METH_VARARGS, NULL}, {0}};

static PyGetSetDef attributes[] = {
        {"socket", get_socket, NULL, "The daemon's socket; None: where the library looks.", NULL},
        {"detached", get_detached, NULL, "Whether the heap has been left.", NULL}, {0}};

static PyMemberDef members[] = {{"name", T_STRING, offsetof(struct shmi_py_heap, name), READONLY, "The heap's name."},
        {"__weaklistoffset__", T_PYSSIZET, offsetof(struct shmi_py_heap, weakrefs), READONLY, NULL}, {0}};

static char heap_doc[] = "An attachment to a heap: see shmalloc.Heap.";

static PyType_Slot slots[] = {{Py_tp_doc, heap_doc}, {Py_tp_new, (void *)heap_new},
        {Py_tp_dealloc, (void *)heap_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, attributes},
        {Py_tp_members, members}, {0}};

PyType_Spec shmi_py_heap_spec = {.name = "shmalloc._shmalloc.Heap",
        .basicsize = sizeof(struct shmi_py_heap),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots};
