"""What is in a block that holds an array: a header that describes it, and the elements.

    byte  0  8  magic, "shmarray"; zeros when the array has been freed
          8  2  version, 1
         10  2  order of the elements: 0 C, 1 Fortran
         12  4  number of dimensions, n
         16  4  length of the type's description, t
         20  4  0
         24  8  tag: drawn at random for each array, so that a reference to one that is gone is not taken for the next one's
         32  8  hand-over: 0, or the token of a message that is on its way
         40  8  where the elements begin, from the block's start: a multiple of 64
         48  8  bytes of the elements
         56  n times 8: the shape
             t: the type, as in numpy's files (numpy.lib.format.dtype_to_descr), as ascii() writes it

Integers are unsigned and little-endian. Any process that has the heap can write here, and a root may name anything: each
header is copied once and then checked.
"""
from __future__ import annotations

import ast
import math
import os
import struct
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from ._shmalloc import Block

MAGIC = b"shmarray"
VERSION = 1
ALIGN = 64
MAX_DIMENSIONS = 32
MAX_DESCRIPTION = 1 << 14  # bytes; what is parsed is short, whoever wrote it

_HEAD = struct.Struct("<8sHHIIIQQQQ")
_HANDOVER = struct.Struct("<Q")
_HANDOVER_AT = 32


class Layout(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    tag: int
    start: int
    bytes: int


def plan(dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> tuple[Layout, bytes]:
    """Where things will be, and the header that says so."""
    if dtype.hasobject:
        raise TypeError("Python objects have no place in shared memory: give a dtype without them")
    text = ascii(npy.dtype_to_descr(dtype)).encode("ascii")
    if len(shape) > MAX_DIMENSIONS or len(text) > MAX_DESCRIPTION:
        raise ValueError("too many dimensions or fields")
    end = _HEAD.size + 8 * len(shape) + len(text)
    start = -(-end // ALIGN) * ALIGN
    size = math.prod(shape) * dtype.itemsize
    if start + size > sys.maxsize:
        raise MemoryError(f"an array of {size} bytes is larger than any heap")
    tag = int.from_bytes(os.urandom(8), "little")
    head = _HEAD.pack(MAGIC, VERSION, order == "F", len(shape), len(text), 0, tag, 0, start, size)
    return Layout(dtype, shape, order, tag, start, size), head + struct.pack(f"<{len(shape)}Q", *shape) + text


def _head(block: Block) -> tuple[Any, ...]:
    if block.size < _HEAD.size:
        raise ValueError("no array there: the block is too small to hold one")
    with memoryview(block) as view:
        head = _HEAD.unpack(bytes(view[: _HEAD.size]))
    if head[0] != MAGIC:
        raise ValueError("no array there: it has been freed, or never was one")
    if head[1] != VERSION:
        raise ValueError(f"an array of layout version {head[1]}; this package reads version {VERSION}")
    return head


def _dtype(text: bytes) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = npy.descr_to_dtype(ast.literal_eval(text.decode("ascii")))
    except (ValueError, TypeError, SyntaxError, LookupError, AttributeError, MemoryError, RecursionError, Warning):
        raise ValueError("the array's header is damaged: its type cannot be read") from None
    if dtype.hasobject:
        raise ValueError("the array's header is damaged: its type has Python objects")
    return dtype


def read(block: Block) -> Layout:
    """What the block's header says; ValueError if it holds no array, or cannot be right."""
    _, _, order, n, described, _, tag, _, start, size = _head(block)
    end = _HEAD.size + 8 * n + described
    if n > MAX_DIMENSIONS or described > MAX_DESCRIPTION or order > 1:
        raise ValueError("the array's header is damaged: its shape cannot be read")
    if not end <= start <= start + size <= block.size or start % ALIGN:
        raise ValueError("the array's header is damaged: the elements are not in the block")
    with memoryview(block) as view:
        rest = bytes(view[_HEAD.size : end])
    shape = struct.unpack(f"<{n}Q", rest[: 8 * n])
    dtype = _dtype(rest[8 * n :])
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError("the array's header is damaged: type and shape do not have its size")
    return Layout(dtype, shape, "CF"[order], tag, start, size)


def tag_of(block: Block) -> int:
    """The tag of the array in the block; ValueError if there is none."""
    tag: int = _head(block)[6]
    return tag


def _set_handover(block: Block, token: int) -> None:
    with memoryview(block) as view:
        _HANDOVER.pack_into(view, _HANDOVER_AT, token)


def send(block: Block) -> int:
    """The array is handed over: gives the token with which it is received, once."""
    _head(block)
    token = int.from_bytes(os.urandom(8), "little") | 1
    _set_handover(block, token)
    return token


def receive(block: Block, token: int) -> None:
    """ValueError if the message with this token was received before."""
    if _head(block)[7] != token:
        raise ValueError("this message was received before: its array has another owner")
    _set_handover(block, 0)
