"""``kvctl bench``: how fast a server answers."""

from __future__ import annotations

import asyncio
import secrets
import time

import click

from kvstore.cli.exit_codes import ExitCode
from kvstore.cli.interface.connection import connection_options, settings_of
from kvstore.cli.interface.durations import duration_type
from kvstore.cli.interface.output import tell
from kvstore.cli.interface.progress import Progress
from kvstore.cli.interface.tables import table
from kvstore.cli.measuring.histogram import Histogram
from kvstore.cli.measuring.load import Load, Measured, measure

__all__ = ["bench_command"]

VALUE_BYTES_MAX = 1 << 20
PREFIX = b"kvctl-bench/"


@click.command("bench", short_help="measure how fast a server answers")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True, max=1e6),
    metavar="N",
    help="So many calls a second, each at its moment. [default: as fast as they are answered]",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 1000),
    default=16,
    metavar="N",
    show_default=True,
    help="Callers, each with one call at a time.",
)
@click.option(
    "--size",
    type=click.IntRange(0, VALUE_BYTES_MAX),
    default=100,
    metavar="N",
    show_default=True,
    help="Bytes of a value.",
)
@click.option(
    "--reads",
    type=click.FloatRange(0, 100),
    default=50,
    metavar="N",
    show_default=True,
    help="Gets, of 100 calls.",
)
@click.option(
    "--keys",
    type=click.IntRange(1, 10_000_000),
    default=10_000,
    metavar="N",
    show_default=True,
    help="Keys that are drawn from.",
)
@click.option(
    "--seconds",
    type=duration_type,
    default="10",
    metavar="SECONDS",
    show_default=True,
    help="How long.",
)
@connection_options
@click.pass_context
def bench_command(
    context: click.Context,
    rate: float | None,
    clients: int,
    size: int,
    reads: float,
    keys: int,
    seconds: float,
) -> int:
    """Put and get keys of a prefix of its own, and print how long calls took. The keys are removed
    in the end, and after Ctrl-C.

    Without --rate each caller begins a call when the one before was answered: that shows what can
    be done at most, and hides what others would have waited. With --rate calls come as from users:
    each has its moment, and its time counts from that on, whoever is busy ("coordinated omission"
    is corrected).

    \b
    Examples:
      kvctl bench
      kvctl bench --rate 1000 --clients 64 --seconds 30
      kvctl bench --reads 0 --size 4096 -o json

    Exits with 1 if a call failed, or more were to be made than could be begun.
    """
    load = Load(
        callers=clients,
        rate=rate,
        reads=reads / 100,
        size=size,
        keys=keys,
        seconds=seconds,
        prefix=PREFIX + secrets.token_hex(8).encode() + b"/",
    )
    measured = _measured(context, load)
    tell(context, _fields(load, measured), *_lines(load, measured))
    return ExitCode.FAILURE if measured.failed or measured.late else ExitCode.OK


def _measured(context: click.Context, load: Load) -> Measured:
    settings = settings_of(context)
    with Progress("measuring", round(load.seconds)) as progress:
        began = told = time.monotonic()

        def tick() -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= 1:
                progress.advance(round(now - began) - round(told - began))
                told = now

        return asyncio.run(measure(settings.connect_async, load, tick))


def _fields(load: Load, measured: Measured) -> dict[str, object]:
    return {
        "loop": "closed" if load.rate is None else "open",
        "rate": load.rate,
        "clients": load.callers,
        "size": load.size,
        "reads": load.reads,
        "keys": load.keys,
        "seconds": measured.seconds,
        "failed": dict(measured.failed),
        "not_begun": measured.late,
        "put": _figures(measured.puts, measured.seconds),
        "get": _figures(measured.gets, measured.seconds),
    }


def _figures(times: Histogram, seconds: float) -> dict[str, object]:
    return {
        "calls": times.count,
        "per_second": times.count / seconds if seconds else 0.0,
        "mean_us": times.mean_us,
        "p50_us": times.below_us(0.5),
        "p90_us": times.below_us(0.9),
        "p99_us": times.below_us(0.99),
        "p999_us": times.below_us(0.999),
        "max_us": times.max_us,
    }


def _lines(load: Load, measured: Measured) -> list[str]:
    loop = "each when the one before was answered" if load.rate is None else f"{load.rate:g}/s"
    heading = (
        f"{load.callers} callers for {measured.seconds:.1f} s, {loop}, values of {load.size} bytes"
    )
    columns = ("", "calls", "per second", "mean", "p50", "p99", "p99.9", "max")
    rows = [
        _row(name, times, measured.seconds)
        for name, times in (("put", measured.puts), ("get", measured.gets))
        if times.count
    ]
    lines = [heading, *table(columns, rows)]
    lines += [f"failed: {count} {name}" for name, count in measured.failed.most_common()]
    if measured.late:
        lines.append(f"not begun: {measured.late}; no caller was free, and the time was over")
    return lines


def _row(name: str, times: Histogram, seconds: float) -> tuple[str, ...]:
    shown = (times.below_us(0.5), times.below_us(0.99), times.below_us(0.999), times.max_us)
    return (
        name,
        str(times.count),
        f"{times.count / seconds:.0f}",
        _time(times.mean_us),
        *map(_time, shown),
    )


def _time(time_us: float) -> str:
    if time_us < 1000:
        return f"{time_us:.0f}µs"
    return f"{time_us / 1000:.1f}ms" if time_us < 1e6 else f"{time_us / 1e6:.2f}s"
