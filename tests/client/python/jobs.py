"""What workers run: importable, for those that are spawned."""
import os

import numpy as np
import shmalloc

kept = []


def total(a):
    return float(a.sum()), a.block.owned, os.getpid()


def fill(a, value):
    a[...] = value


def make(n):
    return shmalloc.share(shmalloc.array(np.arange(n)))


def keep(n):
    """The worker ends with arrays of its own, and with loans, still referred to."""
    kept.append(shmalloc.zeros(n))
    kept.append(memoryview(shmalloc.default().alloc(n)))
    kept.append(shmalloc.from_offset(kept[0].block.offset))


def take(a):
    owned = a.block.owned
    kept.append(a)
    return owned, int(a[-1])


def hold(pipe, a):
    """Has blocks of both kinds, says where, and waits to be killed."""
    mine = [shmalloc.zeros(1 << 17, scoped=True), shmalloc.zeros(1 << 18)]
    pipe.send((float(a[0]), mine[1].block.offset))
    pipe.recv()
