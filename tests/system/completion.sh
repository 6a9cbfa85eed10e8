#!/bin/bash
# What the completion offers is what the programs have: every command and option of --help, and no other; values; and clients and
# heaps as the daemon tells them, none of which a shell would run.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$BUILD" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
PATH=$build:$PATH
# shellcheck source=client/ctl/shmallocctl.bash
. "$root/client/ctl/shmallocctl.bash"

fail() {
	echo "completion: $*" >&2
	exit 1
}

# What is offered behind these words, the last of which is the beginning of one; sorted, in one line.
offers() {
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	"_${1##*/}" || fail "no completion for: $*"
	printf '%s\n' "${COMPREPLY[@]}" | sort | xargs
}

expect() { # what is wanted; the words
	local want got
	want=$(printf '%s\n' $1 | sort | xargs)
	shift
	got=$(offers "$@")
	[ "$got" = "$want" ] || fail "'$*' offers '$got', not '$want'"
}

options() { # of a help on standard input
	grep -oE '^ +(-., )?--[a-z-]+' | grep -oE -- '--.*'
}

complete -p shmallocctl shmallocd >/dev/null || fail 'not registered'

commands=$(shmallocctl --help | awk '/^Commands:/ {on = 1; next} /^$/ {on = 0} on {print $1}')
[ "$(wc -w <<<"$commands")" -ge 10 ] || fail "commands: $commands"
expect "$commands" shmallocctl ''
expect 'stats' shmallocctl sta
expect "$(shmallocctl --help | options)" shmallocctl -
for c in $commands; do
	expect "$(shmallocctl "$c" --help | options)" shmallocctl "$c" -
	expect "$(shmallocctl "$c" --help | options)" shmallocctl --timeout 3 "$c" --
	formats=$(shmallocctl "$c" --help | sed -nE 's/.*--format ([a-z|]+).*/\1/p')
	[ -n "$formats" ] || fail "$c has no formats"
	expect "${formats//|/ }" shmallocctl "$c" --format ''
	expect "${formats//|/ }" shmallocctl "$c" -f ''
done
expect "$(shmallocd --help | options)" shmallocd -

expect 'kind class owner' shmallocctl heapmap --by ''
expect 'kind class owner' shmallocctl heapmap --by = ''
expect 'kind class owner' shmallocctl heapmap --by =
expect 'class' shmallocctl heapmap -g c
expect 'class' shmallocctl heapmap --by = c
expect 'held rate idle name pid' shmallocctl top --sort ''
expect '' shmallocctl top --interval ''
expect 'debug' shmallocd --log-level d

# a level of the log is one that the daemon takes
for level in $(offers shmallocd --log-level ''); do
	shmallocd --log-level "$level" --help >/dev/null || fail "the daemon has no log level $level"
done

mkdir "$dir/here"
touch "$dir/here/map.svg"
expect "$dir/here/map.svg" shmallocctl heapmap --output "$dir/here/m"
expect "$dir/here/map.svg" shmallocctl dump --image "$dir/here/m"
expect "$dir/here" shmallocd --socket "$dir/h"

# A program with a daemon that has clients and heaps, one of them with a name that is not a name.
mkdir "$dir/bin"
cat >"$dir/bin/shmallocctl" <<'FAKE'
#!/bin/sh
echo "$*" >>"$ASKED"
case "$*" in
*--help)
	case $1 in
	poke) printf 'Usage: shmallocctl [OPTIONS] poke CLIENT\n' ;;
	--help) ;;
	*) exit 2 ;;
	esac
	printf 'Options:\n  -s, --socket PATH   where\n  -H, --heap NAME     which\n' ;;
*clients) printf '{\n  "clients": [\n    {"client":3,"pid":77},\n    {"client":14,"pid":78}\n  ]\n}\n' ;;
*heaps) printf '{\n  "heaps": [\n    {"name":"default"},\n    {"name":"red"},\n    {"name":"$(touch %s)"}\n  ]\n}\n' "$RUN" ;;
esac
FAKE
chmod +x "$dir/bin/shmallocctl"
export ASKED=$dir/asked RUN=$dir/run
PATH=$dir/bin:$PATH
expect '3 14' shmallocctl poke ''
expect '14' shmallocctl --socket /x poke 1
grep -q -- '--socket /x --timeout 1 --format json clients' "$ASKED" || fail "asked: $(cat "$ASKED")"
expect 'default red' shmallocctl --heap ''
expect 'red' shmallocctl -H r
expect 'default red' shmallocctl --socket = /x --heap = ''
grep -q -- '--socket /x --timeout 1 --format json heaps' "$ASKED" || fail "asked: $(cat "$ASKED")"
[ ! -e "$RUN" ] || fail 'the name of a heap was run'
echo 'completion: every command and option is offered'
