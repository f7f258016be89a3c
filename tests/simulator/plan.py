"""What a seed decides before a run begins: the cluster, its load, and which troubles it meets.

Swarm testing (Groce et al., ISSTA 2012): each seed leaves out some kinds of trouble and draws the
strength of the others, which finds more than always having all of them at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from kvstore.engine import Options as EngineOptions
from kvstore.raft import Options as RaftOptions
from kvstore.replica import ReplicaOptions
from kvstore.state import MemoryBounds, SessionBounds
from kvstore.state.mvcc.requests import LEVEL_ACCUSES, LEVEL_MODEL, LEVEL_NUMBERED
from tests.simulator.agenda import MILLISECOND, SECOND

__all__ = ["CLOCK_SPEEDS", "TICK_US", "TROUBLES", "EtcdLoad", "Plan", "draw"]

TICK_US = 20 * MILLISECOND
"""A member's tick where its clock is right."""

PULSE_TICKS = 150
"""Three seconds; where a seed has pulses."""

CLOCK_SPEEDS = (0.5, 0.7, 1.4, 2.0)
"""What a member's clock may be turned to."""

TROUBLES = {
    "kill": 3,
    "power loss": 3,
    "power loss in the middle": 4,
    "power loss after a promise": 4,
    "blackout": 3,
    "isolate": 3,
    "isolate leader": 4,
    "rivals": 3,
    "forgotten leader": 3,
    "slow leader": 6,
    "duel": 2,
    "figure eight": 2,
    "split": 3,
    "one-way cut": 2,
    "bridge": 1,
    "flap": 2,
    "clog": 2,
    "disk error": 2,
    "disk full": 1,
    "slow disk": 2,
    "hanging disk": 3,
    "full disks": 2,
    "bit flip": 2,
    "lost entry": 6,
    "pause": 3,
    "clock speed": 2,
    "change members": 6,
    "transfer": 2,
    "busy": 4,
    "lies": 4,
}
"""Kinds of trouble, and how often each comes beside the others where a seed has it."""

FAST_CLOCKS = {"clock speed", "slow leader"}
"""Those that turn some member's clock to the fastest of ``CLOCK_SPEEDS``."""


@dataclass(frozen=True, slots=True)
class EtcdLoad:
    """Of etcd's API. ``writes_shared``: its clients also write a key that those of v1 write.

    ``numbered_after_us``: from when the model is understood until numbered operations are, too.
    ``stream_bytes``, ``held_bytes``: what a member queues for one stream of watches, and for all.
    ``reading_us``: what a watcher takes over a message at most. ``entry_operations_max``: see
    :class:`kvstore.service.etcd.EtcdLimits`.
    """

    clients: int
    think_us: int
    patience_us: tuple[int, int]
    watchers: int
    writes_shared: bool
    numbered_after_us: int
    stream_bytes: int
    held_bytes: int
    reading_us: int
    entry_operations_max: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed's cluster, load and troubles. Times in microseconds, rates from 0 to 1.

    ``in_session``: how many of the clients have sessions; the others make ids up. ``homing``: how
    often a client asks the member it is at home with, whoever leads. ``patience_us``: how long it
    waits for an answer before it tries again. ``model_after_us``: when all members are known to
    understand etcd's model, so that it is enabled; None: they never are. Then ``etcd`` says what
    load there is on it.
    """

    seed: int
    members: int
    duration_us: int
    replica: ReplicaOptions
    clients: int
    in_session: float
    keys: int
    value_bytes_max: int
    think_us: int
    follower_reads: bool
    homing: float
    patience_us: tuple[int, int]
    troubles: tuple[str, ...]
    trouble_pause_us: int
    delay_us: tuple[int, int]
    loss: float
    doubling: float
    replay: float
    corruption: float
    reordering: bool
    over_the_wire: bool
    sync_us: tuple[int, int]
    model_after_us: int | None
    etcd: EtcdLoad

    @property
    def levels_after_us(self) -> dict[int, int] | None:
        """When all members are known to understand each level of the state."""
        if self.model_after_us is None:
            return None
        model = self.model_after_us
        later = model + self.etcd.numbered_after_us
        return {LEVEL_MODEL: model, LEVEL_NUMBERED: later, LEVEL_ACCUSES: later}

    @property
    def fastest_clock(self) -> float:
        """By which a member's clock may be faster than it should be, at times."""
        return max(CLOCK_SPEEDS) if FAST_CLOCKS & set(self.troubles) else 1.0

    def __str__(self) -> str:
        network = (
            f"loss {self.loss:.0%}, doubling {self.doubling:.0%}, replay {self.replay:.0%}, "
            f"corruption {self.corruption:.1%}"
        )
        memory = self.replica.memory
        remembered = (
            f"; remembers {memory.requests} requests and {memory.sessions.sessions_max} sessions "
            f"for {memory.sessions.idle_ms} ms"
        )
        model = ""
        if self.model_after_us is not None:
            model = (
                f"; the model is enabled after {self.model_after_us / SECOND:.1f} s, "
                f"for {self.etcd.clients} clients and {self.etcd.watchers} watchers"
            )
        return (
            f"seed {self.seed}: {self.members} members, {self.clients} clients, {self.keys} keys, "
            f"{self.duration_us / SECOND:.0f} s{remembered}{model}; {network}; "
            f"troubles: {', '.join(self.troubles) or 'none'}"
        )


def draw(seed: int) -> Plan:
    """The plan of ``seed``."""
    rng = random.Random(f"{seed}/plan")
    # Not from `rng`: what the other draws give stays the same.
    later = {
        kind: random.Random(f"{seed}/{kind}").random() < 0.4
        for kind in ("slow leader", "hanging disk", "full disks", "lost entry", "lies")
    }
    pulses = later["busy"] = random.Random(f"{seed}/pulses").random() < 0.3
    entries = rng.choice((40, 100, 100, 300, 2000))
    raft = RaftOptions(
        election_ticks=10,
        heartbeat_ticks=rng.choice((1, 2, 3)),
        pulse_ticks=PULSE_TICKS if pulses else 0,
        message_bytes_max=rng.choice((200, 4096, 65536)),
        message_entries_max=rng.choice((2, 16, 256)),
        inflight_messages_max=rng.choice((1, 4, 64)),
        inflight_bytes_max=rng.choice((2000, 65536)),
        log_entries_max=entries,
        tail_entries=rng.choice((0, 3, entries // 4)),
        tail_bytes=rng.choice((1000, 1 << 20)),
        promote_lag_max=rng.choice((20, 100_000)),
    )
    engine = EngineOptions(
        wal=False,
        background=False,
        write_buffer_size=64 << 10,
        max_file_size=64 << 10,
        lru_cache_size=rng.choice((0, 1 << 20)),
        block_size=rng.choice((256, 4096)),
        bloom_filter_bits=rng.choice((0, 10)),
        compaction_trigger=rng.choice((2, 4)),
    )
    # Nor from `rng`, for the same reason.
    memories = random.Random(f"{seed}/memories")
    memory = MemoryBounds(
        requests=memories.choice((8, 8, 64, 1 << 20)),
        sessions=SessionBounds(
            sessions_max=memories.choice((2, 8, 8, 16_384)),
            idle_ms=memories.choice((300, 2000, 3_600_000)),
            spared_ms=memories.choice((0, 200)),
        ),
    )
    slices = random.Random(f"{seed}/slices")
    models = random.Random(f"{seed}/model")
    # What a member lacks is in memory, on the disk, or gone: it must get along with each.
    tails = random.Random(f"{seed}/tails")
    quick = rng.choice((500, 1 * MILLISECOND, 5 * MILLISECOND))
    return Plan(
        seed=seed,
        members=rng.choice((3, 3, 3, 5, 5, 7)),
        duration_us=rng.randint(8, 20) * SECOND,
        replica=ReplicaOptions(
            raft=raft,
            engine=engine,
            segment_bytes=(segment_bytes := rng.choice((4096, 16384, 65536))),
            log_tail_bytes=tails.choice((0, 3 * segment_bytes, 10 * segment_bytes, 1 << 30)),
            catch_up_bytes_per_s=tails.choice((0, 0, 1_000_000)),
            snapshot_part_bytes=rng.choice((300, 5000, 1 << 20)),
            memory=memory,
            apply_turn_s=slices.choice((0.0, 0.005)),
            apply_slice_entries=slices.choice((1, 1, 3, 64)),
            compare_s=0.5,
            scrub_round_s=1.0,
        ),
        clients=rng.randint(3, 7),
        in_session=memories.choice((0.0, 0.5, 0.5, 1.0)),
        keys=rng.randint(2, 6),
        value_bytes_max=rng.choice((20, 200, 3000)),
        think_us=rng.choice((10, 40, 100)) * MILLISECOND,
        follower_reads=rng.random() < 0.4,
        homing=rng.choice((0.0, 0.3, 0.6)),
        patience_us=rng.choice(
            ((20 * MILLISECOND, 200 * MILLISECOND), (200 * MILLISECOND, 2 * SECOND))
        ),
        troubles=tuple(
            kind for kind in TROUBLES if (later[kind] if kind in later else rng.random() < 0.4)
        ),
        trouble_pause_us=rng.choice((300, 700, 1500)) * MILLISECOND,
        delay_us=(quick // 4, quick * rng.choice((2, 4))),
        loss=rng.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
        doubling=rng.choice((0.0, 0.0, 0.05, 0.3)),
        replay=rng.choice((0.0, 0.0, 0.02, 0.1)),
        corruption=rng.choice((0.0, 0.0, 0.02)),
        reordering=rng.random() < 0.6,
        over_the_wire=rng.random() < 0.5,
        sync_us=(100, rng.choice((500, 3 * MILLISECOND, 20 * MILLISECOND))),
        model_after_us=models.choice((None, 0, models.randint(0, 8 * SECOND))),
        etcd=_draw_etcd(random.Random(f"{seed}/etcd")),
    )


def _draw_etcd(rng: random.Random) -> EtcdLoad:
    stream_bytes = rng.choice((300, 1500, 16 << 20))
    return EtcdLoad(
        clients=rng.randint(2, 5),
        think_us=rng.choice((5, 20, 60)) * MILLISECOND,
        patience_us=rng.choice(
            ((50 * MILLISECOND, 400 * MILLISECOND), (300 * MILLISECOND, 3 * SECOND))
        ),
        watchers=rng.randint(1, 3),
        writes_shared=rng.random() < 0.4,
        numbered_after_us=rng.choice((0, 3 * SECOND)),
        stream_bytes=stream_bytes,
        held_bytes=2 * stream_bytes,
        reading_us=rng.choice((1, 20, 300)) * MILLISECOND,
        entry_operations_max=rng.choice((1, 4, 256)),
    )
