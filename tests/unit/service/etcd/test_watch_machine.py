"""The hub over real state machines: memtables, tables, compactions, restarts."""

from __future__ import annotations

import random

import pytest

from kvstore.service.etcd.watch_words import Canceled
from kvstore.state.mvcc.requests import (
    Compact,
    DeleteRange,
    EnableModel,
    LeaseGrant,
    LeaseRevoke,
    Operation,
    Put,
    Txn,
)
from tests.unit.service.etcd.hub_stage import Client, Stage
from tests.unit.state.test_model import Story
from tests.watch_validator import History, violations

KEYS = [b"a", b"a/1", b"a/2", b"b", b"c", b"\xff"]
RANGES = [(b"a", b""), (b"a/", b"a0"), (b"a", b"c"), (b"\0", b"\0"), (b"b", b"\0")]


class Play:
    """A machine with a hub that follows it, and all that ever happened to its keys."""

    def __init__(self, seed: int, *, plain: bool = False) -> None:
        self.rng = random.Random(seed)
        self.story = Story(plain)
        self.story.ask(EnableModel())
        self.history = History()
        self.noted = self.story.machine.revision
        self.stage = Stage(seed=seed)
        self.stage.hub.follow(self.story.machine)
        self.clients = [Client(self.stage) for _ in range(3)]

    def note(self) -> None:
        """Take down what the machine has just applied."""
        machine = self.story.machine
        if machine.revision > self.noted:
            page = machine.events(self.noted + 1, machine.revision, 1 << 30)
            for revision, events in page.revisions:
                self.history.add(revision, events)
            self.noted = machine.revision
        self.stage.hub.applied()

    def ask(self, *operations: Operation) -> None:
        self.story.ask(*operations)
        compacts = (each for each in operations if isinstance(each, Compact))
        self.history.compactions |= {each.revision for each in compacts}
        self.note()

    def operation(self) -> Operation:
        rng = self.rng
        match rng.randrange(10):
            case 0:
                key, end = rng.choice(RANGES)
                return DeleteRange(key, end)
            case 1:
                return DeleteRange(rng.choice(KEYS))
            case 2:
                keys = rng.sample(KEYS, 3)
                return Txn((), (Put(keys[0], b"t"), DeleteRange(keys[1]), Put(keys[2], b"u", 7)))
            case 3:
                return LeaseRevoke(7)
            case 4:
                return LeaseGrant(7, 60)
            case _:
                return Put(rng.choice(KEYS), rng.randbytes(rng.choice([0, 5, 300])))

    def step(self) -> None:
        rng, stage, story = self.rng, self.stage, self.story
        drawn = rng.random()
        if drawn < 0.5:
            self.ask(*[self.operation() for _ in range(rng.choice([1, 1, 2, 10]))])
        elif drawn < 0.55:
            story.put(rng.choice(KEYS), b"v1")
            story.delete(rng.choice(KEYS))
            self.note()
        elif drawn < 0.65:
            self.create()
        elif drawn < 0.75:
            rng.choice(self.clients).take()
        elif drawn < 0.85:
            stage.turn()
        elif drawn < 0.93 and stage.jobs:
            stage.run_job()
        elif drawn < 0.95:
            story.machine.flush()
        elif drawn < 0.97:
            story.again()
            stage.hub.follow(story.machine)
        elif drawn < 0.99:
            self.ask(Compact(rng.randint(1, story.machine.revision)))
        else:
            story.machine.reclaim()

    def create(self) -> None:
        rng, machine = self.rng, self.story.machine
        key, range_end = rng.choice(RANGES)
        start = rng.choice([0, 0, machine.revision + 1, max(machine.compacted, 2)])
        if rng.random() < 0.5:
            start = rng.randint(max(machine.compacted - 2, 1), machine.revision + 1)
        rng.choice(self.clients).create(
            key,
            range_end,
            start,
            prev_kv=rng.random() < 0.6,
            no_puts=rng.random() < 0.1,
            no_deletes=rng.random() < 0.1,
        )

    def check(self) -> int:
        """How many events came; raises AssertionError for what is wrong."""
        self.stage.settle(*self.clients)
        came = 0
        for client in self.clients:
            for watch_id, watched in client.watched.items():
                is_open = watch_id in client.stream.watches
                applied = self.story.machine.revision if is_open else None
                assert violations(watched, self.history, applied=applied) == []
                came += sum(len(seen.events) for seen in watched.seen)
        assert not self.stage.damages
        return came


@pytest.mark.parametrize("plain", [False, True], ids=["native", "plain"])
@pytest.mark.parametrize("seed", range(12))
def test_watches_of_a_machine_get_what_they_are_promised(seed: int, plain: bool) -> None:
    play = Play(seed, plain=plain)
    for _ in range(200):
        play.step()
    assert play.check() > 0


def test_live_events_and_what_keys_were_need_no_disk_while_they_are_in_memory() -> None:
    play = Play(1)
    (client, *_) = play.clients
    client.create(b"a", b"c", prev_kv=True)
    play.ask(Put(b"a", b"1"), Put(b"b", b"1"))
    play.ask(Put(b"a", b"2"), DeleteRange(b"a", b"c"))
    assert not play.stage.jobs
    assert play.check() == 5
    assert play.stage.hub.figures().fell_behind == 0


def test_a_delete_of_many_keys_comes_whole() -> None:
    play = Play(1)
    (client, *_) = play.clients
    client.create(b"k", b"l", prev_kv=True)
    for first in range(0, 5000, 100):
        puts = [Put(b"k%06d" % number, b"v" * 300) for number in range(first, first + 100)]
        play.ask(Txn((), tuple(puts)))
    play.ask(DeleteRange(b"k", b"l"))
    play.stage.settle(client)
    assert play.check() == 10_000
    assert len(client.watched[0].seen[-1].events) == 5000


def test_a_watch_over_a_compaction_gets_the_delete_at_it_and_none_gets_what_is_before() -> None:
    play = Play(1)
    (client, *_) = play.clients
    play.ask(Put(b"a", b"1"))
    play.ask(Put(b"a", b"2"))
    play.ask(DeleteRange(b"a"))
    gone = play.story.machine.revision
    play.ask(Compact(gone))
    play.story.machine.reclaim()
    client.create(b"a", start=gone, prev_kv=True)
    client.create(b"a", start=gone - 1)
    play.check()
    (event,) = client.events(0)
    assert event.is_delete
    assert event.previous is None, "as in etcd: what is before the compacted revision is gone"
    assert Canceled(1, 0, compact_revision=gone) in client.messages
