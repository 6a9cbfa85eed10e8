#!/bin/sh
# Replays every trace at hand in every mode, on this heap and on the C library's malloc, side by side. Each run has a daemon and
# processes of its own. usage: [BUILD=build/plain] tests/bench/bench.sh [REPLAY-OPTIONS...]     for example -r 9 or --json
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
build=${BUILD:-build/plain}
set -- --allocator both --daemon "$build/shmallocd" "$@"
seen='' traces=''
for trace in tests/data/*.trace.zst "${SHMALLOC_TRACES:-../shared/traces}"/*.trace.zst; do
	case " $seen " in
	*" ${trace##*/} "*) continue ;;
	esac
	if [ -r "$trace" ]; then
		traces="$traces $trace" seen="$seen ${trace##*/}"
	fi
done

for mode in single procs handover threads; do
	# shellcheck disable=SC2086 # a list of paths
	"$build/bench/replay" --mode $mode "$@" $traces
done
