#include "client/python/module.h"

#include <errno.h>
#include <string.h>

/* ---- errors ---- */

/* What is to be done about it; "" where the system's words say all. */
static const char *advice(int error)
{
	switch (error) {
	case ENOENT:
	case ECONNREFUSED:
		return ": no daemon there; start shmallocd, or set SHMALLOC_SOCKET";
	case EACCES:
		return ": not a user of this heap, or evicted; see shmallocctl heaps";
	case EPROTO:
		return ": the daemon is of another version; install the same one";
	case ENXIO:
		return ": the daemon has no heap of that name; see shmallocctl heaps, or set SHMALLOC_HEAP";
	case EMFILE:
		return ": 16 heaps are attached already; detach one";
	case ENOSPC:
		return ": all 1024 roots are taken; delete one";
	default:
		return "";
	}
}

PyObject *shmi_py_fail(int error, const char *what)
{
	PyObject *made, *type = error == EAGAIN ? PyExc_TimeoutError : PyExc_OSError;
	PyObject *text = PyUnicode_FromFormat("%s: %s%s", what,
	        error == EAGAIN ? "no answer from the daemon in time; is shmallocd running?" : strerror(error),
	        advice(error));

	if (!text)
		return NULL;
	if (error == ENOMEM) {
		PyErr_Format(
		        PyExc_MemoryError, "%s: the heap, /dev/shm or a limit is full; see shmallocctl stats", what);
	} else if (error == EINVAL) {
		PyErr_Format(PyExc_ValueError, "%s: invalid argument", what);
	} else if ((made = PyObject_CallFunction(type, "iO", error, text)) != NULL) {
		PyErr_SetObject((PyObject *)Py_TYPE(made), made);
		Py_DECREF(made);
	}
	Py_DECREF(text);
	return NULL;
}

/* ---- the module ---- */

PyDoc_STRVAR(free_owned_doc, "free_owned()\n--\n\n"
                             "Free all blocks that this process owns, those in use as well: for its very end.");

static PyObject *free_owned(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	shmi_py_free_all();
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {{"free_owned", free_owned, METH_NOARGS, free_owned_doc}, {0}};

/* Once for the process, whatever the number of interpreters. What objects still own when the last interpreter is gone is freed
 * then: module variables of programs that end while something refers to them. */
static int init_process(void)
{
	static bool done;

	if (done)
		return 0;
	if (shmi_py_owned_init() != 0 || Py_AtExit(shmi_py_free_all) != 0) {
		PyErr_SetString(PyExc_ImportError, "_shmalloc: no place for what is to be done at exit");
		return -1;
	}
	done = true;
	return 0;
}

static int add_type(PyObject *module, PyType_Spec *spec, const char *name)
{
	PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
	int error = type ? PyModule_AddObjectRef(module, name, type) : -1;

	Py_XDECREF(type);
	return error;
}

static int add_all(PyObject *module)
{
	if (init_process() != 0 || add_type(module, &shmi_py_block_spec, "Block") != 0 ||
	        add_type(module, &shmi_py_heap_spec, "Heap") != 0)
		return -1;
	return PyModule_AddStringConstant(module, "version", shma_version());
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)add_all}, {0}};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
        .m_name = "_shmalloc",
        .m_doc = "The C part of the package shmalloc: use that.",
        .m_methods = functions,
        .m_slots = slots};

PyMODINIT_FUNC PyInit__shmalloc(void);

PyMODINIT_FUNC PyInit__shmalloc(void)
{
	return PyModuleDef_Init(&definition);
}
