"""What workers run: importable, for those that are spawned."""
import os

import numpy as np
import shmalloc

kept = []


def total(a):
    return float(a.sum()), a.block.owned, os.getpid()


def fill(a, value):
    a[...] = value


def make(heap, n):
    return shmalloc.share(shmalloc.array(np.arange(n), heap=heap))


def keep(heap, n):
    """The worker ends with arrays of its own, and with loans, still referred to."""
    kept.append(shmalloc.zeros(n, heap=heap))
    kept.append(memoryview(heap.alloc(n)))
    kept.append(shmalloc.from_offset(kept[-2].block.offset, heap))


def take(a):
    owned = a.block.owned
    kept.append(a)
    return owned, int(a[-1])


def hold(pipe, heap, a):
    """Has blocks of both kinds, says where, and waits to be killed."""
    mine = [shmalloc.zeros(1 << 17, heap=heap, scoped=True), shmalloc.zeros(1 << 18, heap=heap)]
    pipe.send((float(a[0]), mine[1].block.offset))
    pipe.recv()
