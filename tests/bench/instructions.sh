#!/bin/bash
# Instructions of a pair of malloc and free, counted by callgrind: of one build the same on every machine and in every run.
#
#	tests/bench/instructions.sh		the guard: fails if a pair of this heap takes more than is written down below
#	tests/bench/instructions.sh PROGRAM	prints what PROGRAM counts when it is given the argument "instructions"
#
# Loop, call and a store to the block are in the figures.
set -u
BUILD=${BUILD:-build/plain}

# The most that a pair of so many bytes may take; who makes it cheaper lowers the number.
declare -A most=([64]=54 [8192]=64)

skip() { # why
	echo "skipped: $1"
	exit 77
}

count() { # program: lines "NAME NUMBER instructions"
	local dir name at=1 under=()
	dir=$(mktemp -d)
	[[ $1 == */micro-* ]] && under=("$1" run) # a daemon cannot be started from within valgrind
	"${under[@]}" valgrind -q --tool=callgrind --callgrind-out-file="$dir/count" --dump-before=instructions_mark \
		"$1" instructions >"$dir/names" 2>"$dir/log" || cat "$dir/log" >&2
	while read -r name; do # three dumps: getting warm, 1,000 operations, 2,000 operations
		awk -v name="$name" '/^totals:/ {n = $2 - n} END {printf "%s %.1f instructions\n", name, n / 1000}' \
			"$dir/count.$((at + 1))" "$dir/count.$((at + 2))"
		at=$((at + 3))
	done <"$dir/names"
	rm -rf "$dir"
}

command -v valgrind >/dev/null || skip 'valgrind is not installed'
if [ $# = 1 ]; then
	count "$1"
	exit
fi
case $BUILD in */plain) ;; *) skip 'the plain build only' ;; esac
figures=$(count "$BUILD/bench/micro-shmalloc")
status=0
for size in "${!most[@]}"; do
	is=$(awk -v name="instructions$size" '$1 == name {print $2}' <<<"$figures")
	echo "a pair of $size bytes: $is instructions, at most ${most[$size]}"
	awk -v is="${is:-0}" -v most="${most[$size]}" 'BEGIN {exit !(is > 0 && is <= most)}' || status=1
done
exit $status
