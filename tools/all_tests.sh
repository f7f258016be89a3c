#!/usr/bin/env bash
# Runs every test, two at a time. First those of one process. Then those that start processes and
# wait for them, while what only computes (simulated clusters, wheels) has what is left of the
# processors.
# PYTHON is the interpreter, by default that of `make build`. Ends with 1 when tests failed, with
# another status when they couldn't be run.
set -uo pipefail
cd "$(dirname "$0")/.."

pytest="${PYTHON:-.venv/bin/python} -m pytest"
workers=(--numprocesses 2 --dist loadfile --no-loadscope-reorder)
computing=build/computing-tests.log
mkdir -p build

worse() { [ "$1" -gt "$worst" ] && worst=$1; return 0; }
worst=0

$pytest "${workers[@]}" tests/contract tests/crash tests/engine_planted tests/fuzz tests/integrity tests/unit || worse $?

# A cache of its own: each run writes the list of what failed, and the two end at any moment.
nice -n 19 $pytest "${workers[@]}" -o cache_dir=.pytest_cache/computing \
    tests/packaging tests/simulation > "$computing" 2>&1 &
beside=$!
trap 'kill "$beside"' EXIT
$pytest "${workers[@]}" tests/integration tests/console || worse $?
trap - EXIT
wait "$beside" || worse $?
cat "$computing"
exit "$worst"
