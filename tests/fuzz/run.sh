#!/bin/sh
# run.sh PROGRAM NAME SECONDS: runs one fuzz target and prints one line, or the end of its log if it found something.
# New inputs go to a corpus in the build directory; the seeds in tests/fuzz/corpus/NAME are only read.
set -eu

program=$1
name=$2
seconds=$3
dir=$(dirname "$program")
log=$dir/$name.log
seeds=tests/fuzz/corpus/$name

mkdir -p "$dir/corpus/$name"
[ -d "$seeds" ] || seeds=
if ! "$program" -max_total_time="$seconds" -max_len=70000 -rss_limit_mb=1024 -timeout=100 -print_final_stats=1 \
	-artifact_prefix="$dir/$name-" "$dir/corpus/$name" ${seeds:+"$seeds"} >"$log" 2>&1; then
	tail -60 "$log"
	echo "fuzz $name: FAILED, the input is $dir/$name-..., the log $log"
	exit 1
fi
runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
echo "fuzz $name: $runs inputs, nothing found"
