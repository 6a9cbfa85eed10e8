#!/bin/sh
# The demo of `make demo`: a private daemon, three processes in a pipeline over a recorded trace, statistics while they run.
# usage: [BUILD=build/plain] tests/system/demo.sh [SECONDS]     nothing is left behind, on Ctrl-C neither
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$root" && cd "${BUILD:-build/plain}" && pwd)
seconds=${1:-6}
dir=$(mktemp -d /tmp/shmalloc-demo.XXXXXX)
instance=demo-$$
pids=
export SHMALLOC_SOCKET="$dir/sock"
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN || true

clean_up() {
	trap - EXIT INT TERM
	for pid in $pids; do
		kill "$pid" 2>/dev/null || true
	done
	wait 2>/dev/null || true
	rm -rf "$dir"
	rm -f /dev/shm/shmalloc."$instance".*
}
trap clean_up EXIT
trap 'clean_up; exit 130' INT TERM

say() {
	printf '\n== %s\n' "$*"
}

ctl() {
	"$build/shmallocctl" "$@"
}

number() { # of the statistics
	ctl --format json stats | tr ',{}' '\n' | sed -n "s/^ *\"$1\": *\([0-9]*\) *$/\1/p" | head -n 1
}

wait_for_daemon() {
	tries=0
	until ctl stats >/dev/null 2>&1; do
		tries=$((tries + 1))
		if [ $tries -gt 100 ] || ! kill -0 "$daemon" 2>/dev/null; then
			echo "the daemon does not answer:" && cat "$dir/log" && exit 1
		fi
		sleep 0.1
	done
}

# The daemon hears of a process's end a moment after we do.
wait_for_live() { # BYTES
	tries=0
	until live=$(number live_bytes) && [ "$live" = "$1" ]; do
		tries=$((tries + 1))
		[ $tries -le 50 ] || break
		sleep 0.1
	done
	echo "live bytes: $live, backed bytes: $(number backed_bytes)"
	[ "$live" = "$1" ]
}

pipeline() { # TRACE
	"$build/examples/pipeline" drop >"$dir/drop" 2>&1 & drop=$!
	"$build/examples/pipeline" work >"$dir/work" 2>&1 & work=$!
	"$build/examples/pipeline" make "$root/tests/data/$1.trace.zst" "$seconds" >"$dir/make" 2>&1 & make=$!
	pids="$daemon $make $work $drop"
	for look in 1 2; do
		sleep $((seconds / 3))
		say "shmallocctl stats and clients, while they run ($look of 2)"
		ctl stats | head -n 16
		ctl clients
	done
	ctl check
	status=0
	for pid in $make $work $drop; do
		wait "$pid" || status=$?
	done
	pids=$daemon
	cat "$dir/make" "$dir/work" "$dir/drop"
	return $status
}

say "A private daemon, with a heap of 1 GiB"
"$build/shmallocd" --socket "$SHMALLOC_SOCKET" --instance "$instance" --size 1GiB >"$dir/log" 2>&1 & daemon=$!
pids=$daemon
wait_for_daemon
echo "running as process $daemon, socket $SHMALLOC_SOCKET"

say "Two processes: one leaves a greeting in shared memory and ends, the next finds it"
"$build/examples/hello" "this text lay in a block of the heap when no client was alive"
"$build/examples/hello"

say "Three processes: make allocates as ffmpeg did, work changes every byte, drop checks and frees"
pipeline ffmpeg-x264

say "All have ended: is every byte accounted for?"
wait_for_live 0
ctl check
ctl trim

say "Done: the heap is clean and empty. Stopping the daemon."
kill "$daemon"
wait "$daemon"
pids=
