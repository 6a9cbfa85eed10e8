/* Block: a run of bytes in a heap, as an object with the buffer protocol. */
#include "client/python/module.h"

#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* What an array's block begins with (MAGIC in layout.py). */
static const char array_magic[8] = "shmarray";

static struct shmi_py_block *self_of(PyObject *self)
{
	return (struct shmi_py_block *)self;
}

static bool is_there(const struct shmi_py_block *block)
{
	if (!block->address)
		PyErr_SetString(PyExc_ValueError, "the block has been freed, or its heap detached");
	return block->address != NULL;
}

/* ---- making and ending ---- */

static void link_block(struct shmi_py_block *block)
{
	struct shmi_py_heap *heap = block->heap;

	block->next = heap->blocks;
	if (heap->blocks)
		heap->blocks->prev = block;
	heap->blocks = block;
}

static void unlink_block(struct shmi_py_block *block)
{
	if (block->prev)
		block->prev->next = block->next;
	else
		block->heap->blocks = block->next;
	if (block->next)
		block->next->prev = block->prev;
	block->prev = block->next = NULL;
}

PyObject *shmi_py_block_new(struct shmi_py_heap *heap, void *address, Py_ssize_t size, struct shmi_py_owned *owned)
{
	struct shmi_py_block *block = self_of(heap->block_type->tp_alloc(heap->block_type, 0));

	if (!block) {
		struct shmi_py_owned *chain = NULL;

		shmi_py_chain(owned, &chain);
		SHMI_PY_CALL(heap, shmi_py_free_chain(chain));
		return NULL;
	}
	block->heap = (struct shmi_py_heap *)Py_NewRef((PyObject *)heap);
	block->address = address;
	block->offset = shma_to_off(address);
	block->size = size;
	block->owned = owned;
	link_block(block);
	return (PyObject *)block;
}

void shmi_py_block_end(struct shmi_py_block *block, struct shmi_py_owned **chain)
{
	if (!block->address)
		return;
	unlink_block(block);
	block->address = NULL;
	shmi_py_chain(block->owned, chain);
	block->owned = NULL;
}

/* Ends it and frees what it owned. */
static void end_now(struct shmi_py_block *block)
{
	struct shmi_py_owned *chain = NULL;

	shmi_py_block_end(block, &chain);
	if (chain)
		SHMI_PY_CALL(block->heap, shmi_py_free_chain(chain));
}

static void block_dealloc(PyObject *self)
{
	struct shmi_py_block *block = self_of(self);
	PyTypeObject *type = Py_TYPE(self);

	if (block->weakrefs)
		PyObject_ClearWeakRefs(self);
	if (block->heap)
		end_now(block);
	Py_XDECREF((PyObject *)block->heap);
	type->tp_free(self);
	Py_DECREF(type);
}

/* ---- buffers ---- */

static int get_buffer(PyObject *self, Py_buffer *view, int flags)
{
	struct shmi_py_block *block = self_of(self);

	view->obj = NULL;
	if (!is_there(block) || PyBuffer_FillInfo(view, self, block->address, block->size, 0, flags) != 0)
		return -1;
	block->exports++;
	return 0;
}

static void release_buffer(PyObject *self, Py_buffer *view)
{
	(void)view;
	self_of(self)->exports--;
}

static Py_ssize_t block_length(PyObject *self)
{
	return is_there(self_of(self)) ? self_of(self)->size : -1;
}

/* ---- methods ---- */

PyDoc_STRVAR(free_doc,
        "free()\n--\n\n"
        "Free the block now. Nothing happens if it is free already. BufferError while memoryviews or arrays refer to\n"
        "it; ValueError if it is borrowed: who has it on loan adopts it first.");

static PyObject *block_free(PyObject *self, PyObject *unused)
{
	struct shmi_py_block *block = self_of(self);

	(void)unused;
	if (!block->address)
		Py_RETURN_NONE;
	if (!shmi_py_is_owned(block->owned)) {
		PyErr_SetString(PyExc_ValueError, "the block is borrowed: only its owner frees it (see adopt())");
		return NULL;
	}
	if (block->exports) {
		PyErr_Format(PyExc_BufferError, "%zd buffers refer to the block: release them first", block->exports);
		return NULL;
	}
	end_now(block);
	Py_RETURN_NONE;
}

PyDoc_STRVAR(release_doc,
        "release()\n--\n\n"
        "Give up ownership: from here on the block is borrowed, and lives until somebody adopts and frees it.\n"
        "Returns its offset.");

static PyObject *block_release(PyObject *self, PyObject *unused)
{
	struct shmi_py_block *block = self_of(self);
	struct shmi_py_owned was;

	(void)unused;
	if (!is_there(block))
		return NULL;
	(void)shmi_py_disown(block->owned, &was);
	block->owned = NULL;
	return PyLong_FromUnsignedLongLong(block->offset);
}

/* References to an array must find it gone, whoever frees it. */
static bool is_array(const struct shmi_py_block *block)
{
	return (size_t)block->size >= sizeof(array_magic) &&
	       memcmp(block->address, array_magic, sizeof(array_magic)) == 0;
}

PyDoc_STRVAR(adopt_doc,
        "adopt()\n--\n\n"
        "Take ownership: the block is freed with this object. Nobody else may own it, in any process: it would be\n"
        "freed twice.");

static PyObject *block_adopt(PyObject *self, PyObject *unused)
{
	struct shmi_py_block *block = self_of(self);
	struct shmi_py_owned was, *owned;

	(void)unused;
	if (!is_there(block))
		return NULL;
	if (shmi_py_is_owned(block->owned))
		Py_RETURN_NONE;
	if (!block->wipe && is_array(block))
		block->wipe = sizeof(array_magic);
	owned = shmi_py_own(block->address, block->wipe);
	if (!owned)
		return PyErr_NoMemory();
	(void)shmi_py_disown(block->owned, &was); /* the parent's */
	block->owned = owned;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(wipe_doc, "_wipe(n)\n--\n\n"
                       "The first n bytes are zeroed before the block is freed, so that who still refers to it can see "
                       "that it is gone.");

static PyObject *block_wipe(PyObject *self, PyObject *n)
{
	struct shmi_py_block *block = self_of(self);
	Py_ssize_t bytes = PyLong_AsSsize_t(n);

	if (bytes == -1 && PyErr_Occurred())
		return NULL;
	if (!is_there(block))
		return NULL;
	if (bytes < 0 || bytes > block->size) {
		PyErr_SetString(PyExc_ValueError, "more bytes than the block has");
		return NULL;
	}
	block->wipe = (size_t)bytes;
	if (block->owned)
		block->owned->wipe = block->wipe;
	Py_RETURN_NONE;
}

static PyObject *block_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	return is_there(self_of(self)) ? Py_NewRef(self) : NULL;
}

/* What is borrowed is left as it is. */
static PyObject *block_exit(PyObject *self, PyObject *unused)
{
	if (!shmi_py_is_owned(self_of(self)->owned))
		Py_RETURN_NONE;
	return block_free(self, unused);
}

static PyMethodDef methods[] = {{"free", block_free, METH_NOARGS, free_doc},
        {"release", block_release, METH_NOARGS, release_doc}, {"adopt", block_adopt, METH_NOARGS, adopt_doc},
        {"_wipe", block_wipe, METH_O, wipe_doc}, {"__enter__", block_enter, METH_NOARGS, NULL},
        {"__exit__", block_exit, METH_VARARGS, NULL}, {0}};

/* ---- attributes ---- */

static PyObject *get_offset(PyObject *self, void *unused)
{
	(void)unused;
	return is_there(self_of(self)) ? PyLong_FromUnsignedLongLong(self_of(self)->offset) : NULL;
}

static PyObject *get_address(PyObject *self, void *unused)
{
	(void)unused;
	return is_there(self_of(self)) ? PyLong_FromVoidPtr(self_of(self)->address) : NULL;
}

static PyObject *get_owned(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(shmi_py_is_owned(self_of(self)->owned));
}

static PyObject *get_freed(PyObject *self, void *unused)
{
	(void)unused;
	return PyBool_FromLong(self_of(self)->address == NULL);
}

static PyGetSetDef attributes[] = {
        {"offset", get_offset, NULL, "The reference that is good in every process: heap.block(offset) gives the block.",
                NULL},
        {"address", get_address, NULL, "Where this process has the block.", NULL},
        {"owned", get_owned, NULL,
                "Whether this object frees the block. False in a child of a fork for what its parent owns.", NULL},
        {"freed", get_freed, NULL, "Whether the block is gone: freed, or its heap detached.", NULL}, {0}};

static PyMemberDef members[] = {{"size", T_PYSSIZET, offsetof(struct shmi_py_block, size), READONLY, "Bytes."},
        {"heap", T_OBJECT, offsetof(struct shmi_py_block, heap), READONLY, "The heap in which it lies."},
        {"__weaklistoffset__", T_PYSSIZET, offsetof(struct shmi_py_block, weakrefs), READONLY, NULL}, {0}};

static PyObject *block_repr(PyObject *self)
{
	struct shmi_py_block *block = self_of(self);

	if (!block->address)
		return PyUnicode_FromFormat("<shmalloc.Block of %zd bytes, freed>", block->size);
	return PyUnicode_FromFormat("<shmalloc.Block of %zd bytes at offset %llu, %s>", block->size,
	        (unsigned long long)block->offset, shmi_py_is_owned(block->owned) ? "owned" : "borrowed");
}

static char block_doc[] =
        "Bytes in a heap, from Heap.alloc(), Heap.block() or a root. memoryview(block) reads and writes them.\n\n"
        "A block from alloc() is owned: it is freed by free(), at the end of `with`, when nothing refers to the object "
        "any more,\n"
        "and at the end of the program, unless release() gave it up or a root was set to it. All others are borrowed: "
        "the\n"
        "object refers to what somebody else frees. A block that is pickled arrives as a borrowed one.";

static PyType_Slot slots[] = {{Py_tp_doc, block_doc}, {Py_tp_dealloc, (void *)block_dealloc},
        {Py_tp_repr, (void *)block_repr}, {Py_tp_methods, methods}, {Py_tp_getset, attributes},
        {Py_tp_members, members}, {Py_bf_getbuffer, (void *)get_buffer}, {Py_bf_releasebuffer, (void *)release_buffer},
        {Py_mp_length, (void *)block_length}, {0}};

PyType_Spec shmi_py_block_spec = {.name = "shmalloc.Block",
        .basicsize = sizeof(struct shmi_py_block),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots};
