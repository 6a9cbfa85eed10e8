"""Heaps, their roots, and references to their blocks."""
from __future__ import annotations

import copyreg
import errno
import os
import sys
from typing import TYPE_CHECKING, Any, Union

from . import _shmalloc
from ._shmalloc import Block

if TYPE_CHECKING:
    from .arrays import Array

# What has been attached by default() and by references, for as long as the process runs.
_attached: dict[tuple[str | None, str], Heap] = {}


def block_of(thing: Union[Block, "Array"]) -> Block:
    """The block of a Block or an Array; TypeError for anything else."""
    if isinstance(thing, Block):
        return thing
    arrays = sys.modules.get("shmalloc.arrays")
    block = arrays.find_block(thing) if arrays else None
    if block is None:
        raise TypeError(f"a Block or an Array in a heap is needed, not {type(thing).__name__}")
    return block


class Roots:
    """Names by which processes find their first blocks: `heap.roots`.

    roots[name] = x     gives block or array x up to the name, under which it lives on; a name that is there is replaced, and
                        what it named is nobody's then. ValueError, TypeError, and OSError with ENOSPC leave x as it was; after
                        any other error the name may be there or not, and x is nobody's
    roots[name]         the block, borrowed; KeyError
    name in roots       whether there is one
    del roots[name]     the name alone goes; KeyError
    roots.pop(name)     the name goes, and the block is owned by who called (if nobody else changes that name meanwhile). After a
                        TimeoutError the name may go later, and the block is nobody's

    Names have 1 to 95 bytes; they cannot be listed here, but `shmallocctl roots` does. For arrays see shmalloc.from_root().
    """

    __slots__ = ("_heap",)

    def __init__(self, heap: Heap) -> None:
        self._heap = heap

    def __getitem__(self, name: str) -> Block:
        return self._heap._root_get(name)

    def __setitem__(self, name: str, thing: Union[Block, "Array"]) -> None:
        block = block_of(thing)
        if thing is not block:
            sys.modules["shmalloc.arrays"].check_whole(thing)
        owned = block.owned
        block.release()  # first: a root must never name what is freed
        try:
            self._heap._root_set(name, block)
        except (ValueError, TypeError, OSError) as e:
            refused = not isinstance(e, OSError) or e.errno == errno.ENOSPC
            if owned and refused:  # after any other error it may take effect yet
                block.adopt()
            raise

    def __delitem__(self, name: str) -> None:
        self._heap._root_del(name)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The block, borrowed, or the default."""
        try:
            return self._heap._root_get(name)
        except KeyError:
            return default

    def pop(self, name: str) -> Block:
        """Remove the name and own its block."""
        block = self._heap._root_get(name)
        self._heap._root_del(name)
        block.adopt()
        return block

    def __repr__(self) -> str:
        return f"<roots of {self._heap!r}>"


class Heap(_shmalloc.Heap):
    """A heap to which this process is attached; made by attach(). It is left with detach(), at the end of `with`, or when neither
    it nor a block of it is referred to. Several Heaps may be of one heap; each must be left.

    A Heap that is pickled arrives as an attachment of the receiver.
    """

    __slots__ = ()

    @property
    def roots(self) -> Roots:
        """Named blocks: see Roots."""
        return Roots(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return attached, (self.socket, self.name)

    def __repr__(self) -> str:
        state = ", detached" if self.detached else ""
        return f"<shmalloc.Heap {self.name!r} of {self.socket or 'the default socket'}{state}>"


def _resolve(socket: Any, heap: str | None) -> tuple[str | None, str]:
    """What is not given comes from the environment. A path is made good for processes that are elsewhere."""
    path = os.fspath(socket) if socket is not None else os.environ.get("SHMALLOC_SOCKET") or None
    if path is not None:
        path = os.path.join(os.getcwd(), os.fsdecode(path))
    return path, heap or os.environ.get("SHMALLOC_HEAP") or "default"


def attach(
    socket: Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]", None] = None,
    heap: str | None = None,
    label: str | None = None,
    timeout: float | None = None,
) -> Heap:
    """Attach to a heap. What is not given comes from SHMALLOC_SOCKET and SHMALLOC_HEAP, or else is where and what the daemon
    serves by default. label: what statistics call this process. timeout: the longest wait for the daemon, now and in later
    calls, in seconds (5; math.inf: for ever); the first attachment of a process to a heap decides.

    Where neither says a socket, its path is not in references either (heap.socket is None): each receiver looks in the places of
    its own user and environment. Say it, if senders and receivers differ in these.

    FileNotFoundError, ConnectionRefusedError: no daemon. PermissionError: not allowed. OSError with ENXIO: no such heap.
    """
    path, name = _resolve(socket, heap)
    return Heap(path, name, label, timeout)


def attached(socket: str | None, name: str) -> Heap:
    """The Heap of this process for a reference, attached at its first."""
    heap = _attached.get((socket, name))
    if heap is None or heap.detached:
        heap = Heap(socket, name)
        if _attached.get((socket, name), heap).detached:
            _attached[socket, name] = heap
        heap = _attached.setdefault((socket, name), heap)  # of two threads one is the first
    return heap


def default() -> Heap:
    """The heap that the environment names, attached at the first call."""
    return attached(*_resolve(None, None))


def borrow(socket: str | None, name: str, offset: int, size: int = -1) -> Block:
    """What a pickled block becomes."""
    return attached(socket, name).block(offset, size)


def reference(block: Block) -> tuple[str | None, str, int]:
    """What borrow() needs."""
    return block.heap.socket, block.heap.name, block.offset


def reduce_block(block: Block) -> tuple[Any, ...]:
    """As __reduce__; the type is of C."""
    return borrow, (*reference(block), block.size)


copyreg.pickle(Block, reduce_block)
