#!/bin/bash
# Tests the tests: plants one fault at a time in a copy of the sources, builds what should notice, and demands that it fails.
#
#	[MUTANT_SHARE=N] tests/mutants/run.sh [PART...]		all of tests/mutants/*.list, or those whose name or file contains one of the parts
#
# A list has blocks, apart by empty lines; lines that begin with # are for the reader:
#
#	name   P2 without its fence			what the fault is
#	file   shm/central.c				where it goes
#	kills  tests/shm/test_central stress/...	programs below the build folder, any of which should fail (one that takes six
#							seconds and three times as long as without a fault has); :PATTERN after one goes to it as its --filter (of
#							Criterion, suite/test), NAME=VALUE sets a variable for all; one that ends in .sh
#							is a script of the tree
#	-	old line				exactly these lines, one below the other, once in the file ...
#	+	new line				... become these
#
# Every program named must pass without a fault: that is seen first. A fault that does not build, or whose lines are not to be
# found, is an error of the list. The last line is "N of N mutants killed".
#
# Workers, one per processor (MUTANT_WORKERS), each have a copy of the tree with what is built in it, below build/mutants. A fault
# leaves nothing: what its programs started is killed, and what they made in /dev/shm bears the worker's name.
set -u
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: the plain build only'; exit 77 ;; esac
here=$(cd "$(dirname "$0")/../.." && pwd)
flavour=${BUILD##*/}
trees=$here/build/mutants
unset MAKEFLAGS MAKELEVEL INTERLEAVE SHMALLOC_SOAK # ours would be theirs

# ---- the lists ----

names=() files=() kills=() vars=() olds=() news=() places=()

# With MUTANT_SHARE=N one of N is tried: others with each commit.
share=${MUTANT_SHARE:-1} turn=0
[ "$share" = 1 ] || turn=$(($(git -C "$here" rev-list --count HEAD 2>/dev/null || echo 0) % share))
seen=0

is_its_turn() {
	seen=$((seen + 1))
	[ $((seen % share)) = "$turn" ]
}

wanted() { # name, file
	[ "${#parts[@]}" = 0 ] && return 0
	local p
	for p in "${parts[@]}"; do [[ $1 == *$p* || $2 == *$p* ]] && return 0; done
	return 1
}

bad_list() { # what
	echo "$place: $1" >&2
	exit 1
}

block_end() {
	[ -n "$place" ] || return 0
	if [ -z "$name" ] || [ -z "$file" ] || [ -z "$kill" ] || [ -z "$old" ]; then
		bad_list 'name, file, kills or the old lines are missing'
	fi
	[ -f "$here/$file" ] || bad_list "there is no $file"
	if wanted "$name" "$file" && is_its_turn; then
		names+=("$name") files+=("$file") kills+=("$kill") vars+=("$var") olds+=("$old") news+=("$new") places+=("$place")
	fi
	place=''
}

read_list() { # path
	local line w number=0 path=${1#"$here"/}
	place='' name='' file='' kill='' var='' old='' new=''
	while IFS= read -r line || [ -n "$line" ]; do
		number=$((number + 1))
		case $line in
		'#'*) continue ;;
		'') block_end; name='' file='' kill='' var='' old='' new=''; continue ;;
		esac
		place=${place:-$path:$number}
		case $line in
		name\ *) read -r name <<<"${line#name}" ;;
		file\ *) read -r file <<<"${line#file}" ;;
		kills\ *) for w in ${line#kills}; do case $w in *=*) var+=" $w" ;; *) kill+=" $w" ;; esac done ;;
		-*) old+=${line#-}$'\n' ;;
		+*) new+=${line#+}$'\n' ;;
		*) bad_list "not understood: $line" ;;
		esac
	done <"$1"
	block_end
}

# ---- one worker ----

# Kills whoever is left of a session.
end_session() { # id
	awk -v s="$1" '{ sub(/.*\) /, ""); if ($4 == s) { split(FILENAME, part, "/"); print part[3] } }' /proc/[0-9]*/stat 2>/dev/null |
		xargs -r kill -KILL 2>/dev/null
}

# One program with its variables, in a session of its own; true if it passes.
passes() { # seconds program[:pattern] variables...
	local limit=$1 program=$BUILD/${2%%:*} filter=() status
	case $program in *.sh) program=${2%%:*} ;; esac
	case $2 in *:*) filter=(--filter "${2#*:}") ;; esac
	shift 2
	setsid env --default-signal=INT,QUIT "$@" timeout -k 2 "$limit" "$program" "${filter[@]}" >"$log" 2>&1 </dev/null &
	session=$!
	wait $session 2>/dev/null
	status=$?
	end_session $session
	rm -f /dev/shm/shmalloc."$TEST_INSTANCE"-*
	[ "$status" = 77 ] && skipped=1
	[ "$status" = 0 ] || [ "$status" = 77 ]
}

# What the programs need: most suites and the stress programs run the daemon, a few of them more.
build() { # programs
	local p targets=()
	for p in "$@"; do
		p=${p%%:*}
		case $p in
		*.sh)
			targets+=("$BUILD"/{shmalloc{d,ctl,-run},libshmalloc-preload.so,examples/hello,system/{shmallocd-next,orphan.so}})
			continue
			;;
		esac
		targets+=("$BUILD/$p")
		case $p in
		interleave | stress/stepping | tests/shm/* | tests/proto/*) ;;
		tests/system/test_misuse | tests/system/test_preload | tests/system/test_examples | tests/system/test_replay*) targets+=(everything) ;;
		*) targets+=("$BUILD/shmallocd" "$BUILD/shmallocctl") ;;
		esac
	done
	make -s CI= FLAVOUR="$flavour" "${targets[@]}" >"$log" 2>&1
}

# Swaps the old lines for the new ones. Fails unless they are there exactly once.
plant() { # mutant
	OLD=${olds[$1]} NEW=${news[$1]} perl -0777 -i -pe '
		my $n = () = /^\Q$ENV{OLD}\E/mg;
		if ($n != 1) { print STDERR "the old lines are there $n times\n"; $bad = 1 } else { s/^\Q$ENV{OLD}\E/$ENV{NEW}/m }
		END { exit 1 if $bad }' "${files[$1]}" 2>"$log"
}

declare -A clean # how long programs may take that pass without a fault
check_clean() { # variables programs
	local p start
	for p in $2; do
		[ -z "${clean[$1 $p]:-}" ] || continue
		build "$p" || return 1
		start=$SECONDS
		# shellcheck disable=SC2086 # words
		if ! passes 120 "$p" $1; then
			echo "$p fails without a fault" >"$log.why"
			cat "$log" >>"$log.why" && mv "$log.why" "$log"
			return 1
		fi
		clean[$1 $p]=$((6 + 3 * (SECONDS - start)))
	done
}

report() { # verdict mutant remark
	printf '%-8s %-22s %s (%s)\n' "$1" "${files[$2]}" "${names[$2]}" "$3"
}

failed() { # mutant: an error, with the last lines of the log
	report ERROR "$1" "${places[$1]}"
	sed 's/^/    /' "$log" | tail -n 12
	errors=$((errors + 1))
}

mutant() { # number
	local m=$1 p by='' start=$SECONDS
	total=$((total + 1))
	check_clean "${vars[m]}" "${kills[m]}" || { failed "$m"; return; }
	cp "${files[m]}" saved
	# shellcheck disable=SC2086 # words
	if ! plant "$m" || ! build ${kills[m]}; then
		failed "$m"
	else
		for p in ${kills[m]}; do
			passes "${clean[${vars[m]} $p]}" "$p" ${vars[m]} || { by=$p; break; }
		done
		if [ -n "$by" ]; then
			killed=$((killed + 1))
			report killed "$m" "$by, $((SECONDS - start)) s"
		else
			report SURVIVED "$m" "${places[m]}, $((SECONDS - start)) s"
		fi
	fi
	cp saved "${files[m]}" # newer than its object: it is built again
}

work() { # number of the worker
	local tree=$trees/$1 m
	mkdir -p "$tree/build"
	(cd "$here" && tar -c --exclude=./build --exclude=./.git .) | tar -x -C "$tree"
	cp -a "$here/$BUILD" "$tree/$BUILD"
	cd "$tree" || exit 1
	log=$tree/log skipped=0 killed=0 total=0 errors=0
	export TEST_INSTANCE=mutant-$$-$1
	trap 'end_session ${session:-none}; exit 1' TERM
	for m in "${!names[@]}"; do
		[ "${worker_of[${files[m]}]}" = "$1" ] && mutant "$m"
	done
	[ "$skipped" = 0 ] || echo 'skipped: some programs cannot run here, and their faults were not seen' >&2
	echo "$killed $total $errors" >"$trees/sum.$1"
}

# ---- all of them ----

# A file's faults are one worker's: one build restores the last and plants the next.
declare -A worker_of
share_out() { # workers
	local m w least loads=()
	declare -A load
	for m in "${!names[@]}"; do load[${files[m]}]=$((${load[${files[m]}]:-0} + 1)); done
	while read -r m file; do
		least=0
		for ((w = 1; w < $1; w++)); do [ "${loads[w]:-0}" -lt "${loads[least]:-0}" ] && least=$w; done
		loads[least]=$((${loads[least]:-0} + m))
		worker_of[$file]=$least
	done < <(for file in "${!load[@]}"; do echo "${load[$file]} $file"; done | sort -k1,1nr -k2)
}

clean_up() {
	local w
	for w in "${workers[@]}"; do kill -TERM "$w" 2>/dev/null; done
	wait
	rm -rf /dev/shm/shmalloc.mutant-$$-* "$trees"
}

parts=("$@") workers=()
for list in "$here"/tests/mutants/*.list; do read_list "$list"; done
n=${MUTANT_WORKERS:-$(nproc)}
share_out "$n"
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
rm -rf "$trees"
mkdir -p "$trees"
for ((w = 0; w < n; w++)); do
	work $w &
	workers+=($!)
done
for w in "${workers[@]}"; do wait "$w"; done
workers=()
read -r killed total errors < <(cat "$trees"/sum.* | awk '{ k += $1; t += $2; e += $3 } END { print k + 0, t + 0, e + 0 }')
[ "$total" = "${#names[@]}" ] || errors=$((errors + ${#names[@]} - total))
echo "$killed of ${#names[@]} mutants killed$([ "$errors" = 0 ] || echo ", $errors errors")"
[ "$killed" = "${#names[@]}" ] && [ "$killed" != 0 ]
