#!/bin/bash
# The Debian packages, from sources to purge: built from a clean copy of the last commit, twice with the same result, looked at by lintian,
# and taken to a fresh system that is booted with systemd-nspawn and runs tests/system/packages-inside.sh. For its upgrade the next
# version is built as well. Some minutes; needs root and a Debian mirror.
set -euo pipefail
skip() { echo "skipped: $*"; exit 77; }
fail() { printf '%s\n' "$@"; exit 1; }
[ "$(id -u)" = 0 ] || skip 'making a system needs root'
for tool in dpkg-buildpackage dh lintian mmdebstrap systemd-nspawn; do
	command -v $tool >/dev/null || skip "no $tool (make check-packages installs it)"
done
if [ -z "${IN_OWN_MOUNTS:-}" ]; then # mounts are gone with this process, however it ends
	IN_OWN_MOUNTS=1 unshare -m --propagation private "$0" && exit 0 || exit $?
fi
unset MAKEFLAGS MAKEOVERRIDES MAKELEVEL # packages are built by their own rules
dir=$(mktemp -d /var/tmp/shmalloc-packages.XXXXXX)
clean_up() { rm -rf --one-file-system "$dir"; }
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$dir"
began=$SECONDS
step() { printf '%3d s  %s\n' $((SECONDS - began)) "$*"; }

version=$(sed -n 's/^VERSION := //p' Makefile)
next=${version%.*}.$((${version##*.} + 1))
commit=$(git rev-parse HEAD)
git diff --quiet HEAD || echo 'what is not committed is not looked at'
build() { # DIRECTORY VERSION [OPTION]...: packages of that version
	local source=$dir/$1/shmalloc-$2
	mkdir -p "$source"
	git archive "$commit" | tar -x -C "$source"
	sed -i "s/^VERSION := .*/VERSION := $2/" "$source/Makefile"
	sed -i "1s/(.*)/($2)/" "$source/debian/changelog"
	(cd "$source" && dpkg-buildpackage -us -uc "${@:3}") >"$dir/build.log" 2>&1 || fail "$(tail -n 40 "$dir/build.log")"
	! grep -n 'warning:' "$dir/build.log" || fail 'the build warns'
	rm -r "$source"
}
sums() { (cd "$dir/$1" && sha256sum -- *.deb); }

step 'packages are built'
build first "$version"
debs=("$dir"/first/*.deb)
printf '%s\n' "${debs[@]##*/}"
while read -r package; do
	ls "$dir/first/${package}_${version}"_*.deb >/dev/null || fail "no $package"
done < <(sed -n 's/^Package: //p' debian/control)
step 'and again, elsewhere'
(
	umask 077
	TZ=Asia/Tokyo LC_ALL=C.UTF-8 HOME=/nonexistent build elsewhere/a/longer/way "$version" -b
)
diff <(sums first) <(sums elsewhere/a/longer/way) || fail 'the second build differs'
rm -r "$dir/elsewhere"
step 'and the next version'
build next "$next" -b

step 'lintian'
lintian --allow-root --fail-on error,warning --display-info --tag-display-limit 0 "$dir"/first/*.changes >"$dir/lintian.log" 2>&1 || fail "$(cat "$dir/lintian.log")"
cat "$dir/lintian.log"

step 'a fresh system'
root=$dir/root
base=$(tests/system/fresh.sh)
mkdir "$root"
tar -x -C "$root" -f "$base"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/srv/inside/next"
cp "$dir"/first/*.deb tests/system/packages-inside.sh "$root/srv/inside/"
for file in debian/tests/build-and-use tests/client/consumer/consumer.c; do install -D $file "$root/srv/inside/$file"; done
cp "$dir"/next/*.deb "$root/srv/inside/next/"
rm -f "$root"/srv/inside/*-dbgsym_*.deb "$root"/srv/inside/next/*-dbgsym_*.deb
# What they need is fetched now, for there is no network inside.
chroot "$root" sh -c 'export DEBIAN_FRONTEND=noninteractive; get() { apt-get -q -y --no-install-recommends install "$@"; }
	apt-get -q update && get systemd systemd-sysv dbus gcc libc6-dev pkg-config && get --download-only /srv/inside/*.deb' >"$dir/apt.log" 2>&1 ||
	fail "$(tail -n 20 "$dir/apt.log")"

step 'it is booted, and they are installed'
cat >"$root/etc/systemd/system/inside.service" <<END
[Unit]
After=basic.target dbus.socket
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/srv/inside/packages-inside.sh
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS >/srv/inside/status; systemctl --no-block --force poweroff'
StandardOutput=file:/srv/inside/log
StandardError=inherit
END
mkdir -p "$root/etc/systemd/system/inside.target.wants"
printf '[Unit]\nRequires=basic.target\nAllowIsolate=yes\n' >"$root/etc/systemd/system/inside.target"
ln -s ../inside.service "$root/etc/systemd/system/inside.target.wants/"
timeout -k 10 600 systemd-nspawn -q -D "$root" --boot --private-network --register=no --keep-unit --console=pipe \
	systemd.unit=inside.target </dev/null >"$dir/console" 2>&1 || true
cat "$root/srv/inside/log" 2>/dev/null || fail 'it does not boot:' "$(tail -n 20 "$dir/console")"
[ "$(cat "$root/srv/inside/status" 2>/dev/null)" = 0 ] || fail 'inside, something is wrong'
step 'done'
