"""The end of multiprocessing's workers.

A process that ends well frees what it owns (_shmalloc registers that with the interpreter). Workers that were forked leave
through os._exit(), which skips it; but multiprocessing runs finalizers of its own before that, if they were registered after
it has cleared those of the parent.
"""
from __future__ import annotations

import os
import sys
import threading
from typing import Any

from . import _shmalloc

_PRIORITY = -1000  # of finalizers: after those of programs


class _Anchor:
    """What multiprocessing calls us for, as long as it lives."""


_anchor = _Anchor()


def _free_owned() -> None:
    """Other threads are waited for only after this, and may use what is owned: then it is left to the interpreter's objects."""
    if all(t.daemon or t is threading.current_thread() for t in threading.enumerate()):
        _shmalloc.free_owned()


def _finalize_later(*_: Any) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _free_owned, exitpriority=_PRIORITY)


def _ask() -> None:
    """To be called again when a worker has begun, whatever the way it was started."""
    util = sys.modules.get("multiprocessing.util")
    if util:
        util.register_after_fork(_anchor, _finalize_later)


def watch() -> None:
    """Called once, at import: which may be in a parent, in a worker, or before there is any multiprocessing."""
    os.register_at_fork(after_in_child=_ask)
    _ask()
    process = sys.modules.get("multiprocessing.process")
    if process and process.parent_process() is not None:
        _finalize_later()
