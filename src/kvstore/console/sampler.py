"""The last minutes of a cluster: asked every other second, kept in memory, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from kvstore.console.cluster import Cluster, Reports
from kvstore.console.metrics import Calls, Figures, between, fetch

__all__ = ["Sample", "Sampler"]

EVERY_S: Final = 2.0
# Ten minutes.
SAMPLES_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment as charts show it. ``writes``: a second; None where it can't be told, as the calls'
    figures where no metrics are read. ``lag``: entries, of the member that lacks most."""

    at: float
    answered_s: float | None
    writes: float | None
    lag: int | None
    leader_id: int
    calls: Calls | None = None


class Sampler:
    """Asks until it is closed. For one loop."""

    def __init__(self, cluster: Cluster, metrics: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._addresses = metrics
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.reports = Reports(failure="the cluster wasn't asked yet")
        self.figures: dict[str, Figures] = {}
        """By the address of the metrics."""
        self.silences: dict[str, str] = {}
        """Why metrics couldn't be read, by address."""
        self._read_at = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            began = time.monotonic()
            await self.take()
            await asyncio.sleep(max(0.1, EVERY_S - (time.monotonic() - began)))

    async def ready(self) -> None:
        """Return once there is a sample."""
        if not self.samples:
            await self.take()

    async def take(self) -> None:
        """Take one sample."""
        before, last = self.reports, self.samples[-1] if self.samples else None
        reports, calls = await asyncio.gather(self._cluster.reports(), self._read())
        now = time.monotonic()
        writes = None
        if last is not None and before.heard and reports.heard:
            # A restored or a younger member may be all that answers: no rate is below 0.
            grown = max(0, reports.revision - before.revision)
            writes = grown / max(now - last.at, 0.001)
        lags = [reports.lag_of(said) for said in reports.heard]
        answered = reports.took_s if reports.heard else None
        self.reports = reports
        self.samples.append(
            Sample(now, answered, writes, max(lags, default=None), reports.leader_id, calls)
        )
        with contextlib.suppress(Exception):
            await self._cluster.learn_users()

    async def _read(self) -> Calls | None:
        if not self._addresses:
            return None
        answers = await asyncio.gather(
            *(fetch(address) for address in self._addresses), return_exceptions=True
        )
        now = time.monotonic()
        pairs = []
        for address, answer in zip(self._addresses, answers, strict=True):
            if isinstance(answer, BaseException):
                self.silences[address] = str(answer) or "no answer in time"
                self.figures.pop(address, None)
                continue
            self.silences.pop(address, None)
            if address in self.figures:
                pairs.append((self.figures[address], answer))
            self.figures[address] = answer
        seconds, self._read_at = now - self._read_at, now
        return between(pairs, seconds) if pairs else None
