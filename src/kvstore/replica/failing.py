"""How a member ends: what it is told to have been, what its clients are told, who leads then."""

from __future__ import annotations

from kvstore.errors import (
    CorruptionError,
    Error,
    IntegrityCode,
    InternalError,
    StorageError,
    UnavailableError,
)
from kvstore.raft import MessageKind, Raft
from kvstore.replica.packets import Transport

__all__ = ["as_damage", "defect_of", "resign", "told_of"]


def told_of(error: StorageError, kind: type[UnavailableError], *, alone: bool) -> Error:
    """What clients are told of a member's own storage: data is lost only if no other has it."""
    if alone:
        return error
    return kind(f"this member's storage failed: {error}; retry with the same id", code=error.code)


def defect_of(exception: Exception) -> InternalError:
    """A mistake in this program, as the reason why a member ends."""
    error = InternalError(f"{type(exception).__name__}: {exception}")
    error.__cause__ = exception
    return error


def as_damage(error: StorageError) -> CorruptionError:
    """Bytes that can't be read are as good as gone, where other members have them."""
    if isinstance(error, CorruptionError):
        return error
    return CorruptionError(
        f"it can't be read (errno {error.errno})",
        code=IntegrityCode.IO_ERROR,
        path=error.path,
        offset=error.offset,
    )


def resign(raft: Raft, transport: Transport) -> None:
    """Let another voter lead now, not an election timeout later."""
    raft.resign()
    while (bundle := raft.ready()) is not None:
        told = [m for m in bundle.messages if m.kind is MessageKind.TIMEOUT_NOW]
        if told:
            transport.send(told)
