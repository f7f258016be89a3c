#!/bin/sh
# Says plainly what a machine lacks for building kvstore: Python >= 3.11 with venv and headers,
# a C++ compiler, and nghttp2, which isn't required. Where it can (root on a Debian machine), it installs the missing package.
python="${PYTHON:-python3}"
missing=0

complain() {
    echo "kvstore: $1" >&2
    missing=1
}

debian_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1 || return 1
    echo "kvstore: installing $*"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } > /dev/null 2>&1
}

if ! command -v "$python" > /dev/null 2>&1; then
    complain "no '$python' on the PATH; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"
else
    if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
        complain "$("$python" --version 2>&1) is too old; Python 3.11 or newer is needed: make PYTHON=python3.11"
    fi
    if ! "$python" -c 'import ensurepip, venv' > /dev/null 2>&1; then
        debian_install python3-venv ||
            complain "'$python' has no venv module; on Debian and Ubuntu: apt-get install python3-venv"
    fi
    header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
    if [ ! -f "$header" ]; then
        debian_install python3-dev ||
            complain "the headers of '$python' are missing ($header); on Debian and Ubuntu: apt-get install python3-dev"
    fi
fi

if ! command -v "${CXX:-c++}" > /dev/null 2>&1 && ! command -v g++ > /dev/null 2>&1; then
    debian_install g++ ||
        complain "no C++ compiler; on Debian and Ubuntu: apt-get install g++"
fi

# Without it kvstore is built without its native wire, and works.
if [ "${KVSTORE_WIRE:-}" != 0 ] && ! echo '#include <nghttp2/nghttp2.h>' |
    "${CXX:-c++}" -E -x c++ - > /dev/null 2>&1; then
    debian_install libnghttp2-dev ||
        echo "kvstore: nghttp2's header isn't here, so the native wire isn't built; on Debian and Ubuntu: apt-get install libnghttp2-dev" >&2
fi

exit $missing
