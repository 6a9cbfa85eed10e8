"""Numpy arrays in a heap."""
from __future__ import annotations

import operator
import sys
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from . import layout
from ._shmalloc import Block
from .heap import Heap, borrow, default, reference


def find_block(thing: Any) -> Optional[Block]:
    """The block in which an array's elements are, or None: at the end of its chain of bases."""
    if not isinstance(thing, Array):
        return None
    while isinstance(thing, np.ndarray):
        thing = thing.base
    base = thing.obj if isinstance(thing, memoryview) else thing
    return base if isinstance(base, Block) else None


class Array(np.ndarray):
    """A numpy array whose elements are in a heap; made by zeros(), empty(), array() and from_root().

    It keeps its block alive, and so do its slices and other views, which are Arrays as well. Pickled, it arrives as an array
    over the same memory, borrowed. What is computed from it, and copies, have memory of their own like any array, and are
    pickled with all their elements; so is np.asarray(a).

    To free one at once and not when the last reference goes: `b = a.block; del a; b.free()`. While a view of it is left, that
    is a BufferError, and nothing is freed.
    """

    @property
    def block(self) -> Optional[Block]:
        """The block that has the elements; None: they are in private memory."""
        return find_block(self)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if array is self or find_block(array) is not None:  # self: what was given as `out`
            return array
        return array[()] if array.ndim == 0 else array.view(np.ndarray)

    def __reduce_ex__(self, protocol: Any) -> Any:
        block = find_block(self)
        if block is None:
            return self.view(np.ndarray).__reduce_ex__(protocol)
        first = self.__array_interface__["data"][0] - block.address
        how = self.dtype, self.shape, self.strides, first, self.flags.writeable
        return _rebuild, (*reference(block), layout.tag_of(block), *how)

    def __reduce__(self) -> Any:
        return self.__reduce_ex__(2)


def _over(block: Block, dtype: Any, shape: tuple[int, ...], first: int, **how: Any) -> Array:
    """An array that holds an export of the block; numpy checks that it is within."""
    return Array(shape, dtype, np.frombuffer(block, np.uint8), first, **how)


def _from_block(block: Block) -> Array:
    """The whole array that the block's header describes."""
    what = layout.read(block)
    block._wipe(len(layout.MAGIC))
    return _over(block, what.dtype, what.shape, what.start, order=what.order)


def _rebuild(
    socket: Optional[str],
    heap: str,
    offset: int,
    tag: int,
    dtype: Any,
    shape: tuple[int, ...],
    strides: Any,
    first: int,
    writeable: bool,
) -> Array:
    """What a pickled array becomes."""
    block = borrow(socket, heap, offset)
    if layout.tag_of(block) != tag:
        raise ValueError("the array has been freed: its sender must keep it, or share() it")
    block._wipe(len(layout.MAGIC))
    made = _over(block, dtype, shape, first, strides=strides)
    made.flags.writeable = writeable
    return made


def check_whole(array: Array) -> None:
    """ValueError unless the array is what its block's header says."""
    block = find_block(array)
    assert block is not None
    whole = _from_block(block)
    if (array.dtype, array.shape, array.strides, array.__array_interface__["data"]) != (
        whole.dtype,
        whole.shape,
        whole.strides,
        whole.__array_interface__["data"],
    ):
        raise ValueError("a root names a whole array, not a view of one: set it to array(view), a copy")


def _shape(shape: Any) -> tuple[int, ...]:
    if isinstance(shape, (str, bytes, bytearray)):
        raise TypeError(f"a shape is an integer or a sequence of integers, not {type(shape).__name__}")
    try:
        dims = (operator.index(shape),)
    except TypeError:
        dims = tuple(operator.index(n) for n in shape)
    if any(not 0 <= n <= sys.maxsize for n in dims):
        raise ValueError("a dimension is negative, or too large for any array")
    return dims


def _new(shape: Any, dtype: DTypeLike, order: str, heap: Optional[Heap], **how: Any) -> Array:
    kind = np.dtype(dtype)
    dims = _shape(shape)
    if kind.subdtype:  # as numpy does
        kind, inner = kind.subdtype
        dims += inner
    if order not in ("C", "F"):
        raise ValueError("order is 'C' or 'F'")
    what, head = layout.plan(kind, dims, order)
    block = (heap or default()).alloc(what.start + what.bytes, align=layout.ALIGN, **how)
    with memoryview(block) as view:
        view[: len(head)] = head
    block._wipe(len(layout.MAGIC))
    return _over(block, kind, dims, what.start, order=order)


def empty(
    shape: Any,
    dtype: DTypeLike = float,
    order: str = "C",
    *,
    heap: Optional[Heap] = None,
    scoped: bool = False,
    lazy: bool = False,
) -> Array:
    """An array as numpy.empty() makes it, in a heap (default()), owned. scoped, lazy: see Heap.alloc()."""
    return _new(shape, dtype, order, heap, scoped=scoped, lazy=lazy)


def zeros(
    shape: Any,
    dtype: DTypeLike = float,
    order: str = "C",
    *,
    heap: Optional[Heap] = None,
    scoped: bool = False,
    lazy: bool = False,
) -> Array:
    """An array as numpy.zeros() makes it, in a heap (default()), owned. scoped, lazy: see Heap.alloc()."""
    return _new(shape, dtype, order, heap, scoped=scoped, lazy=lazy, zero=True)


def array(
    obj: ArrayLike,
    dtype: DTypeLike = None,
    order: str = "C",
    *,
    heap: Optional[Heap] = None,
    scoped: bool = False,
) -> Array:
    """A copy of `obj` in a heap (default()), owned."""
    source = np.asarray(obj, dtype)
    made = empty(source.shape, source.dtype, order, heap=heap, scoped=scoped)
    made[...] = source
    return made


def from_root(name: str, heap: Optional[Heap] = None, *, pop: bool = False) -> Array:
    """The array that a root names, borrowed. pop: the name is removed, and the array owned.

    KeyError: no such root. ValueError: it names something else than an array. TimeoutError, of pop: the name may go later,
    and the array is nobody's.
    """
    roots = (heap or default()).roots
    made = _from_block(roots[name])
    if pop:
        del roots[name]
        block = find_block(made)
        assert block is not None
        block.adopt()
    return made


def from_offset(offset: Union[int, np.integer[Any]], heap: Optional[Heap] = None) -> Array:
    """The array whose block is at an offset (array.block.offset), borrowed. ValueError: no array is there."""
    return _from_block((heap or default()).block(int(offset)))
