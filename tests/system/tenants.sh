#!/bin/bash
# Two tenants on one daemon, each with a heap, a user and four clients. One measures: its clients replay recorded programs, beside a
# neighbour that sleeps and, by turns, beside one of whose clients two replay programs as well, one is over its limit and asks for
# more, and one floods the daemon with requests. What the first gets done must stay within a fifth; nothing of it may fail.
# The tenants have a processor each: what is compared is what they do to each other through the daemon. Needs root, for the users.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: tenants.sh measures the plain build only'; exit 77 ;; esac
[ "$(id -u)" = 0 ] || { echo 'skipped: tenants.sh needs root, to be two users'; exit 77; }
[ "$(nproc)" -ge 2 ] || { echo 'skipped: tenants.sh needs a processor for each tenant'; exit 77; }
rounds=${SHMALLOC_SOAK:+9}
rounds=${rounds:-5}
names='jq-json gs-png ffmpeg-x264'
[ -z "${SHMALLOC_SOAK:-}" ] || [ ! -d "${SHMALLOC_TRACES:-}" ] ||
	names='sqlite-mix python-json perl-text jq-json cc1-sqlite gs-png redis-mixed ffmpeg-x264'
reach=0.80
quiet=64101 loud=64102

dir=$(mktemp -d /tmp/shmalloc-tenants.XXXXXX)
instance=tenants-$$
pids=()
clean_up() {
	exec 8>&- 9>&- || true
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	wait 2>/dev/null || true
	rm -rf "$dir" /dev/shm/shmalloc."$instance".*
}
trap clean_up EXIT

# What other users may run.
mkdir -p "$dir/build/bench" "$dir/build/system" "$dir/traces"
cp "$BUILD/bench/replay" "$dir/build/bench/"
cp "$BUILD/system/neighbour" "$dir/build/system/"
cp "$BUILD/libshmalloc.so.0" "$dir/build/"
for name in $names; do
	for folder in tests/data ${SHMALLOC_TRACES:-}; do
		[ ! -f "$folder/$name.trace.zst" ] || cp "$folder/$name.trace.zst" "$dir/traces/"
	done
done
chmod -R a+rX "$dir"

cat >"$dir/conf" <<END
[heap quiet]
size = 4GiB
allowed-users = $quiet
[heap loud]
size = 2GiB
allowed-users = $loud
client-limit = 192MiB
END
# As its unit has it: before those who wait for it.
MEMORY_PRESSURE_WATCH=/dev/null nice -n -10 "$BUILD/shmallocd" --config "$dir/conf" --socket "$dir/sock" --socket-mode 0666 --instance "$instance" 2>"$dir/log" &
pids+=($!)
ctl() { "$BUILD/shmallocctl" --socket "$dir/sock" "$@"; }
for _ in $(seq 200); do ctl heaps >/dev/null 2>&1 && break; kill -0 "${pids[0]}" || break; sleep 0.05; done
ctl heaps >/dev/null || { cat "$dir/log"; exit 1; }

as() { # USER PROCESSOR HEAP program...
	local user=$1 cpu=$2 heap=$3
	shift 3
	SHMALLOC_SOCKET=$dir/sock SHMALLOC_HEAP=$heap exec taskset -c "$cpu" setpriv --reuid "$user" --regid "$user" --clear-groups "$@"
}
number() { # HEAP counter
	ctl --heap "$1" --format prometheus stats | awk -v n="$2" '$1 ~ "^" n "({|$)" {s += $NF} END {printf "%d", s}'
}

# The neighbour of a kind: its processes read a pipe, whose end ends them.
begin() {
	local kind i=0
	neighbours=()
	rm -f "$dir/in" "$dir"/said.*
	mkfifo "$dir/in"
	exec 9<>"$dir/in"
	for kind in $1; do
		i=$((i + 1))
		if [ "$kind" = replay ]; then
			(as $loud 1 loud "$dir/build/bench/replay" -r 1000 -s "$dir/sock" --heap loud "$dir"/traces/jq-json.trace.zst) >/dev/null 2>&1 9>&- &
			echo ready >"$dir/said.$i"
		else
			(as $loud 1 loud "$dir/build/system/neighbour" "$kind") <"$dir/in" >"$dir/said.$i" 2>&1 9>&- &
		fi
		neighbours+=($!)
		pids+=($!)
	done
	for _ in $(seq 600); do [ "$(grep -l ready "$dir"/said.* | wc -l)" = "$i" ] && return; sleep 0.05; done
	cat "$dir"/said.*
	exit 1
}
finish() {
	exec 9>&-
	for pid in "${neighbours[@]}"; do
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
}

for round in $(seq "$rounds"); do
	for kind in idle bad; do
		if [ $kind = idle ]; then begin 'idle idle idle idle'; else begin 'replay replay over flood'; fi
		asked=$(number loud shmalloc_requests_total)
		began=$(date +%s%N)
		for name in $names; do
			(as $quiet 0 quiet "$dir/build/bench/replay" -m procs -n 4 -r 1 --json -s "$dir/sock" --heap quiet "$dir/traces/$name.trace.zst") |
				sed -n 's/.*"ns_per_event": *\([0-9.]*\).*/\1/p' | sed "s/^/$kind $name /" >>"$dir/figures"
		done
		[ $kind = idle ] || echo "$(($(number loud shmalloc_requests_total) - asked)) $(($(date +%s%N) - began))" >>"$dir/rates"
		finish
	done
done

refused=$(number loud shmalloc_refused_over_client_limit_total)
failed=$(number quiet shmalloc_refused_requests_total)
sort -k1,2 -k3n "$dir/figures" | awk -v reach=$reach -v rounds="$rounds" -v refused="$refused" -v failed="$failed" -v rates="$dir/rates" '
	function median(kind, name) {return v[kind, name, int((rounds + 1) / 2)]}
	{v[$1, $2, ++n[$1, $2]] = $3; names[$2] = 1}
	END {
		for (name in names) {
			if (n["idle", name] != rounds || n["bad", name] != rounds) {print "a run is missing: " name; exit 1}
			r = median("idle", name) / median("bad", name)
			printf "%-12s %7.1f ns per event beside an idle neighbour, %7.1f beside a bad one: throughput %.2f\n", name, median("idle", name), median("bad", name), r
			sum += log(r); many++; bad += r < reach
		}
		while ((getline line < rates) > 0) {split(line, f, " "); asked += f[1]; ns += f[2]}
		printf "the bad neighbour asked %.0f times a second, and was refused %d times for its limit\n", asked / ns * 1e9, refused
		if (!refused || asked < 1000) {print "that is no bad neighbour"; exit 1}
		if (failed) {print "the quiet tenant was refused memory " failed " times"; exit 1}
		printf "tenants: throughput %.2f in the mean, %.2f is to be reached by each; violations %d\n", exp(sum / many), reach, bad
		exit bad != 0
	}'
