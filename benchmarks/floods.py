"""What floods at the leader's port for clients cost the leader, a good client and the cluster.

    python -m benchmarks.floods [--seconds 10] [--floods NAME...] [--json FILE] [-- KVD_FLAGS]

Three members; each flood goes to a fresh leader's port while a client that was there before puts
and gets 200 times a second. ``unread`` asks for 800 values of 1 MiB and reads none of them,
``silent`` opens 2,000 connections and says nothing, ``descriptors`` opens 600 with kvd under
``ulimit -n 300``, ``resets`` begins calls and cancels them, ``pings`` pings, both as fast as a
connection takes it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import Load, measure, start
from benchmarks.measuring.watching import metrics_of
from benchmarks.servers import KvdCluster
from tests.integration.cluster import free_addresses

GOOD_RATE = 200.0
GOOD_KEYS = 1000
UNREAD_CONNECTIONS, UNREAD_CALLS = 8, 100
SILENT_CONNECTIONS = 2000
DESCRIPTORS, DESCRIPTOR_CONNECTIONS = 300, 600
LARGE_KEY, LARGE_BYTES = b"large", (1 << 20) - 64
CONNECT_TIMEOUT_S = 5.0
BEFORE_FLOOD_S = 1.0
LOOK_S = 0.1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE, WINDOW_MAX = 4, (1 << 31) - 1


# --- HTTP/2 by hand: what a client that means no good would send ---------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def hello() -> bytes:
    """The preface, and windows as large as they may be."""
    window = INITIAL_WINDOW_SIZE.to_bytes(2, "big") + WINDOW_MAX.to_bytes(4, "big")
    more = (WINDOW_MAX - 65_535).to_bytes(4, "big")
    return PREFACE + frame(SETTINGS, 0, 0, window) + frame(WINDOW_UPDATE, 0, 0, more)


def get(stream: int, key: bytes) -> bytes:
    """A call of Get; its headers are literals that nobody is to remember."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/kvstore.v1.KV/Get",
        ":authority": "flood",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )
    message = b"\n" + bytes((len(key),)) + key
    return frame(HEADERS, END_HEADERS, stream, block) + frame(
        DATA, END_STREAM, stream, b"\0" + len(message).to_bytes(4, "big") + message
    )


def cancel(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))


# --- floods: each holds its connections until it is told to end ----------------------------------


def connect(stack: contextlib.ExitStack, address: str) -> socket.socket | None:
    """None where the server has no room left for a connection, or not in time."""
    host, _, port = address.rpartition(":")
    one = stack.enter_context(socket.socket())
    one.settimeout(CONNECT_TIMEOUT_S)
    try:
        one.connect((host, int(port)))
    except OSError:
        return None
    return one


def readable(one: socket.socket) -> bool:
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(0))


def still_open(sockets: Sequence[socket.socket]) -> int:
    """How many of them the server hasn't closed; what it sent is read from none of the others."""
    count = 0
    for one in sockets:
        with contextlib.suppress(OSError):
            one.settimeout(0.0)
            while readable(one):
                if not one.recv(1 << 16):
                    break
            else:
                count += 1
    return count


def hold(address: str, connections: int, words: bytes, ended: threading.Event) -> tuple[int, int]:
    """Connections that say ``words`` and read nothing: how many there were, how many are left."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(connections):
            if ended.is_set():
                break
            one = connect(stack, address)
            if one is not None:
                with contextlib.suppress(OSError):
                    one.sendall(words)
                sockets.append(one)
        ended.wait()
        return len(sockets), still_open(sockets)


def unread(address: str, ended: threading.Event) -> tuple[int, int]:
    calls = b"".join(get(2 * number + 1, LARGE_KEY) for number in range(UNREAD_CALLS))
    return hold(address, UNREAD_CONNECTIONS, hello() + calls, ended)


def silent(address: str, ended: threading.Event) -> tuple[int, int]:
    return hold(address, SILENT_CONNECTIONS, b"", ended)


def descriptors(address: str, ended: threading.Event) -> tuple[int, int]:
    return hold(address, DESCRIPTOR_CONNECTIONS, hello(), ended)


def pour(address: str, words: Iterator[bytes], ended: threading.Event) -> tuple[int, int]:
    """Words without end; over a new connection whenever the server closes one."""
    opened = 0
    while not ended.is_set():
        with contextlib.ExitStack() as stack:
            one = connect(stack, address)
            if one is None:
                continue
            opened += 1
            with contextlib.suppress(OSError):
                one.sendall(hello())
                one.settimeout(1.0)
                while not ended.is_set():
                    one.sendall(next(words))
                    while readable(one) and one.recv(1 << 16):
                        pass
    return opened, 0


def resets(address: str, ended: threading.Event) -> tuple[int, int]:
    def words() -> Iterator[bytes]:
        stream = 1
        while True:
            streams = range(stream, stream + 200, 2)
            yield b"".join(get(one, b"key-000000000001") + cancel(one) for one in streams)
            stream += 200

    return pour(address, words(), ended)


def pings(address: str, ended: threading.Event) -> tuple[int, int]:
    def words() -> Iterator[bytes]:
        while True:
            yield frame(PING, 0, 0, bytes(8)) * 100

    return pour(address, words(), ended)


Flood = Callable[[str, threading.Event], tuple[int, int]]
FLOODS: dict[str, Flood] = {
    "unread": unread,
    "silent": silent,
    "descriptors": descriptors,
    "resets": resets,
    "pings": pings,
}


# --- the run --------------------------------------------------------------------------------------


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclasses.dataclass(slots=True)
class Flooding:
    """One flood in a thread of its own."""

    flood: Flood
    address: str
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)
    connections: tuple[int, int] = (0, 0)

    def run(self) -> None:
        self.connections = self.flood(self.address, self.ended)


def measure_flood(name: str, seconds: float, directory: Path, flags: Sequence[str]) -> Any:
    limit = DESCRIPTORS if name == "descriptors" else 0
    few = ("sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh") if limit else ()
    with KvdCluster(directory, arguments=flags, wrapper=few) as cluster:
        shown = dict(zip(cluster.members, free_addresses(3), strict=True))
        for member, address in shown.items():
            cluster.write_config(member, settings=f'metrics_address = "{address}"')
        cluster.start()
        with cluster.client() as client:
            client.put(LARGE_KEY, os.urandom(LARGE_BYTES))
        target, leader = cluster.target(), cluster.leader()
        good = Load("mixed", in_flight=64, seconds=seconds, rate=GOOD_RATE, keys=GOOD_KEYS)
        measure(target, dataclasses.replace(good, operation="fill", rate=0.0, seconds=60.0))
        before, term = measure(target, good), metrics_of(shown[leader])["raft_term"]
        memory = [resident_mib(cluster.running[leader].pid)]
        flooding = Flooding(FLOODS[name], target.address)
        # It is connected, and served, before the flood begins.
        serving = start(target, dataclasses.replace(good, warm_up=BEFORE_FLOOD_S))
        time.sleep(BEFORE_FLOOD_S)
        thread = threading.Thread(target=flooding.run, name=name)
        thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            memory.append(resident_mib(cluster.running[leader].pid))
            time.sleep(LOOK_S)
        during = serving.finish()
        flooding.ended.set()
        thread.join()
        elections = metrics_of(shown[leader])["raft_term"] - term
    return {
        "flood": name,
        "connections": flooding.connections,
        "memory_mib": (memory[0], max(memory)),
        "before": before,
        "during": during,
        "elections": elections,
    }


def table(floods: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| flood | connections: opened, left at the end | leader's memory before, largest, MiB "
        "| put p99 before, during, ms | get p99 | errors of the good client | elections |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in floods:
        p99s = [
            ", ".join(
                f"{one[phase][operation]['p99_ms']:.1f}" if operation in one[phase] else "none"
                for phase in ("before", "during")
            )
            for operation in ("put", "get")
        ]
        errors = sum(one["during"]["errors"].values()) + one["during"]["unanswered"]
        cells = [
            one["flood"],
            "{}, {}".format(*one["connections"]),
            "{:.0f}, {:.0f}".format(*one["memory_mib"]),
            *p99s,
            str(errors),
            f"{one['elections']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(usage="%(prog)s [options] [-- KVD_FLAGS]")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--floods", nargs="+", choices=FLOODS, default=list(FLOODS))
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("kvd", nargs="*", metavar="-- KVD_FLAGS")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found = []
    for name in asked.floods:
        with tempfile.TemporaryDirectory(prefix="kvstore-flood-") as directory:
            found.append(measure_flood(name, asked.seconds, Path(directory), asked.kvd))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2))
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
