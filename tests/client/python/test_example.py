"""The example does what it says."""
import os
import subprocess
import sys
import unittest

from ground import PATIENCE, Ground


class Example(Ground):
    def test_arrays(self):
        script = os.path.join(os.path.dirname(__file__), "../../../client/examples/arrays.py")
        line = [sys.executable, "-Xdev", "-Walways", script, "4", "3"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = {words[0]: words for words in map(str.split, done.stdout.splitlines()[3:])}
        self.assertEqual(list(rows), ["pickle", "shared_memory", "shmalloc"])
        self.assertGreater(int(rows["pickle"][-2]), 4 << 20)
        self.assertLess(int(rows["shmalloc"][-2]), 300)


if __name__ == "__main__":
    unittest.main()
