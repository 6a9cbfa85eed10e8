#!/bin/bash
# Prints the path of an archive of a minimal Debian of this machine's release, made by mmdebstrap from its mirror at first use, and anew
# when it is a week old. For tests that need a fresh system.
set -euo pipefail
# shellcheck disable=SC1091
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
archive=build/tools/debian-$suite.tar
if [ -z "$(find "$archive" -mtime -7 2>/dev/null)" ]; then
	mkdir -p "${archive%/*}"
	part=$(mktemp "$archive.XXXXXX")
	trap 'rm -f "$part"' EXIT
	mmdebstrap --quiet --variant=minbase --format=tar "$suite" "$part" >&2
	chmod 644 "$part"
	mv "$part" "$archive"
fi
echo "$archive"
