"""How the cluster is: health, leader, members, and the last minutes as charts."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvstore.console.charts import Chart, chart
from kvstore.console.cluster import Reports
from kvstore.console.formats import duration
from kvstore.console.rendering import fragment, page
from kvstore.console.requests import Console, console_of, shown
from kvstore.console.sampler import EVERY_S, Sampler
from kvstore.console.sessions import Session
from kvstore.errors import Error

__all__ = ["ROUTES"]

ALARMS_S = 2.0

# That a chart has room for, at least.
CHART_SAMPLES_MIN = 30


async def _what(console: Console, session: Session) -> dict[str, Any]:
    sampler = console.sampler
    await sampler.ready()
    reports = sampler.reports
    alarms = []
    if reports.heard:
        try:
            async with asyncio.timeout(ALARMS_S):
                alarms = await session.client.maintenance.alarms(timeout=ALARMS_S)
        except (Error, TimeoutError):
            alarms = []
    return {
        "reports": reports,
        "health": health(reports),
        "charts": charts(sampler),
        "span": len(sampler.samples) * EVERY_S,
        "alarms": alarms,
        "silences": sampler.silences,
        "metrics": bool(console.options.metrics),
        "every_ms": int(EVERY_S * 1000),
    }


def health(reports: Reports) -> tuple[str, str]:
    """A class (good, warn, bad) and words: whether the cluster can serve."""
    if not reports.heard:
        return "bad", f"No member answers: {reports.failure}"
    if not reports.leader_id:
        return "bad", "Nobody leads: nothing can be read or written"
    silent = [report.member_id for report in reports.members if report.said is None]
    if silent:
        missing = ", ".join(map(str, silent))
        return "warn", f"Member {reports.leader_id} leads; silent: {missing}"
    faults = [said.member_id for said in reports.heard if said.fault]
    if faults:
        missing = ", ".join(map(str, faults))
        return "warn", f"Member {reports.leader_id} leads; in trouble: {missing}"
    return "good", f"Member {reports.leader_id} leads, all members answer"


def charts(sampler: Sampler) -> list[Chart]:
    samples = list(sampler.samples)
    # What there is fills the width, once it is a minute's.
    places = max(len(samples), CHART_SAMPLES_MIN)
    made = [
        chart("Writes a second", [("writes", [one.writes for one in samples])], _rate, places),
        chart(
            "Answer to the console",
            [("status", [one.answered_s for one in samples])],
            duration,
            places,
        ),
        chart(
            "Lag, in entries",
            [("furthest behind", [one.lag for one in samples])],
            _count,
            places,
        ),
    ]
    if any(one.calls for one in samples):
        calls = [one.calls for one in samples]
        rates = [None if one is None else one.rate for one in calls]
        p50 = [None if one is None else one.p50_s for one in calls]
        p99 = [None if one is None else one.p99_s for one in calls]
        made += [
            chart("Calls a second", [("calls", rates)], _rate, places),
            chart("Time of calls, below", [("p50", p50), ("p99", p99)], duration, places),
        ]
    return made


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


@shown
async def overview(request: Request, session: Session) -> Response:
    return page(request, "overview.html", **await _what(console_of(request), session))


@shown
async def live(request: Request, session: Session) -> Response:
    return fragment(request, "overview_live.html", **await _what(console_of(request), session))


ROUTES = (Route("/", overview), Route("/live/overview", live))
