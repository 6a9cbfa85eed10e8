#!/bin/bash
# The image and the manifests of systemd/container under a real engine, podman with crun: the image is built as README.md there says, and
# the containers of the manifests are run with what these give them and no more (engine.py). Clients in namespaces of their own share
# blocks, and stay through the death of one another and of the daemon's container. Some minutes; needs root and a Debian mirror.
set -Eeuo pipefail
BUILD=${BUILD:-build/plain}
skip() { echo "skipped: $*"; exit 77; }
fail() { printf '%s\n' "$@"; exit 1; }
case $BUILD in */plain) ;; *) skip 'the plain build only' ;; esac
[ "$(id -u)" = 0 ] || skip 'an engine needs root'
for tool in podman crun mmdebstrap; do
	command -v $tool >/dev/null || skip "no $tool (make check-container installs it)"
done
/usr/bin/python3 -c 'import yaml' 2>/dev/null || skip 'no python3-yaml'
if [ -z "${IN_OWN_MOUNTS:-}" ]; then # mounts are gone with this process, however it ends
	IN_OWN_MOUNTS=1 unshare -m --propagation private "$0" && exit 0 || exit $?
fi
base=$(tests/system/fresh.sh)
suite=${base##*-} suite=${suite%.tar}
version=$(sed -n 's/^VERSION := //p' Makefile)
here=systemd/container
dir=$(mktemp -d /var/tmp/shmalloc-engine.XXXXXX)
trap 'rm -rf --one-file-system "$dir"' EXIT
trap 'exit 1' INT TERM HUP
trap 'echo "FAILED at line $LINENO"; tail -n 20 "$dir"/*.log' ERR
null=$(stat -c '%a %u %g' /dev/null)
began=$SECONDS
step() { printf '%3d s  %s\n' $((SECONDS - began)) "$*"; }

# ---- an engine of its own: no file, lock, image or network of the machine's ----

resolver=$(readlink -f /etc/resolv.conf)
cp "$resolver" "$dir/resolv.conf"
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mknod -m 666 /run/null c 1 3
mount --bind /run/null /dev/null # crun may give what a container has as its input to the container's user
exec </dev/null
mkdir -p /run/lock "${resolver%/*}"
[ -e "$resolver" ] || cp "$dir/resolv.conf" "$resolver"
# crun takes the first version of cgroups, or the second, and not both with controllers in each.
[ -z "$(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null)" ] || umount /sys/fs/cgroup/unified
export CONTAINERS_STORAGE_CONF=$dir/storage.conf CONTAINERS_CONF=$dir/containers.conf
cat >"$CONTAINERS_STORAGE_CONF" <<END
[storage]
driver = "overlay"
graphroot = "$dir/graph"
runroot = "/run/graph"
END
# Limits that can be set without CAP_SYS_RESOURCE, other than podman's own.
cat >"$CONTAINERS_CONF" <<END
[containers]
netns = "none"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
END
clean_up() {
	podman rm -fa -t 0 >/dev/null 2>&1 || true
	umount -l "$dir/heap" 2>/dev/null || true
	podman rmi -fa >/dev/null 2>&1 || true
	umount -l "$dir/graph/overlay" 2>/dev/null || true
	find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} + 2>/dev/null || true # those that are empty
	rm -rf --one-file-system "$dir"
}
trap clean_up EXIT # not before podman knows that this is not about the machine's containers
podman import -q "$base" "docker.io/library/debian:$suite-slim" >/dev/null
podman run --rm "docker.io/library/debian:$suite-slim" true >"$dir/first.log" 2>&1 || skip "no container runs here: $(tail -n 1 "$dir/first.log")"

# ---- images ----

step "the image, with $(podman --version), $(crun --version | head -n 1)"
grep -q "^FROM docker.io/library/debian:$suite-slim" $here/Containerfile || skip "$here/Containerfile is for another release than this machine's, $suite"
podman build --pull=never --network=host -f $here/Containerfile -t "shmallocd:$version" . >"$dir/build.log" 2>&1
step 'and one of a client'
image=registry.example/program-with-libshmalloc:1
grep -q "image: $image\$" $here/client.yaml || fail "client.yaml has another image than $image"
mkdir "$dir/context"
cp "$BUILD/system/across" "$BUILD/libshmalloc.so.0" "$dir/context"
for program in client/examples/hello.c tests/client/consumer/consumer.c; do
	gcc -Iclient "$program" "$BUILD/libshmalloc.so.0" -o "$dir/context/$(basename "$program" .c)"
done
gcc -Iclient -x c - -x none "$BUILD/libshmalloc.so.0" -o "$dir/context/greedy" <<'C'
#include <errno.h>
#include <shmalloc.h>
#include <stdio.h>
#include <string.h>
/* Takes all that there is, and says what ended that. */
int main(void)
{
	unsigned n = 0;

	for (void *block; (block = shma_heap_alloc(shma_default(), 1 << 20, 0, SHMA_SCOPED)) != NULL; n++)
		memset(block, 1, 1 << 20);
	printf("%u MiB, then %s\n", n, strerror(errno));
	return n == 0;
}
C
cat >"$dir/context/Containerfile" <<END
FROM docker.io/library/debian:$suite-slim
COPY --from=localhost/shmallocd:$version /usr/lib/$(cc -print-multiarch)/libprotobuf-c.so.1* /usr/lib/
COPY libshmalloc.so.0 /usr/lib/
COPY across hello consumer greedy /usr/bin/
END
podman build --pull=never -t $image "$dir/context" >"$dir/build.log" 2>&1

# ---- the pods, as a kubelet has them: a container that has ended is replaced by one of the same pod, with the same volumes ----

heap_size=$(sed -nE 's/.*medium: Memory, sizeLimit: ([0-9]+)Mi.*/\1/p' $here/daemonset.yaml)
mkdir "$dir/heap"
mount -t tmpfs -o "size=${heap_size}m,mode=777" tmpfs "$dir/heap"
mkdir /run/shmalloc
of_manifest() { # MANIFEST CONTAINER: into the array `wanted`
	/usr/bin/python3 -B tests/system/engine.py "$here/$1.yaml" "$2" socket=/run/shmalloc shmalloc=/run/shmalloc "heap=$dir/heap" >"$dir/wanted"
	mapfile -t wanted <"$dir/wanted"
}
of_manifest daemonset directory
directory=("${wanted[@]}")
of_manifest daemonset shmallocd
daemon=("${wanted[@]}")
of_manifest client client
client=("${wanted[@]}")
pid_of() { podman inspect -f '{{.State.Pid}}' "$1" | grep -vx 0; } # 0: it has ended
probe() { podman exec shmallocd shmallocctl --timeout 3 heaps >"$dir/probe.log" 2>&1; }
soon() { # COMMAND...
	local until=$((SECONDS + 30))
	while [ $SECONDS -le $until ]; do
		! "$@" || return 0
		sleep 0.1
	done
	fail "not so after 30 s: $*"
}
logged() { podman logs shmallocd >"$dir/daemon.log" 2>&1 && grep -qF -- "$1" "$dir/daemon.log"; }
start_daemon() {
	podman rm -f -t 0 shmallocd >/dev/null 2>&1 || true
	podman run -d --name shmallocd "${daemon[@]}" >/dev/null
}
run() { podman run --rm "${client[@]}" "$@" 2>"$dir/client.log"; } # COMMAND...: a client, until it ends
hold() { # NAME [OPTION]...: a client that stays
	podman run -d --name "$1" "${@:2}" "${client[@]}" across hold "$1" >/dev/null
}
holds() { podman logs "$1" 2>&1 | grep -q "^holding $1"; }
lives() { [ "$(podman inspect -f '{{.State.Running}}' "$1")" = true ]; }
clients() { podman exec shmallocd shmallocctl --format json clients >"$dir/clients.log" && /usr/bin/python3 -c 'import json, sys
clients = json.load(sys.stdin)
for c in clients["clients"] if isinstance(clients, dict) else clients: print(c["pid"], c["uid"])' <"$dir/clients.log"; }
are_clients() { [ "$(clients | cut -d" " -f1 | sort)" = "$(for name; do pid_of "$name"; done | sort)" ]; }
status_of() { sed -nE "s/^$2:\\s*(.*)/\\1/p" "/proc/$1/status"; }
own() { # PID NAMESPACE...: it has these for itself
	for kind in "${@:2}"; do
		[ "$(readlink "/proc/$1/ns/$kind")" != "$(readlink "/proc/self/ns/$kind")" ] || fail "$(tr '\0' ' ' <"/proc/$1/cmdline"): it has the $kind namespace of the host"
	done
}
bare() { # PID UID: without a right
	[ "$(status_of "$1" Uid | cut -f1-4 | tr '\t' ' ')" = "$2 $2 $2 $2" ]
	for set in CapInh CapPrm CapEff CapBnd CapAmb; do [ "$(status_of "$1" $set)" = 0000000000000000 ]; done
	[ "$(status_of "$1" NoNewPrivs)" = 1 ]
	[ "$(status_of "$1" Seccomp)" = 2 ]
	[ "$(awk '$5 == "/" { print substr($6, 1, 2) }' "/proc/$1/mountinfo")" = ro ]
}
limited() { # PID OPTION...: the kernel has its memory limit
	local group limit
	group=$(sed -nE 's/^[0-9]+:(memory)?://p' "/proc/$1/cgroup" | head -n 1)
	limit=$(cat "/sys/fs/cgroup/memory$group/memory.limit_in_bytes" "/sys/fs/cgroup$group/memory.max" 2>/dev/null || true)
	[ "$limit" = "$(printf '%s\n' "${@:2}" | sed -n 's/^--memory=//p' | tr gm GM | numfmt --from=iec)" ]
}

step 'a client is there first, and waits'
for _ in 1 2; do podman run --rm "${directory[@]}"; done
[ "$(stat -c '%u:%g' /run/shmalloc)" = 7790:7790 ]
hold early
start_daemon
soon probe
soon holds early

step 'what each has, and has not'
pid=$(pid_of shmallocd)
bare "$pid" 7790
limited "$pid" "${daemon[@]}"
own "$pid" mnt net ipc uts
[ "$(readlink "/proc/$pid/ns/pid")" = "$(readlink /proc/self/ns/pid)" ]
! podman exec shmallocd touch /etc/x 2>/dev/null || fail 'the daemon can write to its root'
pid=$(pid_of early)
bare "$pid" 10001
limited "$pid" "${client[@]}"
own "$pid" mnt net ipc uts pid
[ "$(run sh -c 'echo /proc/[0-9]*')" = /proc/1 ]
[ -z "$(run sh -c 'ls -A /dev/shm')" ]
[ "$(run sh -c 'ls /run/shmalloc')" = shmalloc.sock$'\n'shmalloc.sock.lock ]
! run touch /run/shmalloc/x || fail "a client can write to the socket's directory"
[ "$(clients)" = "$pid 10001" ]

step 'from container to container'
[ "$(run consumer)" = "shmalloc $version" ]
run hello 'from another container'
[ "$(run hello)" = 'from another container' ]
hold late
soon holds late
run across verify early
run across verify late

step 'the container of a client is killed'
are_clients early late
hold victim
soon holds victim
are_clients early late victim
podman kill -s KILL victim >/dev/null
soon are_clients early late
podman rm victim >/dev/null
run across verify victim

step 'the container of the daemon is killed, and replaced'
for _ in 1 2 3; do
	kill -KILL "$(pid_of shmallocd)"
	podman wait shmallocd >/dev/null
	[ "$(podman inspect -f '{{.State.ExitCode}}' shmallocd)" = 137 ]
	start_daemon
	run across verify early
	logged "took over heap 'default'"
	lives early
	lives late
done

step 'it is stopped, and replaced'
podman stop -t 10 shmallocd >/dev/null
[ "$(podman inspect -f '{{.State.ExitCode}}' shmallocd)" = 0 ]
start_daemon
run across verify late
run across verify victim
podman exec shmallocd shmallocctl check
are_clients early late

step 'a client in a user namespace'
mapped=(--uidmap=0:200000:65536 --gidmap=0:200000:65536)
! podman run --rm "${mapped[@]}" "${client[@]}" consumer 2>"$dir/client.log" || fail 'a group that means nothing has let it in'
grep -q 'Permission denied' "$dir/client.log"
if printf '6.3\n%s\n' "$(uname -r)" | sort -VC; then # tmpfs can be mounted with other ids
	client=("${client[@]/%:\/run\/shmalloc:ro/:\/run\/shmalloc:ro,idmap}")
	hold inside "${mapped[@]}"
	soon holds inside
	own "$(pid_of inside)" mnt net ipc uts pid user
	are_clients early late inside
	[ "$(clients | grep "^$(pid_of inside) ")" = "$(pid_of inside) 210001" ]
	podman run --rm "${mapped[@]}" "${client[@]}" across verify early
	client=("${client[@]/%,idmap/}")
	run across verify inside
else
	echo 'skipped: mounts with other ids (before Linux 6.3)'
fi

step 'clients end, having missed nothing'
for name in early late inside; do
	podman container exists $name || continue
	podman stop -t 30 $name >/dev/null
	podman logs $name 2>&1 | tail -n 1
	[ "$(podman inspect -f '{{.State.ExitCode}}' $name)" = 0 ]
	podman rm $name >/dev/null
done
soon are_clients
podman exec shmallocd shmallocctl check

step 'who is refused'
! podman run --rm "${client[@]/#--group-add=7790/--env=x=}" consumer 2>"$dir/client.log" || fail 'it needs no group'
grep -q 'Permission denied' "$dir/client.log"
podman rm -f -t 10 shmallocd >/dev/null
umount "$dir/heap" # with the pod
mount -t tmpfs -o "size=64m,mode=777" tmpfs "$dir/heap"
daemon=("${daemon[@]/#--pid=host/--pid=private}")
start_daemon
soon probe
! podman run --rm --env=SHMALLOC_DEBUG=1 "${client[@]}" consumer 2>"$dir/client.log" || fail 'a daemon that cannot see it lets it in'
grep -q 'the daemon cannot see your process' "$dir/client.log"
daemon=("${daemon[@]/#--pid=private/--pid=host}")

step 'less memory than the heap might have'
start_daemon
soon probe
said=$(run greedy)
echo "$said"
[[ $said == *'MiB, then Cannot allocate memory' ]]
[ "$(run consumer)" = "shmalloc $version" ]
podman stop -t 10 shmallocd >/dev/null
podman rm shmallocd >/dev/null
[ -z "$(find "$dir/heap" -type f ! -name '*.lock')" ]
umount "$dir/heap"

# ---- without Kubernetes: the commands of README.md ----

step 'the commands of README.md'
commands=$(sed -n '/^Without Kubernetes:/,/^[A-Z].*[^:]$/s/^    //p' $here/README.md | sed "s| IMAGE PROGRAM\$| $image consumer|")
[ -n "$commands" ]
rm -r /run/shmalloc
(eval "$commands") >"$dir/readme.log" 2>&1
grep -qx "shmalloc $version" "$dir/readme.log"
client=(--user=10001:10001 --group-add=7790 --volume=/run/shmalloc:/run/shmalloc:ro "$image")
hold stays
soon holds stays
kill -KILL "$(pid_of shmallocd)" # the engine starts it again
run across verify stays
podman restart shmallocd >/dev/null 2>&1
run across verify stays
podman rm -f -t 10 shmallocd >/dev/null 2>&1
(eval "$(grep '^podman run -d' -A 2 <<<"$commands")") >"$dir/readme.log" 2>&1 # of another image, for instance
run across verify stays
soon logged "took over heap 'default'"
podman stop -t 30 stays >/dev/null
[ "$(podman inspect -f '{{.State.ExitCode}}' stays)" = 0 ]
bare "$(pid_of shmallocd)" 7790

step 'nothing is left, and nothing is changed'
podman rm -fa -t 10 >/dev/null
[ -z "$(find /dev/shm -name '*shmalloc*')" ] # of the host
[ "$(ls -A /run/shmalloc)" = shmalloc.sock.lock ]
umount -l /dev/null
[ "$(stat -c '%a %u %g' /dev/null)" = "$null" ]
for user in 7790 10001 210001; do
	! grep -lsE "^Uid:\s$user\s" /proc/[0-9]*/status || fail "a process of user $user is left"
done
step 'done'
