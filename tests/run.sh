#!/bin/bash
# Runs test programs one after the other: Criterion suites, whose tests are counted, and plain programs, each of which counts as
# one test. Prints what failed, what was skipped and what campaigns report, and at the end "N passed, N failed". A program that
# runs over TEST_TIMEOUT seconds has failed.
set -u
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
limit=${TEST_TIMEOUT:-$([ -n "${SHMALLOC_SOAK:-}" ] && echo 14400 || echo 600)}

for program in "$@"; do
	name=${program#"$BUILD"/}
	start=$SECONDS
	if [ -n "${SHMALLOC_SOAK:-}" ]; then # long: say how far it is
		echo "$name"
		timeout -k 10 "$limit" "$program" 2>&1 </dev/null | tee "$log"
		status=${PIPESTATUS[0]}
	else
		timeout -k 10 "$limit" "$program" >"$log" 2>&1 </dev/null
		status=$?
	fi
	summary=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -a 'Synthesis: Tested:' | tail -n 1)
	if [[ $summary =~ Tested:\ ([0-9]+).*Passing:\ ([0-9]+) ]]; then
		p=${BASH_REMATCH[2]}
		f=$((BASH_REMATCH[1] - p))
		[ "$status" != 0 ] && [ "$f" = 0 ] && f=1
	elif [ "$status" = 77 ]; then
		p=0 f=0 skipped=$((skipped + 1))
	else
		p=$((status == 0)) f=$((status != 0))
	fi
	passed=$((passed + p)) failed=$((failed + f))
	printf '%-34s %4d passed %3d failed %5d s\n' "$name" "$p" "$f" $((SECONDS - start))
	grep -a -E 'skipped: |violations [0-9]+|mutants killed' "$log" | sed 's/\x1b\[[0-9;]*m//g; s/^/    /' | awk '!seen[$0]++'
	if [ "$f" != 0 ]; then
		[ "$status" = 124 ] && echo "    no end after $limit s"
		sed 's/^/    /' "$log" | tail -n 60
	fi
done
[ "$skipped" = 0 ] || echo "programs skipped: $skipped"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
