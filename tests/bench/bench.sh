#!/bin/bash
# Replays the traces that are at hand on this heap and on the C library's malloc, in turn, in every mode; prints one table.
set -eu
traces=()
for t in jq-json gs-png ffmpeg-x264 cc1-sqlite git-pack mariadb-oltp perl-text python-json redis-mixed sqlite-mix; do
	for dir in tests/data ${SHMALLOC_TRACES:-../shared/traces}; do
		[ -r "$dir/$t.trace.zst" ] && traces+=("$dir/$t.trace.zst") && break
	done
done
replay() { "$BUILD/bench/replay" --daemon "$BUILD/shmallocd" "$@"; }
echo "$(uname -sr), $(nproc) processors, $(gcc -dumpfullversion), $(date -u +%F)"
echo '== one process'
replay -a both -r 3 "${traces[@]}"
echo '== two processes at once'
replay -a both -m procs -n 2 -r 3 "${traces[@]}"
echo '== one process allocates, another frees'
replay -m handover -r 3 "${traces[@]}"
echo "== the trace's own threads"
threaded=()
for t in "${traces[@]}"; do
	[[ $t =~ (redis|mariadb|git-pack|ffmpeg) ]] && threaded+=("$t")
done
replay -a both -m threads -r 3 "${threaded[@]}"
