#!/bin/bash
# The Python package, as built, in the interpreter it was built for: tests/client/python/test_*.py, each with a daemon of its own.
# `python.sh NAME...` runs these alone, by unittest's names (test_blocks.Buffers).
set -euo pipefail
BUILD=${BUILD:-build/plain}
PYTHON=${PYTHON:-/usr/bin/python3}
skip() { echo "skipped: $*"; exit 77; }

case $BUILD in */plain) ;; *) skip "an interpreter without $(basename "$BUILD") cannot load the module" ;; esac
command -v "$PYTHON" >/dev/null || skip "no $PYTHON"
"$PYTHON" -c 'import numpy' 2>/dev/null || skip "no numpy for $PYTHON"
command -v setpriv >/dev/null || skip 'no setpriv'
compgen -G "$BUILD/python/shmalloc/_shmalloc*.so" >/dev/null || skip "no headers of $PYTHON when this was built"

dir=$(mktemp -d /tmp/shmalloc-python.XXXXXX)
export TEST_DIR=$dir TEST_INSTANCE=python-$$ BUILD PYTHON
export PYTHONPATH=$PWD/$BUILD/python PYTHONDONTWRITEBYTECODE=1 SHMALLOCD_CONFIG=/dev/null MEMORY_PRESSURE_WATCH=/dev/null
unset SHMALLOC_HEAP SHMALLOC_DEBUG SHMALLOC_HARDEN NOTIFY_SOCKET LISTEN_FDS PYTHONWARNINGS
trap 'rm -rf "$dir" /dev/shm/shmalloc."$TEST_INSTANCE"*' EXIT
"$PYTHON" -X dev -W error tests/client/python/run.py "$@"
