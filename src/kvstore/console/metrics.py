"""What members say on ``/metrics``: read over HTTP, and how calls went between two readings."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from kvstore.addresses import HostPort

__all__ = ["Calls", "Figures", "between", "fetch", "of_member", "parse"]

FETCH_S: Final = 2.0
BYTES_MAX: Final = 2 << 20

# A series with its labels as they stand: {('kvstore_raft_term', 'member="1"'): 3.0}
Figures: TypeAlias = Mapping[tuple[str, str], float]

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_BOUND = re.compile(r'le="([^"]+)"')
_BUCKET = "kvstore_request_duration_seconds_bucket"


async def fetch(address: str) -> Figures:
    """Read one page of metrics. Raises OSError (TimeoutError among them) and ValueError."""
    endpoint = HostPort.parse(address)
    assert endpoint is not None  # options were checked
    async with asyncio.timeout(FETCH_S):
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        try:
            writer.write(f"GET /metrics HTTP/1.0\r\nHost: {endpoint}\r\n\r\n".encode())
            answer = await _all(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise ValueError(f"{address} has no metrics")
    return parse(body.decode("utf-8", "replace"))


async def _all(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while piece := await reader.read(1 << 16):
        answer += piece
        if len(answer) > BYTES_MAX:
            raise ValueError("more metrics than there may be")
    return bytes(answer)


def parse(text: str) -> Figures:
    """Prometheus' text form; lines that aren't samples are passed over."""
    figures: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.match(line)
        if match is not None:
            with contextlib.suppress(ValueError):
                figures[match[1], match[2] or ""] = float(match[3])
    return figures


def of_member(figures: Figures) -> dict[str, dict[str, float]]:
    """Series that have a member alone as label: by member, by name."""
    members: dict[str, dict[str, float]] = {}
    for (name, labels), value in figures.items():
        match = re.fullmatch(r'member="(\d+)"', labels)
        if match is not None:
            members.setdefault(match[1], {})[name.removeprefix("kvstore_")] = value
    return members


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls that ended in a time: ``rate`` a second; seconds below which half, and 99 of 100, took
    (the bucket's upper bound); None where there were none."""

    rate: float
    p50_s: float | None
    p99_s: float | None


def between(pairs: Iterable[tuple[Figures, Figures]], seconds: float) -> Calls:
    """Of all members together, each read before and after."""
    buckets: dict[float, float] = {}
    for before, after in pairs:
        for (name, labels), value in after.items():
            if name == _BUCKET and (bound := _BOUND.search(labels)):
                # A member that began anew counts from 0 again.
                more = max(0.0, value - before.get((name, labels), 0.0))
                buckets[float(bound[1])] = buckets.get(float(bound[1]), 0.0) + more
    total = max(buckets.values(), default=0.0)
    if not total:
        return Calls(0.0, None, None)
    return Calls(total / seconds, _below(buckets, total * 0.5), _below(buckets, total * 0.99))


def _below(buckets: Mapping[float, float], wanted: float) -> float:
    return next(bound for bound in sorted(buckets) if buckets[bound] >= wanted)
