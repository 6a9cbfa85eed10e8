"""Arrays: what they are, how they are found and pickled, and what is refused."""
import copy
import gc
import os
import pickle
import struct
import unittest

import numpy as np
import shmalloc
from ground import Ground
from shmalloc import layout

TYPES = ("f8", ">i2", "?", "c16", "U7", "S3", "M8[ms]", "V5", np.dtype([("a", "i4"), ("b", "f8", (2, 3))], align=True),
         np.dtype([("größe", "i4"), ("\N{GREEK SMALL LETTER PI}", "f8")]))


class Making(Ground):
    def test_as_numpy_makes_them(self):
        for order in "CF":
            zeros = shmalloc.zeros((3, 4, 5), "i4", order)
            expected = np.zeros(zeros.shape, "i4", order)
            self.assertEqual((zeros.strides, zeros.flags.f_contiguous), (expected.strides, expected.flags.f_contiguous))
            np.testing.assert_array_equal(zeros, expected)
            self.assertTrue(zeros.flags.writeable and zeros.block.owned)
            self.assertEqual((zeros.__array_interface__["data"][0] - zeros.block.address) % layout.ALIGN, 0)
        self.assertEqual(shmalloc.empty(7).shape, (7,))
        self.assertEqual(shmalloc.zeros((3, 0, 5)).shape, (3, 0, 5))
        self.assertEqual(shmalloc.empty(np.int64(7)).dtype, np.float64)
        self.assertEqual(shmalloc.zeros((), "i8")[()], 0)
        self.assertEqual(shmalloc.empty(2, "(3,)f4").shape, (2, 3))
        source = np.arange(24.0).reshape(2, 3, 4).T
        np.testing.assert_array_equal(shmalloc.array(source), source)
        np.testing.assert_array_equal(shmalloc.array([[1, 2], [3, 4]], "u1", "F"), [[1, 2], [3, 4]])
        large = shmalloc.zeros((1 << 20,), lazy=True, scoped=True)
        self.assertFalse(large.any())

    def test_what_cannot_be(self):
        for make in (shmalloc.zeros, shmalloc.empty):
            self.assertRaisesRegex(TypeError, "without them", make, 3, object)
            for bad in ((3, -1), -1, (0, 1 << 70), 1 << 70):
                self.assertRaisesRegex(ValueError, "dimension", make, bad)
            for bad in ("12", b"12", bytearray(b"12"), 3.7, (3.0,), None, ("1", "2")):
                self.assertRaises(TypeError, make, bad)
            self.assertRaises(ValueError, make, 3, float, "K")
            self.assertRaises(MemoryError, make, 1 << 40)
            self.assertRaises(MemoryError, make, (1 << 40, 1 << 40))
        self.assertRaises(ValueError, shmalloc.zeros, (1,) * 33)
        self.assertRaises(TypeError, shmalloc.array, [object()])

    def test_results_are_private(self):
        a = shmalloc.array(np.arange(10.0))
        for private in (a + 1, -a, np.sqrt(a)):
            self.assertIs(type(private), np.ndarray)
        self.assertIs(type(a.sum()), np.float64)
        self.assertEqual(a.sum(), 45)
        self.assertIs(np.add(a, 1, out=a), a)
        for shared in (a[2:4], a.reshape(2, 5), a.view("i8"), a.T):
            self.assertIs(shared.block, a.block)
        for private in (a.copy(), a[[1, 2]], copy.deepcopy(a), pickle.loads(pickle.dumps(a.copy()))):
            self.assertIsNone(getattr(private, "block", None))
        self.assertIs(type(pickle.loads(pickle.dumps(a.copy()))), np.ndarray)

    def test_out_is_what_was_given(self):
        a = shmalloc.array(np.arange(10.0))
        c = a.copy()
        self.assertIs(np.add(a, 1, out=c), c)
        self.assertEqual((type(c), c.block, c[-1]), (shmalloc.Array, None, 10))
        for zero in (shmalloc.zeros(()), shmalloc.zeros(()).copy()):
            same = zero
            zero += 1
            self.assertIs(zero, same)
            self.assertEqual(zero[()], 1)
            self.assertIs(type(zero + 1), np.float64)

    def test_freed_by_hand(self):
        a = shmalloc.zeros(1 << 17)
        part = a[1:]
        block = a.block
        del a
        self.assertRaises(BufferError, block.free)
        del part
        block.free()
        self.expect_live(0)

    def test_an_array_keeps_its_block(self):
        a = shmalloc.zeros(1 << 17)
        part = a[5:][::2]
        with self.assertRaises(BufferError):
            a.block.free()
        del a
        gc.collect()
        part[:] = 1
        self.assertRaises(BufferError, shmalloc.default().detach)
        del part
        self.expect_live(0)


class Found(Ground):
    def test_by_root(self):
        heap = shmalloc.default()
        for dtype in TYPES:
            for order in "CF":
                made = shmalloc.zeros((2, 3), dtype, order)
                heap.roots["it"] = made
                self.assertFalse(made.block.owned)
                found = shmalloc.from_root("it")
                self.assertEqual((found.dtype, found.shape, found.strides), (made.dtype, made.shape, made.strides))
                self.assertEqual(found.__array_interface__["data"], made.__array_interface__["data"])
                self.assertFalse(found.block.owned)
                self.assertTrue(shmalloc.from_root("it", pop=True).block.owned)
        self.assertRaises(KeyError, shmalloc.from_root, "it")

    def test_by_offset(self):
        made = shmalloc.array([1, 2, 3])
        np.testing.assert_array_equal(shmalloc.from_offset(made.block.offset, shmalloc.default()), [1, 2, 3])
        self.assertRaises(ValueError, shmalloc.from_offset, 0)

    def test_only_whole_arrays_are_roots(self):
        heap = shmalloc.default()
        a = shmalloc.zeros((4, 4))
        for view in (a[1:], a.T[:2], a[::-1], a.view("i8"), a.reshape(16)):
            with self.assertRaisesRegex(ValueError, "whole"):
                heap.roots["a"] = view
        for private in (np.zeros(3), a.copy()):
            with self.assertRaises(TypeError):
                heap.roots["a"] = private
        self.assertTrue(a.block.owned)
        heap.roots["a"] = a[:]
        shmalloc.from_root("a", pop=True)

    def test_roots_that_are_no_arrays(self):
        heap = shmalloc.default()
        for size, text in ((16, b""), (4096, b""), (4096, b"shmarraz" + bytes(100)), (4096, os.urandom(4000))):
            block = heap.alloc(size, zero=True)
            memoryview(block)[: len(text)] = text
            heap.roots["no array"] = block
            with self.assertRaisesRegex(ValueError, "no array there"):
                shmalloc.from_root("no array")
            heap.roots.pop("no array")

    def test_damaged_headers(self):
        heap = shmalloc.default()
        a = shmalloc.zeros((2, 3), "i4")
        heap.roots["a"] = a
        good = bytes(a.block)[:128]
        damages = {
            "version": (8, "<H", 2), "order": (10, "<H", 2), "dimensions": (12, "<I", 3), "no dimensions": (12, "<I", 0),
            "too many": (12, "<I", 1 << 31), "type's length": (16, "<I", 1 << 31), "no type": (16, "<I", 0),
            "begin": (40, "<Q", 64), "odd begin": (40, "<Q", 129), "far begin": (40, "<Q", (1 << 64) - 64),
            "bytes": (48, "<Q", 23), "many bytes": (48, "<Q", (1 << 64) - 128), "shape": (56, "<Q", 1 << 62),
            "type": (72, "4s", b"'x4'"), "objects": (72, "4s", b"'|O'"), "code": (72, "4s", b"f(1)"), "deep": (72, "4s", b"(((("),
            "not ASCII": (72, "4s", b"\xff" * 4), "nothing": (72, "4s", b"None"),
            "a spelling of which numpy warns, an error here": (72, "5s", b"'1i4'"),
        }
        for what, (at, how, value) in damages.items():
            with self.subTest(what), memoryview(a.block) as view:
                struct.pack_into(how, view, at, value)
                self.assertRaisesRegex(ValueError, "damaged|version", shmalloc.from_root, "a")
                view[:128] = good
        np.testing.assert_array_equal(shmalloc.from_root("a", pop=True), np.zeros((2, 3)))

    def test_any_header_gives_an_array_within_its_block_or_an_error(self):
        seed = int(os.environ.get("SEED") or int.from_bytes(os.urandom(4), "little"))
        random = np.random.default_rng(seed)
        a = shmalloc.zeros((2, 3, 4), [("x", "i4"), ("y", "f8")])
        good = bytes(a.block)[:192]
        read = 0
        for _ in range(3000):
            with memoryview(a.block) as view:
                for _ in range(random.integers(1, 4)):
                    view[int(random.integers(8, 128))] = int(random.choice([0, 1, 2, 8, 64, 127, 255, random.integers(256)]))
                try:
                    found = shmalloc.from_offset(a.block.offset)
                except ValueError:
                    continue
                finally:
                    view[:192] = good
            first = found.__array_interface__["data"][0] - a.block.address
            self.assertTrue(0 <= first <= first + found.nbytes <= len(found.block), f"SEED={seed}")
            read += 1
        self.assertGreater(read, 0, f"SEED={seed}")


class Pickled(Ground):
    def test_a_reference_of_constant_size(self):
        small, large = shmalloc.zeros((4, 4)), shmalloc.zeros((1 << 11, 1 << 12))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            sizes = [len(pickle.dumps(a, protocol)) for a in (small, large)]
            self.assertLess(max(sizes), 800)
            self.assertLess(max(sizes) - min(sizes), 60)
        self.assertLess(len(pickle.dumps(large)), 300)
        self.assertGreater(len(pickle.dumps(np.asarray(small))), 128)

    def test_views_arrive_as_they_are(self):
        a = shmalloc.array(np.arange(60.0).reshape(3, 4, 5))
        for view in (a, a[1:], a[::-1, ::2], a.T, a[..., 3], a[2, 3, 4:], a.view("i4"), a[:0], a.reshape(-1)[::-7],
                     a[np.newaxis], a[..., 0, 0][1:2].reshape(())):
            got = pickle.loads(pickle.dumps(view))
            self.assertEqual((got.dtype, got.shape, got.strides), (view.dtype, view.shape, view.strides))
            np.testing.assert_array_equal(got, view)
            self.assertEqual(got.block.offset, a.block.offset)
        pickle.loads(pickle.dumps(a[1]))[...] = -1
        self.assertEqual(a[1].sum(), -20)

    def test_what_is_read_only_stays_so(self):
        a = shmalloc.zeros((3, 4))
        a.flags.writeable = False
        self.assertFalse(pickle.loads(pickle.dumps(a)).flags.writeable)
        self.assertFalse(pickle.loads(pickle.dumps(a[1:])).flags.writeable)
        got = pickle.loads(pickle.dumps(shmalloc.share(a)))
        self.assertEqual((got.flags.writeable, got.block.owned), (False, True))

    def test_what_is_gone_is_refused(self):
        a = shmalloc.zeros(1 << 17)
        message = pickle.dumps(a)
        del a
        self.assertRaisesRegex(ValueError, "freed", pickle.loads, message)
        b = shmalloc.zeros(1 << 17)  # there again, most likely
        self.assertRaisesRegex(ValueError, "freed", pickle.loads, message)
        small = shmalloc.zeros(3)
        message = pickle.dumps(small)
        del small
        self.assertRaisesRegex(ValueError, "freed", pickle.loads, message)
        del b

    def test_what_was_freed_as_a_block_is_refused(self):
        heap = shmalloc.default()
        a = shmalloc.zeros(1 << 17)
        message, size = pickle.dumps(a), a.block.size
        heap.roots["a"] = a
        del a
        heap.roots.pop("a").free()
        held = heap.alloc(size)  # the memory is there again, most likely, and nobody has written to it
        self.assertRaises(ValueError, pickle.loads, message)
        small = shmalloc.zeros(3)
        message, size, offset = pickle.dumps(small), small.block.size, small.block.release()
        del small
        shmalloc.adopt(heap.block(offset)).free()
        again = heap.alloc(size)
        self.assertRaises(ValueError, pickle.loads, message)
        del held, again

    def test_a_forged_message_stays_within_the_block(self):
        a = shmalloc.zeros(10)
        rebuild, args = a.__reduce_ex__(4)
        for shape, strides, first in (((100,), (8,), 0), ((10,), (800,), 0), ((10,), (8,), 1 << 40), ((100,), (-8,), 0)):
            with self.assertRaises((ValueError, TypeError)):
                rebuild(*args[:5], shape, strides, args[-2] + first, True)

    def test_handed_over_once(self):
        a = shmalloc.array([1, 2, 3])
        message = pickle.dumps([shmalloc.share(a[1:])])
        self.assertFalse(a.block.owned)
        (got,) = pickle.loads(message)
        self.assertTrue(got.block.owned)
        np.testing.assert_array_equal(got, [2, 3])
        self.assertRaisesRegex(ValueError, "received before", pickle.loads, message)
        again = pickle.dumps(shmalloc.share(got))
        del got, a
        self.assertRaisesRegex(ValueError, "received before", pickle.loads, message)
        self.assertTrue(pickle.loads(again).block.owned)
        self.assertRaisesRegex(ValueError, "freed", pickle.loads, again)


if __name__ == "__main__":
    unittest.main()
