"""One taxonomy of errors for every layer.

Each error says what went wrong, where (file, offset, index, member) and, where a machine
must decide on it, a code. An error is raised once, at the place that knows, and translated
once, at the border: to a gRPC status in ``kvstore.api``, to an exit code in ``kvstore.cli``.
"""

from __future__ import annotations

import enum
import errno as system

__all__ = [
    "AlreadyOpenError",
    "ClosedError",
    "ConfigurationError",
    "CorruptionError",
    "DeadlineExceededError",
    "Error",
    "IntegrityCode",
    "InternalError",
    "InvalidArgumentError",
    "IteratorInvalidError",
    "NotLeaderError",
    "OutOfMemoryError",
    "OutcomeUnknownError",
    "StorageError",
    "UnavailableError",
]


class IntegrityCode(enum.StrEnum):
    """Why stored or received bytes, or the device that holds them, can't be trusted."""

    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    TRUNCATED_RECORD = "TRUNCATED_RECORD"
    INVALID_MAGIC = "INVALID_MAGIC"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    INVALID_OPERATION = "INVALID_OPERATION"
    INVALID_RECORD = "INVALID_RECORD"
    IO_ERROR = "IO_ERROR"


_RETRYABLE = {system.ENOSPC, system.EDQUOT, system.EMFILE, system.ENFILE, system.ENOMEM}


class Error(Exception):
    """Base of every error that kvstore raises on purpose."""


class InvalidArgumentError(Error, ValueError):
    """The caller's input breaks a documented limit or rule; nothing was written."""


class IteratorInvalidError(InvalidArgumentError):
    """A raw iterator that stands on no entry was asked for one, or to move on from it."""


class ClosedError(Error, RuntimeError):
    """The database, iterator or client was used after it was closed."""


class ConfigurationError(Error):
    """A flag, file or environment variable is missing, unreadable or contradictory."""


class StorageError(Error, OSError):
    """A file could not be read, written or trusted.

    ``code`` is the :class:`IntegrityCode`, ``path`` the file, ``offset`` the byte at which the
    trouble begins (``None`` where it concerns the whole file) and ``errno`` the system's number
    (``None`` where the system reported none).
    """

    def __init__(
        self,
        message: str,
        *,
        code: IntegrityCode = IntegrityCode.IO_ERROR,
        path: str | None = None,
        offset: int | None = None,
        errno: int | None = None,
    ) -> None:
        where = "" if path is None else f" in {path}"
        if offset is not None:
            where += f" at byte {offset}"
        super().__init__(f"{code}: {message}{where}")
        self.code = code
        self.path = path
        self.offset = offset
        self.errno = errno

    @property
    def retryable(self) -> bool:
        """The system lacked space, descriptors or memory: the same may go well later."""
        return self.errno in _RETRYABLE


class CorruptionError(StorageError):
    """Bytes were read that are provably not what was written; none of them was used."""


class AlreadyOpenError(StorageError):
    """Another process, or another handle in this one, holds the directory's lock."""


class OutOfMemoryError(StorageError, MemoryError):
    """There was no memory for something that storage needed; ``errno`` is ``ENOMEM``."""


class UnavailableError(Error):
    """No leader, or no contact with a majority; nothing was proposed, a retry is safe."""


class OutcomeUnknownError(UnavailableError):
    """The write was proposed but leadership was lost before its fate was known.

    Retrying with the same request id gives the first result and applies nothing twice.
    """


class NotLeaderError(Error):
    """This member does not lead; ``leader`` is the member that does (0 when unknown)."""

    def __init__(self, leader: int, leader_address: str | None = None) -> None:
        super().__init__(f"not the leader; leader_hint={leader}")
        self.leader = leader
        self.leader_address = leader_address


class DeadlineExceededError(Error, TimeoutError):
    """The call was not finished within its deadline; a write may still be applied later."""


class InternalError(Error):
    """A defect in kvstore, or a failure that has no better name."""
