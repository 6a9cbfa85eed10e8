"""Memory that several processes share, from Python.

A daemon, shmallocd, owns heaps in shared memory; this package attaches to one and allocates in it: blocks, which have the
buffer protocol, and numpy arrays. What is pickled is a reference, so a worker process receives an array of any size in the
same time, and sees the same bytes:

    import shmalloc
    from concurrent.futures import ProcessPoolExecutor

    def total(a):                           # in the worker: the same memory
        return a.sum()

    if __name__ == "__main__":
        a = shmalloc.zeros((1 << 14, 1 << 11))      # 256 MiB
        with ProcessPoolExecutor() as pool:
            print(pool.submit(total, a).result())

Which heap: attach(socket, heap) says it, or the variables SHMALLOC_SOCKET and SHMALLOC_HEAP; functions without a `heap` use
default(). A receiver attaches by itself, once for each heap.

Who owns a block
    Each block has one owner at most, who frees it. What alloc(), zeros(), empty() and array() give is owned by the object that
    they return: it is freed when nothing refers to it any more (views count), at the end of the program at the latest.
    Everything else is borrowed and frees nothing: what was unpickled, what a root or an offset gave, and in a child of
    fork() all that the parent owns.
      * A sender keeps what it has pickled until the receivers are done. (A receiver that comes too late gets ValueError, if
        the memory is not another array's already.)
      * share(x) in a message hands x over: the sender gives it up as it is pickled, and the receiver owns it.
      * heap.roots[name] = x gives it up to the name; heap.roots.pop(name) and from_root(name, pop=True) own it again.
      * x.release() of a block gives it up to nobody; adopt(x) takes what nobody owns.
    A process that is killed frees nothing, nor does one that leaves through os._exit(), workers of multiprocessing aside: what
    it owned stays allocated, unless it was made with scoped=True; so does what a forked worker has that ends while another thread
    of it runs. Scoped blocks go with the process that made them, however
    it ends, so others use them only as long as it lives.

Errors are OSError and its subclasses, with errno (TimeoutError: the daemon did not answer in time), and MemoryError.

Threads: all functions may be called from any thread; what may wait for the daemon does so without the interpreter's lock. At the
end of the main program daemon threads are not waited for: one that is inside a loop of numpy's then goes on over memory that
has been freed, and may be another's. Join those that write to arrays, or release() what they use.
fork: a child may go on using what it has, and attaches by itself. Free-threaded interpreters take up their lock again when
this package is imported; sub-interpreters may import it if they share the main interpreter's lock.
"""
from __future__ import annotations

from importlib.util import find_spec as _find
from typing import TYPE_CHECKING, Any

from ._shmalloc import Block, version as __version__
from .handover import Shared, adopt, share
from .heap import Heap, Roots, attach, default
from . import workers as _workers

if TYPE_CHECKING:
    from .arrays import Array, array, empty, from_offset, from_root, zeros

_ARRAYS = ("Array", "array", "empty", "from_offset", "from_root", "zeros")

__all__ = ["Block", "Heap", "Roots", "Shared", "adopt", "attach", "default", "share"]
if _find("numpy"):  # `from shmalloc import *` does without
    __all__ += _ARRAYS

_workers.watch()


def __getattr__(name: str) -> Any:
    """What needs numpy imports it at first use."""
    if name not in _ARRAYS:
        raise AttributeError(f"module 'shmalloc' has no attribute {name!r}")
    try:
        from . import arrays
    except ModuleNotFoundError as e:
        if e.name != "numpy":
            raise
        raise ImportError(f"shmalloc.{name} needs numpy: install it (Debian: python3-numpy)", name="numpy") from None
    return getattr(arrays, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_ARRAYS})
