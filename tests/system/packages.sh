#!/bin/bash
# The Debian packages, from sources to purge: built from a clean copy of the last commit, looked at by lintian, and taken to a fresh
# system, made by mmdebstrap, that is booted with systemd-nspawn and runs tests/system/packages-inside.sh. In another fresh system the
# steps of the Containerfile are done by hand, and its daemon started. Some minutes; needs root and a Debian mirror.
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
# shellcheck disable=SC1091
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
dir=$(mktemp -d /var/tmp/shmalloc-packages.XXXXXX)
daemon= at=
clean_up() {
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
	wait
	[ -z "$at" ] || umount -R -l "$at" 2>/dev/null || true
	rm -rf --one-file-system "$dir"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP
chmod 755 "$dir"
began=$SECONDS
step() { printf '%3d s  %s\n' $((SECONDS - began)) "$*"; }

step 'packages are built'
version=$(sed -n 's/^VERSION := //p' Makefile)
source=$dir/shmalloc-$version
mkdir "$source"
git archive HEAD | tar -x -C "$source"
git diff --quiet HEAD || echo 'what is not committed is not looked at'
(cd "$source" && dpkg-buildpackage -us -uc -b) >"$dir/build.log" 2>&1 || fail "$(tail -n 40 "$dir/build.log")"
! grep -n 'warning:' "$dir/build.log" || fail 'the build warns'
debs=("$dir"/*.deb)
printf '%s\n' "${debs[@]##*/}"
for package in $(sed -n 's/^Package: //p' debian/control); do
	ls "$dir/${package}_${version}"_*.deb >/dev/null || fail "no $package"
done

step 'lintian'
lintian --allow-root --fail-on error,warning --display-info --tag-display-limit 0 "$dir"/*.changes >"$dir/lintian.log" 2>&1 || fail "$(cat "$dir/lintian.log")"
cat "$dir/lintian.log"

step "a fresh $suite"
root=$dir/root
mmdebstrap --quiet --variant=minbase "$suite" "$dir/base" 2>"$dir/mmdebstrap.log" || fail "$(tail -n 20 "$dir/mmdebstrap.log")"
cp /etc/resolv.conf "$dir/base/etc/resolv.conf"
cp -a "$dir/base" "$root"
mkdir "$root/srv/inside"
cp "$dir"/*.deb tests/client/consumer/consumer.c tests/system/packages-inside.sh "$root/srv/inside/"
rm -f "$root"/srv/inside/*-dbgsym_*.deb
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
rm -rf --one-file-system "$root"

# ---- the Containerfile ----

# The instructions that it has, done to a directory for each stage.
step 'the steps of the Containerfile'
declare -A stages=()
workdir=/ user=
copy() { # [--from=STAGE] FROM... TO
	local from=$source to=${*: -1}
	[[ $1 != --from=* ]] || { from=${stages[${1#--from=}]}; shift; }
	[[ $to == /* ]] || to=$workdir/$to
	(cd "$from" && for item in "${@:1:$#-1}"; do
		item=${item#/}
		if [ -d "$item" ]; then mkdir -p "$at$to" && cp -r "$item/." "$at$to"; else install -D "$item" "$at$to$([[ $to != */ && $to != */. ]] || basename "$item")"; fi
	done)
}
while read -r what rest; do
	case $what in
	'' | '#'*) ;;
	FROM)
		[ "${rest%% *}" = "debian:$suite-slim" ] || fail "Containerfile: $rest is not this machine's suite, $suite"
		at=$dir/stage${#stages[@]} workdir=/
		cp -a "$dir/base" "$at"
		stages[${rest##* }]=$at
		;;
	WORKDIR) workdir=$rest; mkdir -p "$at$rest" ;;
	COPY) eval "copy $rest" ;;
	RUN) chroot "$at" sh -c "cd $workdir && $rest" >"$dir/run.log" 2>&1 </dev/null || fail "RUN $rest" "$(tail -n 20 "$dir/run.log")" ;;
	USER) user=$rest ;;
	STOPSIGNAL | ENTRYPOINT | CMD) ;;
	*) fail "Containerfile: this test knows no $what" ;;
	esac
done <systemd/container/Containerfile
mapfile -t command < <(sed -nE 's/^(ENTRYPOINT|CMD) //p' systemd/container/Containerfile | /usr/bin/python3 -c 'import json, sys
for line in sys.stdin: print("\n".join(json.loads(line)))')

step 'and its daemon, on a root that is read-only'
mount --bind "$at" "$at"
mount -o remount,bind,ro "$at"
mount -t proc proc "$at/proc"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$at/dev/shm"
mount -t tmpfs -o "size=1m,mode=755,uid=${user%:*},gid=${user#*:}" tmpfs "$at/run/shmalloc"
as_user=(env SHMALLOC_SOCKET=/run/shmalloc/shmalloc.sock MEMORY_PRESSURE_WATCH=/dev/null chroot --userspec="$user" --groups= "$at")
"${as_user[@]}" "${command[@]}" --size 32MiB --socket-mode 0666 2>"$dir/daemon.log" &
daemon=$!
for ((i = 0; i < 200; i++)); do
	! "${as_user[@]}" shmallocctl heaps >"$dir/said" 2>&1 || break
	kill -0 "$daemon" || fail "$(cat "$dir/daemon.log")"
	sleep 0.05
done
grep -q '^default' "$dir/said" || fail "$(cat "$dir/said" "$dir/daemon.log")"
gcc -I"$source/client" tests/client/consumer/consumer.c "$source/build/plain/libshmalloc.a" -lprotobuf-c -pthread -o "$dir/consumer"
[ "$(SHMALLOC_SOCKET=$at/run/shmalloc/shmalloc.sock "$dir/consumer")" = "shmalloc $version" ] || fail 'a client of it does not work'
"${as_user[@]}" shmallocctl check >/dev/null
kill "$daemon"
wait "$daemon" || fail "$(cat "$dir/daemon.log")"
daemon=
step 'done'
