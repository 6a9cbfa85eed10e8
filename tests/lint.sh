#!/bin/bash
# What a machine can say about the sources. Each check prints its findings; the exit status says whether there were any.
set -u
findings=$(mktemp)
trap 'rm -f "$findings"' EXIT
sources() { git ls-files --cached --others --exclude-standard "$@"; }
complain() { # title; the findings come on standard input
	local found
	found=$(cat)
	[ -z "$found" ] || printf 'lint: %s\n%s\n' "$1" "$found" | tee -a "$findings"
}

# The C++ header is of the public one alone.
grep -nE '#include ("|<[a-z]+/)' client/shmalloc.hpp | complain 'client/shmalloc.hpp needs what is not installed'

# Who may include whom: the folders of the project, path-qualified from the root.
allowed() {
	case $1 in
	shm) echo 'shm' ;;
	proto) echo 'proto' ;;
	daemon) echo 'daemon|proto|shm' ;;
	client) echo 'client|proto|shm' ;;
	esac
}
for dir in shm proto daemon client; do
	grep -nE '#include "' $(sources "$dir/*.c" "$dir/*.h") | grep -vE "#include \"($(allowed $dir))/" |
		complain "$dir/ includes what it may not"
done
grep -nE '#include ("proto/report/|<jansson)' $(sources 'proto/*.c' 'proto/*.h' 'client/*.c' 'client/*.h' 'shm/*') |
	grep -vE '^(proto/report|client/ctl)/' | complain 'the library does without reports and JSON'
grep -nE '#include <(errno|stdio|time|unistd|pthread|sys/)' $(sources 'shm/*.c' 'shm/*.h') |
	complain 'shm/ is data structures: no I/O, no clock, no errno'
# Examples have the installed header and nothing else.
grep -nE '\b(__)?atomic_(load|store|fetch|exchange|compare)' $(sources 'shm/*.c' 'shm/*.h' 'client/*.c' 'client/*.h' 'daemon/*.c' ':!client/examples/') |
	grep -v '^shm/atomic.h' | complain 'atomic operations that shm/atomic.h does not name'
grep -l 'pb-c.h"' $(sources '*.c' '*.h') | grep -v '^proto/codec.c$' | complain 'the generated header outside proto/codec.c'
grep -nE '#include <event' $(sources '*.c' '*.h') | grep -vE '^(daemon/(server|served|listener|session|timer|http\.c|httpreply|httpwish)|tests/)' |
	complain 'libevent outside the files of the loop'

# What writes without a bound, asks a shell, or makes a name that somebody else can guess.
banned='sprintf|vsprintf|strcpy|stpcpy|strcat|strncat|gets|scanf|sscanf|fscanf|strtok|alloca|atoi|atol|system|popen|execlp|execvp|tmpnam|tempnam|mktemp|rand|srand|setuid|seteuid|chown'
find_banned() { grep -nE "(^|[^A-Za-z0-9_.>])($banned)\(" "$@"; }
for name in ${banned//|/ }; do # the rule itself is tried
	printf '\tx = %s(a, b);\n' "$name" | find_banned >/dev/null || echo "$name"
done | complain 'the rule against dangerous functions does not see'
find_banned $(sources 'shm/*.[ch]' 'proto/*.[ch]' 'daemon/*.[ch]' 'client/*.[ch]' ':!client/examples/') |
	grep -v '^client/preloadaside\.c:[0-9]*:SHMI_EXPORT FILE \*popen(' | complain 'a function that is not used here' # that one is defined there

# The daemon never maps data: one function of it maps objects, and passes that one over. (lease.c tries a lock on a file of its own.)
grep -nE '\bmmap(64)?\(' $(sources 'daemon/*.c') | grep -vE '^daemon/(objects|lease)\.c:|MAP_ANONYMOUS' | complain 'the daemon maps memory outside daemon/objects.c'
grep -nE '\bmmap(64)?\(' daemon/lease.c | grep -v PROT_NONE | complain 'daemon/lease.c maps what can be read'
[ "$(grep -cE '\bmmap(64)?\(' daemon/objects.c)" = "$(grep -B3 -E '\bmmap(64)?\(' daemon/objects.c | grep -c 'if (i == HEAP_DATA)$')" ] ||
	complain 'the daemon maps data' <<<daemon/objects.c

# The client does not even contain what writes the daemon's metadata, and exports its own names only.
nm "$BUILD/libshmalloc.so.0" | awk '{print $3}' |
	grep -E '^shmi_(pageheap|freeruns|spantree|central|ledger|span_(open|close|set|quarantine|relink|blank)|arena_publish|adopt|reclaim|roots_(set|del))' |
	complain 'libshmalloc contains daemon code'
nm -D --defined-only "$BUILD/libshmalloc.so.0" | awk '{print $3}' | grep -vE '^(shma_|SHMALLOC_0)' |
	complain 'libshmalloc exports a foreign name'

nm -D --defined-only "$BUILD/libshmalloc-preload.so" | awk '{print $3}' | sed 's/@.*//' | grep -vE '^(shma_|SHMALLOC_0|_Z(nwm|dlPv)(St11align_val_t)?$|(m|c|re)alloc$|reallocarray$|free$|(posix_)?memalign$|aligned_alloc$|p?valloc$|malloc_(usable_size|trim)$|mallinfo2?$|f(d|mem)?open(64|cookie)?$|popen$|tmpfile(64)?$|open_w?memstream$|(pthread_setspecific|tss_set)$)' |
	complain 'libshmalloc-preload exports a foreign name'

# The program in README and man page is the example that the tests run.
awk '/^```c$/ {on = 1; next} /^```$/ {on = 0} on' README.md | diff - client/examples/hello.c |
	complain 'the program in README.md is not client/examples/hello.c'
sed -n '/^\.Bd -literal$/,/^\.Ed$/{/^\./!p}' client/libshmalloc.3 | diff - client/examples/hello.c |
	complain 'the program in client/libshmalloc.3 is not client/examples/hello.c'

# The table of README.md that says what survives what names tests that exist.
awk '/^## What survives what/ {on = 1; next} /^## / {on = 0} on && /^\|/' README.md | awk -F'|' '{print $4}' |
	grep -oE '`[^`]+`' | tr -d '\140' | while IFS=: read -r file names; do
	path=$(ls -d "tests/$file".c "tests/$file".sh "tests/$file" 2>/dev/null | head -n 1)
	[ -n "$path" ] || echo "tests/$file is not there"
	for name in $names; do
		grep -qw "$name" "$path" 2>/dev/null || echo "tests/$file has no $name"
	done
done | complain 'README.md names tests that are not there'

# So do the rows of daemon/README.md about threats.
awk '/^## Threats/ {on = 1; next} /^## / {on = 0} on && /^\|/' daemon/README.md | awk -F'|' 'NR > 2 {print $4}' | tr ',' '\n' |
	tr -d '\140 ' | while read -r name; do
	[ -z "$name" ] || [ -n "$(find tests -name "${name##*/}" -o -name "${name##*/}.c" | head -n 1)" ] || echo "$name is not there"
done | complain 'daemon/README.md names tests that are not there'

# The man pages name every option, command and function there is, and none besides.
differ() { # what is listed; what is described: prints the difference
	comm -3 <(sort -u <<<"$1") <(sort -u <<<"$2") |
		sed -e 's/^\t\(.*\)/\1 is described, but does not exist/' -e t -e 's/$/ is not described/'
}
options() { # of a help or a page on standard input
	grep -oE '(^|[[ ])--?[A-Za-z][A-Za-z-]*' | tr -d '[ ' | grep -vE '^-[A-Za-z].' | sort -u
}
page() { mandoc -T ascii -O width=200 "$1" | sed 's/.\x08//g'; }
own() { grep -vE 'systemctl|systemd-sysusers|systemd-tmpfiles|# shmallocctl|shmallocctl --format|curl |ssh '; } # what the page says of other programs is theirs

for page in daemon/shmallocd.8 daemon/shmallocd.conf.5 client/libshmalloc.3 client/shmalloc-run.1 client/ctl/shmallocctl.1; do
	mandoc -T lint -W warning "$page" 2>&1 | complain "$page"
done
differ "$("$BUILD/shmallocd" --help | options)" "$(page daemon/shmallocd.8 | own | options)" |
	complain 'daemon/shmallocd.8'
differ "$("$BUILD/shmallocd" --config /dev/null --print-config | sed -nE 's/^([a-z-]+) = .*/\1/p')" "$(sed -nE 's/^\.It Cm ([a-z-]+) No = .*/\1/p' daemon/shmallocd.conf.5)" |
	complain 'settings in daemon/shmallocd.conf.5'
commands=$("$BUILD/shmallocctl" --help | awk '/^Commands:/ {on = 1; next} /^$/ {on = 0} on {print $1}')
differ "$commands" "$(sed -n 's/^\.It Cm \([a-z]*\).*/\1/p' client/ctl/shmallocctl.1)" |
	complain 'commands in client/ctl/shmallocctl.1'
differ "$(for c in '' $commands; do "$BUILD/shmallocctl" $c --help; done | options)" \
	"$(page client/ctl/shmallocctl.1 | options)" |
	complain 'options in client/ctl/shmallocctl.1'
differ "$("$BUILD/shmalloc-run" --help | options)" "$(page client/shmalloc-run.1 | sed '/^ENVIRONMENT/,$d' | own | grep -v '[pm]alloc-' | options)" |
	complain 'options in client/shmalloc-run.1'
differ "$(sed -n 's/^SHMA_API.*\(shma_[a-z_]*\)(.*/\1/p' client/shmalloc.h)" \
	"$(sed -nE 's/^\.F[no] (shma_[a-z_]+)( .*|$)/\1/p' client/libshmalloc.3)" | complain 'functions in client/libshmalloc.3'
grep -ohE '\b(shma_[a-z_]+|SHMA(LLOC)?_[A-Z]+)' client/libshmalloc.3 | sort -u | while read -r name; do
	grep -qw "$name" client/shmalloc.h || echo "$name is not in client/shmalloc.h"
done | complain 'names in client/libshmalloc.3'

sources '*.c' '*.h' '*.cpp' '*.hpp' | xargs clang-format --dry-run 2>&1 | grep 'code should be' | head -n 20 | complain 'not formatted: make format'

# shellcheck disable=SC2086
flags="-std=c11 -D_GNU_SOURCE -DSHMALLOC_VERSION=__FILE__ -DSHMALLOC_LIBDIR=__FILE__ -DSHMALLOC_SBINDIR=__FILE__ -DSHMALLOC_BINDIR=__FILE__ -I. -Iclient -I$BUILD ${PYTHON_FLAGS:-}"
code=$(sources 'shm/*.c' 'proto/*.c' 'daemon/*.c' 'client/*.c')
[ -n "${PYTHON_FLAGS:-}" ] || code=$(grep -v '^client/python/' <<<"$code") # no headers of Python
for cc in gcc clang; do
	# the adapters of other allocators need their headers, which make deps does not install
	for f in $code $(sources 'tests/*.c' ':!tests/bench/heaps/' tests/bench/heaps/malloc.c tests/bench/heaps/shmalloc.c); do
		$cc $flags -O1 -Wall -Wextra -Wundef -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes -Wmissing-prototypes \
			-Wvla -Wformat=2 -Wno-format-nonliteral -fsyntax-only "$f" 2>&1
	done
done | grep -E 'warning:|error:' | sort -u | complain 'compiler warnings'
for cxx in g++ clang++; do
	for std in 17 20; do
		for f in client/shmalloc.hpp $(sources 'client/examples/*.cpp' 'tests/client/cpp/*.cpp'); do
			$cxx -x c++ -std=c++$std -D_GNU_SOURCE -I. -Iclient -Wall -Wextra -Wconversion -Wshadow -Wold-style-cast -Wnon-virtual-dtor \
				-fsyntax-only "$f" 2>&1
		done
	done
done | grep -E 'warning:|error:' | grep -v 'pragma once in main file' | sort -u | complain 'C++ compiler warnings'
printf '%s\n' $code | xargs -P 2 -n 6 sh -c "clang-tidy --quiet \"\$@\" -- $flags 2>/dev/null" sh |
	grep -E 'warning:|error:' | sort -u | complain 'clang-tidy'
cppcheck --quiet --std=c11 --library=python --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem \
	--suppress=uninitvar:shm/threadrec.h -I. $code 2>&1 | grep -E ': (error|warning|performance|portability):' | complain 'cppcheck'
[ -s "$findings" ] && exit 1
echo 'lint: clean'
