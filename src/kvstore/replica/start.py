"""What a member finds at its start once log and state are open, and what follows (``recovery``)."""

from __future__ import annotations

from dataclasses import replace

from kvstore.errors import CorruptionError, IntegrityCode
from kvstore.raft import EntryKind
from kvstore.replica.recovery import (
    Decision,
    End,
    Entries,
    Findings,
    Others,
    Row,
    StateFound,
    decide,
    refused,
)
from kvstore.replica.storage import MemberLog

__all__ = ["judge_start", "name_directory", "others_of"]


def judge_start(log: MemberLog, member: int, state: StateFound, applied: int) -> Row:
    """The row of the table for a member whose state machine durably holds all up to ``applied``.

    ``state``: how it was found. Raises CorruptionError where it says that the member doesn't start.
    """
    found = _found(log, member, state, applied)
    row = decide(found)
    if row.decision is Decision.REFUSE:
        said = f" ({log.short})" if log.short else ""
        error = CorruptionError(
            f"{row.name}{said}: the log has entries {log.mark.index + 1} to {log.last_index} and "
            f"commit index {log.hard_state.commit}, the state all up to {applied}, "
            f"{len(log.hollow)} entries are damaged",
            code=IntegrityCode.INVALID_RECORD,
            path=log.path,
        )
        raise refused(found, error)
    return row


def name_directory(error: CorruptionError, path: str) -> None:
    """Have ``error`` name the member's directory where it names no file: its records, each right
    by itself, contradict each other."""
    if error.path is None:
        error.path = path
        error.args = (f"{error} in {path}",)


def _found(log: MemberLog, member: int, state: StateFound, applied: int) -> Findings:
    found = log.findings
    wanted = {index for index in log.hollow if index > applied}
    lists = [entry for entry in log.entries if entry.kind is EntryKind.MEMBERSHIP]
    entries = Entries.HOLLOW if wanted else Entries.WHOLE
    if any(entry.index in log.hollow - wanted for entry in lists):
        # Others have it in their snapshots alone, perhaps; the core takes the log for short.
        entries = Entries.MEMBERS_LOST
    if max(log.hard_state.commit, applied) > log.last_index or log.hard_state.damaged:
        found = replace(found, end=End.SHORT)
    return replace(found, entries=entries, state=state, others=others_of(log, member))


def others_of(log: MemberLog, member: int) -> Others:
    """Whether somebody else votes, by the newest list of members that can be read."""
    return Others.NONE if log.voters() == {member} else Others.SOME
