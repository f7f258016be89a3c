"""What ``kvctl top`` shows: each member now, and what happened since it was asked before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvstore.cli.cluster.reports import Report, Reports, gather, lag_of
from kvstore.cli.interface.connection import Settings
from kvstore.cli.interface.data_bytes import in_line
from kvstore.cli.interface.tables import size
from kvstore.console.metrics import Calls, Figures, between, fetch
from kvstore.errors import Error

__all__ = ["COLUMNS", "Moment", "faults", "heading", "look", "rows", "writes"]

COLUMNS = (
    "member",
    "role",
    "term",
    "applied",
    "lag",
    "entries/s",
    "tables",
    "log",
    "free",
    "memory",
    "cache hits",
    "address",
)


@dataclass(frozen=True, slots=True)
class Moment:
    """What was heard. ``failure``: nothing was, and why; ``metrics``: by address."""

    at: float
    reports: Reports | None
    failure: str = ""
    metrics: Mapping[str, Figures] | None = None


def look(settings: Settings, metrics: Sequence[str]) -> Moment:
    """Ask all. Whoever doesn't answer is left out, and said so."""
    figures = asyncio.run(_read(metrics)) if metrics else None
    try:
        reports = gather(settings)
    except Error as error:
        return Moment(time.monotonic(), None, str(error), figures)
    return Moment(time.monotonic(), reports, "", figures)


async def _read(addresses: Sequence[str]) -> dict[str, Figures]:
    answers = await asyncio.gather(*map(fetch, addresses), return_exceptions=True)
    read = zip(addresses, answers, strict=True)
    return {address: it for address, it in read if not isinstance(it, BaseException)}


def heading(before: Moment | None, now: Moment) -> str:
    """A line: who leads, how many writes a second, and how long calls take."""
    if now.reports is None:
        return f"no answer: {now.failure}"
    asked = now.reports.asked
    leader = f"leader {asked.leader_id}" if asked.leader_id else "no leader"
    words = [f"kvd {asked.version}, {asked.mode}", leader]
    rate = writes(before, now)
    if rate is not None:
        words.append(f"{rate:.0f} writes/s")
    calls = _calls(before, now)
    if calls is not None:
        words.append(f"{calls.rate:.0f} calls/s")
        words += [
            f"{name} ≤ {seconds * 1000:g}ms"
            for name, seconds in (("p50", calls.p50_s), ("p99", calls.p99_s))
            if seconds is not None
        ]
    return ", ".join(words)


def writes(before: Moment | None, now: Moment) -> float | None:
    """A second; None while there is nothing to compare with."""
    if before is None or before.reports is None or now.reports is None:
        return None
    # A younger member may be all that answers: no rate is below 0.
    grown = max(0, _revision(now.reports) - _revision(before.reports))
    return grown / max(now.at - before.at, 0.001)


def _revision(reports: Reports) -> int:
    return max((it.said.revision for it in reports.members if it.said), default=0)


def _calls(before: Moment | None, now: Moment) -> Calls | None:
    if before is None or before.metrics is None or now.metrics is None:
        return None
    both = [(before.metrics[it], now.metrics[it]) for it in now.metrics if it in before.metrics]
    return between(both, max(now.at - before.at, 0.001)) if both else None


def faults(now: Moment) -> list[str]:
    """A line for each member that has stopped, doesn't answer or found something."""
    lines = []
    for report in () if now.reports is None else now.reports.members:
        name = f"member {report.member_id or '?'}"
        if report.said is None:
            lines.append(in_line(f"{name}: {report.silence}"))
            continue
        lines += [in_line(f"{name}: {it}") for it in (report.said.fault,) if it]
        lines += [in_line(f"{name} finds: {it}") for it in report.said.findings]
    return lines


def rows(before: Moment | None, now: Moment) -> list[tuple[str, ...]]:
    """A row for each member, by id; one that didn't answer has dashes."""
    if now.reports is None:
        return []
    applied: dict[int, int] = {}
    if before is not None and before.reports is not None:
        applied = {it.member_id: it.said.applied_index for it in before.reports.members if it.said}
    seconds = 0.0 if before is None else max(now.at - before.at, 0.001)
    return [_row(report, now.reports, applied, seconds) for report in now.reports.members]


def _row(
    report: Report, reports: Reports, applied: Mapping[int, int], seconds: float
) -> tuple[str, ...]:
    said = report.said
    if said is None:
        dashes = ["-"] * (len(COLUMNS) - 3)
        return (str(report.member_id or "-"), "unreachable", *dashes, report.address)
    asked = said.cache_hits + said.cache_misses
    entries = "-"
    if report.member_id in applied:
        grown = max(0, said.applied_index - applied[report.member_id])
        entries = f"{grown / seconds:.0f}"
    return (
        str(said.member_id),
        "stopped" if said.fault else said.role,
        str(said.term),
        str(said.applied_index),
        str(lag_of(report, reports)),
        entries,
        size(said.table_bytes),
        size(said.log_bytes),
        size(said.free_bytes),
        size(said.memory_bytes),
        f"{said.cache_hits / asked:.0%}" if asked else "-",
        report.address,
    )
