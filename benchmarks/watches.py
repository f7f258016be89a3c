"""Watches of kvd beside etcd: events a second, their delay, and memory; a table on standard output.

    python -m benchmarks.watches                                  # a minute or two
    python -m benchmarks.watches --points 1:1 1000:100 --rate 500

Three members each, both at the same time on this machine, measured one after the other. A point is
``watchers:streams``, all watchers on one prefix at one follower; a process of its own puts keys of
that prefix, as many as ``--in-flight`` allow or ``--rate`` a second, 100 bytes each. The watching
process is the same for both, on kvstore's own wire, and parses every message.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import struct
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.servers import Etcd, KvdCluster, Server, side_by_side
from kvstore.api.etcd import etcd_pb2 as pb
from kvstore.wire.channel import Channel

PREFIX, PREFIX_END = b"watched/", b"watched0"
VALUE_BYTES = 100
STREAMS_A_CHANNEL = 50
SAMPLES = 20_000
COLUMNS = (
    "server",
    "watchers:streams",
    "puts/s",
    "events/s",
    "messages/s",
    "p50 ms",
    "p99 ms",
    "bytes a watcher",
)

_TIME = struct.Struct(">Q")


class Measured(NamedTuple):
    """Of one server at one point. Delays in milliseconds, from the put's call to the event."""

    puts_s: float
    events_s: float
    messages_s: float
    p50_ms: float
    p99_ms: float
    bytes_a_watcher: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", nargs="+", default=["1:1", "1000:1", "1000:100"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.0, help="puts a second; 0: as many as go")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="kvstore-bench-") as name,
        side_by_side(Path(name), secure=False, arguments=[]) as servers,
    ):
        print("| " + " | ".join(COLUMNS) + " |")
        print("|---" * len(COLUMNS) + "|")
        for point in asked.points:
            watchers, _, streams = point.partition(":")
            measured = compare(servers, int(watchers), int(streams), asked)
            for server, (*rates, p50_ms, p99_ms, memory) in measured.items():
                figures = [*(f"{rate:,.0f}" for rate in rates), f"{p50_ms:.2f}", f"{p99_ms:.2f}"]
                print("| " + " | ".join([server, point, *figures, f"{memory:,.0f}"]) + " |")


def compare(
    servers: Mapping[str, Server], watchers: int, streams: int, asked: argparse.Namespace
) -> dict[str, Measured]:
    """One point at each server."""
    found = {}
    for name, server in servers.items():
        assert isinstance(server, KvdCluster | Etcd)
        leader = server.leader()
        follower = next(member for member in server.clients if member != leader)
        pid = server.target().processes["follower 1"]
        stop = multiprocessing.Event()
        puts = multiprocessing.Value("q", 0)
        writer = multiprocessing.Process(
            target=_write,
            args=(server.clients[leader], asked.in_flight, asked.rate, puts, stop),
            daemon=True,
        )
        watching = Watching(server.clients[follower], watchers, streams)
        found[name] = asyncio.run(watching.measure(writer, puts, stop, asked.seconds, pid))
    return found


class Watching:
    """The watchers of one point."""

    def __init__(self, address: str, watchers: int, streams: int) -> None:
        self._address = address
        self._watchers = watchers
        self._streams = streams
        self._created = 0
        self._events = self._messages = 0
        self._delays: list[float] = []

    async def measure(
        self,
        writer: Any,
        puts: Synchronized[int],
        stop: Any,
        seconds: float,
        pid: int,
    ) -> Measured:
        """Watch while ``writer`` writes."""
        before = _resident(pid)
        channels = [
            Channel(self._address) for _ in range(1 + (self._streams - 1) // STREAMS_A_CHANNEL)
        ]
        tasks = [
            asyncio.create_task(self._watch(channels[place // STREAMS_A_CHANNEL], place))
            for place in range(self._streams)
        ]
        while self._created < self._watchers:
            await asyncio.sleep(0.01)
        memory = (_resident(pid) - before) / self._watchers
        writer.start()
        await asyncio.sleep(1.0)
        began = time.monotonic()
        self._delays.clear()
        events, messages, written = self._events, self._messages, puts.value
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        events, messages = self._events - events, self._messages - messages
        written = puts.value - written
        stop.set()
        writer.join()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in channels:
            await channel.close()
        delays = sorted(self._delays) or [0.0]
        return Measured(
            written / took,
            events / took,
            messages / took,
            delays[len(delays) // 2] * 1e3,
            delays[len(delays) * 99 // 100] * 1e3,
            memory,
        )

    async def _watch(self, channel: Channel, place: int) -> None:
        call = channel.stream_stream("/etcdserverpb.Watch/Watch")()
        create = pb.WatchCreateRequest(key=PREFIX, range_end=PREFIX_END)
        request = pb.WatchRequest(create_request=create).SerializeToString()
        for _ in range(place, self._watchers, self._streams):
            await call.write(request)
        parse = pb.WatchResponse.FromString
        while True:
            response = parse(await call.read())
            self._messages += 1
            if response.created:
                self._created += 1
                continue
            self._events += len(response.events)
            if self._messages % 10 == 0 and len(self._delays) < SAMPLES:
                (sent_ns,) = _TIME.unpack_from(response.events[0].kv.value)
                self._delays.append((time.monotonic_ns() - sent_ns) / 1e9)


def _write(address: str, in_flight: int, rate: float, puts: Synchronized[int], stop: Any) -> None:
    asyncio.run(_put(address, in_flight, rate, puts, stop))


async def _put(
    address: str, in_flight: int, rate: float, puts: Synchronized[int], stop: Any
) -> None:
    padding = bytes(VALUE_BYTES - _TIME.size)
    began = time.monotonic()
    async with Channel(address) as channel:
        put = channel.unary_unary("/etcdserverpb.KV/Put")

        async def caller(number: int) -> None:
            while not stop.is_set():
                if rate:
                    # Each has its share of the rate, one after the other.
                    due = began + (puts.value + number) / rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                key = PREFIX + b"%06d" % (puts.value % 1000)
                value = _TIME.pack(time.monotonic_ns()) + padding
                await put(pb.PutRequest(key=key, value=value).SerializeToString())
                puts.value += 1

        await asyncio.gather(*[caller(number) for number in range(in_flight)])


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
