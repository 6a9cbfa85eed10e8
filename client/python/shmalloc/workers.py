"""The end of multiprocessing's workers.

A process that ends well frees what it owns (_shmalloc registers that with the interpreter). Workers that were forked, those of
a fork server too, leave through os._exit(), which skips it; but multiprocessing runs finalizers of its own before that, if they
were registered after it has cleared those of the parent. A spawned worker has both, and must not free at the first: atexit
handlers and finalizers still run, and may use what it owns.
"""
from __future__ import annotations

import os
import sys
from typing import Any

from . import _shmalloc

_PRIORITY = -1000  # of finalizers: after those of programs
_FORKNOEXEC = 0x40  # PF_FORKNOEXEC of Linux, in the flags of /proc/PID/stat: a fork, without an exec after it
_FLAGS = 6  # where they are, behind the name


class _Anchor:
    """What multiprocessing calls us for, as long as it lives."""


_anchor = _Anchor()


def _free_owned() -> None:
    """Any other thread, daemon or not, may be using what is owned, without the interpreter's lock: then nothing is freed."""
    if len(sys._current_frames()) == 1:
        _shmalloc.free_owned()


def _was_forked() -> bool:
    """Of a worker: whether it leaves through os._exit(). An import in the worker itself comes too late for at-fork handlers."""
    try:
        with open("/proc/self/stat", "rb") as f:
            return bool(int(f.read().rpartition(b")")[2].split()[_FLAGS]) & _FORKNOEXEC)
    except OSError:
        return False


def _finalize_later(*_: Any) -> None:
    if not _was_forked():
        return
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
