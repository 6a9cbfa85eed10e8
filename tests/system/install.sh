#!/bin/bash
# What is installed is enough to build and run a program against, and uninstalling leaves nothing.
set -euo pipefail
command -v pkg-config >/dev/null || { echo 'skipped: no pkg-config'; exit 77; }
case $BUILD in */plain) ;; *) echo 'skipped: installs the plain build only'; exit 77 ;; esac
dir=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT

make -s install DESTDIR="$dir/root" prefix=/opt/shmalloc
root=$dir/root/opt/shmalloc
export PKG_CONFIG_PATH=$root/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dir/root
# shellcheck disable=SC2046
cc client/examples/hello.c $(pkg-config --cflags --libs shmalloc) -o "$dir/hello"
# shellcheck disable=SC2046
cc client/examples/hello.c $(pkg-config --cflags shmalloc) "$root/lib/libshmalloc.a" -lprotobuf-c -pthread -o "$dir/hello-static"

if command -v g++ >/dev/null; then
	# shellcheck disable=SC2046
	g++ -std=c++17 client/examples/containers.cpp $(pkg-config --cflags --libs shmalloc) -o "$dir/containers"
fi

for f in systemd/system/shmallocd.service systemd/system/shmallocd.socket systemd/user/shmallocd.service \
	systemd/user/shmallocd.socket sysusers.d/shmalloc.conf tmpfiles.d/shmalloc.conf; do
	[ -s "$root/lib/$f" ] || { echo "not installed: $f"; exit 1; }
	! grep -n '@[a-z]*@' "$root/lib/$f" || { echo "$f is not filled in"; exit 1; }
done
for where in system user; do # the place that was asked for, not the place it was staged in
	grep -q '^ExecStart=/opt/shmalloc/sbin/shmallocd ' "$root/lib/systemd/$where/shmallocd.service"
done
for f in shmallocctl shmallocd; do # where bash looks for the program of that name
	grep -q "^complete .* $f\$" "$root/share/bash-completion/completions/$f" || { echo "no completion of $f"; exit 1; }
done

# The example says what is built in.
sed -E 's/^#([a-z])/\1/' "$root/share/doc/shmalloc/shmallocd.conf.example" >"$dir/conf"
[ "$("$root/sbin/shmallocd" --config "$dir/conf" --check-config)" = "$dir/conf: good" ]
settings() { "$root/sbin/shmallocd" --config "$1" --print-config | sed '/^#/d'; }
diff <(settings /dev/null) <(settings "$dir/conf")
while read -r name; do
	grep -q "^#$name = *" "$root/share/doc/shmalloc/shmallocd.conf.example" || { echo "no $name in the example"; exit 1; }
done < <(settings /dev/null | sed -n '/^\[heap/,$s/ = .*//p')
[ -s "$root/share/man/man5/shmallocd.conf.5" ]

export SHMALLOC_SOCKET=$dir/sock LD_LIBRARY_PATH=$root/lib
"$root/sbin/shmallocd" --socket "$SHMALLOC_SOCKET" --instance "install-test-$$" --size 64MiB 2>"$dir/log" &
daemon=$!
"$dir/hello" 'from the installed library' # attaching waits for the daemon
[ "$("$dir/hello-static")" = 'from the installed library' ]
"$root/bin/shmallocctl" --socket "$SHMALLOC_SOCKET" check
kill "$daemon"
wait "$daemon"
daemon=
# Far from where it was to be installed, too: beside it, by relative places.
SHMALLOC_SOCKET=$dir/none "$root/bin/shmalloc-run" sh -c 'case $LD_PRELOAD in */lib/libshmalloc-preload.so) ;; *) exit 1 ;; esac'
[ -s "$root/share/man/man1/shmalloc-run.1" ]

python=$(find "$root/lib" -name 'python3*' -print -quit)
if [ -n "$python" ]; then # it comes where the headers are, and finds the installed library
	said=$(PYTHONPATH=$python/dist-packages "${PYTHON:-/usr/bin/python3}" -B -c 'import shmalloc; print(shmalloc.__version__, shmalloc.__file__)')
	[[ $said == "$("$root/bin/shmallocctl" --version | grep -oE '[0-9]+\.[0-9.]+' | head -n 1) $root/"* ]] || { echo "import shmalloc: $said"; exit 1; }
fi

make -s uninstall DESTDIR="$dir/root" prefix=/opt/shmalloc
left=$(find "$dir/root" ! -type d)
[ -z "$left" ] || { echo "uninstall left: $left"; exit 1; }
