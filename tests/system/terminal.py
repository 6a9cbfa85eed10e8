#!/usr/bin/python3
"""shmalloc-run as the job of a shell: which signals of a terminal and of other processes come to the program, and what stops.

	terminal.py SHMALLOC-RUN [PART]		all tests, or those whose name contains the part

This process is the shell: it has a terminal of its own, of which it also holds the keyboard's end, and one job at a time.
"""
import fcntl
import os
import select
import signal
import struct
import sys
import termios
import traceback

PATIENCE_S = 60

# Says each of these signals that comes, and who sent it. TERM ends it; USR2, if it is told to, stops it.
PROGRAM = """
import os, signal, sys
watched = {getattr(signal, "SIG" + name) for name in sys.argv[1].split()}
signal.pthread_sigmask(signal.SIG_BLOCK, watched)
print("ready", os.getpid(), flush=True)
while True:
	info = signal.sigwaitinfo(watched)
	name = signal.Signals(info.si_signo).name[3:]
	who = "terminal" if info.si_code == 0x80 else "shmalloc-run" if info.si_pid == os.getppid() else "other"
	print(name, who, flush=True)
	if name == "TERM":
		os._exit(9)
	if name == "USR2" and "stop" in sys.argv:
		os.kill(os.getpid(), signal.SIGTSTP)
"""


class Job:
	def __init__(self, terminal, *command):
		self.keys, self.terminal, self.text = *terminal, b""
		self.pid = os.fork()
		if self.pid == 0:
			os.setpgid(0, 0)
			os.tcsetpgrp(self.terminal, os.getpid())
			for fd in (0, 1, 2):
				os.dup2(self.terminal, fd)
			for sig in (signal.SIGTTOU, signal.SIGPIPE):
				signal.signal(sig, signal.SIG_DFL)
			os.execv(RUN, [RUN, *command])
		self.program = None

	def line(self):
		"""What the program says next."""
		while b"\n" not in self.text:
			if not select.select([self.keys], [], [], PATIENCE_S)[0]:
				raise AssertionError(f"the program says nothing more than {self.text}")
			self.text += os.read(self.keys, 4096)
		line, self.text = self.text.split(b"\n", 1)
		return line.decode().strip()

	def says(self, want, but=None):
		"""Next, or after lines that begin with `but`."""
		line = self.line()
		while but and line.startswith(but):
			line = self.line()
		assert line == want, f"the program said '{line}' and not '{want}'"

	def type(self, key):
		os.write(self.keys, key)

	def tell(self, sig):
		os.kill(self.pid, sig)

	def state(self):
		"""stopped, SIG or ended, STATUS: the next of these that becomes of shmalloc-run."""
		signal.alarm(PATIENCE_S)
		_, status = os.waitpid(self.pid, os.WUNTRACED)
		signal.alarm(0)
		if os.WIFSTOPPED(status):
			return "stopped", os.WSTOPSIG(status)
		self.pid = None
		return "ended", os.waitstatus_to_exitcode(status)

	def becomes(self, *want):
		state = self.state()
		assert state == want, f"shmalloc-run has {state} and not {want}"

	def foreground(self):
		os.tcsetpgrp(self.terminal, self.pid)
		os.killpg(self.pid, signal.SIGCONT)

	def listens(self):
		"""It is not stopped, and has dealt with what was sent to it before."""
		for sig in ("USR1", "ALRM"):
			self.tell(getattr(signal, "SIG" + sig))
			self.says(sig + " shmalloc-run")


def watcher(terminal, watched, *more):
	job = Job(terminal, sys.executable, "-c", PROGRAM, watched + " USR1 USR2 ALRM TERM", *more)
	ready, job.program = job.line().split()
	assert ready == "ready"
	job.program = int(job.program)
	return job


def ends(job, but=None):
	job.tell(signal.SIGTERM)
	job.says("TERM shmalloc-run", but)
	job.becomes("ended", 9)


def program_is_stopped(job):
	with open(f"/proc/{job.program}/stat", encoding="ascii") as stat:
		return stat.read().rsplit(")", 1)[1].split()[0] == "T"


# ---- tests ----


def test_passed(terminal):
	"""What is sent to shmalloc-run alone comes to the program."""
	names = "HUP INT QUIT USR1 USR2 ALRM CONT WINCH TSTP TTIN TTOU"
	job = watcher(terminal, names)
	for name in names.split():
		job.tell(getattr(signal, "SIG" + name))
		job.says(name + " shmalloc-run")
	ends(job)


def test_keys(terminal):
	"""What the terminal sends comes to the program once: shmalloc-run, which gets it as well, keeps it to itself."""
	job = watcher(terminal, "INT QUIT WINCH TSTP CONT")
	for name, act in (
		("INT", lambda: job.type(b"\x03")),
		("QUIT", lambda: job.type(b"\x1c")),
		("TSTP", lambda: job.type(b"\x1a")),
		("WINCH", lambda: fcntl.ioctl(job.keys, termios.TIOCSWINSZ, struct.pack("4H", 11, 22, 0, 0))),
	):
		if name != "TSTP":  # which SIGCONT would undo
			job.tell(signal.SIGSTOP)  # its own comes late: the program's is not the same
			job.becomes("stopped", signal.SIGSTOP)
		act()
		job.says(name + " terminal")
		if name != "TSTP":
			job.tell(signal.SIGCONT)
			job.says("CONT shmalloc-run")
		job.listens()
	ends(job)


def test_stop_key(terminal):
	"""^Z stops both, the program first, and fg continues both; as often as one likes."""
	job = watcher(terminal, "CONT")
	for _ in range(3):
		job.type(b"\x1a")
		job.becomes("stopped", signal.SIGTSTP)
		assert program_is_stopped(job)
		job.foreground()
		job.tell(signal.SIGUSR2)
		job.says("USR2 shmalloc-run", but="CONT")  # of the shell and of shmalloc-run: one or two, before or after this
	ends(job, but="CONT")


def test_stop_itself(terminal):
	"""A program that stops itself stops shmalloc-run: a shell would wait for a job that does nothing."""
	job = watcher(terminal, "", "stop")
	job.tell(signal.SIGUSR2)
	job.says("USR2 shmalloc-run")
	job.becomes("stopped", signal.SIGTSTP)
	job.tell(signal.SIGCONT)
	job.listens()
	ends(job)


def test_stop_sent(terminal):
	"""SIGTSTP to shmalloc-run alone stops both; SIGCONT to it continues both."""
	job = watcher(terminal, "")
	job.tell(signal.SIGTSTP)
	job.becomes("stopped", signal.SIGTSTP)
	assert program_is_stopped(job)
	job.tell(signal.SIGCONT)
	job.listens()
	ends(job)


def test_stopped_by_others(terminal):
	"""Who stops the program with SIGSTOP continues it as well: shmalloc-run is not drawn in."""
	job = watcher(terminal, "CONT")
	os.kill(job.program, signal.SIGSTOP)
	while not program_is_stopped(job):
		os.sched_yield()
	os.kill(job.program, signal.SIGCONT)
	job.says("CONT other")
	job.listens()
	ends(job)


def test_end_by_key(terminal):
	"""A program that a key ends: its end is that of shmalloc-run, which a shell's loop ends with."""
	job = Job(terminal, "sh", "-c", "echo ready; exec cat")
	job.says("ready")
	job.type(b"\x03")
	job.becomes("ended", -signal.SIGINT)


# ---- the shell ----


def own_terminal():
	os.setsid()
	keys, terminal = os.openpty()
	fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
	attributes = termios.tcgetattr(terminal)
	attributes[3] &= ~termios.ECHO
	termios.tcsetattr(terminal, termios.TCSANOW, attributes)
	signal.signal(signal.SIGTTOU, signal.SIG_IGN)
	return keys, terminal


def run(test):
	"""In a process of its own, which takes its terminal along."""
	pid = os.fork()
	if pid == 0:
		try:
			test(own_terminal())
			status = 0
		except BaseException:  # pylint: disable=broad-except
			traceback.print_exc()
			status = 1
		sys.stderr.flush()
		os._exit(status)
	return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


RUN = sys.argv[1]
tests = {name: test for name, test in list(globals().items()) if name.startswith("test_") and name.count(sys.argv[-1] if sys.argv[2:] else "")}
failed = [name for name, test in tests.items() if not run(test)]
for name in failed:
	print("failed:", name)
sys.exit(not tests or bool(failed))
