"""Random stores, random watches, random troubles: the seven properties hold for each watch."""

from __future__ import annotations

import random

import pytest

from kvstore.service.etcd import watch_history, watch_stream
from kvstore.service.etcd.hub import WatchBounds
from tests.unit.service.etcd.fake_source import FakeSource
from tests.unit.service.etcd.hub_stage import Client, Stage
from tests.watch_validator import violations

KEYS = [b"a", b"b", b"b/1", b"b/2", b"b/3", b"c", b"c/1", b"d", b"\x00", b"\xff\xff"]
RANGES = [
    (b"a", b""),
    (b"b/1", b""),
    (b"b/", b"b0"),
    (b"b", b"d"),
    (b"c", b"\0"),
    (b"\0", b"\0"),
    (b"", b"\0"),
    (b"nobody", b""),
]


class Play:
    """Does one random thing after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.source = FakeSource()
        self.others = [FakeSource(self.source.history) for _ in range(2)]
        bounds = WatchBounds(stream=self.rng.choice([300, 2000, 1 << 20]), held=3000)
        self.stage = Stage(self.source, bounds=bounds, notify_s=5.0, seed=seed)
        self.clients: list[Client] = []
        self.gone: list[Client] = []
        # How often memory knows, and clients read.
        self.coldness = self.rng.choice([0.0, 0.0, 0.1, 0.7])
        self.slowness = self.rng.choice([0.1, 0.5, 0.95])
        self.source.is_cold = lambda revision: self.rng.random() < self.coldness
        self.source.forgets_previous = lambda event: self.rng.random() < self.coldness
        self.compacts = self.rng.random() < 0.5

    def step(self) -> None:
        rng, stage, hub = self.rng, self.stage, self.stage.hub
        drawn = rng.random()
        if drawn < 0.35:
            for _ in range(rng.choice([1, 1, 3, 20])):
                self.source.change_somehow(rng, KEYS)
                if rng.random() < 0.8:
                    hub.applied()
            hub.applied()
        elif drawn < 0.5:
            stage.turn()
        elif drawn < 0.65 and stage.jobs:
            stage.run_job()
        elif drawn < 0.85 and self.clients:
            client = rng.choice(self.clients)
            if rng.random() > self.slowness:
                client.take()
        elif drawn < 0.93:
            self.create()
        elif drawn < 0.94 and self.clients:
            self.leave()
        elif drawn < 0.96 and self.clients:
            rng.choice(self.clients).stream.request_progress()
        elif drawn < 0.98:
            stage.clock += rng.choice([0.1, 3.0])
            hub.tick()
        elif drawn < 0.985 and self.compacts and self.source.revision > 5:
            # Never ahead of what is handed out: a compaction comes as a slice by itself.
            low = max(2, self.source.compacted + 1)
            if low <= hub.delivered:
                stage.compact(rng.randint(low, hub.delivered))
        elif drawn < 0.99:
            self.move()

    def create(self) -> None:
        rng = self.rng
        if not self.clients or (rng.random() < 0.3 and len(self.clients) < 6):
            self.clients.append(Client(self.stage))
        client = rng.choice(self.clients)
        key, range_end = rng.choice(RANGES)
        low = max(1, self.source.compacted - 2)
        now = self.source.revision
        start = rng.choice([0, 0, now, now + 1, now + 3, now + 40, rng.randint(low, max(low, now))])
        client.create(
            key,
            range_end,
            start,
            prev_kv=rng.random() < 0.5,
            no_puts=rng.random() < 0.1,
            no_deletes=rng.random() < 0.1,
            progress_notify=rng.random() < 0.3,
            fragment=rng.random() < 0.5,
        )

    def leave(self) -> None:
        client = self.rng.choice(self.clients)
        if client.stream.watches and self.rng.random() < 0.7:
            client.stream.cancel(self.rng.choice([*client.stream.watches]))
        else:
            client.stream.close()
            self.clients.remove(client)
            self.gone.append(client)

    def move(self) -> None:
        """Another member, which may be behind, or the same after an install."""
        source = self.source
        if self.rng.random() < 0.5:
            self.stage.hub.follow(source)
            return
        other = self.rng.choice(self.others)
        other.compacted = min(source.compacted, max(1, source.revision - 5))
        other.revision = self.rng.randint(max(1, other.compacted), source.revision)
        self.stage.hub.follow(other)
        for _ in range(self.rng.randint(0, 3)):
            self.stage.turn()
            if self.stage.jobs:
                self.stage.run_job()
        for client in self.clients:
            if self.rng.random() > self.slowness:
                client.take()
        other.revision = source.revision
        other.compacted = source.compacted
        self.stage.hub.applied()
        self.stage.hub.follow(source)

    def check(self) -> None:
        self.stage.settle(*self.clients)
        for client in self.clients:
            client.stream.request_progress()
        self.stage.hub.tick()
        self.stage.settle(*self.clients)
        history = self.source.history
        for client in [*self.gone, *self.clients]:
            for watch_id, watched in client.watched.items():
                is_open = watch_id in client.stream.watches
                applied = self.source.revision if is_open else None
                assert violations(watched, history, applied=applied) == []
        figures = self.stage.hub.figures()
        assert figures.held_bytes == 0
        assert figures.behind == 0
        assert figures.watches == sum(len(client.stream.watches) for client in self.clients)
        for client in self.clients:
            client.stream.close()
        assert len(self.stage.hub.index) == 0
        assert not self.stage.damages


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a few events reach."""
    monkeypatch.setattr(watch_history, "PAGE_REVISIONS", 7)
    monkeypatch.setattr(watch_history, "PAGE_BYTES", 400)
    monkeypatch.setattr(watch_history, "BATCH_MAX", 3)
    monkeypatch.setattr(watch_history, "PLACES_TOLD_MAX", 2)
    monkeypatch.setattr("kvstore.service.etcd.hub.LIVE_BYTES", 300)
    monkeypatch.setattr(watch_stream, "TAKE_WEIGHT", 900)
    monkeypatch.setattr(watch_stream, "MERGED_WEIGHT", 300)
    monkeypatch.setattr(watch_stream, "FRAGMENT_WEIGHT", 400)


@pytest.mark.parametrize("seed", range(60))
def test_every_watch_gets_what_it_is_promised(seed: int) -> None:
    play = Play(seed)
    for _ in range(play.rng.choice([60, 300])):
        play.step()
    play.check()
