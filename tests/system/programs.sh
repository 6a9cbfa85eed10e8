#!/bin/bash
# Real programs, each with a fixed input, on glibc and under shmalloc-run by turns: the same output and exit status, and the heap was
# what the program allocated from, or the verdict is bad. Prints a Markdown table with the medians of wall time and peak resident memory
# of ROUNDS runs each. (Pages of the heap that a process has touched count in its resident memory like private ones; those of a
# daemon are its own.) "On the heap" is the most that its heap was backed with.
#
#	programs.sh [NAME...]       all of them, or those named; without a tool that is not installed
#
# The rows are in programs-rows.sh.
set -uo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: a sanitizer has a malloc of its own'; exit 77 ;; esac
ROUNDS=${ROUNDS:-3}
top=$PWD
dir=$(mktemp -d /tmp/shmalloc-programs.XXXXXX)
trap 'rm -rf "$dir"' EXIT
unset SHMALLOC_SOCKET SHMALLOC_HEAP SHMALLOC_HARDEN SHMALLOC_DEBUG SHMALLOC_LABEL LD_PRELOAD "${!PYTHON@}" "${!MALLOC_@}"
export SHMALLOC_SOCKET=$dir/none LC_ALL=C.UTF-8 # a daemon of the machine is not part of this
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b \
	GIT_AUTHOR_DATE='2026-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2026-01-01 00:00:00 +0000'

# The least part of the peak of resident memory on glibc that must be on the heap at its peak. The programs' own files are resident, and
# memory that they map for themselves: of a large java that is most. A child that is on the heap when the program itself is not has less.
LEAST_PART=${LEAST_PART:-0.1}

# ---- one command ----

# shmalloc-run asks the shmallocctl beside it for the heap's figures: this one leaves them in a file, and standard error is the program's.
mkdir "$dir/bin"
cp "$top/$BUILD/shmalloc-run" "$dir/bin"
ln -s "$top/$BUILD/shmallocd" "$top/$BUILD/libshmalloc-preload.so" "$dir/bin"
cat >"$dir/bin/shmallocctl" <<-EOF
	#!/bin/sh
	exec '$top/$BUILD/shmallocctl' --format json "\$@" >>"\$FIGURES"
EOF
chmod +x "$dir/bin/shmallocctl"

# Runs a command as the row says, and notes a line: which command, the peak of resident memory, the peak of what its heap was backed with, and
# what was granted of it, in KiB. All commands of a row may run at once.
on() {
	local how=() status notes
	notes=$(mktemp "$dir/notes.XXXXXX")
	[ "$kind" = plain ] || how=("$dir/bin/shmalloc-run" --stats)
	FIGURES=$notes.figures /usr/bin/time -o "$notes" -f '%M' "${how[@]}" "$@"
	status=$?
	echo "$(cksum <<<"$*" | cut -d ' ' -f 1) $(tail -n 1 "$notes") $(figure peak_backed_bytes) $(figure granted_bytes) $1" >>"$dir/peaks"
	return $status
}
figure() { sed -nE "s/^ *\"$1\": ([0-9]+),?$/\1/p" "$notes.figures" 2>/dev/null | awk '{n = $1} END {print int(n / 1024)}'; }

# Of the row's commands those that had too little of the heap.
off_the_heap() { # NAME
	[ -s "$dir/$1.heap.peaks" ] || echo 'no command of the row is on'
	awk -v least="$LEAST_PART" '
		FNR == NR {if ($2 > rss[$1]) rss[$1] = $2; next}
		!($1 in peak) || $3 < peak[$1] {peak[$1] = $3; granted[$1] = $4; name[$1] = $5}
		END {for (key in peak) if (!granted[key] || peak[key] < least * rss[key])
			printf "%s has %.1f MiB on the heap, of %.1f MiB on glibc\n", name[key], peak[key] / 1024, rss[key] / 1024}
	' "$dir/$1.plain.peaks" "$dir/$1.heap.peaks" | sort
}

# shellcheck source=tests/system/programs-rows.sh
. "${0%/*}/programs-rows.sh"

# ---- one row ----

now_ms() { echo $(($(date +%s%N) / 1000000)); }
median() { sort -n "$1" 2>/dev/null | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)] + 0}'; }
mib() { median "$1" | awk '{printf "%.1f", $1 / 1024}'; }

once() { # NAME plain|heap
	local work=$dir/work from
	rm -rf "$work" && mkdir "$work" && : >"$dir/peaks"
	from=$(now_ms)
	(cd "$work" && kind=$2 && input=$dir/input-$1 && "p_$1") >"$dir/$1.$2.out" 2>"$dir/$1.$2.err" </dev/null
	echo "status $?" >>"$dir/$1.$2.out"
	echo $(($(now_ms) - from)) >>"$dir/$1.$2.ms"
	sort -n -k 2 "$dir/peaks" | tail -n 1 | cut -d ' ' -f 2 >>"$dir/$1.$2.kib"
	sort -n -k 3 "$dir/peaks" | tail -n 1 | cut -d ' ' -f 3 >>"$dir/$1.$2.backed"
	cat "$dir/peaks" >>"$dir/$1.$2.peaks"
	rm -f "$dir"/notes.*
}

# Both kinds by turns, until an output differs: then that kind is in $differs.
rounds() { # NAME
	local kind own=rounds_$1 round
	differs=
	for round in $(seq "${!own:-$ROUNDS}"); do
		for kind in plain heap; do
			once "$1" $kind
			[ -e "$dir/$1.out" ] || cp "$dir/$1.plain.out" "$dir/$1.out"
			cmp -s "$dir/$1.out" "$dir/$1.$kind.out" || { differs=$kind && return; }
		done
	done
}

prepare() { # NAME
	mkdir -p "$dir/input-$1"
	declare -F "prepare_$1" >/dev/null || return 0
	(cd "$dir/input-$1" && "prepare_$1") >"$dir/$1.prepare" 2>&1 </dev/null
}

row() {
	local name=$1 verdict=good off
	if ! prepare "$name"; then
		echo "| $name | | | | | | | **bad**: no input |"
		tail -n 20 "$dir/$name.prepare"
		return 1
	fi
	rounds "$name"
	off=$(off_the_heap "$name")
	[ -z "$off" ] || verdict='**bad**: not on the heap'
	[ -z "$differs" ] || verdict="**bad**: $differs differs"
	grep -qx 'status 0' "$dir/$name.out" || verdict="**bad**: glibc's own run fails"
	printf '| %s | %d | %d | %.2f | %s | %s | %s | %s |\n' "$name" "$(median "$dir/$name.plain.ms")" "$(median "$dir/$name.heap.ms")" \
		"$(echo "$(median "$dir/$name.plain.ms") $(median "$dir/$name.heap.ms")" | awk '{print $2 / $1}')" \
		"$(mib "$dir/$name.plain.kib")" "$(mib "$dir/$name.heap.kib")" "$(mib "$dir/$name.heap.backed")" "$verdict"
	[ "$verdict" = good ] && return
	[ -z "$off" ] || echo "$off"
	diff "$dir/$name.out" "$dir/$name.${differs:-plain}.out" | head -n 20
	tail -n 20 "$dir/$name.${differs:-plain}.err"
	return 1
}

has() {
	local need=needs_$1
	[ -e "${!need}" ] || command -v "${!need}" >/dev/null
}

bad=0 rows=0
command -v /usr/bin/time >/dev/null || { echo 'skipped: no /usr/bin/time (make check-programs-deps)'; exit 77; }
echo '| program | glibc, ms | heap, ms | ratio | glibc, MiB | heap, MiB | on the heap, MiB | verdict |'
echo '| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |'
for name in ${*:-$all}; do
	if has "$name"; then
		row "$name" || bad=$((bad + 1))
		rows=$((rows + 1))
	else
		echo "| $name | | | | | | | not installed |"
	fi
done
ROUNDS=1
for name in $faults; do
	why=bad_$name
	has "$name" || continue
	row "$name" >"$dir/said"
	grep -q "| \*\*bad\*\*: ${!why} |$" "$dir/said" && continue
	echo "$name was planted, and not noticed:" && cat "$dir/said"
	bad=$((bad + 1))
done
[ "$bad" = 0 ] && [ "$rows" != 0 ]
