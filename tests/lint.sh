#!/bin/bash
# What a machine can say about the sources. Each check prints its findings; the exit status says whether there were any.
set -u
bad=0
sources() { git ls-files --cached --others --exclude-standard "$@"; }
complain() { # title, findings on standard input
	local found
	found=$(cat)
	[ -z "$found" ] && return
	printf '%s\n%s\n' "lint: $1" "$found"
	bad=1
}

# Who may include whom: the folders of the project, path-qualified from the root.
allowed() {
	case $1 in
	shm) echo 'shm' ;;
	proto) echo 'proto' ;;
	daemon) echo 'daemon|proto|shm' ;;
	client) echo 'client|proto|shm' ;;
	*) echo '.*' ;;
	esac
}
for dir in shm proto daemon client; do
	grep -nE '#include "' $(sources "$dir/*.c" "$dir/*.h") /dev/null |
		grep -vE "#include \"($(allowed $dir))/" | grep -vE 'client/examples/' | complain "$dir/ includes what it may not"
done
grep -nE '#include <(errno|stdio|stdlib|unistd|time|sys/)' $(sources 'shm/*.c' 'shm/*.h') | grep -v 'shm/check' |
	complain 'shm/ is data structures: no I/O, no clock, no errno'
grep -nE 'atomic_(load|store|fetch|exchange|compare)' $(sources 'shm/*.c' 'shm/*.h' 'client/*.c' 'daemon/*.c') |
	grep -v '^shm/atomic.h' | complain 'stdatomic.h functions outside shm/atomic.h'
grep -nl 'pb-c.h' $(sources '*.c' '*.h') | grep -vE '^proto/[a-z]+\.c$' | complain 'the generated header outside proto/'
grep -nE 'event2?/|event\.h' $(sources '*.c' '*.h') | grep '#include' |
	grep -vE '^(daemon/(server|listener|session|timer|main)|tests/)' | complain 'libevent outside the files of the loop'

# The client does not even contain what writes the daemon's metadata, and exports its own names only.
nm "$BUILD/libshmalloc.so.0" | grep -E ' [tT] shmi_(pageheap|freeruns|spantree|central|span_(open|close|set|set_owner|quarantine|relink|blank)|arena|adopt|reclaim|roots_(set|del))' |
	complain 'libshmalloc contains daemon code'
nm -D --defined-only "$BUILD/libshmalloc.so.0" | awk '{print $3}' | grep -vE '^(shma_|SHMALLOC_0)' |
	complain 'libshmalloc exports a foreign name'

# The README's program is the example that the tests run.
awk '/^```c$/ {on = 1; next} /^```$/ {on = 0} on' README.md | diff - client/examples/hello.c |
	complain 'the program in README.md is not client/examples/hello.c'

sources '*.c' '*.h' | xargs clang-format --dry-run -Werror 2>&1 | grep -E 'error:' | head -n 20 | complain 'not formatted: make format'
for f in $(sources 'shm/*.c' 'proto/*.c' 'daemon/*.c' 'client/*.c' 'client/ctl/*.c'); do
	for cc in gcc clang; do
		$cc $LINT_FLAGS -MF /dev/null -O1 -Wall -Wextra -Wundef -Wshadow -Wconversion -Wcast-qual -Wstrict-prototypes \
			-Wmissing-prototypes -Wvla -Wformat=2 -fsyntax-only "$f" 2>&1
	done
done | grep -E 'warning:|error:' | sort -u | complain 'compiler warnings'
sources 'shm/*.c' 'proto/*.c' 'daemon/*.c' 'client/*.c' 'client/ctl/*.c' |
	xargs -P 2 -n 4 sh -c 'clang-tidy --quiet "$@" -- '"$(printf '%s ' $LINT_FLAGS | sed 's/"/\\"/g; s/-MMD -MP//')"' 2>/dev/null' sh |
	grep -E 'warning:|error:' | sort -u | complain 'clang-tidy'
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --suppress=missingIncludeSystem \
	-I. $(sources 'shm/*.c' 'proto/*.c' 'daemon/*.c' 'client/*.c' 'client/ctl/*.c') 2>&1 |
	grep -E ': (error|warning|performance|portability):' | complain 'cppcheck'
[ $bad = 0 ] && echo 'lint: clean'
exit $bad
