#!/bin/bash
# What is installed is found by pkg-config and by CMake, in C and in C++, for shared and for static linking: from a tree below a prefix,
# from one as Debian has it, and from a tree that was moved. What does not fit is refused in words.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: installs the plain build only'; exit 77 ;; esac
for tool in pkg-config cmake g++; do
	command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
dir=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { printf '%s\n' "$@"; exit 1; }
version=$("$BUILD/shmallocd" --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+')
source=tests/client/consumer

export SHMALLOC_SOCKET=$dir/sock
MEMORY_PRESSURE_WATCH=/dev/null "$BUILD/shmallocd" --config /dev/null --socket "$SHMALLOC_SOCKET" --instance "consumer-$$" --size 64MiB 2>"$dir/log" &
daemon=$!

runs() { # PROGRAM LIBDIR: it says the library's version, and has the library from there
	local said
	said=$(LD_LIBRARY_PATH=$2 "$1") || fail "$1 fails: $said"
	[ "$said" = "shmalloc $version" ] || fail "$1 says '$said'"
	said=$(LD_LIBRARY_PATH=$2 ldd "$1")
	[[ $said == *"libshmalloc.so.0 => $2/libshmalloc.so.0"* ]] || fail "$1 does not use $2/libshmalloc.so.0: $said"
}
runs_alone() { # PROGRAM: it has the library in itself
	local said
	said=$("$1") || fail "$1 fails: $said"
	[ "$said" = "shmalloc $version" ] || fail "$1 says '$said'"
	! readelf -d "$1" | grep NEEDED || fail "$1 is not static"
}
built() { # OUTPUT SOURCE [OPTION]...: by what pkg-config says
	local flags
	read -ra flags < <(pkg-config --cflags --libs "${@:3}" shmalloc)
	[ "${3:-}" != --static ] || flags+=(-static)
	case $2 in *.c) cc "$source/$2" "${flags[@]}" -o "$1" ;; *) c++ -std=c++17 "$source/$2" "${flags[@]}" -o "$1" ;; esac
}
by_pkg_config() { # ROOT LIBDIR [OPTION]...
	export PKG_CONFIG_PATH=$1$2/pkgconfig
	[ "$(pkg-config --modversion shmalloc)" = "$version" ] || fail 'pkg-config says another version'
	for file in consumer.c consumer.cpp; do
		built "$dir/by-pc" $file "${@:3}"
		runs "$dir/by-pc" "$1$2"
		built "$dir/by-pc" $file --static "${@:3}"
		runs_alone "$dir/by-pc"
	done
}
configure() { # DIRECTORY OF THE CONFIG [OPTION]...
	cmake -S "$source" -B "$dir/cmade" -Dshmalloc_DIR="$1" -DWANT= "${@:2}" >"$dir/said" 2>&1
}
by_cmake() { # LIBDIR
	rm -rf "$dir/cmade" # later ones ask the compiler nothing anew
	configure "$1/cmake/shmalloc" -DWANT=0.1 || fail "$(cat "$dir/said")"
	cmake --build "$dir/cmade" >"$dir/said" 2>&1 || fail "$(cat "$dir/said")"
	for language in c cpp; do runs "$dir/cmade/consumer-$language" "$1"; done
}

multiarch=/usr/lib/$(cc -print-multiarch)
make -s install DESTDIR="$dir/below" prefix=/opt/shmalloc
make -s install DESTDIR="$dir/debian" prefix=/usr libdir="$multiarch"
PKG_CONFIG_SYSROOT_DIR=$dir/below by_pkg_config "$dir/below" /opt/shmalloc/lib
PKG_CONFIG_SYSROOT_DIR=$dir/debian by_pkg_config "$dir/debian" "$multiarch"
by_cmake "$dir/below/opt/shmalloc/lib"
by_cmake "$dir/debian$multiarch"
mv "$dir/below/opt/shmalloc" "$dir/moved"
by_cmake "$dir/moved/lib"
by_pkg_config "$dir/moved" /lib --define-prefix
# /lib is a link to /usr/lib, and there is no /include
ln -s usr/lib "$dir/debian/lib"
configure "$dir/debian${multiarch#/usr}/cmake/shmalloc" || fail "through a link: $(cat "$dir/said")"

# ---- what does not fit ----

refused() { # WORDS [OPTION]...
	! configure "$dir/moved/lib/cmake/shmalloc" "${@:2}" || fail "cmake takes ${*:2}"
	[[ $(tr -s '\n ' ' ' <"$dir/said") == *"$1"* ]] || fail "cmake, with ${*:2}, does not say '$1' but:" "$(cat "$dir/said")"
}
for want in "$version" 0.0.9 0.1...0.9 "0.0.1...$version"; do
	configure "$dir/moved/lib/cmake/shmalloc" -DWANT="$want" || fail "cmake does not take $want: $(cat "$dir/said")"
done
for want in 0.9 1.0 0.2...0.9 "0.0.1...<$version"; do
	refused "version: $version" -DWANT="$want"
done
export PKG_CONFIG_PATH=$dir/moved/lib/pkgconfig
pkg-config "shmalloc >= $version" || fail 'pkg-config does not take its own version'
! pkg-config 'shmalloc >= 99' 2>/dev/null || fail 'pkg-config takes a version that is not there'
refused 'shmalloc has no components: ask for none' -DWANT='0.1;COMPONENTS;static'
rm "$dir/moved/lib/libshmalloc.so.0"
refused 'libshmalloc.so.0 is missing: install shmalloc again'

kill "$daemon"
wait "$daemon" || fail "the daemon did not end well:" "$(cat "$dir/log")"
daemon=
