#!/bin/bash
# Quick ones of programs.sh, once each: a large heap, one that forks write to on both sides, threads, a child that outlives its parent.
exec env ROUNDS=1 "${0%/*}/programs.sh" perl sqlite bash threads tmux
