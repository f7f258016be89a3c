"""What a member does about what it finds at its start: one table, for every combination.

Whoever opens something says what it found (:class:`Findings`); what follows from all of it together
is decided here alone, by the first row of :data:`TABLE` that fits. The rows stand by gravity: what
is found besides can make the decision graver, never milder, so that one may decide as soon as there
is reason to refuse. A decision includes the milder ones: who stands aside fetches what is damaged
as well, and a torn tail is cut in any case.

docs/operations.md has the same table for operators; "Protocol-Aware Recovery" (FAST'18), §3.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from kvstore.errors import ConfigurationError, CorruptionError, Error, IntegrityCode

__all__ = [
    "TABLE",
    "Decision",
    "Directory",
    "End",
    "Entries",
    "Findings",
    "LogFound",
    "Others",
    "Owner",
    "Peers",
    "Row",
    "StateFound",
    "decide",
    "log_found_by",
    "refused",
]

Refusal = TypeVar("Refusal", bound=Error)


class Decision(enum.IntEnum):
    """What a member does, by gravity."""

    GO_ON = 0
    """All is there; what a start that was cut off left is finished or removed."""
    CUT = 1
    """The tail that no sync was ever acknowledged for goes."""
    FETCH = 2
    """Data that is damaged comes from other members; until then it doesn't lead."""
    STAND_ASIDE = 3
    """What it acknowledged may be missing: its vote doesn't count until a later leader has brought
    it up to date (``raft.damage``)."""
    REFUSE = 4
    """It doesn't start, and says what the operator must do."""


class Directory(enum.Enum):
    """The data directory, by its file ``KVSTORE``."""

    OURS = "ours, or new"
    FOREIGN = "files of somebody else's, and no KVSTORE"
    DAMAGED = "KVSTORE is damaged"
    NEWER = "a newer format"
    OTHER_MODE = "of the other mode"


class Owner(enum.Enum):
    """Whose directory it is, by its file ``MEMBER``."""

    OURS = "ours, or new"
    FOREIGN = "another member's, or another cluster's"
    DAMAGED = "MEMBER is damaged"
    GONE = "MEMBER is gone, where a log or PEERS is there"
    NEWER = "a newer format"


class Peers(enum.Enum):
    """What it remembers of the others' directories, by its file ``PEERS``."""

    OURS = "ours, or new"
    GONE = "gone, where there was one"
    FOREIGN = "another member's"
    DAMAGED = "PEERS is damaged"


class LogFound(enum.Enum):
    """The log's segments and headers."""

    WHOLE = "whole, or new"
    FOREIGN = "another member's, or another cluster's"
    GONE = "gone, where there was one"
    NEWER = "of a newer format"
    UNNOTED = "damaged, as below, and nothing is noted of term and vote beside it"
    DAMAGED = (
        "a segment or a record's header is damaged, or a segment in the middle is missing; what "
        "stands before that is kept, and term and vote are noted beside it"
    )
    FORGOTTEN = "gone, of one of this process's members, a majority of which still has theirs"
    VOTE_LOST = "the newest record of mark, identity, or term and vote without a note, is damaged"


class Entries(enum.Enum):
    """The entries of a log whose headers are whole."""

    WHOLE = "whole"
    HOLLOW = "the data of some is damaged"
    MEMBERS_LOST = "the list of members that the state was made with is damaged"


class End(enum.Enum):
    """Where the log ends."""

    RIGHT = "where it was written to"
    TORN = "in a record that was never durable"
    SHORT = (
        "before what was durable, by the note beside it, the commit index or the state; "
        "or term and vote are those of the note alone"
    )
    VOTE_ALONE = "where it was written to, but term and vote are damaged, of the only voter"


class StateFound(enum.Enum):
    """The state machine, beside the log's mark."""

    FITS = "holds what the mark says, or more; or neither is there"
    READY = "the snapshot that the mark names waits to be installed"
    GONE = "the log has a mark, and no state is there"
    OLDER = "older than the mark"
    FOREIGN = "of another log: the last entry that it holds has another term there"
    DAMAGED = "damaged"
    NEWER = "of a newer format"


class Others(enum.Enum):
    """Whether other members could have what is missing here."""

    SOME = "there are others"
    NONE = "it is the only voter"


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found; what wasn't looked at yet is as it should be."""

    directory: Directory = Directory.OURS
    owner: Owner = Owner.OURS
    peers: Peers = Peers.OURS
    log: LogFound = LogFound.WHOLE
    entries: Entries = Entries.WHOLE
    end: End = End.RIGHT
    state: StateFound = StateFound.FITS
    others: Others = Others.SOME


@dataclass(frozen=True, slots=True)
class Row:
    """One row: where of all that ``found`` names one was found, and no row before it fits.

    ``advice``: what the operator must do. ``status``: what kvd ends with, 0 where it goes on.
    """

    name: str
    found: Mapping[str, tuple[object, ...]]
    decision: Decision
    advice: str = ""
    status: int = 0

    def fits(self, findings: Findings) -> bool:
        """All that this row names was found."""
        return all(getattr(findings, what) in values for what, values in self.found.items())


_REPLACE_ONE = (
    "replace this member: 'kvctl member remove' it, then add one under a new id with an empty "
    "data_dir"
)
REPLACE = f"{_REPLACE_ONE} (an embedded kvd: begin anew with a backup)"
_REPLACE_DAMAGED = (
    f"{_REPLACE_ONE} (an embedded kvd: move that member's directory, node<id>, elsewhere and start "
    "again: it is made anew from the others)"
)
_PUT_BACK = "put back the directory as it was when kvd stopped, or give the right data_dir"
_BACKUP = "no other member has it: begin anew with a backup"
_RENEW_PEERS = "put it back, or remove it: it is told anew as the others are met"
_UPDATE = "use the kvstore that wrote it, or a newer one"

_UNUSABLE = (StateFound.GONE, StateFound.OLDER, StateFound.FOREIGN, StateFound.DAMAGED)


def _refuse(name: str, advice: str, status: int, **found: object) -> Row:
    return Row(name, {what: (value,) for what, value in found.items()}, _REFUSE, advice, status)


_REFUSE = Decision.REFUSE
_ALONE = (Others.NONE,)

TABLE: tuple[Row, ...] = (
    _refuse(
        "the directory is somebody else's",
        "give an empty or a new directory with --data_dir",
        1,
        directory=Directory.FOREIGN,
    ),
    _refuse("KVSTORE is damaged", _PUT_BACK, 1, directory=Directory.DAMAGED),
    _refuse(
        "the directory has a newer format", "use a newer kvstore", 1, directory=Directory.NEWER
    ),
    _refuse(
        "the directory is of the other mode",
        "a directory keeps its mode",
        1,
        directory=Directory.OTHER_MODE,
    ),
    _refuse(
        "MEMBER is another's",
        "give the right data_dir, cluster_id or self_id",
        1,
        owner=Owner.FOREIGN,
    ),
    _refuse("MEMBER has a newer format", "use a newer kvstore", 1, owner=Owner.NEWER),
    _refuse("MEMBER is damaged", REPLACE, 5, owner=Owner.DAMAGED),
    _refuse("MEMBER is gone", REPLACE, 5, owner=Owner.GONE),
    _refuse("PEERS is another's", _RENEW_PEERS, 5, peers=Peers.FOREIGN),
    _refuse("PEERS is damaged", _RENEW_PEERS, 5, peers=Peers.DAMAGED),
    _refuse("the log is another's", _PUT_BACK, 1, log=LogFound.FOREIGN),
    _refuse(
        "the log is gone",
        f"put back the directory as it was when kvd stopped; if it is lost, {REPLACE}",
        1,
        log=LogFound.GONE,
    ),
    _refuse("the log has a newer format", _UPDATE, 5, log=LogFound.NEWER),
    _refuse(
        "the log is damaged, and nothing is noted of it", _REPLACE_DAMAGED, 5, log=LogFound.UNNOTED
    ),
    _refuse(
        "term and vote, mark or identity are lost", _REPLACE_DAMAGED, 5, log=LogFound.VOTE_LOST
    ),
    _refuse("the state has a newer format", _UPDATE, 5, state=StateFound.NEWER),
    Row(
        "the only voter's state can't be used",
        {"others": _ALONE, "state": _UNUSABLE},
        _REFUSE,
        _BACKUP,
        status=5,
    ),
    Row(
        "the only voter's log is damaged",
        {"others": _ALONE, "log": (LogFound.DAMAGED, LogFound.FORGOTTEN)},
        _REFUSE,
        _BACKUP,
        status=5,
    ),
    Row(
        "the only voter's log is short",
        {"others": _ALONE, "end": (End.SHORT,)},
        _REFUSE,
        _BACKUP,
        status=5,
    ),
    Row(
        "the only voter's entries are damaged",
        {"others": _ALONE, "entries": (Entries.HOLLOW, Entries.MEMBERS_LOST)},
        _REFUSE,
        _BACKUP,
        status=5,
    ),
    Row("the log is damaged", {"log": (LogFound.DAMAGED,)}, Decision.STAND_ASIDE),
    Row(
        "the log of one of several members is gone",
        {"log": (LogFound.FORGOTTEN,)},
        Decision.STAND_ASIDE,
    ),
    Row("the log is short", {"end": (End.SHORT,)}, Decision.STAND_ASIDE),
    Row("the list of members is lost", {"entries": (Entries.MEMBERS_LOST,)}, Decision.STAND_ASIDE),
    Row("entries are damaged", {"entries": (Entries.HOLLOW,)}, Decision.FETCH),
    Row("the state can't be used", {"state": _UNUSABLE}, Decision.FETCH),
    Row("the tail is torn", {"end": (End.TORN,)}, Decision.CUT),
    Row("the only voter's vote is damaged", {"end": (End.VOTE_ALONE,)}, Decision.GO_ON),
    Row("PEERS is gone", {"peers": (Peers.GONE,)}, Decision.GO_ON),
    Row("a snapshot waits", {"state": (StateFound.READY,)}, Decision.GO_ON),
    Row("all is there", {}, Decision.GO_ON),
)
"""By gravity; the first row that fits decides."""


def decide(findings: Findings) -> Row:
    """The one row for what was found."""
    return next(row for row in TABLE if row.fits(findings))


def refused(findings: Findings, error: Refusal) -> Refusal:
    """``error``, which whoever found that raised, with what the operator must do about it."""
    row = decide(findings)
    assert row.decision is Decision.REFUSE, "who raises has a reason to refuse"
    said = str(error)
    if row.advice and row.advice not in said:
        error.args = (f"{said}; {row.advice}",)
    return error


def log_found_by(error: CorruptionError | ConfigurationError) -> LogFound:
    """What opening a log found, when it raised ``error``."""
    if isinstance(error, ConfigurationError):
        return LogFound.FOREIGN
    if error.code is IntegrityCode.UNSUPPORTED_VERSION:
        return LogFound.NEWER
    return LogFound.UNNOTED
