#!/bin/bash
# Inside the container of systemd.sh: the installed units through everything that may happen to a service, with clients across
# all of it. The first thing that is not as it must be ends it with status 1.
set -Eeuo pipefail
export PATH=/opt/across:/usr/sbin:/usr/bin:/sbin:/bin
kills=${KILLS:-40}
began=$(date +%s)
step() { printf '%3d s  %s\n' $(($(date +%s) - began)) "$*"; }
journal() { journalctl -q --no-pager -o cat -u shmallocd.service; }
failed() {
	trap - ERR
	set +e
	echo "FAILED at line $1"
	systemctl --no-pager --full status shmallocd.service shmallocd.socket || true
	journal | tail -n 40
	tail /tmp/*.said
	exit 1
}
trap 'failed $LINENO' ERR

expect() { # WHAT COMMAND...: what it says must hold WHAT
	local want=$1 got
	shift
	got=$("$@" 2>&1) || true
	grep -qF -- "$want" <<<"$got" && return 0
	echo "'$*' does not say '$want', but:"
	tail -n 5 <<<"$got"
	return 1
}
logged() { # WHAT: the journal has it, at once or soon
	for ((i = 0; i < 100; i++)); do
		! grep -qF -- "$1" <<<"$(journal)" || return 0
		sleep 0.05
	done
	echo "the journal does not say '$1'"
	return 1
}
is() { # PROPERTY VALUE: of the service, at once or soon
	for ((i = 0; i < 100; i++)); do
		[ "$(systemctl show -P "$1" shmallocd.service)" != "$2" ] || return 0
		sleep 0.05
	done
	systemctl show -p "$1" shmallocd.service
	return 1
}
clean() { shmallocctl check >/tmp/check.said || { cat /tmp/check.said; return 1; }; }
pids=()
hold() { # NAME [COMMAND...]: a client in the background
	local name=$1
	shift
	"$@" across hold "$name" >/tmp/"$name".said 2>&1 &
	pids+=($!)
}
holds() { # NAME...: they have what they want
	for name; do
		for ((i = 0; i < 600; i++)); do
			grep -q "^holding" /tmp/"$name".said && continue 2
			sleep 0.05
		done
		cat /tmp/"$name".said
		return 1
	done
}
alive() { kill -0 "${pids[@]}"; }
release() { # all of them check what they hold, and end
	kill -TERM "${pids[@]}"
	for pid in "${pids[@]}"; do wait "$pid" || { failed "$LINENO: a client"; }; done
	cat /tmp/*.said | grep calls
	pids=()
}
lost() { # NAME: the only client; its heap is gone, and it was told so
	wait "${pids[0]}" && false || true
	expect 'Input/output error' cat /tmp/"$1".said
	pids=()
}
as=(setpriv --reuid nobody --regid nogroup) # an ordinary user
dropin() { # NAME LINE...: settings on top of the unit
	mkdir -p /run/systemd/system/shmallocd.service.d
	printf '%s\n' '[Service]' "${@:2}" >/run/systemd/system/shmallocd.service.d/"$1".conf
	systemctl daemon-reload
}
undo() {
	rm /run/systemd/system/shmallocd.service.d/"$1".conf
	systemctl daemon-reload
}
sealed() { SHMALLOC_HEAP=sealed "$@"; } # in the heap of that name
stored() { is NFileDescriptorStore "$1"; }
configure() { printf '%s\n' "$@" >/etc/shmalloc/shmallocd.conf; }
sums() { tar -C /dev/shm --sparse --mtime=@0 -cf - shmalloc.system.default.{meta,ctl,data,state} | sha256sum; }

step 'clients that are there before the daemon'
systemd-sysusers shmalloc.conf
systemd-tmpfiles --create shmalloc.conf
echo 'SHMALLOCD_OPTIONS="--size 256MiB --scavenge-delay 100"' >/etc/default/shmallocd
hold root1
hold user1 "${as[@]}" --groups shmalloc
hold user2 "${as[@]}" --groups shmalloc
is ActiveState inactive
systemctl start shmallocd.socket
holds root1 user1 user2
is ActiveState active
is StatusText 'serving heap '\''default'\'' on /run/shmalloc/shmalloc.sock'
is User shmalloc
"${as[@]}" --clear-groups across refused
! journal | grep 'cannot tell' || false # leases work under all those settings
clean
alive

step "$kills kills"
across kills "$kills"
is ActiveState active
is Result success
[ "$(systemctl show -P NRestarts shmallocd.service)" -ge "$kills" ]
expect 'took over heap' journal
across verify root1
across verify user1
clean
alive

step 'a hung loop'
across hang
expect 'Watchdog timeout' journalctl -q --no-pager -o cat -u shmallocd.service
across verify root1
clean
alive

step 'restart'
systemctl restart shmallocd.service
across verify root1
"${as[@]}" --groups shmalloc across verify user2
clean
alive

step 'a second heap, and a reload'
mkdir -p /etc/shmalloc
printf '%s\n' '[heap default]' '[heap team]' 'allowed-users = root' >/etc/shmalloc/shmallocd.conf
expect '/etc/shmalloc/shmallocd.conf: good' runuser -u shmalloc -- shmallocd --check-config
systemctl reload shmallocd.service
logged "heap 'team' is new: takes effect at the next start"
is ActiveState active
systemctl restart shmallocd.service
is StatusText "serving heaps 'default', 'team' on /run/shmalloc/shmalloc.sock"
across verify root1
expect 'yes' "${as[@]}" --groups shmalloc sh -c 'shmallocctl heaps | grep ^default'
expect 'no' "${as[@]}" --groups shmalloc sh -c 'shmallocctl heaps | grep ^team'
! "${as[@]}" --groups shmalloc env SHMALLOC_HEAP=team across verify root1 || false
logged "may not attach to heap 'team'"
sed -i 's/^allowed-users.*/allowed-users = nobody/' /etc/shmalloc/shmallocd.conf
systemctl reload shmallocd.service
logged "heap 'team': allowed-users = $(id -u nobody); it was 0"
expect 'yes' "${as[@]}" --groups shmalloc sh -c 'shmallocctl heaps | grep ^team'
echo 'nonsense' >>/etc/shmalloc/shmallocd.conf
systemctl reload shmallocd.service
logged 'shmallocd.conf:4: this is neither a [section] nor NAME = VALUE'
is ActiveState active
rm /etc/shmalloc/shmallocd.conf
systemctl restart shmallocd.service
is StatusText 'serving heap '\''default'\'' on /run/shmalloc/shmalloc.sock'
across verify root1
clean
alive

step 'stop and start'
systemctl stop shmallocd.socket shmallocd.service
is ActiveState inactive
[ ! -e /run/shmalloc/shmalloc.sock ]
[ -e /dev/shm/shmalloc.system.default.meta ]
systemctl start shmallocd.socket
across verify root1
is ActiveState active
clean
alive

step 'a daemon of another layout version'
systemctl stop shmallocd.service shmallocd.socket
cat /opt/across/shmallocd-next >/usr/sbin/shmallocd-next
chmod 755 /usr/sbin/shmallocd-next
dropin next 'ExecStart=' 'ExecStart=/usr/sbin/shmallocd-next --socket /run/shmalloc/shmalloc.sock $SHMALLOCD_OPTIONS'
kill -STOP "${pids[@]}" # they write
before=$(sums)
! systemctl start shmallocd.service 2>/dev/null || false
expect 'another layout version' journal
expect 'it was not touched' journal
systemctl stop shmallocd.service shmallocd.socket
[ "$before" = "$(sums)" ]
kill -CONT "${pids[@]}"
undo next
systemctl start shmallocd.service
across verify root1
clean
release

step '--reset starts anew'
dropin next 'ExecStart=' 'ExecStart=/usr/sbin/shmallocd-next --socket /run/shmalloc/shmalloc.sock $SHMALLOCD_OPTIONS --reset'
systemctl restart shmallocd.service
expect 'made heap' journal
undo next
dropin reset 'ExecStart=' 'ExecStart=/usr/sbin/shmallocd --socket /run/shmalloc/shmalloc.sock $SHMALLOCD_OPTIONS --reset'
systemctl restart shmallocd.service
undo reset
expect 'No such file' across verify root1
clean

step 'a heap that every start dies of'
hold root2
holds root2
clean
dropin die 'SystemCallFilter=~pidfd_open:kill' # which taking over a heap with a living client needs, and making one does not
restarts=$(systemctl show -P NRestarts shmallocd.service)
kill -9 "$(systemctl show -P MainPID shmallocd.service)"
# systemd restarts by itself, until the heap is out of the way
for ((i = 0; i < 600; i++)); do
	[ ! -e /dev/shm/shmalloc.system.default.aside-1.state ] || break
	sleep 0.05
done
clean
is ActiveState active
[ $(($(systemctl show -P NRestarts shmallocd.service) - restarts)) -ge 4 ]
expect 'SET ASIDE' journal
aside=/dev/shm/shmalloc.system.default.aside-1
expect 'heap default:' shmallocctl check --image $aside.meta $aside.ctl
expect 'root root2' shmallocctl dump --image $aside.meta $aside.ctl
expect 'No such file' across verify root2
undo die
lost root2
hold root3
holds root3
across kills 5
release
clean

step 'the journal has fields'
hold gone
holds gone
shmallocctl evict "$(shmallocctl clients | awk -v pid="${pids[0]}" '$2 == pid { print $1 }')" --kill
wait "${pids[0]}" && false || true
journalctl --sync
for id in 1136a67a78c946fb93cd64bb0e6af7c7 4302031f12e9474f92711d1ef4bbe5cc; do # evicted, ended
	entry() { journalctl -q --no-pager -o json -u shmallocd.service MESSAGE_ID=$id | tail -n 1; }
	for field in "SHMALLOC_PID\":\"${pids[0]}" 'SHMALLOC_CLIENT":"' 'SHMALLOC_UID":"0"' 'SHMALLOC_HEAP":"default"' \
		'SHMALLOC_BYTES":"' 'SYSLOG_IDENTIFIER":"shmallocd"' 'CODE_FUNC":"' '_TRANSPORT":"journal"'; do
		expect "$field" entry
	done
done
expect '"PRIORITY":"6"' entry
pids=()

step 'a heap of sealed memory'
stored 0
mkdir -p /etc/shmalloc
configure '[heap default]' '[heap sealed]' 'backing = memfd'
systemctl restart shmallocd.service
is StatusText "serving heaps 'default', 'sealed' on /run/shmalloc/shmalloc.sock"
stored 4
[ -e /dev/shm/shmalloc.system.default.meta ]
! ls /dev/shm/shmalloc.system.sealed.* 2>/dev/null || false
sealed hold sealed1
sealed hold sealed2 "${as[@]}" --groups shmalloc
holds sealed1 sealed2
kill -9 "$(systemctl show -P MainPID shmallocd.service)"
sealed across verify sealed1
stored 4
sealed across kills 10
sealed "${as[@]}" --groups shmalloc across verify sealed2
stored 4
systemctl restart shmallocd.service
sealed across verify sealed1
sealed across verify sealed2
stored 4
sealed clean
alive
release

step 'it is kept while nobody serves it'
configure '[heap default]'
systemctl restart shmallocd.service
is StatusText 'serving heap '\''default'\'' on /run/shmalloc/shmalloc.sock'
stored 4
configure '[heap default]' '[heap sealed]' 'backing = memfd'
systemctl restart shmallocd.service
sealed across verify sealed1
sealed across verify sealed2
stored 4

step 'a stop ends it'
sealed hold sealed3
holds sealed3
systemctl stop shmallocd.socket shmallocd.service
is ActiveState inactive
stored 0
[ -e /dev/shm/shmalloc.system.default.meta ]
systemctl start shmallocd.socket shmallocd.service
stored 4
lost sealed3
for name in sealed1 sealed2 sealed3; do expect 'No such file' sealed across verify $name; done
sealed clean
sealed hold sealed4
holds sealed4
systemctl stop shmallocd.service # that client makes the socket start it again
lost sealed4
expect 'No such file' sealed across verify sealed4
stored 4

step 'one that every start dies of'
sealed hold sealed5
holds sealed5
dropin die 'SystemCallFilter=~pidfd_open:kill'
kill -9 "$(systemctl show -P MainPID shmallocd.service)"
logged "SET ASIDE heap 'sealed'"
is ActiveState active
stored 8
undo die
lost sealed5
expect 'No such file' sealed across verify sealed5
systemctl restart shmallocd.service
stored 8
sealed clean

step 'an empty one goes with its daemon'
configure '[heap default]'
systemctl restart shmallocd.service
stored 4 # of the one that was set aside
logged 'the service manager keeps 4 descriptors that no heap uses'
systemctl stop shmallocd.socket shmallocd.service
stored 0
rm /etc/shmalloc/shmallocd.conf
systemctl start shmallocd.socket shmallocd.service
clean

step 'the unit as systemd sees it'
for setting in RemoveIPC=no DynamicUser=no PrivateUsers=no MemoryMax=infinity Restart=always; do
	is "${setting%=*}" "${setting#*=}"
done
systemctl stop shmallocd.socket shmallocd.service
step 'done'
