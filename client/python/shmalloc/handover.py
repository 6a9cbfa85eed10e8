"""Ownership that goes with a message."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, Union

from ._shmalloc import Block
from .heap import block_of, reduce_block

if TYPE_CHECKING:
    from .arrays import Array

_T = TypeVar("_T", bound=Union[Block, "Array"])


class Shared:
    """A block or array on its way to another process: see share(). The receiver gets the block or array itself."""

    __slots__ = ("_thing",)

    def __init__(self, thing: Union[Block, "Array"]) -> None:
        self._thing = thing

    def __copy__(self) -> Any:
        raise TypeError("what is handed over has one owner: it cannot be copied")

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        block = block_of(self._thing)
        if not block.owned:
            raise ValueError("handed over already: share() is for one receiver; pickle the object itself to lend it")
        if self._thing is block:
            parts, token = reduce_block(block), 0
        else:
            parts, token = self._thing.__reduce_ex__(4), sys.modules["shmalloc.layout"].send(block)
        block.release()
        return _receive, (*parts, token)


def _receive(rebuild: Any, args: tuple[Any, ...], token: int) -> Any:
    thing = rebuild(*args)
    block = block_of(thing)
    if thing is not block:
        sys.modules["shmalloc.layout"].receive(block, token)
    block.adopt()
    return thing


def share(thing: _T) -> Shared:
    """Hand a block or array over with a message: `queue.put(share(x))`, `return share(x)` of a worker.

    The sender owns it until it is pickled, and borrows it from then on; the receiver owns it, and frees it. A message that
    nobody receives leaves the block allocated, and so does one whose pickling fails after this part of it: adopt() it then. One
    that is unpickled twice is refused the second time, if it is an array; two receivers at the same moment are not told apart.
    Of a block a second receiver goes unnoticed. Both are a double free in the end.
    """
    if not block_of(thing).owned:
        raise ValueError("only what one owns can be handed over: see adopt()")
    return Shared(thing)


def adopt(thing: _T) -> _T:
    """Own what nobody owns: a block or array that was released, or whose name was deleted. Returns it.

    If there is another owner, in whatever process, it is freed twice.
    """
    block_of(thing).adopt()
    return thing
