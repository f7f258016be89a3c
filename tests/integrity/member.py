"""A member's directory in a cluster, opened by the replica's own code, nobody else there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ConfigurationError, Error, StorageError
from kvstore.replica import Packet, Replica, is_fresh
from tests.integrity.sources import Source
from tests.integrity.stories import (
    EMPTY,
    KEYS,
    MEMBERS,
    OPTIONS,
    ROOT,
    State,
    Told,
    Truth,
    another,
    path_of,
    plain,
    truth_of,
    with_a_snapshot,
)
from tests.integrity.trees import Tree, disk_of, tree_of
from tests.integrity.verdicts import Outcome, Verdict, refused

__all__ = ["check_state", "judge", "reported", "sources"]

TURNS = 6


def sources() -> list[Source]:
    """A follower that was closed; whose process died before a sync; that got a snapshot, installed
    or still to be installed."""
    told = plain()
    installed = _source("member-snapshot", with_a_snapshot(), with_a_snapshot().closed)
    return [
        _source("member-closed", told, told.closed),
        _source("member-died", told, told.died, told.durable),
        installed,
        _ready(installed),
    ]


def _source(name: str, told: Told, disk: MemoryFileSystem, durable: int = 0) -> Source:
    path = path_of(told.member)
    foreign = dict(tree_of(another().closed, path))
    # Another member of this cluster, too, under a directory of its own.
    third = path_of(1 + told.member % MEMBERS)
    for file, content in tree_of(disk, third).items():
        foreign[file.replace(third, "/data/third", 1)] = content
    files = tree_of(disk, path)
    return Source(
        name,
        "member",
        files,
        tree_of(told.older, path),
        foreign,
        truth_of(told.story, told.member, disk, durable),
        _directories(path, files),
    )


def _directories(path: str, files: Tree) -> tuple[tuple[str, ...], ...]:
    states = sorted({name.split("/")[3] for name in files if name.split("/")[3] != "log"})
    words: list[tuple[str, ...]] = []
    for name in ("log", *(state for state in states if state.startswith(("state", "ready")))):
        words.append(("gone", f"{path}/{name}"))
        words.append(("older", f"{path}/{name}", f"{path}/{name}"))
        words.append(("foreign", f"{path}/{name}", f"{path}/{name}"))
        words.append(("foreign", f"{path}/{name}", f"/data/third/{name}"))
    return tuple(words)


def _ready(installed: Source) -> Source:
    """As if it had lost power before the snapshot that its log tells of was installed."""
    path = installed.truth.path
    (state,) = {name.split("/")[3] for name in installed.files if name.startswith(f"{path}/state-")}
    ready = state.replace("state", "ready")
    files = {
        name.replace(f"/{state}/", f"/{ready}/"): data for name, data in installed.files.items()
    }
    return replace(
        installed, name="member-ready", files=files, directories=_directories(path, files)
    )


# --- judging -------------------------------------------------------------------------------------


class _Nowhere:
    """Nobody hears what it says."""

    def send(self, packets: Sequence[Packet]) -> None:
        """Drop them."""


def judge(source: Source, tree: Tree) -> Verdict:
    """Open the member and look at all that it would build on."""
    truth: Truth = source.truth
    disk = disk_of(tree, ROOT)
    if is_fresh(disk, truth.path):
        # What kvd and the group ask before they open a member that has run before.
        return Verdict(Outcome.DETECTED, "", "refused: its log is gone")
    try:
        replica = Replica(
            truth.identity,
            truth.path,
            _Nowhere(),
            options=OPTIONS,
            rng=random.Random(1),
            wake=lambda: None,
            filesystem=disk,
            threaded=False,
        )
    except StorageError as error:
        return refused(error)
    except ConfigurationError as error:
        return Verdict(Outcome.DETECTED, "", f"refused: {error}")
    try:
        return _look(replica, truth)
    except StorageError as error:
        return refused(error)
    finally:
        replica.close()


def reported(replica: Replica) -> str:
    """What a member says of damage that it is about to heal; empty where it knows of none."""
    if replica.repair.under_way:
        return f"under repair: {replica.repair.under_way}"
    if replica.log_trouble:
        return replica.log_trouble
    return "stands aside" if replica.status().raft.damaged else ""


def _look(replica: Replica, truth: Truth) -> Verdict:
    said = reported(replica)
    raft = replica.status().raft
    if raft.term < truth.term or (raft.term == truth.term and raft.vote != truth.vote):
        return Verdict(Outcome.WRONG, "", f"its vote is forgotten: term {raft.term}")
    if said:
        return Verdict(Outcome.DETECTED, "", said)
    for entry in replica._raft._state.log.entries:
        if entry != truth.entries.get(entry.index, entry) or entry.index > truth.last:
            return Verdict(Outcome.WRONG, "", f"entry {entry.index} is another one")
    if raft.last_index < truth.durable:
        return Verdict(
            Outcome.WRONG,
            "",
            f"promised entries are gone: {raft.last_index} instead of {truth.durable}",
        )
    for _ in range(TURNS):
        replica.turn()
        replica.sync_storage()
    if replica.failure is not None:
        return _failed(replica.failure)
    wrong = check_state(replica, truth.states)
    if wrong and _differs_from_peers(replica, truth.states):
        # Of another cluster, whole: members compare the hashes of what they ever applied.
        return Verdict(Outcome.DETECTED, "", f"named by the comparison of states: {wrong}")
    if wrong:
        return Verdict(Outcome.WRONG, "", wrong)
    replica.machine.verify()
    cut = replica._log.recovery.cut_bytes
    if raft.last_index < truth.last:
        return Verdict(Outcome.CUT if cut else Outcome.LEGAL, "", f"{cut} bytes")
    return Verdict(Outcome.NO_EFFECT)


def _failed(failure: Error) -> Verdict:
    if isinstance(failure, StorageError):
        return refused(failure)
    return Verdict(Outcome.UNNAMED, "", str(failure))


def _differs_from_peers(replica: Replica, states: dict[int, State]) -> bool:
    """Its state's record itself says another hash than the others have at that revision."""
    machine = replica.machine
    theirs = {state.revision: state.state_hash for state in states.values()}
    return theirs.get(machine.revision, machine.state_hash) != machine.state_hash


def check_state(replica: Replica, states: dict[int, State]) -> str:
    """What is wrong with all that the member's state machine holds; empty where nothing is."""
    machine = replica.machine
    applied = machine.applied_index
    looked = max((index for index in states if index <= applied), default=0)
    told = states.get(looked, EMPTY)
    values = {}
    for number in range(KEYS):
        key = b"key%03d" % number
        value = machine.get(key)
        if value is not None:
            values[key] = value
    if values != told.values:
        return f"at entry {applied} it holds other values"
    # Entries that nobody looked at in between carry nothing, or what was never promised.
    if looked and (machine.revision, machine.state_hash) != (told.revision, told.state_hash):
        return f"at entry {applied} it is of another revision or hash"
    remembered = machine.remembered
    if (remembered[0], remembered[2]) != told.remembered:
        return f"at entry {applied} it remembers other requests or sessions"
    return ""
