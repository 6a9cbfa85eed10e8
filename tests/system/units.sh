#!/bin/bash
# The systemd units: what must be in them and what must not, each with the reason beside it; and what systemd's own tools say. Each
# rule is tried on a unit that breaks it.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: units.sh installs the plain build only'; exit 77 ;; esac
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
make -s install prefix="$dir"
units=$dir/lib/systemd

# SETTING VALUE: must be said, once, with this value and with a comment above it that says why.
explicit='RemoveIPC no
DynamicUser no
PrivateUsers no
MemoryMax infinity'
# SETTING VALUE of the service, of the user's service, of the sockets
system_rules='Type notify
Restart always
RestartSec 0
StartLimitIntervalSec 0
WatchdogSec 4
User shmalloc
OOMScoreAdjust -900
LimitNOFILE 16384
Requires shmallocd.socket
ProtectSystem strict
NoNewPrivileges yes'
user_rules='Type notify
Restart always
RestartSec 0
StartLimitIntervalSec 0
WatchdogSec 4
MemoryMax infinity
LimitNOFILE 16384
Requires shmallocd.socket
NoNewPrivileges yes'
socket_rules='TriggerLimitIntervalSec 0
RemoveOnStop yes'

# Of the socket for HTTP: on the loopback, named, for the service, and not enabled with it.
http_rules='TriggerLimitIntervalSec 0
RemoveOnStop yes
ListenStream 127.0.0.1:9779
FileDescriptorName http
Service shmallocd.service
WantedBy sockets.target'

values() { sed -n "s/^$2=//p" "$1"; }
must() { # UNIT, rules on standard input: says which do not hold
	local name value
	while read -r name value; do
		[ "$(values "$1" "$name")" = "$value" ] || echo "$name must be $value: '$(values "$1" "$name" | tr '\n' ' ')'"
	done
}
objections() { # UNIT: prints what is wrong with it
	local name value
	case $1 in
	*/systemd/system/*.service)
		must "$1" <<<"$explicit"
		while read -r name value; do
			grep -B1 "^$name=" "$1" | head -n 1 | grep -q '^# .' || echo "$name has no comment"
		done <<<"$explicit"
		must "$1" <<<"$system_rules"
		;;
	*/systemd/user/*.service) # in a user's manager these imply PrivateUsers=
		must "$1" <<<"$user_rules"
		grep -E '^(Private|Protect|ReadOnly|ReadWrite|Inaccessible|TemporaryFileSystem|Bind|Root|DynamicUser)' "$1" | sed 's/$/ implies PrivateUsers=/'
		;;
	*-http.socket) must "$1" <<<"$http_rules" ;;
	*) must "$1" <<<"$socket_rules" ;;
	esac
	grep -E '^(Also|Wants|Requires|Sockets)=.*-http' "$1" | sed 's/$/ enables what is to be asked for/' || true
	# /dev/shm must be the machine's, and the socket's directory is not the service's to remove.
	grep -E '^(TemporaryFileSystem|InaccessiblePaths|RuntimeDirectory|PrivateTmp=disconnected|MemorySwapMax|LimitAS|LimitFSIZE)' "$1" | sed 's/$/ does harm/' || true
	grep -E '^KillMode=(none|process)' "$1" || true
	case $1 in *.socket) ;; *) [[ $(values "$1" ExecStart) == "$dir/sbin/shmallocd --socket /run/"* ||
		$(values "$1" ExecStart) == "$dir/sbin/shmallocd --socket %t/"* ]] || echo "ExecStart: $(values "$1" ExecStart)" ;; esac
}
fail() { printf '%s\n' "$@"; exit 1; }

for unit in system/shmallocd.service system/shmallocd.socket system/shmallocd-http.socket user/shmallocd.service user/shmallocd.socket; do
	found=$(objections "$units/$unit")
	[ -z "$found" ] || fail "$unit:" "$found"
done
grep -q '^ListenSequentialPacket=/run/shmalloc/shmalloc.sock$' "$units/system/shmallocd.socket" || fail 'the socket is elsewhere'
grep -q '"/run/shmalloc/shmalloc.sock"' client/sockpath.c || fail 'the library looks elsewhere'

# Each rule can be broken, and is seen to be.
broken=0
break_it() { # UNIT SED-SCRIPT
	local file=$dir/broken/systemd/$1
	mkdir -p "${file%/*}"
	sed -E "$2" "$units/$1" >"$file"
	cmp -s "$file" "$units/$1" && fail "$1: '$2' changes nothing"
	[ -n "$(objections "$file")" ] || fail "$1: nobody objects to '$2'"
	broken=$((broken + 1))
}
while read -r name value; do
	for wrong in yes 1G; do
		break_it system/shmallocd.service "s/^$name=.*/$name=$wrong/"
		break_it system/shmallocd.service "\$a [Service]\n$name=$wrong"
	done
	break_it system/shmallocd.service "/^$name=/d"
	break_it system/shmallocd.service "/^# /d"
done <<<"$explicit"
while read -r name value; do break_it system/shmallocd.service "s/^$name=.*/$name=5555/"; done <<<"$system_rules"
while read -r name value; do break_it user/shmallocd.service "s/^$name=.*/$name=5555/"; done <<<"$user_rules"
while read -r name value; do break_it system/shmallocd.socket "s/^$name=.*/$name=5555/"; done <<<"$socket_rules"
while read -r name value; do break_it system/shmallocd-http.socket "s/^$name=.*/$name=5555/"; done <<<"$http_rules"
break_it system/shmallocd-http.socket 's/^ListenStream=.*/&\nListenStream=0.0.0.0:9779/'
break_it system/shmallocd.service 's/^Also=.*/& shmallocd-http.socket/'
break_it user/shmallocd.service 's/^NoNewPrivileges=.*/&\nPrivateTmp=yes/'
break_it system/shmallocd.service 's/^UMask=.*/&\nRuntimeDirectory=shmalloc/'
echo "units: $broken broken units, each objected to"

command -v systemd-analyze >/dev/null || { echo 'skipped: no systemd-analyze, so nothing of what it says'; exit 0; }
for where in system user; do
	said=$(XDG_RUNTIME_DIR=$dir systemd-analyze --"$where" verify --man=no "$units/$where"/shmallocd*.{service,socket} 2>&1) || fail "$where: verify: $said"
	! grep shmalloc <<<"$said" || fail "$where: verify complains"
done
systemd-analyze security --offline=true --threshold=6 --no-pager "$units/system/shmallocd.service" >"$dir/said" || fail "$(cat "$dir/said")"
tail -n 1 "$dir/said"
