"""What another member sends, looked at before anything of it is kept.

An entry that can't be applied must not get into a log: each member that has it would stop there,
and again after every start. So its bytes are checked when it comes in, not when it is applied.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.errors import CorruptionError, IntegrityCode, InvalidArgumentError
from kvstore.raft import EntryKind, Membership, Message, MessageKind
from kvstore.raft.codec import decode_membership
from kvstore.raft.membership import check_held
from kvstore.replica.packets import Packet, SnapshotPart
from kvstore.state import check_entry

__all__ = ["JudgeMembership", "check_packet"]

JudgeMembership = Callable[[Membership], object]
"""Raises CorruptionError for members that this program could not talk to."""

_COMMAND = EntryKind.COMMAND
_MEMBERSHIP = EntryKind.MEMBERSHIP


def check_packet(packet: Packet, judge: JudgeMembership) -> None:
    """Raise CorruptionError unless everything in ``packet`` could be kept and applied."""
    if isinstance(packet, Message):
        if packet.kind is MessageKind.SNAPSHOT:
            # Members send its parts; the core hears of it from this one when all are here.
            raise _bad("news of a snapshot without the snapshot")
        for _, _, kind, data in packet.entries:
            if kind == _COMMAND:
                check_entry(data)
            elif kind == _MEMBERSHIP:
                _check_membership(decode_membership(data), judge)
            elif data:
                raise _bad("an empty entry with data")
    elif isinstance(packet, SnapshotPart):
        _check_membership(packet.meta.membership, judge)


def _check_membership(membership: Membership, judge: JudgeMembership) -> None:
    try:
        check_held(membership)
    except InvalidArgumentError as error:
        raise _bad(f"a list of members that can't be: {error}") from error
    judge(membership)


def _bad(what: str) -> CorruptionError:
    return CorruptionError(what, code=IntegrityCode.INVALID_RECORD, path="a peer's packet")
