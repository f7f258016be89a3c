#!/usr/bin/env bash
# Builds the native parts with sanitizers beside the normal build and runs their tests on it.
# usage: tools/sanitized_tests.sh [address,undefined|thread [PYTEST_ARGUMENT...]]
#        tools/sanitized_tests.sh [address,undefined|thread] --build-only
#        tools/sanitized_tests.sh [address,undefined|thread] --module MODULE [ARGUMENT...]
# Without further arguments: all tests of the engine, the native state and the native wire, or with `thread` those that have threads.
# PYTHON is the interpreter, by default that of `make build`.
set -euo pipefail
cd "$(dirname "$0")/.."

sanitize="${1:-address,undefined}"
[ $# = 0 ] || shift
unit=tests/unit/engine
if [ $# = 0 ] && [ "$sanitize" = thread ]; then
    set -- --quiet "$unit"/test_{database_threads,bulk,log,block_cache,file}.py
elif [ $# = 0 ]; then
    # Without those of the wire that look at a clock: here everything takes several times as long.
    set -- --quiet --numprocesses 2 "$unit" tests/unit/state/test_requests.py tests/unit/wire \
        --ignore-glob '*/wire/test_server*' --ignore-glob '*/wire/test_channel*' tests/fuzz tests/crash
fi
python="${PYTHON:-.venv/bin/python}"
if [ "${1:-}" = --module ]; then
    shift
else
    set -- pytest -p no:cacheprovider "$@"
fi
base="build/sanitized-${sanitize//,/-}"

KVSTORE_SANITIZE="$sanitize" "$python" setup.py --quiet build --build-base "$base" --parallel 2 \
    > "$base.log" 2>&1 || { cat "$base.log"; exit 1; }
[ "${4:-}" != --build-only ] || exit 0
lib=$(echo "$base"/lib.*)

case "$sanitize" in
    address*) runtime=$(gcc -print-file-name=libasan.so) ;;
    thread*) runtime=$(gcc -print-file-name=libtsan.so) ;;
esac

# CPython frees little at exit, so leaks are not asked for here. Each allocation goes to malloc, so
# that the sanitizer sees the bounds of Python's own bytes objects too.
# What becomes of SIGBUS is the engine's matter, and its tests'.
# What a sanitizer has to say goes to a file: the tests run in workers whose own output may be lost.
report="$PWD/$base.report"
rm -f "$report".*
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1:handle_sigbus=0:log_path="$report"
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:log_path="$report"
# The interpreter isn't instrumented, but its GIL is a mutex and a condition, which are seen.
export TSAN_OPTIONS=halt_on_error=1:ignore_noninstrumented_modules=1:log_path="$report"
PYTHONMALLOC=malloc PYTHONPATH="$lib" LD_PRELOAD="$runtime" \
    "$python" -m "$@" 2>&1 || {
        status=$?
        cat "$report".* 2> /dev/null || true
        exit $status
    }
