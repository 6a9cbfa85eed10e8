#!/bin/bash
# shmalloc-run: what it ends with, which daemon it takes, what becomes of signals, and that of a private daemon nothing is left.
#
#	run.sh [--filter PART]		all parts (the functions below whose names begin with test_), or those whose name contains this
set -euo pipefail
BUILD=${BUILD:-build/plain} PYTHON=${PYTHON:-/usr/bin/python3}
case $BUILD in */plain) ;; *) echo 'skipped: a sanitizer has a malloc of its own'; exit 77 ;; esac
dir=$(mktemp -d /tmp/shmalloc-test-run.XXXXXX)
daemon='' instance=${TEST_INSTANCE:-test-run}-$$
clean_up() {
	local left
	[ -z "$daemon" ] || { kill "$daemon" && kill -CONT "$daemon" && wait "$daemon"; } 2>/dev/null || true
	rm -f "/dev/shm/shmalloc.$instance."* "/dev/shm/shmalloc.$instance-next."*
	for left in "$dir"/runtime/shmalloc-run.*; do rm -f "/dev/shm/shmalloc.run-${left##*.}.lock"; done
	rm -rf "$dir"
}
trap clean_up EXIT
run=$PWD/$BUILD/shmalloc-run
# No daemon of this machine is taken, and what a private one has can be seen: a directory that only this test has.
export XDG_RUNTIME_DIR=$dir/runtime SHMALLOC_SOCKET=$dir/none MEMORY_PRESSURE_WATCH=/dev/null
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN SHMALLOC_LABEL LD_PRELOAD
mkdir -m 700 "$XDG_RUNTIME_DIR"

fail() { echo "$*"; exit 1; }
nothing_left() {
	local left
	left=$(find "$XDG_RUNTIME_DIR" -mindepth 1)
	[ -z "$left" ] || fail "left after '$1': $left"
}
no_object() { # the random part of a private daemon's directory, which is in the names of its objects as well
	[ -n "$1" ] && ! compgen -G "/dev/shm/shmalloc.run-$1*" || fail "left of run-$1"
}
ends() { # STATUS, a command
	local want=$1 status=0
	shift
	"$@" >"$dir/out" 2>"$dir/err" || status=$?
	[ "$status" = "$want" ] || fail "'$*' ended with $status, not $want: $(cat "$dir/out" "$dir/err")"
	nothing_left "$*"
}
says() { grep -q -- "$1" "$dir/err" || fail "no word of '$1': $(cat "$dir/err")"; }
mkfifo "$dir/said" "$dir/go"
exec 5<>"$dir/said"
wait_line() { # what the program says next
	read -r -t 60 line <&5 || fail 'the program says nothing'
}
wait_end() { # pid, which is no child of ours
	timeout 60 tail --pid="$1" -f /dev/null || fail "$1 does not end"
}
in_heap='grep -q "shmalloc.*data\|memfd:.*data" /proc/self/maps'

# ---- exit status, options ----

test_status() {
	ends 0 "$run" true
	ends 7 "$run" sh -c 'exit 7'
	ends 143 "$run" sh -c 'kill -TERM $$'
	ends 137 "$run" sh -c 'kill -KILL $$'
	ends 127 "$run" "$dir/nothing"
	says nothing
	ends 127 "$run" no-program-of-this-name
	touch "$dir/plain"
	ends 126 "$run" "$dir/plain"
	says 'Permission denied'
	ends 125 "$run"
	says 'no program is named'
	ends 125 "$run" --no-such-option true
	says "no option '--no-such-option'"
	ends 125 "$run" --heap
	says 'needs a value'
	ends 125 "$run" --size much true
	says "'much' is not a size"
	ends 125 "$run" --socket "$dir/nobody" true
	says "no daemon answers at $dir/nobody"
	ends 0 "$run" --help
	grep -q '^Usage: shmalloc-run' "$dir/out"
	ends 0 "$run" --version
	ends 0 "$run" -- sh -c '[ "$1" = --help ]' sh --help
	ends 0 "$run" sh -c '[ "$1" = --version ]' sh --version
	ends 134 "$run" sh -c 'kill -ABRT $$'
	for with in --stats --verbose; do
		ends 127 "$run" $with "$dir/nothing"
		ends 126 "$run" $with "$dir/plain"
		ends 137 "$run" $with sh -c 'kill -KILL $$'
	done
}

# ---- a private daemon ----

test_private() {
	ends 0 "$run" sh -c "$in_heap"
	ends 0 "$run" --stats --size 300MiB --heap mine --label the-label sh -c "$in_heap && [ \$SHMALLOC_HEAP = mine ]"
	says 'Heap mine'
	ends 0 "$run" --verbose true
	says 'a private daemon serves'
	no_object "$(sed -nE 's|.*/shmalloc-run\.([A-Za-z0-9]*)/sock$|\1|p' "$dir/err" | head -n 1)"
	ends 0 env LD_PRELOAD=/no/other.so "$run" sh -c 'case $LD_PRELOAD in */libshmalloc-preload.so:/no/other.so) ;; *) exit 1 ;; esac'
	ends 0 "$run" "$run" sh -c 'case $LD_PRELOAD in *preload.so*preload.so) exit 1 ;; esac'
	[ "$(echo through | "$run" cat)" = through ]
}

# The library's socket takes no number that the program counts on.
test_descriptors() {
	ends 0 "$run" bash -c '[ -S /proc/$$/fd/100 ] && [ ! -S /proc/$$/fd/0 ]' <&-
	ends 0 "$run" bash -c 'ulimit -n 50; exec bash -c "$1 && [ ! -S /proc/\$\$/fd/0 ]" bash "$1"' bash "$in_heap" <&-
}

# Says of itself, shmalloc-run, the keeper and the daemon what these are, a line each.
standard='import os, subprocess, sys
def of(pid):
	return [os.path.lexists(f"/proc/{pid}/fd/{i}") and os.readlink(f"/proc/{pid}/fd/{i}") or "closed" for i in (0, 1, 2)]
def below(pid, *which):
	return subprocess.run(["pgrep", "-P", str(pid), *which], stdout=subprocess.PIPE).stdout.split()[0].decode()
say = [of("self"), of(os.getppid())]
keeper = below(os.getppid(), "-f", "shmalloc-run")
say += [of(keeper), of(below(keeper, "-x", "shmallocd"))]
with open(sys.argv[1], "w") as to:
	for line in say: print(*line, file=to)
sys.exit(7)'

# Whichever of 0, 1 and 2 are closed, the program finds them so; our own files take none of these places, nor do the daemon's.
test_closed() {
	local closed with want sign
	touch "$dir/plain"
	for closed in '<&-' '>&-' '2>&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-'; do
		for with in '' '--stats --verbose'; do
			status=0
			eval "\"\$run\" $with $PYTHON -c '$standard' '$dir/fds' <$dir/plain >$dir/plain 2>$dir/plain $closed" || status=$?
			[ "$status" = 7 ] || fail "status $status with $closed $with"
			nothing_left "$closed"
			want=
			for sign in '<' '>' '2'; do
				case " $closed" in *" $sign"*) want+=' closed' ;; *) want+=" $dir/plain" ;; esac
			done
			[ "$(head -n 1 "$dir/fds")" = "${want# }" ] || fail "with $closed $with the program has $(head -n 1 "$dir/fds")"
			[ "$(wc -l <"$dir/fds")" = 4 ] && ! tail -n 3 "$dir/fds" | grep 'socket:\|closed' || fail "with $closed $with: $(cat "$dir/fds")"
		done
	done
}

test_places() {
	# A directory whose path is too long for a socket's is not cut short.
	mkdir -m 700 -p "$dir/$(printf '%080d' 0)"
	ends 0 env XDG_RUNTIME_DIR="$dir/$(printf '%080d' 0)" "$run" sh -c 'case $SHMALLOC_SOCKET in /tmp/shmalloc-run.*) ;; *) exit 1 ;; esac'

	# A directory of this name that others can write, or that is another's, is passed over.
	chmod 770 "$XDG_RUNTIME_DIR"
	ends 0 "$run" sh -c 'case $SHMALLOC_SOCKET in /tmp/shmalloc-run.*) ;; *) exit 1 ;; esac'
	chmod 700 "$XDG_RUNTIME_DIR"
}

# ---- signals, and what is killed ----

test_terminal() {
	"$PYTHON" tests/system/terminal.py "$run" "${1:-}" || fail 'see above'
	nothing_left 'signals'
}

test_signals() {
	ends 142 perl -e 'alarm 1; exec @ARGV' "$run" sleep 60 # the kernel's, but not the terminal's

	# Blocked in whoever starts it, it must end all the same, and before its patience with the daemon does.
	ends 0 timeout 9 perl -MPOSIX -e 'sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM)); exec @ARGV' "$run" true
}

# The program says its pid, and goes on when it is told to: afterwards it needs more memory than it had.
start() {
	"$run" bash -c 'echo $$; read -r <"$1"; x=$(seq 100000); echo "${#x}"; exit 9' bash "$dir/go" >"$dir/said" &
	pid=$!
	wait_line
	program=$line
	keeper=$(pgrep -P "$pid" -f shmalloc-run)
	private=$(pgrep -P "$keeper" -x shmallocd)
	name=$(basename "$XDG_RUNTIME_DIR"/shmalloc-run.*)
}
go_on() {
	echo >"$dir/go"
	wait_line
	[ "$line" = 588894 ] || fail "the program did not go on: '$line'"
}
end_is() { # STATUS of shmalloc-run, what was killed
	local status=0
	wait "$pid" 2>/dev/null || status=$?
	[ "$status" = "$1" ] || fail "status $status when $2 was killed"
	nothing_left "$2 was killed"
	no_object "${name#*.}"
}

# Whoever of those behind a run is killed: the program goes on, and nothing is left.
test_killed_run() {
	start
	kill -KILL "$pid"
	wait_end "$keeper"
	! kill -0 "$private" 2>/dev/null || fail 'the daemon has outlived shmalloc-run'
	end_is 137 shmalloc-run
	go_on
	wait_end "$program"
}
test_killed_keeper() {
	start
	kill -KILL "$keeper"
	wait_end "$private"
	go_on
	end_is 9 'the keeper'
}
test_killed_daemon() {
	start
	kill -KILL "$private"
	go_on
	end_is 9 'the daemon'
}

# ---- the same shmalloc-run with other programs beside it ----

tree() { # NAME, a script for it, of sh or of what is named third
	rm -rf "$dir/tree"
	mkdir "$dir/tree"
	cp "$run" "$dir/tree"
	ln -s "$PWD/$BUILD/libshmalloc-preload.so" "$PWD/$BUILD/shmallocd" "$PWD/$BUILD/shmallocctl" "$dir/tree"
	rm "$dir/tree/$1"
	printf '#!%s\n%s\n' "${3:-/bin/sh}" "$2" >"$dir/tree/$1"
	chmod +x "$dir/tree/$1"
}

# The program has our signals as they came to us; the figures come from one that has none blocked or ignored.
test_masks() {
	local odd='env --ignore-signal=HUP --block-signal=USR2,TERM'
	tree shmallocctl 'import signal, sys
print(*signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.getsignal(signal.SIGHUP).name, file=sys.stderr)' "$PYTHON" # dash unblocks all
	$odd grep 'Sig[BI]' /proc/self/status >"$dir/want"
	ends 0 $odd "$dir/tree/shmalloc-run" --stats grep 'Sig[BI]' /proc/self/status
	diff "$dir/want" "$dir/out" || fail "the program's signals are not those that it was called with"
	[ "$(cat "$dir/err")" = SIG_DFL ] || fail "shmallocctl has these signals blocked and ignored: $(cat "$dir/err")"
}

# Anybody can send to the socket on which the daemon says that it serves.
test_ready() {
	tree shmallocd 'import array, fcntl, os, socket, sys, termios
if os.fork() == 0: # another process: it says so, and waits until that has been read
	to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
	to.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
	to.send(b"READY=1")
	unread = array.array("i", [1])
	while unread[0]: fcntl.ioctl(to, termios.TIOCOUTQ, unread)
	os._exit(0)
os.wait()
sys.exit("never served")' "$PYTHON"
	ends 125 "$dir/tree/shmalloc-run" --verbose true
	says 'never served'
	says 'the private daemon does not come up'
	! grep -q 'a private daemon serves' "$dir/err" || fail "somebody's READY=1 was taken for the daemon's"
}

# Ended while it waits for the daemon.
test_ended_early() {
	tree shmallocd "echo \$PPID >'$dir/said'; exec sleep 600"
	"$dir/tree/shmalloc-run" true 2>"$dir/err" &
	pid=$!
	wait_line
	keeper=$line
	kill -TERM "$pid"
	wait_end "$keeper"
	name=none
	end_is 143 'shmalloc-run, at the start,'
	[ ! -s "$dir/err" ] || fail "nobody asked: $(cat "$dir/err")"
}

# The keeper has been killed just before the daemon-to-be asks to be told of that: the daemon would serve for ever.
test_orphan() {
	local status=0
	tree shmallocd 'echo came >&2'
	LD_PRELOAD=$PWD/$BUILD/system/orphan.so "$dir/tree/shmalloc-run" --verbose true 2>&1 | cat >"$dir/err" || status=$? # until all have ended
	[ "$status" = 125 ] || fail "status $status"
	says 'the keeper.*was killed'
	! grep -q came "$dir/err" || fail 'a daemon without a keeper'
	nothing_left 'the keeper was killed early'
}

# ---- a daemon that is there ----

refused() { # words, a command that must fail with them and must not come to its program
	local words=$1
	shift
	ends 125 "$@" touch "$dir/ran"
	says "$words"
	[ ! -e "$dir/ran" ] || fail "'$*' ran the program"
}
test_there() {
	"$BUILD/shmallocd" --config /dev/null --socket "$dir/sock" --instance "$instance" --heap default --heap other 2>"$dir/log" &
	daemon=$!
	SHMALLOC_SOCKET=$dir/sock "$BUILD/examples/hello" there # attaching waits for the daemon
	for how in "--socket $dir/sock" ''; do
		[ -n "$how" ] || export SHMALLOC_SOCKET=$dir/sock
		# shellcheck disable=SC2086
		"$run" -v $how --label seen-as bash -c '"$1" --socket "$2" clients' bash "$BUILD/shmallocctl" "$dir/sock" >"$dir/out" 2>"$dir/err"
		grep -q "the daemon at $dir/sock serves" "$dir/err" && grep -q seen-as "$dir/out" || fail "$(cat "$dir/out" "$dir/err")"
	done
	(cd "$dir" && ends 0 "$run" --stats --heap other --socket sock sh -c "cd / && $in_heap")
	says 'Heap other'
	(cd "$dir" && ends 0 env SHMALLOC_SOCKET=sock "$run" sh -c "cd / && $in_heap")
	status=0
	"$run" sh -c 'kill -TERM $$' || status=$?
	[ "$status" = 143 ]

	# What it refuses is said, and the program does not run on other memory; nor is a private daemon taken instead.
	refused "the daemon at $dir/sock refuses: there is no heap 'absent' here; say which with --heap" "$run" --socket "$dir/sock" --heap absent
	! grep -q SHMALLOC_SOCKET "$dir/err" || fail 'a private daemon is no way out where a socket is named'
	refused "no heap 'absent' here.*set SHMALLOC_SOCKET to where no daemon is" env SHMALLOC_SOCKET="$dir/sock" SHMALLOC_HEAP=absent "$run"
	ends 0 env SHMALLOC_SOCKET="$dir/none" SHMALLOC_HEAP=absent "$run" sh -c "$in_heap" # a private daemon has the heap that is asked for
	refused "a heap's name has at most 95 bytes" "$run" --socket "$dir/sock" --heap "$(printf '%096d' 0)"
	refused 'MiB of address space.*ulimit -v' bash -c 'ulimit -v 1000000; exec "$@"' bash "$run"
	refused 'or take a smaller heap with --size' env SHMALLOC_SOCKET="$dir/none" bash -c 'ulimit -v 8000000; exec "$@"' bash "$run"
	# Trying leaves no client: the program is the first and only one.
	"$run" --socket "$dir/sock" --heap other bash -c '"$1" --socket "$2" --heap other clients' bash "$BUILD/shmallocctl" "$dir/sock" >"$dir/out"
	[ "$(grep -c "bash\|shmallocctl" "$dir/out")" = 2 ] || fail "clients: $(cat "$dir/out")"
	kill -STOP "$daemon"
	refused 'does not answer within 200 ms' env SHMALLOC_TIMEOUT_MS=200 "$run" --socket "$dir/sock"
	kill -CONT "$daemon"
	[ "$("$BUILD/examples/hello")" = there ]
	"$BUILD/shmallocctl" --socket "$dir/sock" check >/dev/null
	kill "$daemon"
	wait "$daemon"
	daemon=

	"$BUILD/system/shmallocd-next" --config /dev/null --socket "$dir/next" --instance "$instance-next" --heap default 2>"$dir/log" &
	daemon=$!
	! SHMALLOC_SOCKET=$dir/next "$BUILD/examples/hello" 2>/dev/null || fail 'attached to a daemon of another version' # waits for it
	refused 'refuses: .*; use the shmalloc-run that came with the daemon' "$run" --socket "$dir/next"
	kill "$daemon"
	wait "$daemon"
	daemon=
}

# ---- all of them ----

part=
[ "${1:-}" != --filter ] || part=$2
ran=0
for name in $(declare -F | sed -n 's/^declare -f \(test_.*\)/\1/p'); do
	case $name in *"$part"*) ran=$((ran + 1)) && "$name" ;; esac
done
[ "$ran" != 0 ] || fail "no test is called so: $part"
