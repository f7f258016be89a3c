"""What members hold on disk and in memory, and what their engines do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvstore.console.cluster import Reports
from kvstore.console.formats import duration, size
from kvstore.console.metrics import of_member
from kvstore.console.rendering import fragment, page
from kvstore.console.requests import Console, console_of, shown
from kvstore.console.sampler import EVERY_S
from kvstore.console.sessions import Session

__all__ = ["ROUTES"]


class Row(NamedTuple):
    """A figure, of each member in order."""

    name: str
    values: tuple[str, ...]


def _bytes(value: float) -> str:
    return size(int(value))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


# Of the metrics, as kvd names them.
FIGURES: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("Written by callers", "engine_user_bytes_total", _bytes),
    ("Write amplification", "engine_write_amplification", _ratio),
    ("Space amplification", "engine_space_amplification", _ratio),
    ("Memtables that wait", "engine_frozen_memtables", _count),
    ("Flushes", "engine_flushes_total", _count),
    ("Written by flushes", "engine_flushed_bytes_total", _bytes),
    ("Compactions", "engine_compactions_total", _count),
    ("Read by compactions", "engine_compaction_read_bytes_total", _bytes),
    ("Written by compactions", "engine_compacted_bytes_total", _bytes),
    ("Most urgent compaction (due from 1)", "engine_compaction_score", _ratio),
    ("Writes that were delayed", "engine_slowdowns_total", _count),
    ("Writes that waited", "engine_stalls_total", _count),
    ("Time that they waited", "engine_stall_seconds_total", duration),
    ("Evicted from the cache", "block_cache_evictions_total", _count),
)


def rows(reports: Reports, figures: dict[str, dict[str, float]]) -> list[Row]:
    """What members say of themselves, and, where metrics are read, what these say."""
    heard = reports.heard
    found = [
        Row("Tables", tuple(size(said.table_bytes) for said in heard)),
        Row("Log", tuple(size(said.log_bytes) for said in heard)),
        Row("Not in tables yet", tuple(size(said.memory_bytes) for said in heard)),
        Row("Disk left", tuple(size(said.free_bytes) for said in heard)),
        Row(
            "Block cache",
            tuple(
                f"{size(said.cache_bytes)} of {size(said.cache_capacity_bytes)}" for said in heard
            ),
        ),
        Row("Cache hits", tuple(_share(said.cache_hits, said.cache_misses) for said in heard)),
        Row(
            "Checks under way",
            tuple(
                "none" if said.scrub_progress < 0 else f"{said.scrub_progress:.0%}"
                for said in heard
            ),
        ),
        Row("Damages that checks found", tuple(_count(said.scrub_damages) for said in heard)),
    ]
    for name, series, words in FIGURES:
        values = [figures.get(str(said.member_id), {}).get(series) for said in heard]
        if any(value is not None for value in values):
            found.append(
                Row(name, tuple("unknown" if one is None else words(one) for one in values))
            )
    return found


def _share(hits: int, misses: int) -> str:
    return f"{hits / (hits + misses):.1%}" if hits + misses else "no reads yet"


async def _what(console: Console) -> dict[str, Any]:
    await console.sampler.ready()
    figures: dict[str, dict[str, float]] = {}
    for one in console.sampler.figures.values():
        figures.update(of_member(one))
    reports = console.sampler.reports
    return {
        "reports": reports,
        "rows": rows(reports, figures),
        "metrics": bool(console.options.metrics),
        "every_ms": int(EVERY_S * 1000),
    }


@shown
async def engine(request: Request, session: Session) -> Response:
    return page(request, "engine.html", **await _what(console_of(request)))


@shown
async def live(request: Request, session: Session) -> Response:
    return fragment(request, "engine_live.html", **await _what(console_of(request)))


ROUTES = (Route("/engine", engine), Route("/live/engine", live))
