"""What the tests stand on: a daemon of one's own, and programs that use it."""
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

BUILD = os.path.abspath(os.environ["BUILD"])
PATIENCE = 60  # seconds; machines may be busy


class Daemon:
    """A daemon in a private directory. It dies with the thread that started it."""

    def __init__(self, *options: str) -> None:
        self.dir = tempfile.mkdtemp(dir=os.environ["TEST_DIR"])
        self.socket = os.path.join(self.dir, "sock")
        self.instance = f"{os.environ['TEST_INSTANCE']}-{os.path.basename(self.dir)}"
        self.options = options
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Whoever attaches waits for it."""
        line = ["setpriv", "--pdeathsig", "KILL", f"{BUILD}/shmallocd", "--socket", self.socket, "--instance", self.instance]
        with open(f"{self.dir}/log", "ab") as log:
            self.process = subprocess.Popen([*line, "--size", "512MiB", *self.options], stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def ctl(self, *words: str) -> str:
        line = [f"{BUILD}/shmallocctl", "--socket", self.socket, *words]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    def live_bytes(self) -> int:
        return json.loads(self.ctl("--format", "json", "stats"))["stats"]["live_bytes"]


class Ground(unittest.TestCase):
    """Each test has a daemon, which the environment names; at its end nothing is allocated and the heap is sound."""

    options: tuple[str, ...] = ()
    left_bytes = 0  # what a test leaves by intent

    def setUp(self) -> None:
        self.daemon = Daemon(*self.options)
        self.daemon.start()
        self.addCleanup(self.daemon.kill)  # if the test did not come to its end
        os.environ["SHMALLOC_SOCKET"] = self.daemon.socket

    def tearDown(self) -> None:
        self.expect_live(self.left_bytes)
        self.daemon.ctl("check")
        self.leave()
        self.assertEqual(self.daemon.stop(), 0)
        shutil.rmtree(self.daemon.dir)

    @staticmethod
    def leave() -> None:
        """Detaches what default() and references have attached."""
        from shmalloc import heap

        gc.collect()  # what exceptions and their frames still refer to
        while heap._attached:
            heap._attached.popitem()[1].detach()

    def expect_live(self, expected: int) -> None:
        """What a process that ended had is free a moment later."""
        deadline = time.monotonic() + PATIENCE
        while (live := self.daemon.live_bytes()) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(live, expected)

    def run_program(self, text: str, *, status: int = 0, stderr: str | None = "") -> str:
        """Runs a program, which has to end with this status and to leave this on standard error; gives what it prints."""
        path = os.path.join(self.daemon.dir, "program.py")
        with open(path, "w") as f:
            f.write(text)
        done = subprocess.run(
            [sys.executable, "-Xdev", "-Walways", path], capture_output=True, text=True, timeout=PATIENCE
        )
        if stderr is not None:
            self.assertEqual(done.stderr, stderr)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout
