"""Show kvstore at work: a real kvd, real keys, a kill -9 and the data that survives it.

``demo.py demo`` uses a temporary directory and exits; ``demo.py run`` uses ./data and leaves kvd
serving until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kvstore.client import Client
from kvstore.errors import Error

WRITERS = 4
ACKNOWLEDGED_MIN = 200
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=["run", "demo"])
    mode = parser.parse_args().mode
    try:
        if mode == "run":
            show(Path("data"), stay=True)
        else:
            with tempfile.TemporaryDirectory(prefix="kvstore-demo-") as scratch:
                show(Path(scratch) / "data", stay=False)
    except DemoFailedError as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
    return 0


class DemoFailedError(Exception):
    """Something that must be so is not so."""


class Server:
    """A kvd process on a port that the kernel chose."""

    def __init__(self, data_dir: Path) -> None:
        started = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "kvstore.cli.kvd"),
                f"--data_dir={data_dir}",
                "--listen_addr=127.0.0.1:0",
                "--log_level=warning",
            ],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C comes to us, and we tell kvd
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        match = re.match(r"kvd listening on (\S+) ", line)
        if match is None:
            raise DemoFailedError(f"kvd did not start (exit status {self.process.wait()})")
        print(f"  {line.rstrip()}")
        self.address = match[1]
        with Client(self.address, timeout=START_TIMEOUT_S) as client:
            client.get(b"demo/ready")  # returns as soon as there is a leader
            leader = client.status().leader_id
        elapsed_s = time.monotonic() - started
        print(f"  five replicas, led by member {leader}; ready in {elapsed_s:.2f} s\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


def show(data_dir: Path, *, stay: bool) -> None:
    """Run the whole show on ``data_dir``."""
    print("Starting kvd")
    server = Server(data_dir)
    try:
        with Client(server.address) as client:
            put_get_delete(client)
        acknowledged = write_until_killed(server)
        print("\nStarting kvd again on the same data directory")
        server = Server(data_dir)
        with Client(server.address) as client:
            check_survivors(client, acknowledged)
        if stay:
            serve(server)
        status = server.stop()
        if status != 0:
            raise DemoFailedError(f"kvd stopped with exit status {status}")
        print("Stopped kvd: it drained and exited with 0.")
    finally:
        if server.process.poll() is None:
            server.kill()


def put_get_delete(client: Client) -> None:
    """Put, get, overwrite and delete, each one checked."""
    print("Putting, getting, overwriting and deleting keys")
    client.delete(b"demo/colour")  # an earlier run may have left it
    step("put demo/colour green", lambda: client.put(b"demo/colour", b"green"), False)
    step("get demo/colour", lambda: client.get(b"demo/colour"), b"green")
    step("put demo/colour blue", lambda: client.put(b"demo/colour", b"blue"), True)
    step("get demo/colour", lambda: client.get(b"demo/colour"), b"blue")
    client.put(b"demo/shape", b"round")
    step("del demo/shape", lambda: client.delete(b"demo/shape"), True)
    step("get demo/shape", lambda: client.get(b"demo/shape"), None)


def step(what: str, call: Callable[[], object], expected: object) -> None:
    """Make one call, print it with its result and time, and insist on the result."""
    started = time.monotonic()
    result = call()
    elapsed_ms = (time.monotonic() - started) * 1e3
    meaning = {
        "put": {False: "created", True: "overwritten"},
        "get": {None: "(no value)"},
        "del": {True: "deleted", False: "(was not there)"},
    }
    kind = what.split()[0]
    shown = result.decode() if isinstance(result, bytes) else meaning[kind][result]  # type: ignore[index]
    print(f"  {what:<24} {shown:<14} {elapsed_ms:6.1f} ms")
    if result != expected:
        raise DemoFailedError(f"{what} gave {result!r}, not {expected!r}")


def write_until_killed(server: Server) -> dict[bytes, bytes]:
    """Write from several threads, kill -9 the server under them, return what was acknowledged."""
    print(f"\nKilling kvd with SIGKILL while {WRITERS} clients write")
    acknowledged: dict[bytes, bytes] = {}
    enough = threading.Event()

    def write(writer: int) -> None:
        with Client(server.address, timeout=0.5) as client, contextlib.suppress(Error):
            for number in range(1_000_000):
                key, value = f"demo/{writer}/{number}".encode(), f"{time.time_ns()}".encode()
                client.put(key, value)
                acknowledged[key] = value
                if len(acknowledged) >= ACKNOWLEDGED_MIN:
                    enough.set()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    if not enough.wait(START_TIMEOUT_S):
        raise DemoFailedError(f"only {len(acknowledged)} writes in {START_TIMEOUT_S} s")
    server.kill()
    for writer in writers:
        writer.join()
    print(f"  killed process {server.process.pid}; {len(acknowledged)} writes were acknowledged")
    return acknowledged


def check_survivors(client: Client, acknowledged: dict[bytes, bytes]) -> None:
    """Read back everything that was acknowledged, and the keys of before."""
    step("get demo/colour", lambda: client.get(b"demo/colour"), b"blue")
    step("get demo/shape", lambda: client.get(b"demo/shape"), None)
    lost = [key for key, value in acknowledged.items() if client.get(key) != value]
    if lost:
        raise DemoFailedError(f"{len(lost)} acknowledged writes are gone, {lost[0]!r} first")
    print(f"  all {len(acknowledged)} acknowledged writes are there\n")
    for key in acknowledged:
        client.delete(key)


def serve(server: Server) -> None:
    """Leave kvd serving until Ctrl-C, SIGTERM or its own end."""
    kvctl = Path(sys.executable).with_name("kvctl")
    with contextlib.suppress(ValueError):
        kvctl = kvctl.relative_to(Path.cwd())
    print(f"Serving on {server.address}. In another terminal:")
    print(f"  {kvctl} --addr={server.address} put hello world")
    print(f"  {kvctl} --addr={server.address} get hello")
    print(f"  {kvctl} --addr={server.address} status")
    print("Ctrl-C stops it.", flush=True)

    def terminate(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        status = server.process.wait()
    except KeyboardInterrupt:
        print()
        return
    raise DemoFailedError(f"kvd ended by itself with exit status {status}")


if __name__ == "__main__":
    raise SystemExit(main())
