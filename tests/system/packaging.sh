#!/bin/bash
# What debian/ says agrees with the Makefile and with what is built: each installed file is in exactly one package, the symbols, the
# version, what a build needs. Each rule is tried on a debian/ that breaks it. `make check-packages` builds the packages.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: installs the plain build only'; exit 77 ;; esac
command -v dpkg-parsechangelog >/dev/null || { echo 'skipped: no dpkg-parsechangelog (package dpkg-dev)'; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { printf '%s\n' "$@"; exit 1; }

read -ra places < <(make -s -f debian/rules places)
make -s install DESTDIR="$dir/root" "${places[@]}"
installed=$(cd "$dir/root" && find . ! -type d -printf '%P\n' | LC_ALL=C sort)
exported=$(nm -D --defined-only "$BUILD/libshmalloc.so.0" | awk '{print $3}' | sed 's/@@*.*//' | LC_ALL=C sort)
version=$("$BUILD/shmallocd" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+')
# What tests and examples need besides, and what every build has.
needed=$(sed -nE '/^DEPS :=/,/[^\\]$/p' Makefile | tr -s ' \t\\' '\n' | grep -E '^lib.*-dev$|-compiler$' |
	grep -vE '^lib(criterion|zstd)-dev$' | LC_ALL=C sort)
[ -n "$installed" ] && [ -n "$exported" ] && [ -n "$version" ] && [ -n "$needed" ] || fail 'nothing to compare with'

packages() { sed -n 's/^Package: //p' "$1/control"; }
takes() { # DEBIAN: "PACKAGE FILE" for each file that a line of a .install file takes, or "PACKAGE LINE takes nothing"
	local package pattern file found
	for package in $(packages "$1"); do
		while read -r pattern; do
			found=
			for file in $installed; do
				# shellcheck disable=SC2053
				[[ $file == $pattern || $file == $pattern/* ]] || continue
				echo "$package $file"
				found=1
			done
			[ -n "$found" ] || echo "$package takes nothing by $pattern"
		done <"$1/$package.install"
	done
}
objections() { # DEBIAN: prints what is wrong with it
	local taken
	set -f
	taken=$(takes "$1")
	set +f
	grep ' takes nothing by ' <<<"$taken" || true
	comm -23 <(echo "$installed") <(awk '{print $2}' <<<"$taken" | LC_ALL=C sort -u) | sed 's/$/ is installed, and in no package: name it in a .install file/'
	awk '{print $2}' <<<"$taken" | LC_ALL=C sort | uniq -d | sed 's/$/ is in two packages/'
	diff <(echo "$exported") <(sed -nE 's/^ ([A-Za-z_0-9]+)@.*/\1/p' "$1/libshmalloc0.symbols" | LC_ALL=C sort) | grep '^[<>]' |
		sed -e 's/^</libshmalloc0.symbols lacks/' -e 's/^>/libshmalloc0.symbols has/'
	[ "$(dpkg-parsechangelog -l "$1/changelog" -S Version)" = "$version" ] || echo "the changelog is not of version $version"
	comm -3 <(echo "$needed") <(sed -n '/^Build-Depends:/,/^[^ ]/p' "$1/control" | grep -oE '(lib[a-z0-9-]+-dev|[a-z-]+-compiler)\b' | LC_ALL=C sort) |
		sed 's/^\t*\(.*\)/Build-Depends and DEPS of the Makefile differ in \1/'
	find "$1" -maxdepth 1 -name '*.install' -printf '%f\n' | sed 's/\.install$//' | LC_ALL=C sort |
		comm -3 - <(packages "$1" | LC_ALL=C sort) | sed 's/^\t*\(.*\)/\1 has no .install file, or no package/'
}

found=$(objections debian)
[ -z "$found" ] || fail "$found"

broken=0
breaks() { # WORDS FILE SED-SCRIPT
	rm -rf "$dir/debian"
	cp -r debian "$dir/debian"
	sed -i -E "$3" "$dir/debian/$2"
	! cmp -s "debian/$2" "$dir/debian/$2" || fail "$2: '$3' changes nothing"
	found=$(objections "$dir/debian")
	grep -qF -- "$1" <<<"$found" || fail "$2: '$3' is not objected to by '$1' but by '$found'"
	broken=$((broken + 1))
}
breaks 'usr/sbin/shmallocd is installed, and in no package' shmalloc-daemon.install '/sbin/d'
breaks 'usr/bin/shmallocctl is installed, and in no package' shmalloc-daemon.install '/^usr.bin$/d'
breaks 'libshmalloc.so.0 is in two packages' libshmalloc-dev.install 's/libshmalloc\.so$/&*/'
breaks 'libshmalloc0 takes nothing by usr/lib/*/libshmalloc.so.1' libshmalloc0.install 's/so\.0/so.1/'
breaks 'libshmalloc0.symbols lacks shma_free' libshmalloc0.symbols '/shma_free@/d'
breaks 'libshmalloc0.symbols has shma_fee' libshmalloc0.symbols 's/shma_free@/shma_fee@/'
breaks 'the changelog is not of version' changelog '1s/\(.*\)/(99.1.0)/'
breaks 'Build-Depends and DEPS of the Makefile differ in libinih-dev' control '/libinih-dev/d'
breaks 'shmalloc-tool has no .install file' control 's/^Package: shmalloc-daemon/Package: shmalloc-tool/' 2>/dev/null
echo "packaging: $broken faults, each objected to"
