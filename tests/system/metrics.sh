#!/bin/bash
# What shmallocctl says for Prometheus of a heap under load: promtool finds nothing to complain about, and takes it for what it is.
# promtool is $PROMTOOL, or the one in $PATH, or comes from a Debian package that is not installed (make build/tools/promtool).
set -euo pipefail
BUILD=${BUILD:-build/plain}
skip() { echo "skipped: $*"; exit 77; }

promtool=${PROMTOOL:-$(command -v promtool || true)}
if [ -z "$promtool" ]; then
	[ -x build/tools/promtool ] || timeout 120 make -s build/tools/promtool >/dev/null 2>&1 || skip 'no promtool, and its package cannot be fetched'
	promtool=build/tools/promtool
fi

dir=$(mktemp -d /tmp/shmalloc-metrics.XXXXXX)
instance=metrics-$$
pids=
export SHMALLOC_SOCKET=$dir/sock
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN
# shellcheck disable=SC2086
trap '[ -z "$pids" ] || kill $pids 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir" /dev/shm/shmalloc."$instance".*' EXIT

# A tool that finds nothing in anything would let everything pass.
printf '# TYPE pages_count gauge\npages_count 1\n' | "$promtool" check metrics >/dev/null 2>&1 &&
	{ echo "$promtool finds nothing in a bad metric"; exit 1; }

"$BUILD/shmallocd" --socket "$SHMALLOC_SOCKET" --instance "$instance" --size 256MiB --client-limit 200MiB 2>"$dir/log" &
pids=$!
"$BUILD/examples/hello" 'left behind' >/dev/null # attaching waits for the daemon
"$BUILD/examples/pipeline" drop >/dev/null 2>&1 & pids="$pids $!"
"$BUILD/examples/pipeline" work >/dev/null 2>&1 & pids="$pids $!"
"$BUILD/examples/pipeline" make tests/data/jq-json.trace.zst 6 >/dev/null 2>&1 & pids="$pids $!"

check() { # text: promtool's exit status is 0 with nothing said
	local said
	said=$("$promtool" check metrics <"$1" 2>&1) && [ -z "$said" ] || { printf 'promtool on %s:\n%s\n' "$1" "$said"; exit 1; }
}
for look in 1 2 3 4 5; do
	sleep 0.5
	"$BUILD/shmallocctl" --format prometheus stats >"$dir/metrics-$look"
	check "$dir/metrics-$look"
done
for family in shmalloc_client_held_bytes shmalloc_class_live_blocks shmalloc_user_held_bytes shmalloc_refill_served_seconds_count shmalloc_granted_bytes_total; do
	grep -q "^$family{.*} [1-9]" "$dir/metrics-5" || { echo "$family has no sample above 0"; exit 1; }
done
echo "$(grep -c '^# TYPE' "$dir/metrics-5") families, $(grep -vc '^#' "$dir/metrics-5") samples"
