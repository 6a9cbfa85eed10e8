#!/bin/bash
# Inside the system of packages.sh: the packages are installed, used, upgraded under living clients, removed and purged. The first
# thing that is not as it must be ends it with status 1.
set -Eeuo pipefail
cd /srv/inside
export DEBIAN_FRONTEND=noninteractive
began=$(date +%s)
step() { printf '     inside, %2d s: %s\n' $(($(date +%s) - began)) "$*"; }
failed() {
	trap - ERR
	set +e
	echo "FAILED at line $1"
	tail -n 20 apt.log
	systemctl --no-pager --full status shmallocd.service shmallocd.socket
	exit 1
}
trap 'failed $LINENO' ERR
apt() { apt-get -q -y --no-install-recommends "$@" >>apt.log 2>&1; }
is() { # PROPERTY VALUE UNIT: at once or soon
	for ((i = 0; i < 200; i++)); do
		[ "$(systemctl show -P "$1" "$3")" != "$2" ] || return 0
		sleep 0.05
	done
	echo "$3: $1 is $(systemctl show -P "$1" "$3")"
	return 1
}
enabled() { systemctl is-enabled "$1" 2>/dev/null || true; }
ours() { find / /run /dev/shm -xdev \( -path /srv -o -path /var/cache/apt -o -path /proc -o -path /sys \) -prune -o -name '*shmalloc*' -print; }
as=(setpriv --reuid nobody --regid nogroup) # an ordinary user

step 'install'
[ -z "$(ours)" ]
apt install ./*.deb
[ "$(dpkg-query -W -f '${db:Status-Abbrev}' shmalloc-daemon)" = 'ii ' ]
getent passwd shmalloc >/dev/null
[ "$(stat -c '%a %U %G' /run/shmalloc)" = '2755 root shmalloc' ]
[ "$(enabled shmallocd.socket)" = enabled ]
[ "$(enabled shmallocd-http.socket)" = disabled ]
[ "$(systemctl --global is-enabled shmallocd.socket || true)" = disabled ]
is ActiveState active shmallocd.socket
is ActiveState inactive shmallocd.service # until somebody wants it
is ActiveState inactive shmallocd-http.socket

step 'use'
mkdir used
AUTOPKGTEST_TMP=$PWD/used debian/tests/build-and-use
mv used/consumer .
is ActiveState active shmallocd.service
"${as[@]}" --groups shmalloc ./consumer
[ "$(shmalloc-run -S echo preloaded 2>run.log)" = preloaded ]
[ -s run.log ]
! "${as[@]}" --clear-groups ./consumer 2>/dev/null || false
[ -s /usr/share/man/man8/shmallocd.8.gz ] || [ -n "$(grep -rs path-exclude /etc/dpkg/dpkg.cfg.d)" ]
[ -s /usr/share/doc/shmalloc-daemon/copyright ]
shmallocd --config /dev/null --check-config

step 'an upgrade to the next version, with a client and a block that stay'
gcc -x c - $(pkg-config --cflags --libs shmalloc) -o stay <<'C'
#include <shmalloc.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
	char *kept = shma_malloc(5), line[8];

	if (!kept || shma_root_set(shma_default(), "kept", strcpy(kept, "kept")))
		return 1;
	puts("there");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin)) /* until the daemon is another one */
		return 1;
	return shma_root_get(shma_default(), "kept") != kept || shma_root_set(shma_default(), "again", kept) || !shma_malloc(1 << 20);
}
C
mkfifo to from
./stay <to >from &
stay=$!
exec 8>to 9<from
read -r said <&9
[ "$said" = there ]
pid=$(systemctl show -P MainPID shmallocd.service)
listening=$(stat -c %i /run/shmalloc/shmalloc.sock)
version=$(shmallocd --version)
apt install ./next/*.deb
[ "$(shmallocd --version)" != "$version" ]
[ "$(./consumer)" = "shmalloc $(dpkg-query -W -f '${Version}' libshmalloc0)" ]
is ActiveState active shmallocd.service
[ "$(systemctl show -P MainPID shmallocd.service)" != "$pid" ]
[ "$(stat -c %i /run/shmalloc/shmalloc.sock)" = "$listening" ] # nobody was refused meanwhile
echo go >&8
wait "$stay"
exec 8>&- 9<&-
shmallocctl roots | grep -q again
shmallocctl check

step 'remove'
systemctl enable -q shmallocd-http.socket
systemctl stop shmallocd.service
systemctl start shmallocd-http.socket shmallocd.service
mkdir -p /etc/shmalloc
echo '[heap default]' >/etc/shmalloc/shmallocd.conf
apt remove shmalloc-daemon
for unit in shmallocd.socket shmallocd-http.socket shmallocd.service; do is ActiveState inactive $unit; done
[ ! -e /usr/sbin/shmallocd ]
[ ! -e /run/shmalloc/shmalloc.sock ]
[ -e /etc/shmalloc/shmallocd.conf ]
ls /dev/shm/shmalloc.system.default.meta >/dev/null # it had blocks

step 'and install again'
apt install ./next/shmalloc-daemon_*.deb
shmallocctl roots | grep -q again
is ActiveState active shmallocd.service

step 'purge'
apt purge shmalloc-daemon libshmalloc0 libshmalloc-dev
apt autoremove --purge
left=$(ours)
[ -z "$left" ] || { echo "left: $left"; false; }
getent passwd shmalloc >/dev/null # as files of it may be anywhere
[ -z "$(systemctl list-units --all --no-legend 'shmalloc*')" ]
step 'done'
