"""The embedded form: all members' directories in one, opened as a group that heals its own."""

from __future__ import annotations

import random

from kvstore.errors import ConfigurationError, Error, StorageError
from kvstore.replica import Group, Replica
from tests.integrity.member import check_state, reported
from tests.integrity.sources import Source
from tests.integrity.stories import (
    MEMBERS,
    OPTIONS,
    ROOT,
    Truth,
    another,
    path_of,
    truth_of,
    with_a_snapshot,
)
from tests.integrity.trees import Tree, disk_of, tree_of
from tests.integrity.verdicts import Outcome, Verdict, refused

__all__ = ["judge", "sources"]

STEPS_MAX = 600


def sources() -> list[Source]:
    """Three members of a group that was closed; one of them had once got a snapshot."""
    told = with_a_snapshot()
    files = tree_of(told.closed, ROOT)
    words: list[tuple[str, ...]] = []
    for member in range(1, MEMBERS + 1):
        path = path_of(member)
        next_path = path_of(1 + member % MEMBERS)
        parts = sorted({name.split("/")[3] for name in files if name.startswith(path + "/")})
        theirs = {name.split("/")[3] for name in files if name.startswith(next_path + "/")}
        for part in ("", *(f"/{part}" for part in parts)):
            words.append(("gone", path + part))
            words.append(("older", path + part, path + part))
            words.append(("foreign", path + part, path + part))
            if part[1:] in theirs or not part:
                words.append(("names", path + part, next_path + part))
    return [
        Source(
            "embedded",
            "embedded",
            files,
            tree_of(told.older, ROOT),
            tree_of(another().closed, ROOT),
            truth_of(told.story, told.member, told.closed),
            tuple(words),
            every_byte=False,
        )
    ]


def judge(source: Source, tree: Tree) -> Verdict:
    """Open the group, let it find a leader and come to rest, and look at every member."""
    truth: Truth = source.truth
    disk = disk_of(tree, ROOT)
    failed: dict[int, Error] = {}
    try:
        group = Group(
            ROOT,
            cluster=truth.identity.cluster,
            wake=lambda: None,
            rng=random.Random(1),
            members=MEMBERS,
            options=OPTIONS,
            filesystem=disk,
            on_failure=failed.__setitem__,
            threaded=False,
            now=_Clock(),
        )
    except StorageError as error:
        return refused(error)
    except ConfigurationError as error:
        return Verdict(Outcome.DETECTED, "", f"refused: {error}")
    try:
        said = [word for replica in group.replicas.values() if (word := reported(replica))]
        return _settle(group, truth, failed, said)
    finally:
        group.close()


class _Clock:
    """Seconds that pass when somebody asks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 0.001
        return self.seconds


def _settle(group: Group, truth: Truth, failed: dict[int, Error], said: list[str]) -> Verdict:
    for _ in range(STEPS_MAX):
        group.turn()
        for replica in group.replicas.values():
            if replica.storage_busy:
                replica.sync_storage()
        group.turn()
        group.tick()
        if _at_rest(group):
            return _look(group, truth, failed, said)
    if failed or said:
        first = next(iter(failed.values()), None)
        if isinstance(first, StorageError):
            return refused(first)
        return Verdict(Outcome.DETECTED, "", f"no majority is whole: {said or first}")
    return Verdict(Outcome.HANGS, "", "they come to no rest, and nobody says why")


def _working(group: Group) -> list[Replica]:
    return [replica for replica in group.replicas.values() if replica.failure is None]


def _at_rest(group: Group) -> bool:
    """There is a leader, and all that work hold what it does and are whole."""
    leader = group.leader_replica()
    if leader is None or any(reported(replica) for replica in _working(group)):
        return False
    last = leader.status().raft.last_index
    return all(replica.machine.applied_index == last for replica in _working(group))


def _look(group: Group, truth: Truth, failed: dict[int, Error], said: list[str]) -> Verdict:
    newest = {max(truth.states): truth.states[max(truth.states)]}
    for replica in _working(group):
        try:
            wrong = check_state(replica, newest)
            replica.machine.verify()
        except StorageError as damage:
            failed.setdefault(replica.member, damage)
            continue
        if wrong:
            return Verdict(Outcome.WRONG, "", f"member {replica.member}: {wrong}")
    for error in failed.values():
        if isinstance(error, StorageError):
            return refused(error)
        return Verdict(Outcome.UNNAMED, "", str(error))
    if said:
        return Verdict(Outcome.HEALED, "", "; ".join(said))
    return Verdict(Outcome.NO_EFFECT)
