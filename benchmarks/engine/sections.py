"""What is measured: each section is a workload, a shape of data and the engines that take turns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch

from benchmarks.engine.peers.by_name import PEERS
from benchmarks.engine.turn import Turn
from benchmarks.engine.workloads import (
    awaited,
    beside,
    footprint,
    opening,
    queues,
    reads,
    threads,
    writes,
    ycsb,
)

__all__ = ["CORE", "SECTIONS", "Section", "choose"]


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    work: Callable[[Turn], None]
    engines: Sequence[str] = PEERS
    shape: str = "decimal"
    value_bytes: int = 100
    share: float = 1.0
    """Times the keys that the command asks for; not beyond a million by it."""
    settled: bool = False
    """The workload stands on a settled store."""
    before: Callable[[Turn], None] | None = None
    """Run in a process of its own first, which is killed at its end."""
    defaults: bool = False

    @property
    def data(self) -> tuple[str, int, float]:
        return self.shape, self.value_bytes, self.share


WRITERS = ("kvstore", "kvstore-through", "plyvel", "rocksdict", "lmdb")
THREADED = ("kvstore", "kvstore-mapped", *PEERS[1:], "lmdb-long")
READERS = (
    "kvstore",
    "kvstore-mapped",
    "plyvel",
    "plyvel-checked",
    "rocksdict",
    "rocksdict-mapped",
    "lmdb",
    "lmdb-long",
)

_DATA = {
    "": {},
    "-random": {"shape": "random"},
    "-paths": {"shape": "paths"},
    "-4k": {"value_bytes": 4096, "share": 1 / 15},
    "-64k": {"value_bytes": 65536, "share": 1 / 150},
}


def _everywhere(section: Section, but: Iterable[str] = ()) -> list[Section]:
    """The section with each shape of keys and size of values."""
    return [
        dataclasses.replace(section, name=section.name + suffix, **changes)  # type: ignore[arg-type]
        for suffix, changes in _DATA.items()
        if suffix not in but
    ]


_FILLS = Section("fills", "Fills, compaction drained", writes.fills, WRITERS)
_STEADY = Section("steady", "Steady overwrites, compaction drained", writes.steady, WRITERS)
_MEMORY = Section("memory", "In memory, nothing flushed", writes.in_memory)
_YCSB = Section("ycsb", "YCSB, cache of a quarter", ycsb.ycsb, settled=True)
_READS = [
    Section(f"reads-{name}", f"Reads of tables, {title}", work, READERS, settled=True)
    for name, title, work in (
        ("quarter", "cache of a quarter", reads.quarter),
        ("tenth", "cache of a tenth", reads.tenth),
        ("none", "no cache", reads.no_cache),
        ("whole", "cache of twice the data", reads.whole),
    )
]
_DEFAULTS = [
    dataclasses.replace(
        section, name=f"defaults-{name}", title=f"At each engine's defaults: {what}", defaults=True
    )
    for name, what, section in (
        ("fills", "fills", dataclasses.replace(_FILLS, engines=PEERS)),
        ("steady", "overwrites", dataclasses.replace(_STEADY, engines=PEERS)),
        ("reads", "reads of tables", dataclasses.replace(_READS[0], engines=PEERS)),
        ("ycsb", "YCSB", _YCSB),
    )
]

_MADE = [
    *_everywhere(_FILLS),
    *_everywhere(_STEADY),
    *_everywhere(_MEMORY),
    *(section for each in _READS for section in _everywhere(each)),
    *_everywhere(_YCSB),
    *_DEFAULTS,
    Section("opening", "Opening a settled store", opening.settled, share=10 / 3, settled=True),
    Section(
        "killed",
        "Opening after kill -9 with 400,000 puts in the log",
        opening.after_kill,
        WRITERS,
        share=4 / 3,
        before=opening.fill_and_die,
    ),
    Section("small", "A hundred small stores", opening.small),
    Section("queue", "A queue", queues.queue),
    Section("readers", "Threads that read", threads.readers, THREADED, settled=True),
    Section("beside", "A writer beside readers", threads.writer_and_readers, settled=True),
    Section("synced", "Synced puts", threads.synced),
    Section("awaited", "Synced puts on an event loop", awaited.awaited),
    Section(
        "busy",
        "Beside a busy Python thread",
        beside.busy_python,
        ("kvstore", "plyvel", "rocksdict"),
    ),
    Section("footprint", "Memory and disk", footprint.footprint),
]

SECTIONS = {section.name: section for section in _MADE}

CORE = (
    "fills",
    "steady",
    "reads-quarter",
    "reads-tenth",
    "reads-quarter-paths",
    "reads-tenth-4k",
    "ycsb",
    "ycsb-64k",
    "defaults-reads",
    "opening",
    "killed",
    "queue",
    "beside",
    "synced",
    "awaited",
    "footprint",
)
"""One section of each kind, for a look after a change."""


def choose(patterns: Sequence[str]) -> list[Section]:
    """Sections by names and shell patterns; raises KeyError for unknown ones.

    Those with the same data come one after the other, so that it is made and settled once.
    """
    wanted: set[str] = set()
    for pattern in patterns:
        if pattern == "core":
            found = set(CORE)
        elif pattern == "all":
            found = set(SECTIONS)
        else:
            found = {name for name in SECTIONS if fnmatch(name, pattern)}
        if not found:
            raise KeyError(pattern)
        wanted |= found
    chosen = [section for name, section in SECTIONS.items() if name in wanted]
    data = [section.data for section in chosen]
    return sorted(chosen, key=lambda section: data.index(section.data))
