"""Heaps and blocks without numpy: the buffer protocol, who frees what, roots, errors."""
import copy
import errno
import gc
import math
import os
import pathlib
import pickle
import subprocess
import sys
import unittest
import weakref

import shmalloc
from ground import Ground


class Buffers(Ground):
    def test_bytes_are_those_of_the_heap(self):
        block = shmalloc.default().alloc(1000, zero=True)
        self.assertEqual((len(block), block.size, bytes(block)), (1000, 1000, bytes(1000)))
        with memoryview(block) as view:
            self.assertEqual((view.readonly, view.format, view.nbytes, view.obj is block), (False, "B", 1000, True))
            view[10:14] = b"here"
        again = shmalloc.default().block(block.offset, 1000)
        self.assertEqual(bytes(again)[10:14], b"here")
        self.assertEqual(again.address, block.address)

    def test_a_block_with_exports_is_not_freed(self):
        block = shmalloc.default().alloc(100)
        views = [memoryview(block), memoryview(block)[5:]]
        for view in views:
            with self.assertRaisesRegex(BufferError, "release them"):
                block.free()
            view.release()
        block.free()
        self.assertTrue(block.freed)

    def test_a_freed_block_refuses_everything(self):
        block = shmalloc.default().alloc(100)
        block.free()
        block.free()
        for use in (memoryview, len, lambda b: b.offset, lambda b: b.address, lambda b: b.release(), lambda b: b.adopt(),
                    lambda b: b.__enter__(), pickle.dumps):
            with self.assertRaisesRegex(ValueError, "freed"):
                use(block)
        self.assertIn("freed", repr(block))
        self.assertFalse(block.owned)

    def test_a_view_keeps_the_block(self):
        block = shmalloc.default().alloc(300 << 10)
        gone = weakref.ref(block)
        view = memoryview(block)
        view[:2] = b"ok"
        del block
        gc.collect()
        self.assertIsNotNone(gone())
        self.assertEqual(bytes(view[:2]), b"ok")
        del view
        self.assertIsNone(gone())
        self.expect_live(0)

    def test_empty_and_odd_sizes(self):
        heap = shmalloc.default()
        self.assertEqual(bytes(heap.alloc(0)), b"")
        self.assertEqual(heap.alloc(1, align=4096).address % 4096, 0)
        for bad in ({"size": -1}, {"size": 1, "align": 3}, {"size": 1, "align": -8}, {"size": 1, "align": 1 << 30}):
            with self.assertRaisesRegex(ValueError, "up to 64 MiB"):
                heap.alloc(**bad)
        with self.assertRaises(TypeError):
            heap.alloc(1, True)
        with self.assertRaisesRegex(MemoryError, "limit is full"):
            heap.alloc(1 << 40)
        with self.assertRaises(OverflowError):
            heap.alloc(1 << 70)

    def test_lazy_and_scoped(self):
        heap = shmalloc.default()
        lazy = heap.alloc(1 << 20, lazy=True, zero=True)
        self.assertEqual(bytes(memoryview(lazy)[-4:]), bytes(4))
        heap.alloc(4 << 20, lazy=True).free()
        heap.alloc(100, scoped=True).release()
        self.left_bytes = 112  # as long as we live


class Ownership(Ground):
    def test_freed_when_collected(self):
        heap = shmalloc.default()
        before = sys.getrefcount(heap)
        block = heap.alloc(1 << 20)
        self.assertTrue(block.owned)
        self.assertEqual(sys.getrefcount(heap), before + 1)
        self.expect_live(1 << 20)
        del block
        self.assertEqual(sys.getrefcount(heap), before)
        self.expect_live(0)

    def test_freed_with_a_cycle(self):
        block = shmalloc.default().alloc(1 << 20)
        cycle = [memoryview(block)]
        cycle.append(cycle)
        del block, cycle
        gc.collect()
        self.expect_live(0)

    def test_freed_at_the_end_of_with(self):
        heap = shmalloc.default()
        with heap.alloc(1 << 20) as block, memoryview(block):
            self.expect_live(1 << 20)
        self.assertTrue(block.freed)
        with self.assertRaises(BufferError), heap.alloc(1 << 20) as block:
            view = memoryview(block)
        view.release()
        block.free()

    def test_borrowed_never_frees(self):
        heap = shmalloc.default()
        block = heap.alloc(1 << 20)
        with heap.block(block.offset) as loan:
            self.assertFalse(loan.owned)
            self.assertRaisesRegex(ValueError, "borrowed", loan.free)
        self.assertFalse(loan.freed)
        del loan
        self.expect_live(1 << 20)

    def test_release_and_adopt(self):
        heap = shmalloc.default()
        block = heap.alloc(1 << 20)
        self.assertEqual(block.release(), block.offset)
        self.assertFalse(block.owned)
        self.assertEqual(block.release(), block.offset)
        offset = block.offset
        del block
        self.expect_live(1 << 20)
        loan = heap.block(offset)
        self.assertIs(shmalloc.adopt(loan), loan)
        loan.adopt()
        loan.free()
        self.expect_live(0)

    def test_references_are_small_and_lend(self):
        block = shmalloc.default().alloc(10 << 20)
        message = pickle.dumps(block)
        self.assertLess(len(message), 200)
        self.assertLess(abs(len(message) - len(pickle.dumps(shmalloc.default().alloc(10)))), 16)
        for copied in (pickle.loads(message), copy.copy(block)):
            self.assertEqual((copied.address, copied.size, copied.owned), (block.address, block.size, False))

    def test_handed_over(self):
        block = shmalloc.default().alloc(1 << 20)
        parcel = shmalloc.share(block)
        self.assertTrue(block.owned)
        self.assertRaisesRegex(TypeError, "one owner", copy.copy, parcel)
        self.assertRaisesRegex(TypeError, "one owner", copy.deepcopy, [parcel])
        self.assertTrue(block.owned)
        message = pickle.dumps(parcel)
        self.assertFalse(block.owned)
        self.assertRaisesRegex(ValueError, "handed over", pickle.dumps, parcel)
        self.assertRaisesRegex(ValueError, "one owns", shmalloc.share, block)
        del block, parcel
        self.expect_live(1 << 20)
        self.assertTrue(pickle.loads(message).owned)
        self.expect_live(0)
        self.assertRaises(TypeError, shmalloc.share, b"bytes")

    def test_an_offset_where_nothing_is(self):
        heap = shmalloc.default()
        block = heap.alloc(1 << 20)
        offset = block.offset
        with self.assertRaisesRegex(ValueError, "smaller"):
            heap.block(offset, (1 << 20) + 8193)
        for bad in (0, -1, 1, 1 << 63, (1 << 64) - 1, 1 << 70, heap.stats()["limit"]):
            with self.assertRaises(ValueError, msg=hex(bad)):
                heap.block(bad)
        with self.assertRaises(TypeError):
            heap.block(1.5)
        block.free()
        heap.trim()
        with self.assertRaisesRegex(ValueError, "no block there"):
            heap.block(offset)


class Roots(Ground):
    def test_like_a_mapping(self):
        heap = shmalloc.default()
        roots = heap.roots
        self.assertNotIn("a", roots)
        self.assertIsNone(roots.get("a"))
        for missing in (lambda: roots["a"], lambda: roots.__delitem__("a"), lambda: roots.pop("a")):
            with self.assertRaises(KeyError):
                missing()
        block = heap.alloc(1000)
        memoryview(block)[:2] = b"hi"
        roots["a"] = block
        self.assertFalse(block.owned)
        del block
        self.assertIn("a", roots)
        self.assertEqual(bytes(roots["a"])[:2], b"hi")
        self.assertFalse(roots["a"].owned)
        second = heap.alloc(10)
        first = roots["a"]
        roots["a"] = second
        self.assertEqual(roots["a"].offset, second.offset)
        first.adopt()
        with roots.pop("a") as last:
            self.assertTrue(last.owned)
        self.assertNotIn("a", roots)

    def test_what_is_refused(self):
        heap = shmalloc.default()
        block = heap.alloc(10)
        for name in ("", "x" * 96):
            with self.assertRaisesRegex(ValueError, "1 to 95 bytes"):
                heap.roots[name] = block
            self.assertTrue(block.owned, "given back, as no root has it")
        with self.assertRaises(TypeError):
            heap.roots["a"] = b"bytes"
        with self.assertRaises(TypeError):
            heap.roots[1] = block
        block.free()
        with self.assertRaises(ValueError):
            heap.roots["a"] = block

    def test_what_may_have_been_sent_is_not_owned_again(self):
        class Failing(shmalloc.Heap):
            def _root_set(self, name, block):
                raise error

        heap = Failing()
        for error, owned in ((OSError(errno.EACCES, ""), False), (OSError(errno.EIO, ""), False),
                             (OSError(errno.EAGAIN, ""), False), (OSError(errno.ENOSPC, ""), True), (TypeError(), True)):
            block = heap.alloc(100)
            with self.assertRaises(type(error)):
                heap.roots["a"] = block
            self.assertEqual(block.owned, owned)
            block.adopt()

    def test_a_root_of_what_was_freed(self):
        heap = shmalloc.default()
        block = heap.alloc(1 << 20)
        heap.roots["gone"] = block
        block.adopt()
        block.free()
        heap.trim()
        with self.assertRaisesRegex(ValueError, "freed"):
            heap.roots["gone"]
        del heap.roots["gone"]


class Heaps(Ground):
    def test_attach_and_detach(self):
        with shmalloc.attach(self.daemon.socket, "default", "the label", math.inf) as heap:
            self.assertEqual((heap.socket, heap.name, heap.detached), (self.daemon.socket, "default", False))
            self.assertIn("the label", self.daemon.ctl("clients"))
            block, loan = heap.alloc(1 << 20), heap.alloc(10)
            loan.release()
            loan.adopt()
            view = memoryview(block)
            self.assertRaisesRegex(BufferError, "release them", heap.detach)
            view.release()
        self.assertTrue(heap.detached and block.freed and loan.freed)
        heap.detach()
        for use in (lambda: heap.alloc(1), heap.stats, heap.trim, lambda: heap.block(8192), lambda: heap.roots["a"],
                    heap.__enter__):
            self.assertRaisesRegex(ValueError, "detached", use)
        self.assertIn("detached", repr(heap))
        self.assertNotIn("the label", self.daemon.ctl("clients"))

    def test_attachments_are_counted(self):
        one, two = shmalloc.attach(), shmalloc.attach()
        block = two.alloc(100)
        one.roots["of the other"] = block
        one.detach()
        self.assertEqual(len(block), 100)
        two.roots.pop("of the other")
        del block, two, one
        self.assertNotIn(f"{os.getpid()} ", self.daemon.ctl("clients"))

    def test_paths_of_any_bytes(self):
        path = os.fsencode(self.daemon.dir) + b"/\xff"
        os.symlink(self.daemon.socket, path)
        for given in (path, os.fsdecode(path), pathlib.Path(os.fsdecode(path))):
            with shmalloc.attach(given) as heap:
                self.assertEqual(os.fsencode(heap.socket), path)
                with heap.alloc(10) as block:
                    self.assertEqual(pickle.loads(pickle.dumps(block)).offset, block.offset)
        self.assertRaises(ValueError, shmalloc.attach, "a\0b")
        self.assertRaises(TypeError, shmalloc.attach, 5)

    def test_default_is_attached_anew(self):
        heap = shmalloc.default()
        self.assertIs(shmalloc.default(), heap)
        heap.detach()
        self.assertFalse(shmalloc.default().detached)

    def test_heaps_are_pickled(self):
        heap = shmalloc.attach()
        self.assertIs(pickle.loads(pickle.dumps(heap)), shmalloc.default())
        heap.detach()

    def test_stats(self):
        stats = shmalloc.default().stats()
        self.assertEqual((stats["limit"], stats["at_base"]), (512 << 20, 1))
        self.assertEqual(stats["backed"], stats["owned"] + stats["central"] + stats["free"])
        block = shmalloc.default().alloc(8 << 20)
        self.assertGreaterEqual(shmalloc.default().stats()["process_owned"], 8 << 20)
        self.assertEqual(block.heap.stats()["base"], block.address - block.offset)

    def test_errors_say_what_to_do(self):
        where = os.path.join(self.daemon.dir, "nowhere")
        with self.assertRaisesRegex(FileNotFoundError, "start shmallocd") as caught:
            shmalloc.attach(where, timeout=0.01)
        self.assertEqual(caught.exception.errno, errno.ENOENT)
        with self.assertRaisesRegex(OSError, "no heap of that name") as caught:
            shmalloc.attach(heap="another")
        self.assertEqual(caught.exception.errno, errno.ENXIO)
        with self.assertRaises(OSError) as caught:
            shmalloc.attach("/" + "x" * 200)
        self.assertEqual(caught.exception.errno, errno.ENAMETOOLONG)
        for bad in (-1, math.nan):
            self.assertRaisesRegex(ValueError, "in seconds", shmalloc.attach, timeout=bad)
        self.assertRaises(TypeError, shmalloc.attach, timeout="soon")

    def test_types_are_not_made_by_hand(self):
        self.assertRaises(TypeError, type(shmalloc.default().alloc(1)))
        with self.assertRaises(TypeError):
            shmalloc.Block.extra = 1


class WithoutNumpy(Ground):
    def test_blocks_do_without(self):
        self.run_program("""
import sys
sys.modules["numpy"] = None
import shmalloc
from shmalloc import *
b = default().alloc(100)
try:
    shmalloc.zeros(3)
except ImportError as e:
    assert "python3-numpy" in str(e), e
else:
    raise SystemExit("no error")
assert not hasattr(shmalloc, "nonsense") and "zeros" in dir(shmalloc)
""")

    def test_numpy_comes_when_it_is_needed(self):
        self.run_program("import shmalloc, sys; shmalloc.default(); assert 'numpy' not in sys.modules")

    def test_help(self):
        env = {**os.environ, "PAGER": "cat", "MANPAGER": "cat"}
        said = subprocess.run([sys.executable, "-m", "pydoc", "shmalloc"], capture_output=True, text=True, env=env, check=True)
        for word in ("zeros(shape", "from_root(name", "share(thing", "class Heap", "class Block", "Who owns a block"):
            self.assertIn(word, said.stdout)
        self.assertEqual(said.stderr, "")


if __name__ == "__main__":
    unittest.main()
