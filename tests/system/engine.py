"""Says how podman runs a container of a pod as a manifest of systemd/container wants it: one argument a line.

	engine.py MANIFEST CONTAINER VOLUME=PATH...

The volumes are directories of the host. A field that it does not know ends it, so that none is passed over.
"""
import sys

import yaml

# What a container has no say in, or what engine.sh does itself.
POD_ASIDE = {"containers", "initContainers", "volumes", "terminationGracePeriodSeconds"}
POD_FIXED = {"automountServiceAccountToken": False, "enableServiceLinks": False}
ASIDE = {"name", "image", "command", "args", "startupProbe", "readinessProbe", "livenessProbe"}


def fields(what, **known):
	for name, value in what.items():
		yield from known[name](value)


def exactly(wanted, *args):
	def check(value):
		assert value == wanted, (value, wanted)
		return args

	return check


def ids(context):
	return ["--user=%d:%d" % (context["runAsUser"], context.get("runAsGroup", context["runAsUser"]))]


def security(context):
	yield from ids(context)
	yield from fields(
		{k: v for k, v in context.items() if k not in ("runAsUser", "runAsGroup")},
		runAsNonRoot=exactly(context["runAsUser"] != 0),
		supplementalGroups=lambda groups: ["--group-add=%d" % group for group in groups],
		seccompProfile=exactly({"type": "RuntimeDefault"}),  # podman's, unless it is told otherwise
		privileged=exactly(False),
		allowPrivilegeEscalation=exactly(False, "--security-opt=no-new-privileges"),
		readOnlyRootFilesystem=exactly(True, "--read-only", "--read-only-tmpfs=false"),
		capabilities=lambda c: fields(
			c,
			drop=lambda names: ["--cap-drop=" + name for name in names],
			add=lambda names: ["--cap-add=" + name for name in names]))


def limits(resources):
	yield "--memory=" + resources["limits"]["memory"].replace("Mi", "m").replace("Gi", "g")
	assert set(resources) <= {"requests", "limits"}, resources


def main(manifest, name, *places):
	with open(manifest) as file:
		pod = yaml.safe_load(file)["spec"]["template"]["spec"]
	places = dict(place.split("=") for place in places)
	container, = [c for c in pod["containers"] + pod.get("initContainers", []) if c["name"] == name]
	context = {**pod["securityContext"], **container["securityContext"]}
	said = list(fields(
		{k: v for k, v in pod.items() if k not in POD_ASIDE},
		hostPID=exactly(True, "--pid=host"),
		securityContext=lambda _: security(context),
		**{k: exactly(v) for k, v in POD_FIXED.items()}))
	said += fields(
		{k: v for k, v in container.items() if k not in ASIDE},
		env=lambda env: ["--env=%s=%s" % (e["name"], e["value"]) for e in env],
		securityContext=lambda _: [],  # with the pod's
		resources=limits,
		volumeMounts=lambda mounts: [
			"--volume=%s:%s:%s" % (places[m["name"]], m["mountPath"], "ro" if m.get("readOnly") else "rw") for m in mounts])
	if "command" in container:
		said.append("--entrypoint=" + container["command"][0])
	return said + [container["image"]] + container.get("command", [])[1:] + container.get("args", [])


print("\n".join(main(*sys.argv[1:])))
