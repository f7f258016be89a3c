"""Show ``kvd --mode=rados`` at work: a RADOS cluster of its own, a gateway, a killed OSD."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kvstore.client import Client
from tools.rados_cluster import POOL, USER, ClusterError, RadosCluster, rados_cluster

PATIENCE_S = 60.0


def main() -> int:
    print("Starting a RADOS cluster: one monitor, three OSDs, cephx")
    began = time.monotonic()
    try:
        with rados_cluster(cephx=True) as cluster:
            print(f"  up after {time.monotonic() - began:.1f} s\n")
            show(cluster)
    except ClusterError as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    return 0


def show(cluster: RadosCluster) -> None:
    """Two gateways, some calls, an OSD less."""
    path = cluster.directory / "gateway.toml"
    path.write_text(
        f'ceph_conf = "{cluster.configuration}"\nuser = "{USER.removeprefix("client.")}"\n'
        f'keyring = "{cluster.keyring}"\npool = "{POOL}"\nclient_addr = "127.0.0.1:0"\n'
        'log_level = "warning"\n'
    )
    print(f"Starting two gateways: kvd --mode=rados --config={path}")
    one, address = gateway(path)
    two, other = gateway(path)
    try:
        with (
            Client(address, timeout=PATIENCE_S) as client,
            Client(other, timeout=PATIENCE_S) as second,
        ):
            step("put demo/colour green", lambda: client.put(b"demo/colour", b"green"), False)
            step("get demo/colour, at the other one", lambda: second.get(b"demo/colour"), b"green")
            step("put demo/colour blue", lambda: second.put(b"demo/colour", b"blue"), True)
            cluster.kill("osd.0")
            print("\nKilled osd.0 with SIGKILL")
            step("get demo/colour", lambda: client.get(b"demo/colour"), b"blue")
            step("put demo/colour red", lambda: client.put(b"demo/colour", b"red"), True)
            step("get demo/colour", lambda: second.get(b"demo/colour"), b"red")
            step("del demo/colour", lambda: client.delete(b"demo/colour"), True)
    finally:
        for process in (one, two):
            process.send_signal(signal.SIGTERM)
        for process in (one, two):
            process.wait(15)
    print("\nStopped the gateways and the cluster; nothing is left of either.")


def gateway(path: Path) -> tuple[subprocess.Popen[str], str]:
    """A kvd, and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kvstore.cli.kvd", "--mode=rados", f"--config={path}"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.match(r"kvd listening on (\S+) ", line)
    if match is None:
        raise ClusterError(f"kvd did not start (exit status {process.wait()})")
    print(f"  {line.rstrip()}")
    return process, match[1]


def step(what: str, call: Callable[[], object], expected: object) -> None:
    """Make one call, print it with its result and time, and insist on the result."""
    began = time.monotonic()
    result = call()
    print(f"  {what:<36} {result!r:<10} {1000 * (time.monotonic() - began):8.1f} ms")
    if result != expected:
        raise ClusterError(f"{what} gave {result!r}, not {expected!r}")


if __name__ == "__main__":
    raise SystemExit(main())
