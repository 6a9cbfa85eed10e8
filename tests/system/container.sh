#!/bin/bash
# What systemd/container says agrees with the sources and with what is built, and gives nobody more than it needs. Each rule is tried
# on files that break it. No container engine is needed: `make check-container` is with one.
set -euo pipefail
BUILD=${BUILD:-build/plain}
case $BUILD in */plain) ;; *) echo 'skipped: the plain build only'; exit 77 ;; esac
/usr/bin/python3 -c 'import yaml' 2>/dev/null || { echo 'skipped: no python3-yaml'; exit 77; }
here=systemd/container
dir=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { printf '%s\n' "$@"; exit 1; }

# ---- the image ----

instruction() { sed -n "s/^$1 //p" $here/Containerfile; }
packages() { # N: what the Nth apt-get installs
	instruction RUN | grep 'apt-get install' | sed -n "$1p" | sed -E 's/.*--no-install-recommends ([^&]*).*/\1/' | tr ' ' '\n' | sed '/^$/d' | LC_ALL=C sort
}
for from in $(instruction COPY | grep -v -- --from= | sed 's/ [^ ]*$//'); do
	[ -e "$from" ] || fail "Containerfile: there is no $from to copy"
done
building=$(sed -nE '/^DEPS :=/,/[^\\]$/p' Makefile | sed 's/^DEPS := //' | tr -s ' \t\\' '\n' |
	grep -vE '^(|pkg-config|g\+\+|libcriterion-dev|libzstd-dev)$'; echo libc6-dev) # not what examples and tests need
diff <(LC_ALL=C sort <<<"$building") <(packages 1) || fail 'Containerfile: the build stage installs other packages than DEPS of the Makefile says'
running=$(for program in shmallocd shmallocctl; do
	readelf -d "$BUILD/$program" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | grep -v '^libc\.so'
done | sort -u | while read -r so; do
	dpkg-query -S "*/$so" | grep -E "/$(uname -m)-linux-gnu/$so\$" | cut -d: -f1
done | LC_ALL=C sort -u)
diff <(echo "$running") <(packages 2) || fail 'Containerfile: the last stage installs other libraries than the programs need'

# ---- the manifests ----

cat >"$dir/look.py" <<'PY'
import copy, json, re, sys, yaml

here = sys.argv[1]
user = int(re.search(r"^USER (\d+):\1$", open(here + "/Containerfile").read(), re.M).group(1))
daemonset = yaml.safe_load(open(here + "/daemonset.yaml"))
client = yaml.safe_load(open(here + "/client.yaml"))
version = re.search(r"^VERSION := (\S+)$", open("Makefile").read(), re.M).group(1)
units = {"Mi": 1 << 20, "Gi": 1 << 30, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text):
	number, unit = re.fullmatch(r"(\d+)([A-Za-z]+)", text).groups()
	return int(number) * units[unit]


def container_objections(pod, container, added=()):
	where = container["name"]
	context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
	if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
		yield where + " may get more rights"
	if context.get("readOnlyRootFilesystem") is not True:
		yield where + " can write to its root"
	if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add", []) != list(added):
		yield where + " has capabilities"
	if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
		yield where + " has no seccomp profile"
	if "memory" not in container.get("resources", {}).get("limits", {}):
		yield where + " has no memory limit"
	for mount in container["volumeMounts"]:
		if mount["name"] not in [v["name"] for v in pod["volumes"]]:
			yield where + " mounts no volume of the pod"


def pod_objections(kind, pod, labels, selector):
	if selector != labels:
		yield kind + " selects other pods than its own"
	for name in ("hostIPC", "hostNetwork", "shareProcessNamespace"):
		if pod.get(name):
			yield kind + " has " + name
	if pod.get("automountServiceAccountToken") is not False:
		yield kind + " gets a token of the cluster"


def mounts(container):
	return {m["mountPath"]: m for m in container["volumeMounts"]}


def daemon_objections(d):
	pod = d["spec"]["template"]["spec"]
	main, first = pod["containers"][0], pod["initContainers"][0]
	args = main["args"]
	yield from pod_objections(d["kind"], pod, d["spec"]["template"]["metadata"]["labels"], d["spec"]["selector"]["matchLabels"])
	yield from container_objections(pod, main)
	yield from container_objections(pod, first, ["CHOWN"])
	if (d["apiVersion"], d["kind"], d["spec"]["updateStrategy"]["type"]) != ("apps/v1", "DaemonSet", "OnDelete"):
		yield "it is replaced unasked"
	if pod.get("hostPID") is not True:
		yield "the daemon cannot see its clients"
	context = pod["securityContext"]
	if (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) != (user, user, True):
		yield "the daemon is another user than in its image"
	if {main["image"], first["image"]} != {"shmallocd:" + version}:
		yield "the image is of another version"
	if first["command"][:2] != ["chown", "%d:%d" % (user, user)]:
		yield "the directory is given to somebody else"
	volumes = {v["name"]: v for v in pod["volumes"]}
	heap = volumes[mounts(main)["/dev/shm"]["name"]].get("emptyDir", {})
	if heap.get("medium") != "Memory" or "sizeLimit" not in heap:
		yield "the heap is not in memory of its own, or has no bound"
	elif not size(args[args.index("--size") + 1]) < size(heap["sizeLimit"]) < size(main["resources"].get("limits", {}).get("memory", "0Mi")):
		yield "size, volume and memory limit are in another order"
	socket = volumes[mounts(main)["/run/shmalloc"]["name"]]
	if socket.get("hostPath") != {"path": "/run/shmalloc", "type": "DirectoryOrCreate"} or mounts(main)["/run/shmalloc"].get("readOnly"):
		yield "the socket is elsewhere"
	for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
		if main[probe]["exec"]["command"][0] != "shmallocctl" or main[probe]["timeoutSeconds"] <= 3:
			yield probe + " does not ask the daemon"


def client_objections(c):
	pod = c["spec"]["template"]["spec"]
	main = pod["containers"][0]
	yield from pod_objections(c["kind"], pod, c["spec"]["template"]["metadata"]["labels"], c["spec"]["selector"]["matchLabels"])
	yield from container_objections(pod, main)
	if pod.get("hostPID"):
		yield "the client sees the host's processes"
	if pod["securityContext"].get("supplementalGroups") != [user] or pod["securityContext"].get("runAsNonRoot") is not True:
		yield "the client is not in the socket's group, or root"
	if [v.get("hostPath") for v in pod["volumes"]] != [{"path": "/run/shmalloc", "type": "Directory"}]:
		yield "the client has other things of the host"
	if mounts(main).keys() != {"/run/shmalloc"} or mounts(main)["/run/shmalloc"].get("readOnly") is not True:
		yield "the client can write to the socket's directory"
	if {"name": "SHMALLOC_SOCKET", "value": "/run/shmalloc/shmalloc.sock"} not in main["env"]:
		yield "the client looks elsewhere"


def change(document, path, value):
	broken = copy.deepcopy(document)
	at = broken["spec"]["template"]["spec"]
	for key in path[:-1]:
		at = at[key]
	if value is None:
		del at[path[-1]]
	else:
		assert at.get(path[-1]) != value, path
		at[path[-1]] = value
	return broken


main, first = ("containers", 0), ("initContainers", 0)
broken = [(daemon_objections, daemonset, p, v) for p, v in [
	(("hostPID",), None), (("hostIPC",), True), (("hostNetwork",), True), (("automountServiceAccountToken",), None),
	((*main, "securityContext", "privileged"), True), ((*main, "securityContext", "allowPrivilegeEscalation"), None),
	((*main, "securityContext", "readOnlyRootFilesystem"), False), ((*main, "securityContext", "capabilities"), None),
	((*main, "securityContext", "capabilities", "add"), ["SYS_PTRACE"]), ((*first, "securityContext", "capabilities", "add"), ["CHOWN", "FOWNER"]),
	(("securityContext", "seccompProfile"), None), (("securityContext", "runAsUser"), 0), (("securityContext", "runAsNonRoot"), False),
	((*main, "resources", "limits", "memory"), "4Gi"), ((*main, "resources", "limits"), None), ((*main, "image"), "shmallocd:latest"),
	((*first, "command"), ["chown", "0:0", "/run/shmalloc"]), (("volumes", 1, "emptyDir", "medium"), ""),
	(("volumes", 1, "emptyDir", "sizeLimit"), None), (("volumes", 1, "emptyDir", "sizeLimit"), "4Gi"), (("volumes", 0, "hostPath", "path"), "/run"),
	((*main, "livenessProbe", "exec", "command"), ["true"]), ((*main, "readinessProbe", "timeoutSeconds"), 1)]]
broken += [(client_objections, client, p, v) for p, v in [
	(("hostPID",), True), (("hostIPC",), True), (("securityContext", "supplementalGroups"), None), (("securityContext", "runAsNonRoot"), False),
	(("volumes", 0, "hostPath", "type"), "Socket"), (("volumes", 0, "hostPath", "path"), "/dev/shm"),
	((*main, "securityContext", "privileged"), True), ((*main, "volumeMounts", 0, "readOnly"), None), ((*main, "env"), [])]]

found = list(daemon_objections(daemonset)) + list(client_objections(client))
for objections, document, path, value in broken:
	if not list(objections(change(document, path, value))):
		found.append("nobody objects to %s = %s" % ("/".join(map(str, path)), value))
if found:
	sys.exit("\n".join(found))
print("container: %d broken manifests, each objected to" % len(broken), file=sys.stderr)
container = daemonset["spec"]["template"]["spec"]["containers"][0]
print("\n".join(container["args"]))
print("--")
print("\n".join(container["livenessProbe"]["exec"]["command"]))
PY
/usr/bin/python3 "$dir/look.py" $here >"$dir/said" || exit 1

# ---- the commands that they have ----

mapfile -t args < <(sed '/^--$/,$d' "$dir/said")
mapfile -t probe < <(sed '1,/^--$/d' "$dir/said")
default=$(instruction CMD | /usr/bin/python3 -c 'import json, sys; print("\n".join(json.load(sys.stdin)))')
mapfile -t default <<<"$default"
"$BUILD/shmallocd" "${default[@]}" --config /dev/null --check-config >/dev/null || fail 'Containerfile: CMD is not understood'
"$BUILD/shmallocd" "${args[@]}" --config /dev/null --check-config >/dev/null || fail 'daemonset.yaml: args are not understood'

export SHMALLOC_SOCKET=$dir/sock
answers() { "$BUILD/${probe[0]}" "${probe[@]:1}" >"$dir/answer" 2>&1; }
! answers || fail 'the probe is content without a daemon'
MEMORY_PRESSURE_WATCH=/dev/null "$BUILD/shmallocd" "${args[@]}" --config /dev/null --socket "$SHMALLOC_SOCKET" --instance "container-$$" 2>"$dir/log" &
daemon=$!
for ((i = 0; i < 600; i++)); do # as the kubelet does it
	! answers || break
	kill -0 "$daemon" || fail "$(cat "$dir/log")"
	sleep 0.05
done
answers || fail "the probe fails: $(cat "$dir/answer")"
kill "$daemon"
wait "$daemon" || fail "$(cat "$dir/log")"
daemon=
