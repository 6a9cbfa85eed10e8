#!/bin/bash
# Tests the tests: plants one fault at a time in a copy of the sources, builds what should notice, and demands that it fails.
#
#	tests/mutants/run.sh [NAME...]		all of tests/mutants/*.list, or those whose name matches one of the patterns
#
# A list has blocks, apart by empty lines; lines that begin with # are for the reader:
#
#	name   P2 without its fence			what the fault is
#	file   shm/central.c				where it goes
#	kills  tests/shm/test_central tests/...		programs below the build folder, any of which should fail; a Criterion suite may be
#							followed by :PATTERN (suite/test) for the tests that matter, NAME=VALUE sets a variable for all
#	-	old line				exactly these lines, one below the other, once in the file ...
#	+	new line				... become these
#
# Every program named must pass without a fault: that is seen first. A fault that does not build, or whose lines are not to be
# found, is an error of the list. The last line is "N of N mutants killed".
set -u
case $BUILD in */plain) ;; *) echo 'skipped: the plain build only'; exit 77 ;; esac
here=$(cd "$(dirname "$0")/../.." && pwd)
flavour=${BUILD##*/}
limit=${MUTANT_TIMEOUT:-120}
tree=$here/build/mutants
log=$tree/log
killed=0 total=0 errors=0

copy_tree() {
	rm -rf "$tree"
	mkdir -p "$tree/build"
	(cd "$here" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$tree"
	cp -a "$here/$BUILD" "$tree/$BUILD"
}

# One program with its variables; true if it passes.
passes() { # program[:pattern]; variables in $vars
	local program=${1%%:*} pattern=()
	case $1 in *:*) pattern=(--filter "${1#*:}") ;; esac
	env "${vars[@]}" timeout -k 5 "$limit" "$BUILD/$program" "${pattern[@]}" >"$log" 2>&1 </dev/null
	local status=$?
	[ "$status" = 77 ] && skipped=1
	[ "$status" = 0 ] || [ "$status" = 77 ]
}

build() { # programs
	local targets=()
	for p in "$@"; do
		case $p in tests/system/*) targets+=(everything) ;; *) targets+=("$BUILD/${p%%:*}") ;; esac
	done
	make -s -j"$(nproc)" FLAVOUR="$flavour" "$BUILD/shmallocd" "$BUILD/shmallocctl" "${targets[@]}" >"$log" 2>&1
}

# Swaps the old lines for the new ones. Fails unless they are there exactly once.
plant() { # file
	OLD=$old NEW=$new perl -0777 -i -pe '
		my $n = () = /^\Q$ENV{OLD}\E/mg;
		if ($n != 1) { print STDERR "the old lines are there $n times\n"; $bad = 1 } else { s/^\Q$ENV{OLD}\E/$ENV{NEW}/m }
		END { exit 1 if $bad }' "$1" 2>"$log"
}

declare -A clean # programs that pass without a fault
check_clean() {
	for p in "${kills[@]}"; do
		[ -z "${clean[${vars[*]}$p]:-}" ] || continue
		skipped=0
		if ! build "$p" || ! passes "$p"; then
			echo "    $p fails without a fault:"
			tail -n 20 "$log"
			return 1
		fi
		clean[${vars[*]}$p]=$((1 + skipped))
	done
}

report() { printf '%-9s %-28s %s\n' "$1" "${file:-}" "$name"; }

mutant() {
	local by='' start=$SECONDS
	total=$((total + 1))
	check_clean || { report ERROR; errors=$((errors + 1)); return; }
	cp "$file" "$tree/saved"
	if ! plant "$file"; then
		report ERROR; sed 's/^/    /' "$log"; errors=$((errors + 1))
	elif ! build "${kills[@]}"; then
		report ERROR; tail -n 5 "$log"; errors=$((errors + 1))
	else
		for p in "${kills[@]}"; do
			passes "$p" || { by=$p; break; }
		done
		[ -n "$by" ] && killed=$((killed + 1))
		report "${by:+killed}${by:-SURVIVED}" | sed "s|^killed$by|killed   |"
		printf '          %s, %d s\n' "${by:-by nothing}" $((SECONDS - start))
	fi
	cp "$tree/saved" "$file" # newer than its object: it is built again
}

wanted() {
	[ "${#patterns[@]}" = 0 ] && return 0
	local p
	for p in "${patterns[@]}"; do [[ $name == *$p* ]] && return 0; done
	return 1
}

block_end() {
	[ -n "$name" ] && wanted && mutant
	name='' file='' old='' new='' kills=() vars=()
}

patterns=("$@")
copy_tree
cd "$tree" || exit 1
export TEST_INSTANCE=mutant-$$
name='' file='' old='' new='' kills=() vars=()
while IFS= read -r line || [ -n "$line" ]; do
	case $line in
	'#'*) ;;
	'') block_end ;;
	name*) name=$(echo "${line#name}" | sed 's/^ *//') ;;
	file*) read -r file <<<"${line#file}" ;;
	kills*) for w in ${line#kills}; do case $w in *=*) vars+=("$w") ;; *) kills+=("$w") ;; esac done ;;
	-*) old+=${line#-}$'\n' ;;
	+*) new+=${line#+}$'\n' ;;
	*) echo "not understood: $line"; exit 1 ;;
	esac
done < <(cat "$here"/tests/mutants/*.list; echo)
rm -rf /dev/shm/shmalloc."$TEST_INSTANCE"-* "$tree" # what killed programs leave behind
echo "$killed of $total mutants killed$([ $errors = 0 ] || echo ", $errors errors in the list")"
[ "$killed" = "$total" ] && [ "$total" != 0 ]
