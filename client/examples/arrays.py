"""Handing a large array to a worker process, in three ways, measured.

    arrays.py [MIB [ROUNDS]]       of 256 MiB, 5 times

The parent has an array; a worker that runs already receives it, sums it and answers. "handed" is until the worker has the array,
"and summed" until the parent has the sum.

    pickle          the array goes through the queue
    shared_memory   it is copied into a segment of multiprocessing.shared_memory, whose name goes through the queue
    shmalloc        it was made in a heap, and a reference goes through the queue

The worker maps the pages of a heap once, those of a segment each time, when it reads them: that is in "and summed".

Needs numpy, the package shmalloc in PYTHONPATH, and a daemon with room for the array (SHMALLOC_SOCKET, or the default one).
"""
import multiprocessing
import pickle
import statistics
import sys
import time
from multiprocessing import shared_memory

import numpy as np
import shmalloc


def worker(inbox, outbox):
    """Each message is an array, or the name of a segment with its shape and type; None ends it."""
    while (message := inbox.get()) is not None:
        segment = None
        if isinstance(message, tuple):
            name, shape, dtype = message
            segment = shared_memory.SharedMemory(name)
            array = np.ndarray(shape, dtype, segment.buf)
        else:
            array = message
        handed = time.monotonic()
        outbox.put((handed, int(array.sum())))
        del array, message
        if segment:
            segment.close()


def ask(queues, message):
    """Gives when the worker had it, its answer, and the message."""
    inbox, outbox = queues
    inbox.put(message)
    handed, answer = outbox.get()
    return handed, answer, message


def by_message(queues, array):
    return ask(queues, array)


def by_segment(queues, array):
    segment = shared_memory.SharedMemory(create=True, size=array.nbytes)
    there = np.ndarray(array.shape, array.dtype, segment.buf)
    there[...] = array
    del there
    try:
        return ask(queues, (segment.name, array.shape, array.dtype.str))
    finally:
        segment.close()
        segment.unlink()


def measure(way, queues, array, rounds):
    """Medians of the seconds until the worker had it and until the parent had the sum; and the length of the message."""
    expected = int(array.sum())
    handed, whole = [], []
    for _ in range(rounds):
        start = time.monotonic()
        at, answer, message = way(queues, array)
        handed.append(at - start)
        whole.append(time.monotonic() - start)
        if answer != expected:
            raise SystemExit(f"{way.__name__}: the sum is {answer} instead of {expected}")
    return statistics.median(handed), statistics.median(whole), len(pickle.dumps(message))


def main(mib=256, rounds=5):
    context = multiprocessing.get_context("spawn")
    queues = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=worker, args=queues)
    process.start()
    private = np.arange(mib << 17)
    shared = shmalloc.array(private)
    ways = (("pickle", by_message, private), ("shared_memory", by_segment, private), ("shmalloc", by_message, shared))
    measure(by_message, queues, shared[:1], 1)  # the worker is there, and has attached
    print(f"an array of {mib} MiB to a worker, medians of {rounds}:\n")
    print(f"{'':14} {'handed':>12} {'and summed':>12} {'message':>16}")
    for name, way, array in ways:
        handed, whole, size = measure(way, queues, array, rounds)
        print(f"{name:14} {handed * 1000:9.2f} ms {whole * 1000:9.2f} ms {size:10} bytes")
    queues[0].put(None)
    process.join()
    return process.exitcode


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
