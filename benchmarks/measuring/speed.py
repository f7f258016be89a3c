"""kvd beside etcd under the same load, in turn, and what was aimed at (issue "The wire").

A point is one operation with so many calls in flight. The servers take turns, some rounds each;
the median of the rounds counts. Processor time of a role is that of its processes for each call
that was answered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Literal

from benchmarks.load import Load, Measured, measure
from benchmarks.servers import Server

__all__ = [
    "GOALS",
    "IN_FLIGHT",
    "KEYS",
    "Operation",
    "Point",
    "compare",
    "figures_of",
    "fill",
    "speed_table",
]

IN_FLIGHT = (1, 16, 64, 512)
WARM_UP_S = 0.5
KEYS = 10_000
VALUE_BYTES = 100

GOALS: Mapping[tuple[str, int], float] = {
    ("put", 1): 1.2,
    ("put", 16): 1.3,
    ("put", 64): 2.0,
    ("put", 512): 2.5,
    ("get", 1): 2.0,
    ("get", 16): 3.0,
    ("get", 64): 3.0,
    ("get", 512): 6.0,
    ("txn", 64): 2.0,
}
"""Times etcd's calls a second, three members, by operation and calls in flight."""

Operation = Literal["put", "get", "txn"]
"""A txn is one of etcd's API: a compare of a mod revision, a put and a get."""

Figures = dict[str, float]
"""calls_per_s, p50_ms, p99_ms, p999_ms, max_ms; leader_us and follower_us: processor time a call
(of one follower, the mean); failed: calls without an answer, or with an error or no value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """What servers did with one load, by name of the server."""

    operation: Operation
    in_flight: int
    secure: bool
    figures: Mapping[str, Figures]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def fill(server: Server) -> None:
    """Put every key once, so that gets find one."""
    load = Load(
        "fill", in_flight=64, connections=8, seconds=120, keys=KEYS, value_bytes=VALUE_BYTES
    )
    measure(server.target(), load)


def compare(
    servers: Mapping[str, Server],
    operation: Operation,
    in_flight: int,
    *,
    secure: bool,
    seconds: float,
    rounds: int,
    keys: int = KEYS,
    etcd_api: bool = False,
) -> Point:
    """Load the servers in turn. As many connections as a few processes would open: 8, or 1.

    ``etcd_api``: kvd is called by it as well.
    """
    found: dict[str, list[Figures]] = {name: [] for name in servers}
    for number in range(rounds):
        load = Load(
            operation,
            in_flight=in_flight,
            connections=1 if in_flight < 8 else 8,
            seconds=seconds,
            warm_up=WARM_UP_S,
            keys=keys,
            value_bytes=VALUE_BYTES,
            seed=number + 1,
        )
        for name, server in servers.items():
            target = server.target()
            if etcd_api:
                target = dataclasses.replace(target, server="etcd")
            found[name].append(figures_of(measure(target, load), operation))
    return Point(
        operation,
        in_flight,
        secure,
        {
            name: {figure: median(one[figure] for one in rows) for figure in rows[0]}
            for name, rows in found.items()
        },
    )


def figures_of(measured: Measured, operation: str) -> Figures:
    """Of one run; raises RuntimeError when no call succeeded."""
    if operation not in measured or not measured[operation]["calls"]:
        raise RuntimeError(f"no {operation} succeeded: {measured['errors']}")
    found = dict(measured[operation])
    calls = found.pop("calls")
    cpu = measured["cpu_s"]
    followers = [seconds for name, seconds in cpu.items() if name.startswith("follower")]
    found["leader_us"] = 1e6 * cpu["leader"] / calls
    if followers:
        found["follower_us"] = 1e6 * sum(followers) / len(followers) / calls
    failed = sum(measured["errors"].values()) + measured["missing"] + measured["unanswered"]
    return {**found, "failed": failed}


def speed_table(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown of points as dictionaries; where both servers were loaded with ratio and goal."""
    lines = [
        "| | in flight | calls/s: kvd, etcd | times etcd | goal | p50, ms | p99, ms "
        "| µs of the leader a call | of a follower | failed |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for point in points:
        pairs = list(point["figures"].values())
        cells = [
            f"{point['operation']}{', TLS' if point['secure'] else ''}",
            str(point["in_flight"]),
            ", ".join(f"{one['calls_per_s']:,.0f}" for one in pairs),
            *_judged(point),
            *(
                ", ".join(f"{one[name]:.{digits}f}" for one in pairs if name in one)
                for name, digits in (
                    ("p50_ms", 2),
                    ("p99_ms", 2),
                    ("leader_us", 1),
                    ("follower_us", 1),
                )
            ),
            ", ".join(f"{one['failed']:.0f}" for one in pairs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _judged(point: Mapping[str, Any]) -> tuple[str, str]:
    """The ratio, and the goals of this point that were met or missed."""
    figures = point["figures"]
    if "etcd" not in figures:
        return "", ""
    kvd, etcd = figures["kvd"], figures["etcd"]
    ratio = kvd["calls_per_s"] / etcd["calls_per_s"]
    goal = GOALS.get((point["operation"], point["in_flight"]))
    verdicts = [
        *([] if goal is None else [f"≥ {goal}: {_word(ratio >= goal)}"]),
        f"p99 {_word(kvd['p99_ms'] <= etcd['p99_ms'])}",
    ]
    if point["operation"] != "get":
        for role in ("leader", "follower"):
            less = kvd[f"{role}_us"] < etcd[f"{role}_us"]
            verdicts.append(f"{role}'s CPU {_word(less)}")
    return f"{ratio:.2f}", "; ".join(verdicts)


def _word(met: bool) -> str:
    return "met" if met else "**missed**"
