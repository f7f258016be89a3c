#!/bin/sh
# Installs the Debian packages of what is missing, where apt can; else says which they are.
# usage: tools/install_missing.sh (COMMAND|/FILE)=PACKAGE...
set -eu

missing=""
for pair in "$@"; do
    wanted="${pair%%=*}"
    case "$wanted" in
        # shellcheck disable=SC2086
        /*) ls $wanted > /dev/null 2>&1 || missing="$missing ${pair#*=}" ;;
        *) command -v "$wanted" > /dev/null || missing="$missing ${pair#*=}" ;;
    esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "missing:$missing; install them first (Debian's names)" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing
