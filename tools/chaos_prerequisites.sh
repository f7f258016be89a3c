#!/bin/sh
# What `make chaos` needs of the system: installs it where apt can, else says what is missing.
set -eu

missing=""
command -v nft > /dev/null || missing="$missing nftables"
command -v ip > /dev/null || missing="$missing iproute2"
command -v cc > /dev/null || missing="$missing gcc"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 > /dev/null 2>&1 || missing="$missing libfaketime"

if [ "$(id -u)" != 0 ]; then
    echo "make chaos needs root: it makes network namespaces and mounts a tmpfs" >&2
    exit 1
fi
[ -n "$missing" ] || exit 0
if ! command -v apt-get > /dev/null; then
    echo "missing:$missing" >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing
