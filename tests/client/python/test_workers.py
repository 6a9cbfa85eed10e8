"""Processes: pools of all kinds, hand-over, workers that are killed, forks, and what is left when they end."""
import concurrent.futures
import gc
import multiprocessing
import os
import signal
import unittest

import jobs
import numpy as np
import shmalloc
from ground import PATIENCE, Ground

METHODS = ("fork", "spawn", "forkserver")


class Pools(Ground):
    def each(self):
        for method in METHODS:
            with self.subTest(method):
                self.heap = shmalloc.attach()
                yield multiprocessing.get_context(method)
                gc.collect()
                self.heap.detach()
                self.expect_live(0)

    def test_pool(self):
        for context in self.each():
            a = shmalloc.array(np.arange(1000.0))
            pool = context.Pool(2)
            for view, (answer, owned, pid) in zip((a, a[::2], a[:3]), pool.map(jobs.total, (a, a[::2], a[:3]))):
                self.assertEqual((answer, owned), (view.sum(), False))
                self.assertNotEqual(pid, os.getpid())
            pool.starmap(jobs.fill, [(a[:500], 1), (a[500:], 2)])
            self.assertEqual(a.sum(), 1500)
            pool.starmap(jobs.keep, [(self.heap, n) for n in (1000, 100_000, 1 << 20)])
            pool.close()
            pool.join()
            self.expect_live(shmalloc.default().block(a.block.offset).size)
            del view, a

    def test_executor_gives_arrays_back(self):
        for context in self.each():
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                made = [pool.submit(jobs.make, self.heap, n) for n in (10, 1 << 20)]
                for n, future in zip((10, 1 << 20), made):
                    a = future.result(PATIENCE)
                    self.assertTrue(a.block.owned)
                    np.testing.assert_array_equal(a, np.arange(n))
            del made, future, a

    def test_executor_takes_arrays_over(self):
        for context in self.each():
            a = shmalloc.array(np.arange(1 << 18))
            with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
                self.assertEqual(pool.submit(jobs.take, shmalloc.share(a)).result(PATIENCE), (True, (1 << 18) - 1))
                self.assertFalse(a.block.owned)
                pool.submit(jobs.keep, self.heap, 10).result(PATIENCE)

    def test_killed(self):
        for context in self.each():
            a = shmalloc.array([3.0])
            ours, theirs = context.Pipe()
            worker = context.Process(target=jobs.hold, args=(theirs, self.heap, a))
            worker.start()
            self.assertTrue(ours.poll(PATIENCE))
            first, offset = ours.recv()
            self.assertEqual(first, 3)
            os.kill(worker.pid, signal.SIGKILL)
            worker.join(PATIENCE)
            shared = shmalloc.from_offset(offset)
            small = shmalloc.default().block(a.block.offset).size
            self.expect_live(shared.block.size + small)  # the scoped block is free
            shmalloc.adopt(shared)
            for it in (ours, theirs, worker):
                it.close()
            del a, shared


class Forks(Ground):
    def in_child(self, function):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_a_child_frees_nothing_of_its_parent(self):
        a, b = shmalloc.array(np.arange(100_000)), shmalloc.default().alloc(100)
        memoryview(b)[:2] = b"ok"

        def child():
            nonlocal a, b
            assert not a.block.owned and not b.owned
            assert a[-1] == 99_999
            self.assertRaisesRegex(ValueError, "borrowed", b.free)
            with b:
                pass
            del a, b
            gc.collect()

        self.in_child(child)
        self.assertEqual((a[-1], bytes(b)[:2]), (99_999, b"ok"))
        self.assertTrue(a.block.owned and b.owned)
        self.expect_live(112 + shmalloc.default().block(a.block.offset).size)

    def test_a_child_has_blocks_of_its_own(self):
        heap = shmalloc.default()
        parents = heap.alloc(1000)

        def child():
            mine = heap.alloc(1000)
            assert mine.owned and mine.offset != parents.offset
            heap.roots["child"] = mine
            shmalloc.zeros(1 << 20)[:] = 1
            assert heap.stats()["client"] != self.client

        self.client = heap.stats()["client"]
        self.in_child(child)
        heap.roots.pop("child").free()

    def test_a_child_takes_over(self):
        a = shmalloc.zeros(1 << 18)
        a.block.release()
        self.in_child(lambda: shmalloc.adopt(a).block.adopt() or a.fill(1) or shmalloc._shmalloc.free_owned())
        self.expect_live(0)

    def test_a_child_of_a_child(self):
        b = shmalloc.default().alloc(1 << 20)
        self.in_child(lambda: self.in_child(lambda: self.assertFalse(b.owned)))
        self.expect_live(1 << 20)

    def test_a_child_detaches(self):
        b = shmalloc.default().alloc(1 << 20)
        self.in_child(lambda: shmalloc.default().detach() or self.assertTrue(b.freed))
        self.assertFalse(b.freed)
        self.expect_live(1 << 20)


BEGIN = """
import os, sys, threading
import multiprocessing as mp, numpy as np, shmalloc
"""


class Ends(Ground):
    """Programs that end with something left: no word on standard error, nothing allocated."""

    def test_global_arrays(self):
        self.run_program(BEGIN + """
a = shmalloc.zeros(1 << 20)
b = a[1:]
c = memoryview(shmalloc.default().alloc(1000))
loop = [a]
loop.append(loop)
""")

    def test_what_the_interpreter_does_not_collect(self):
        self.run_program(BEGIN + """
import ctypes
a = shmalloc.zeros(1 << 20)
ctypes.pythonapi.Py_IncRef(ctypes.py_object(a.block))
b = shmalloc.default().alloc(1 << 20)
sys.b = b
""")

    def test_a_thread_that_goes_on(self):
        self.run_program(BEGIN + """
a = shmalloc.zeros(1 << 20)
started = threading.Event()
def work():
    while True:
        shmalloc.default().alloc(100)
        started.set()
threading.Thread(target=work, daemon=True).start()
started.wait()
""")

    def test_exit_and_exceptions(self):
        for how, status in (("sys.exit(3)", 3), ("raise SystemExit(4)", 4), ("raise KeyError(a)", 1)):
            self.run_program(BEGIN + "a = shmalloc.zeros(1 << 20)\n" + how, status=status, stderr="" if status > 1 else None)
            self.expect_live(0)

    def test_workers(self):
        for method in METHODS:
            self.run_program(BEGIN + f"""
def work(a, queue):
    global mine
    mine = [shmalloc.zeros(1 << 20), a]
    queue.put(shmalloc.share(shmalloc.array(a)))
if __name__ == "__main__":
    mp.set_start_method("{method}")
    a = shmalloc.array(np.arange(10))
    queue = mp.Queue()
    workers = [mp.Process(target=work, args=(a, queue)) for _ in range(2)]
    for w in workers:
        w.start()
    got = [queue.get() for _ in workers]
    for w in workers:
        w.join()
        assert w.exitcode == 0, w.exitcode
    assert all(g.block.owned and (g == a).all() for g in got)
    queue.close()
    queue.join_thread()
""")
            self.expect_live(0)

    def test_workers_that_import_it_first(self):
        """The parent does not have the package, or had it before multiprocessing."""
        for first in ("", "import shmalloc\n"):
            self.run_program(first + """
import multiprocessing as mp
def work():
    import shmalloc
    global mine
    mine = shmalloc.zeros(1 << 20)
if __name__ == "__main__":
    for method in ("fork", "forkserver", "spawn"):
        w = mp.get_context(method).Process(target=work)
        w.start()
        w.join()
        assert w.exitcode == 0, w.exitcode
""")
            self.expect_live(0)

    def test_atexit_handlers_of_workers_still_own(self):
        """Spawned, which have them: whether the package came with the job or inside it."""
        for first in ("", "import shmalloc\n"):
            said = self.run_program(first + """
import multiprocessing as mp
def work():
    import atexit, shmalloc
    mine = shmalloc.default().alloc(1 << 20)
    memoryview(mine)[:4] = b"mine"
    atexit.register(lambda: print(mine.owned, bytes(mine)[:4]))
if __name__ == "__main__":
    w = mp.get_context("spawn").Process(target=work)
    w.start()
    w.join()
    assert w.exitcode == 0, w.exitcode
""")
            self.assertEqual(said, "True b'mine'\n")
            self.expect_live(0)

    def test_a_forked_worker_of_a_spawned_one(self):
        self.run_program("""
import multiprocessing as mp
def inner():
    import shmalloc
    global mine
    mine = shmalloc.default().alloc(1 << 20)
def run(method, *job):
    w = mp.get_context(method).Process(target=job[0], args=job[1:])
    w.start()
    w.join()
    assert w.exitcode == 0, w.exitcode
if __name__ == "__main__":
    run("spawn", run, "fork", inner)
    run("fork", run, "spawn", inner)
""")

    def test_a_worker_with_threads_leaves_what_they_may_use(self):
        self.run_program(BEGIN + """
from concurrent.futures import ThreadPoolExecutor
def work():
    global mine, pool
    mine = shmalloc.zeros(1 << 20)
    pool = ThreadPoolExecutor()
    pool.submit(mine.sum).result()
w = mp.get_context("fork").Process(target=work)
w.start()
w.join()
assert w.exitcode == 0, w.exitcode
""")
        self.left_bytes = (1 << 23) + 8192

    def test_a_daemon_thread_is_a_thread(self):
        self.run_program(BEGIN + """
def work():
    global mine
    mine = shmalloc.default().alloc(1 << 20)
    threading.Thread(target=threading.Event().wait, daemon=True).start()
w = mp.get_context("fork").Process(target=work)
w.start()
w.join()
assert w.exitcode == 0, w.exitcode
""")
        self.left_bytes = 1 << 20

    def test_without_a_daemon_at_the_end(self):
        pid = self.daemon.process.pid
        self.run_program(BEGIN + f"""
import signal
a = shmalloc.array([1, 2, 3])
os.kill({pid}, signal.SIGKILL)
""")
        self.daemon.process.wait()
        self.daemon.start()
        shmalloc.attach().detach()

    def test_sub_interpreters(self):
        self.run_program("""
import _xxsubinterpreters as sub
import shmalloc
b = shmalloc.default().alloc(100)
for _ in range(3):
    it = sub.create()
    sub.run_string(it, '''
import shmalloc
b = shmalloc.default().alloc(1 << 20)
assert type(b) is shmalloc.Block
shmalloc.default().roots["b"] = b
b.adopt()
''')
    assert type(shmalloc.default().roots["b"]) is shmalloc.Block
    sub.destroy(it)
assert b.owned
del shmalloc.default().roots["b"]
""")


if __name__ == "__main__":
    unittest.main()
