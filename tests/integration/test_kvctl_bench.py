"""kvctl bench against a real kvd, and the times of calls that had to wait for their turn."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess

import pytest

from kvstore.cli.measuring.load import Load, measure
from tests.integration.process import Kvd, command, environment, run

LOAD = Load(callers=1, rate=None, reads=0.0, size=10, keys=5, seconds=0.5, prefix=b"load/")


def left_behind(kvd: Kvd) -> int:
    with kvd.client() as client:
        return client.count()


def test_a_closed_loop_measures_and_leaves_nothing_behind(kvd: Kvd) -> None:
    words = ("bench", "--seconds=1", "--clients=4", "--keys=50", "--size=10", "-o", "json")
    done = run("kvctl", f"--addr={kvd.address}", *words)
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["loop"] == "closed"
    assert fields["failed"] == {}
    for verb in ("put", "get"):
        figures = fields[verb]
        assert figures["calls"] > 0
        assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]
        assert figures["p999_us"] <= figures["max_us"]
    assert left_behind(kvd) == 0


def test_an_open_loop_keeps_to_its_rate(kvd: Kvd) -> None:
    words = ("bench", "--seconds=2", "--rate=50", "--reads=100", "--keys=10")
    done = run("kvctl", f"--addr={kvd.address}", *words, "-o", "json")
    assert done.returncode == 0, done.stdout
    fields = json.loads(done.stdout)
    assert (fields["loop"], fields["get"]["calls"], fields["put"]["calls"]) == ("open", 100, 0)
    text = run("kvctl", f"--addr={kvd.address}", *words)
    assert b"16 callers" in text.stdout
    assert b"p99.9" in text.stdout


class Slow:
    """A server that takes its time over one call of five."""

    def __init__(self) -> None:
        self.calls = 0
        self.removed: list[bytes] = []
        self.is_closed = False

    async def put_many(self, items: object) -> int:
        return 0

    async def get(self, key: bytes) -> None:
        return None

    async def put(self, key: bytes, value: bytes) -> bool:
        self.calls += 1
        if self.calls == 5:
            await asyncio.sleep(0.3)
        return True

    async def delete_range(self, *, prefix: bytes) -> None:
        self.removed.append(prefix)

    async def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("rate", "slow_ones"), [(None, 1), (100.0, 20)])
def test_at_a_rate_what_a_slow_call_keeps_waiting_is_slow_as_well(
    rate: float | None, slow_ones: int
) -> None:
    server = Slow()
    measured = asyncio.run(measure(lambda: server, LOAD._replace(rate=rate)))  # type: ignore[arg-type, return-value]
    times = measured.puts
    # Whoever has one caller can't begin the calls of 300 ms: they count from their moments on.
    slow = sum(times.below_us(1 - n / times.count) > 50_000 for n in range(times.count))
    assert slow >= slow_ones
    assert slow_ones > 1 or slow <= 3
    assert server.removed == [LOAD.prefix]
    assert server.is_closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_broken_off_it_removes_its_keys(kvd: Kvd, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*command("kvctl"), "bench", "--seconds=60", "--keys=100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KVCTL_ADDR=kvd.address),
    )
    while process.poll() is None and not left_behind(kvd):
        pass  # until its keys are there
    process.send_signal(number)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 128 + number, complained
    assert b"Traceback" not in complained
    assert left_behind(kvd) == 0


@pytest.mark.parametrize(
    "words",
    [["--rate=0"], ["--clients=0"], ["--size=2000000"], ["--seconds=soon"], ["--reads=101"]],
)
def test_what_makes_no_sense_is_a_wrong_usage(words: list[str]) -> None:
    assert run("kvctl", "bench", *words).returncode == 2


def test_nobody_there_ends_with_4() -> None:
    done = run("kvctl", "--addr=127.0.0.1:1", "--timeout=1", "bench", "--seconds=1")
    assert done.returncode == 4
    assert done.stderr.count(b"\n") == 1
