#!/bin/bash
# Measures this heap and its peers, in turn and in the same run, and prints a table.
#
#	tests/bench/run.sh [SECTION...]		all sections, or those named: what they are is in README.md
#
# A section is repeated REPS times (7; REPS=4-7 adds these repetitions to those that were made before); within a repetition each allocator
# takes its turn, in a process of its own. A figure is one line of $BUILD/bench/results.tsv: NAME ALLOCATOR VALUE UNIT REPETITION. A section
# that is run again replaces its own figures there and leaves the others. What is not installed is left out; what takes too long once is
# not tried again, and has a dash in the table.
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build/plain}
reps=${REPS:-7}
first=1
[[ $reps == *-* ]] && first=${reps%-*} reps=${reps#*-}
bin=$BUILD/bench
parts=$bin/results
log=$bin/log
mkdir -p "$parts"
: >"$log"
BENCH_DIR=$(mktemp -d /dev/shm/shmalloc-bench.XXXXXX)
export BENCH_DIR PMEM_IS_PMEM_FORCE=1 TEST_INSTANCE=bench$$
unset SHMALLOC_SOCKET SHMALLOC_HEAP
trap 'rm -rf "$BENCH_DIR" /dev/shm/shmalloc."$TEST_INSTANCE"-*' EXIT
trap 'exit 130' INT TERM

say() { echo "bench: $*" >&2; }

# ---- who takes part ----

declare -A preload=([glibc]='')
in_process=(glibc)
libraries=$(/sbin/ldconfig -p)
for peer in jemalloc:libjemalloc.so.2 tcmalloc:libtcmalloc_minimal.so.4 mimalloc:libmimalloc.so.2; do
	path=$(awk -v so="${peer#*:}" '$1 == so {print $NF; exit}' <<<"$libraries")
	if [ -n "$path" ]; then
		preload[${peer%:*}]=$path
		in_process+=("${peer%:*}")
	else
		say "without ${peer%:*}: ${peer#*:} is not installed (make bench-deps)"
	fi
done
read -ra shared <<<"${PEERS:-}"

traces=()
for t in cc1-sqlite ffmpeg-x264 git-pack gs-png jq-json mariadb-oltp perl-text python-json redis-mixed sqlite-mix; do
	for dir in ${SHMALLOC_TRACES:-} tests/data; do
		[ -r "$dir/$t.trace.zst" ] && traces+=("$dir/$t.trace.zst") && break
	done
done

# ---- one process of one allocator ----

declare -A hopeless
section='' row='' part='' suffix='' filter=cat

# Runs `command` with what `allocator` preloads; takes the lines "NAME VALUE UNIT" that it prints.
take() { # allocator, seconds, command...
	local allocator=$1 limit=$2 key="$section $1 $row" status
	shift 2
	[ -z "${hopeless[$key]:-}" ] || return 0
	timeout -k 1 "$limit" env LD_PRELOAD="${preload[$allocator]:-}" "$@" 2>>"$log" | "$filter" |
		awk -v allocator="$allocator" -v rep="$rep" -v suffix="$suffix" \
			'BEGIN {OFS = "\t"} NF == 3 {print $1 suffix, allocator, $2, $3, rep}' >>"$part"
	status=${PIPESTATUS[0]}
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		hopeless[$key]=1
		say "$allocator: $row did not end within $limit s: left out"
	elif [ "$status" != 0 ]; then
		echo "$allocator: $row ended with status $status" >>"$log"
	fi
}

# The rows of micro, each in a process of its own.
micro() { # allocator, seconds, row...
	local allocator=$1 limit=$2 program=malloc
	shift 2
	[ -n "${preload[$allocator]+there}" ] || program=$allocator
	for row in "$@"; do take "$allocator" "$limit" "$bin/micro-$program" "$row"; done
}

in_turn() { # row...
	local allocator
	for allocator in "${in_process[@]}" shmalloc; do micro "$allocator" 20 "$@"; done
}

# What replay reports as JSON, in lines like those of micro.
from_replay() {
	tr -d '{}" ' | awk -F, '{
		for (i = 1; i <= NF; i++) {
			split($i, pair, ":")
			of[pair[1]] = pair[2]
		}
		print "trace_" of["trace"], of["ns_per_event"], "ns"
		print "peak_" of["trace"], of["memory_ratio"], "ratio"
		if (of["allocator"] == "shma")
			print "messages_" of["trace"], of["messages"] / of["events"] * 10000, "per-10000"
	}'
}

# ---- sections: one repetition of each ----

section_pair() { in_turn pair batch; }
section_set() { in_turn set; }
section_two() { in_turn threads; micro shmalloc 20 processes; }
section_burst() { in_turn burst; }
section_large() { in_turn large; }
section_touch() { in_turn touch; }
section_start() { micro glibc 20 start; micro shmalloc 20 start; }
section_messages() { micro shmalloc 20 messages; }
section_daemon() { micro shmalloc 20 requests; }

section_shared() {
	local allocator suffix=/shared
	for allocator in boost-rbtree boost-seqfit mm apr iceoryx pmemobj; do
		[[ $rep -gt $first || " ${shared[*]} " == *" $allocator "* ]] ||
			say "without $allocator: it is not installed (make bench-deps)"
	done
	for allocator in "${shared[@]}" shmalloc; do micro "$allocator" 4 pair batch set processes; done
}

section_traces() {
	local allocator trace filter=from_replay
	for trace in "${traces[@]}"; do
		row=${trace##*/}
		for allocator in "${in_process[@]}"; do take "$allocator" 60 "$bin/replay" --json -r 1 -a malloc "$trace"; done
		take shmalloc 60 "$bin/replay" --json -r 1 -a shma --daemon "$BUILD/shmallocd" "$trace"
	done
}

section_instructions() { # they are the same in every repetition
	local allocator
	[ "$rep" = 1 ] || return 0
	command -v valgrind >/dev/null || { say 'without instructions: valgrind is not installed (make bench-deps)'; return 0; }
	row=instructions
	for allocator in "${in_process[@]}"; do take "$allocator" 60 tests/bench/instructions.sh "$bin/micro-malloc"; done
	take shmalloc 60 tests/bench/instructions.sh "$bin/micro-shmalloc"
}

section_live() { # each run is a median of three
	local allocator
	[ "$rep" -le 3 ] || return 0
	for allocator in tcmalloc mimalloc shmalloc; do micro "$allocator" 60 live; done
}

section_size() {
	local size
	for size in 1GiB 32GiB 1TiB; do suffix=@$size BENCH_SIZE=$size micro shmalloc 20 pair set; done
}

section_clients() {
	local clients
	for clients in 1 8 64; do suffix=@$clients BENCH_CLIENTS=$clients micro shmalloc 20 set requests; done
}

section_pageheap() {
	[ "$rep" -le 3 ] || return 0
	row=pageheap
	take shmalloc 60 "$bin/pageheap"
	[ "$rep" = 1 ] && command -v valgrind >/dev/null || return 0
	suffix=_instructions take shmalloc 60 tests/bench/instructions.sh "$bin/pageheap"
}

# ---- the run ----

# In ticks: what the processors did, what was taken from a virtual machine among it, and what of it was ours.
all_ticks() { awk '$1 == "cpu" {print $2 + $3 + $4 + $7 + $8 + $9}' /proc/stat; }
own_ticks() { awk '{print $14 + $15 + $16 + $17}' /proc/$$/stat; }

all=(pair set two burst large touch start messages instructions shared traces daemon clients size pageheap live)

check_sections() { # section...
	local section
	for section in "$@"; do
		[[ " ${all[*]} " == *" $section "* ]] || { say "no section $section; there are: ${all[*]}"; exit 2; }
		[[ $section != traces ]] || [ ${#traces[@]} -ge 10 ] ||
			say "${#traces[@]} traces are at hand: SHMALLOC_TRACES names a directory of others"
	done
}

run_section() { # section
	local began=$SECONDS
	section=$1 part=$parts/.$1
	: >"$part"
	[ "$first" -gt 1 ] && cat "$parts/$section.tsv" >"$part" 2>/dev/null
	for ((rep = first; rep <= reps; rep++)); do
		[ -t 2 ] && printf '\rbench: %-12s %d of %d' "$section" "$rep" "$reps" >&2
		"section_$section"
	done
	[ -t 2 ] && printf '\r' >&2
	printf 'bench: %-12s %d s     \n' "$section" $((SECONDS - began)) >&2
	mv "$part" "$parts/$section.tsv"
}

main() { # section...
	local ticks others began=$SECONDS name
	[ $# -gt 0 ] || set -- "${all[@]}"
	check_sections "$@"
	ticks=$(all_ticks)
	for name in "$@"; do run_section "$name"; done
	others=$((($(all_ticks) - ticks - $(own_ticks)) * 100 / ($(getconf CLK_TCK) * $(nproc) * (SECONDS - began + 1))))
	[ "$others" -lt 3 ] || say "the machine was not idle: other programs had $others % of the processors' time"
	for name in "${all[@]}"; do cat "$parts/$name.tsv" 2>/dev/null; done >"$bin/results.tsv"
	{
		echo "$(uname -sr), $(nproc) processors, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1), $(date -u +%F);" \
			"other programs had $others % of the processors"
		echo
		awk -f tests/bench/table.awk "$bin/results.tsv"
	} | tee "$bin/results.md"
	say "figures: $bin/results.tsv; this table: $bin/results.md; what went wrong: $log"
	exit
}

main "$@"
