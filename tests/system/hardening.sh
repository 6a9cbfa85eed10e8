#!/bin/bash
# What the compiler and the linker can do against errors in C is in the daemon, the tools and the libraries, each as it is built. Each
# rule is tried on a small program that is built without it.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: the plain build only'; exit 77 ;; esac
command -v readelf >/dev/null || { echo 'skipped: no readelf'; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
x86=$([ "$(uname -m)" = x86_64 ] && echo yes || true)

# The compiler's own note of its options, one line for each source; assembler sources have none.
producers() { readelf -W --debug-dump=info --dwarf-depth=1 "$1" | grep -o 'GNU C[0-9].*' || true; }
says() { grep -qE -- "$1" <<<"$2"; } # not from a pipe: grep closes it early
every_source() { [ -n "$2" ] && ! grep -qvE -- "$1" <<<"$2"; }

objections() { # FILE program|library: prints the names of the rules that it breaks
	local sources symbols dynamic segments notes
	sources=$(producers "$1")
	symbols=$(readelf -W --dyn-syms "$1")
	dynamic=$(readelf -W -d "$1")
	segments=$(readelf -W -l "$1")
	notes=$(readelf -W -n "$1")
	{ says 'UND __stack_chk_fail' "$symbols" && every_source -fstack-protector-strong "$sources"; } || echo protector
	says 'UND __[a-z]*_chk@' "$symbols" || echo fortify
	every_source -fstack-clash-protection "$sources" || echo clash
	[ -z "$x86" ] || { every_source '-fcf-protection=(full|return)' "$sources" && says SHSTK "$notes"; } || echo cet
	says GNU_RELRO "$segments" || echo relro
	says BIND_NOW "$dynamic" || echo now
	says 'GNU_STACK.* RW +0x' "$segments" || echo execstack
	! says '^ +LOAD .* RWE ' "$segments" || echo writable-code
	! says 'TEXTREL|RPATH|RUNPATH' "$dynamic" || echo foreign-path
	[ "$2" = library ] || says 'FLAGS_1.* PIE' "$dynamic" || echo pie
	! says 'undefined symbol' "$(ldd -r "$1" 2>&1)" || echo undefined
}
fail() { printf '%s\n' "$@"; exit 1; }

for it in shmallocd:program shmallocctl:program shmalloc-run:program libshmalloc.so.0:library libshmalloc-preload.so:library; do
	found=$(objections "$BUILD/${it%:*}" "${it#*:}")
	[ -z "$found" ] || fail "${it%:*} is built without:" "$found"
done

# ---- each rule can be broken, and is seen to be ----

cat >"$dir/small.c" <<'C'
#include <stdio.h>
#include <string.h>
extern int elsewhere(void);
int copy(const char *from)
{
	char to[64];

	strcpy(to, from);
	return puts(to);
}
#ifdef WRITABLE
__asm__(".section .both, \"awx\"\n\tnop\n\t.text");
#endif
#ifdef ELSEWHERE
int go(void) { return elsewhere(); }
#endif
int main(int argc, char **argv) { return copy(argv[argc - 1]); }
C
compile='-O2 -g -fPIC -fstack-protector-strong -fstack-clash-protection -D_FORTIFY_SOURCE=3'
link='-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,defs'
[ -z "$x86" ] || compile="$compile -fcf-protection=full" link="$link -Wl,-z,shstk"

build() { # KIND, an option to leave out, options instead
	local with=" $compile $link "
	[ -z "$2" ] || with=${with/ $2 / }
	[ "$with" != " $compile $link " ] || [ -z "$2" ] || fail "'$2' is no option here"
	# shellcheck disable=SC2086
	gcc -w $([ "$1" = library ] && echo -shared || echo -pie) $with $3 "$dir/small.c" -o "$dir/small" 2>"$dir/said" || fail "$(cat "$dir/said")"
	objections "$dir/small" "$1"
}
command -v gcc >/dev/null || { echo 'skipped: no gcc, so the rules are not broken'; exit 0; }
for kind in program library; do
	found=$(build $kind '' '')
	[ -z "$found" ] || fail "a $kind with everything breaks:" "$found"
done
broken=0
breaks() { # RULE KIND, an option to leave out, options instead
	local found
	found=$(build "$2" "$3" "$4")
	[ "$found" = "$1" ] || fail "a $2 without '$3', with '$4', should break $1 alone: '$found'"
	broken=$((broken + 1))
}
for kind in program library; do
	breaks protector $kind -fstack-protector-strong -fno-stack-protector
	breaks fortify $kind -D_FORTIFY_SOURCE=3 -U_FORTIFY_SOURCE
	breaks clash $kind -fstack-clash-protection -fno-stack-clash-protection
	breaks relro $kind -Wl,-z,relro -Wl,-z,norelro
	breaks now $kind -Wl,-z,now -Wl,-z,lazy
	breaks execstack $kind -Wl,-z,noexecstack -Wl,-z,execstack
	breaks writable-code $kind '' -DWRITABLE
	breaks foreign-path $kind '' -Wl,-rpath,/tmp
	[ -z "$x86" ] || breaks cet $kind -Wl,-z,shstk ''
	[ -z "$x86" ] || breaks cet $kind -fcf-protection=full -fcf-protection=none
done
breaks pie program '' -no-pie
breaks undefined library -Wl,-z,defs -DELSEWHERE
echo "hardening: $broken small programs, each with one thing missing, seen to be so"
