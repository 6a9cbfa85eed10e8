#!/bin/bash
# The units under a real systemd, in a container: the machine's own root under an overlay, in which this build is installed, is
# booted with systemd-nspawn and runs tests/system/systemd-inside.sh. Nothing of the machine itself is changed.
set -euo pipefail
skip() { echo "skipped: $*"; exit 77; }
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) skip 'systemd.sh boots the plain build only' ;; esac
[ "$(id -u)" = 0 ] || skip 'booting a container needs root'
command -v systemd-nspawn >/dev/null || skip 'no systemd-nspawn (package systemd-container)'
if [ -z "${IN_OWN_MOUNTS:-}" ]; then # mounts are gone with this process, however it ends
	IN_OWN_MOUNTS=1 unshare -m --propagation private "$0" && exit 0 || exit $?
fi

dir=$(mktemp -d /tmp/shmalloc-boot.XXXXXX)
trap 'umount -l "$dir" 2>/dev/null; rmdir "$dir" 2>/dev/null' EXIT
mount -t tmpfs -o mode=755 tmpfs "$dir" || skip 'cannot mount a tmpfs'
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root" || skip 'cannot mount an overlay'
root=$dir/root

make -s install DESTDIR="$root" prefix=/usr
install -D -t "$root/opt/across" "$BUILD/system/across" "$BUILD/system/shmallocd-next" tests/system/systemd-inside.sh
cat >"$root/etc/systemd/system/inside.service" <<END
[Unit]
After=basic.target dbus.socket
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=KILLS=${SHMALLOC_SOAK:+1000} ${SEED:+SEED=$SEED}
ExecStart=/opt/across/systemd-inside.sh
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS >/opt/across/status; systemctl --no-block --force poweroff'
StandardOutput=file:/opt/across/log
StandardError=inherit
END
mkdir -p "$root/etc/systemd/system/across.target.wants"
printf '[Unit]\nRequires=basic.target\nAllowIsolate=yes\n' >"$root/etc/systemd/system/across.target"
ln -s ../inside.service "$root/etc/systemd/system/across.target.wants/"

timeout -k 10 "$([ -n "${SHMALLOC_SOAK:-}" ] && echo 3600 || echo 150)" \
	systemd-nspawn -q -D "$root" --boot --private-network --register=no --keep-unit --console=pipe \
	systemd.unit=across.target </dev/null >"$dir/console" 2>&1 || true
[ -e "$root/opt/across/log" ] || { # it never came so far: the machine cannot, or the units cannot even be loaded
	tail -n 20 "$dir/console"
	grep -q systemd "$dir/console" && skip 'systemd does not boot in a container here'
	exit 1
}
cat "$root/opt/across/log"
[ "$(cat "$root/opt/across/status" 2>/dev/null)" = 0 ]
