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
ExecReload /bin/kill -HUP $MAINPID
Restart always
RestartSec 0
StartLimitIntervalSec 0
WatchdogSec 4
User shmalloc
OOMScoreAdjust -900
LimitNOFILE 16384
Requires shmallocd.socket
ProtectSystem strict
NoNewPrivileges yes
CapabilityBoundingSet
AmbientCapabilities
UMask 0077
ProtectHome yes
PrivateTmp yes
PrivateDevices yes
DevicePolicy closed
PrivateMounts yes
PrivateNetwork yes
IPAddressDeny any
RestrictAddressFamilies AF_UNIX
ProtectHostname yes
ProtectClock yes
ProtectKernelTunables yes
ProtectKernelModules yes
ProtectKernelLogs yes
ProtectControlGroups yes
ProtectProc invisible
ProcSubset pid
RestrictNamespaces yes
RestrictRealtime yes
RestrictSUIDSGID yes
LockPersonality yes
MemoryDenyWriteExecute yes
KeyringMode private
SystemCallArchitectures native'
filter='@system-service
~@privileged @resources @setuid @keyring @chown'
user_rules='Type notify
ExecReload /bin/kill -HUP $MAINPID
Restart always
RestartSec 0
StartLimitIntervalSec 0
WatchdogSec 4
MemoryMax infinity
LimitNOFILE 16384
Requires shmallocd.socket
NoNewPrivileges yes
UMask 0077
RestrictAddressFamilies AF_UNIX
RestrictNamespaces yes
RestrictRealtime yes
RestrictSUIDSGID yes
LockPersonality yes
MemoryDenyWriteExecute yes
SystemCallArchitectures native'
socket_rules='TriggerLimitIntervalSec 0
RemoveOnStop yes'

# Of the socket for HTTP: on the loopback, named, for the service, and not enabled with it.
http_rules='TriggerLimitIntervalSec 0
RemoveOnStop yes
ListenStream 127.0.0.1:9779
FileDescriptorName http
Service shmallocd.service
WantedBy sockets.target'

declare -A said=() # setting -> its values, one a line
read_unit() { # UNIT
	local name value
	said=()
	while IFS='=' read -r name value; do
		[[ $name != [A-Z]* ]] || said[$name]+=${said[$name]+$'\n'}$value
	done <"$1"
}
must() { # rules on standard input: says which do not hold
	local name value
	while read -r name value; do
		[ "${said[$name]-unsaid}" = "$value" ] || echo "$name must be '$value': '${said[$name]-unsaid}'"
	done
}
objections() { # UNIT: prints what is wrong with it
	local name value
	read_unit "$1"
	case $1 in
	*/systemd/system/*.service)
		must <<<"$explicit"
		while read -r name value; do
			grep -B1 "^$name=" "$1" | head -n 1 | grep -q '^# .' || echo "$name has no comment"
		done <<<"$explicit"
		must <<<"$system_rules"
		;;
	*/systemd/user/*.service) # in a user's manager these imply PrivateUsers=
		must <<<"$user_rules"
		grep -E '^(Private|Protect|ReadOnly|ReadWrite|Inaccessible|TemporaryFileSystem|Bind|Root|DynamicUser)' "$1" | sed 's/$/ implies PrivateUsers=/'
		;;
	*-http.socket) must <<<"$http_rules" ;;
	*) must <<<"$socket_rules" ;;
	esac
	grep -E '^(Also|Wants|Requires|Sockets)=.*-http' "$1" | sed 's/$/ enables what is to be asked for/' || true
	case $1 in *.service) [ "${said[SystemCallFilter]-}" = "$filter" ] || echo 'SystemCallFilter is another' ;; esac
	# /dev/shm must be the machine's, and the socket's directory is not the service's to remove.
	grep -E '^(TemporaryFileSystem|InaccessiblePaths|RuntimeDirectory|PrivateTmp=disconnected|MemorySwapMax|LimitAS|LimitFSIZE)' "$1" | sed 's/$/ does harm/' || true
	grep -E '^KillMode=(none|process)' "$1" || true
	grep -E '^Exec[A-Za-z]*=[-@:]*[+!]' "$1" | sed 's/$/ runs with more rights/' || true
	case $1 in *.socket) ;; *) [[ ${said[ExecStart]-} == "$dir/sbin/shmallocd --socket /run/"* ||
		${said[ExecStart]-} == "$dir/sbin/shmallocd --socket %t/"* ]] || echo "ExecStart: ${said[ExecStart]-}" ;; esac
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
break_it system/shmallocd.service 's/^UMask=.*/&\nExecStartPre=+\/bin\/true/'
for unit in system user; do
	break_it $unit/shmallocd.service '/^SystemCallFilter=/d'
	break_it $unit/shmallocd.service 's/^(SystemCallFilter=~).*/\1@privileged/'
	break_it $unit/shmallocd.service '$a [Service]\nSystemCallFilter=@privileged'
done
echo "units: $broken broken units, each objected to"

command -v systemd-analyze >/dev/null || { echo 'skipped: no systemd-analyze, so nothing of what it says'; exit 0; }
for where in system user; do
	said=$(XDG_RUNTIME_DIR=$dir systemd-analyze --"$where" verify --man=no "$units/$where"/shmallocd*.{service,socket} 2>&1) || fail "$where: verify: $said"
	! grep shmalloc <<<"$said" || fail "$where: verify complains"
done

# What systemd thinks of it: exposure in tenths, at most 1.0. Some of what keeps it low is worth more than the sum says, and weighs too
# little to be noticed by it: those are rules above.
most=10
exposure() { # UNIT: tenths
	systemd-analyze security --offline=true --no-pager "$1" 2>&1 | sed -nE 's/.*exposure level for .*: ([0-9]+)\.([0-9]) .*/\1\2/p' | sed 's/^0//'
}
is=$(exposure "$units/system/shmallocd.service")
[ -n "$is" ] && [ "$is" -le $most ] || fail "exposure: ${is:-not said}, in tenths; at most $most"
said=$(systemd-analyze security --offline=true --threshold=$most --no-pager "$units/system/shmallocd.service" 2>&1) || fail "$said"
tail -n 1 <<<"$said"

dangerous=0
while IFS= read -r script; do
	file=$dir/broken/systemd/system/shmallocd.service
	sed -E "$script" "$units/system/shmallocd.service" >"$file"
	! cmp -s "$file" "$units/system/shmallocd.service" || fail "'$script' changes nothing"
	now=$(exposure "$file")
	[ -n "$now" ] && [ "$now" -ge "$is" ] || fail "exposure is ${now:-not said} with '$script', and $is without"
	[ "$now" -gt $most ] || [ -n "$(objections "$file")" ] || fail "'$script' passes: exposure $now, and no rule is against it"
	dangerous=$((dangerous + 1))
done <<'SCRIPTS'
s/^CapabilityBoundingSet=.*/CapabilityBoundingSet=CAP_SYS_ADMIN/
s/^CapabilityBoundingSet=.*/CapabilityBoundingSet=CAP_SYS_PTRACE/
s/^CapabilityBoundingSet=.*/CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_FOWNER/
/^CapabilityBoundingSet=/d
s/^AmbientCapabilities=.*/AmbientCapabilities=CAP_IPC_OWNER/
s/^NoNewPrivileges=.*/NoNewPrivileges=no/
s/^PrivateNetwork=.*/PrivateNetwork=no/
s/^RestrictAddressFamilies=.*/RestrictAddressFamilies=AF_UNIX AF_INET/
/^RestrictAddressFamilies=/d
s/^MemoryDenyWriteExecute=.*/MemoryDenyWriteExecute=no/
/^SystemCallFilter=/d
s/^(SystemCallFilter=~).*/\1@privileged/
s/^SystemCallArchitectures=.*/SystemCallArchitectures=/
s/^PrivateDevices=.*/PrivateDevices=no/
s/^ProtectSystem=.*/ProtectSystem=no/
s/^ProtectHome=.*/ProtectHome=no/
s/^ProtectKernelModules=.*/ProtectKernelModules=no/
s/^ProtectKernelTunables=.*/ProtectKernelTunables=no/
s/^ProtectControlGroups=.*/ProtectControlGroups=no/
s/^ProtectProc=.*/ProtectProc=default/
s/^RestrictNamespaces=.*/RestrictNamespaces=no/
s/^User=.*/User=root/
s/^UMask=.*/UMask=0022/
s/^UMask=.*/&\nAmbientCapabilities=CAP_SYS_ADMIN/
s/^UMask=.*/&\nNoNewPrivileges=no/
SCRIPTS
echo "units: $dangerous dangerous settings, each objected to"
