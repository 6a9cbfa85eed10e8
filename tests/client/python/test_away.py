"""The daemon is away, or does not answer: what goes on, what waits, and what others do meanwhile."""
import errno
import os
import pickle
import signal
import threading
import time
import unittest

import numpy as np
import shmalloc
from ground import PATIENCE, Ground

LARGE = 8 << 20  # needs the daemon


class Away(Ground):
    def test_a_restart(self):
        a = shmalloc.array(np.arange(1000))
        shmalloc.default().roots["a"] = a
        message = pickle.dumps(a)
        shmalloc.default().alloc(16).free()
        self.daemon.kill()
        a[0] = 7
        small = shmalloc.default().alloc(16)
        np.testing.assert_array_equal(pickle.loads(message), a)
        self.assertEqual(shmalloc.from_root("a")[0], 7)
        self.daemon.start()
        large = shmalloc.default().alloc(LARGE)  # waits for it
        self.assertEqual(shmalloc.from_root("a", pop=True)[0], 7)
        self.assertTrue(small.owned and large.owned)

    def test_no_answer_in_time(self):
        heap = shmalloc.attach(timeout=0.2)
        block = heap.alloc(100)
        self.daemon.kill()
        for call in (lambda: heap.alloc(LARGE), lambda: heap.roots.__setitem__("a", block)):
            with self.assertRaisesRegex(TimeoutError, "is shmallocd running") as caught:
                call()
            self.assertEqual(caught.exception.errno, errno.EAGAIN)
        self.assertFalse(block.owned, "the root may yet be set: what it names must not be freed")
        self.daemon.start()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                heap.alloc(LARGE).free()
                break
            except TimeoutError:
                self.assertLess(time.monotonic(), deadline)
        if "a" in heap.roots:
            heap.roots.pop("a")
        else:
            block.adopt()
        heap.detach()


class Waiting(Ground):
    def setUp(self):
        super().setUp()
        self.heap = shmalloc.attach(timeout=PATIENCE)
        self.other = threading.Thread(target=self.run_other)
        self.result = None
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.daemon.process.pid, os.WSTOPPED)

    def go_on(self):
        os.kill(self.daemon.process.pid, signal.SIGCONT)
        self.other.join(PATIENCE)
        self.assertIsNotNone(self.result)

    def run_other(self):
        self.result = self.heap.alloc(LARGE)

    def until_it_waits(self):
        """The other thread sleeps in a system call for an answer: only without the interpreter's lock do we come here."""
        self.other.start()
        path = f"/proc/self/task/{self.other.native_id}/wchan"
        while True:
            with open(path) as f:
                if "poll" in f.read():
                    return

    def test_other_threads_run(self):
        self.until_it_waits()
        self.assertEqual(sum(range(1000)), 499500)
        self.assertIsNone(self.result)
        self.go_on()
        self.result = None
        self.heap.detach()

    def test_a_heap_in_use_is_not_left(self):
        self.until_it_waits()
        self.assertRaisesRegex(BufferError, "another thread", self.heap.detach)
        self.go_on()
        self.result = None
        self.heap.detach()

    def test_a_fork_meanwhile(self):
        """The child does not have the call that the parent's thread has under way."""
        self.until_it_waits()
        pid = os.fork()
        if pid == 0:
            try:
                self.heap.detach()
            finally:
                os._exit(not self.heap.detached)
        self.go_on()
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.result = None
        self.heap.detach()


if __name__ == "__main__":
    unittest.main()
