"""Opens a member's files: its log, its state, and the consensus core that goes on with them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from kvstore.errors import CorruptionError, IntegrityCode, StorageError
from kvstore.raft import Membership, Raft, SnapshotMeta
from kvstore.replica.directory import MemberDirectory
from kvstore.replica.log_note import NoteFile
from kvstore.replica.options import ReplicaOptions
from kvstore.replica.recovery import Decision, Findings, Row, StateFound, decide, refused
from kvstore.replica.repair import can_be_repaired
from kvstore.replica.start import judge_start, name_directory, others_of
from kvstore.replica.storage import Identity, MemberLog
from kvstore.state import StateMachine, open_state, stand_in

__all__ = ["OpenedMember", "OpenedState", "open_member"]


class OpenedState(NamedTuple):
    """What a member starts with: its state, or an empty one in the place of one with ``damage``.

    ``found``: how it was found.
    """

    path: str
    machine: StateMachine
    found: StateFound
    damage: StorageError | None


class OpenedMember(NamedTuple):
    """``recovery``: the row of the table for what was found."""

    log: MemberLog
    state: OpenedState
    raft: Raft
    recovery: Row


def open_member(
    identity: Identity,
    directory: MemberDirectory,
    *,
    options: ReplicaOptions,
    rng: random.Random,
    founders: Membership | None,
    forgotten_term: int,
    open_machine: Callable[[str], StateMachine],
) -> OpenedMember:
    """Open what is in ``directory``; the arguments as those of :class:`~kvstore.replica.Replica`.

    Raises ConfigurationError, CorruptionError, StorageError; then all is closed again.
    """
    log = MemberLog(
        directory.log,
        identity,
        filesystem=directory.filesystem,
        segment_bytes=options.segment_bytes,
        note=NoteFile(directory.filesystem, directory.log_note),
        forgotten_term=forgotten_term,
    )
    try:
        if log.is_new and founders is not None:
            log.found(founders)
        state = _open_state(directory, log, identity.member, options, open_machine)
    except BaseException:
        log.close()
        raise
    applied = state.machine.applied_index
    try:
        recovery = judge_start(log, identity.member, state.found, applied)
        log.settle()
        raft = Raft(
            identity.member,
            options.raft,
            rng=rng,
            hard_state=log.hard_state,
            snapshot=log.mark,
            entries=log.entries,
            applied=applied,
            damaged=bool(log.short),
            hollow=log.hollow,
        )
    except BaseException as error:
        state.machine.close()
        log.close()
        if isinstance(error, CorruptionError):
            name_directory(error, directory.path)
        raise
    log.entries = []
    return OpenedMember(log, state, raft, recovery)


def _open_state(
    directory: MemberDirectory,
    log: MemberLog,
    member: int,
    options: ReplicaOptions,
    open_machine: Callable[[str], StateMachine],
) -> OpenedState:
    """Open the state that the log of ``member`` goes on after.

    Where it can't be opened, or is older than the log allows, and others have it, an empty stand-in
    takes its place until it is repaired; what is damaged stays where it is until then.

    Raises CorruptionError, StorageError.
    """
    mark = log.mark
    found = StateFound.GONE
    try:
        path = directory.current_state(mark.index)
        found = StateFound.DAMAGED
        _refuse_salvaged(directory, path)
        machine = open_machine(path)
        if machine.applied_index < mark.index:
            found = StateFound.OLDER
            index = machine.applied_index
            machine.close()
            raise CorruptionError(
                f"the state is of index {index}, the log begins after {mark.index}",
                code=IntegrityCode.INVALID_RECORD,
                path=path,
            )
        if not log.agrees(machine.applied_index, machine.applied_term):
            found = StateFound.FOREIGN
            index, term = machine.applied_index, machine.applied_term
            machine.close()
            raise CorruptionError(
                f"the state holds entry {index} of term {term}, the log one of another term: it is "
                "another member's or cluster's, or the log is",
                code=IntegrityCode.INVALID_RECORD,
                path=path,
            )
    except StorageError as damage:
        if not (isinstance(damage, CorruptionError) or _is_gone(damage, directory)):
            raise
        if damage.code is IntegrityCode.UNSUPPORTED_VERSION:
            found = StateFound.NEWER
        findings = Findings(state=found, others=others_of(log, member))
        if decide(findings).decision is Decision.REFUSE:
            raise refused(findings, damage) from None
        path = directory.make_stand_in()
        return OpenedState(path, _open_stand_in(path, mark, directory, options), found, damage)
    return OpenedState(path, machine, directory.found, None)


def _refuse_salvaged(directory: MemberDirectory, path: str) -> None:
    """Raise CorruptionError for a state that ``repair_db`` made openable: things are gone."""
    for name in directory.filesystem.names(path):
        if ".damaged" in name:
            raise CorruptionError(
                "what repair_db has left of a state",
                code=IntegrityCode.INVALID_RECORD,
                path=f"{path}/{name}",
            )


def _is_gone(error: StorageError, directory: MemberDirectory) -> bool:
    """Something of the state isn't there, or can't be read, for good."""
    return can_be_repaired(error) and directory.part_of(error.path).startswith("state")


def _open_stand_in(
    path: str, mark: SnapshotMeta, directory: MemberDirectory, options: ReplicaOptions
) -> StateMachine:
    """An empty state that says it is of ``mark``: nobody reads it."""
    database = open_state(path, options=options.engine, filesystem=directory.filesystem)
    try:
        if mark.index:
            stand_in(database, mark.index, mark.term)
        return StateMachine(database, memory=options.memory)
    except BaseException:
        database.close()
        raise
