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
    "AnswerLostError",
    "BatchError",
    "ClosedError",
    "CompactedError",
    "ConfigurationError",
    "ConflictError",
    "CorruptionError",
    "DeadlineExceededError",
    "Error",
    "ForgottenError",
    "FutureRevisionError",
    "IntegrityCode",
    "InternalError",
    "InvalidArgumentError",
    "IteratorInvalidError",
    "LeaseLostError",
    "LeaseNotFoundError",
    "NoSpaceError",
    "NotFoundError",
    "NotLeaderError",
    "OutOfMemoryError",
    "Outcome",
    "OutcomeUnknownError",
    "OverloadedError",
    "PermissionDeniedError",
    "Refusal",
    "RefusedError",
    "ResourceExhaustedError",
    "StorageError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
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


class Outcome(enum.StrEnum):
    """What an error says of the write that it ended."""

    APPLIED = "applied"
    """It was applied, once; what else there was to say of it is lost (AnswerLostError)."""
    NOT_APPLIED = "not-applied"
    """It wasn't applied and won't be."""
    UNKNOWN = "unknown"
    """It may have been applied, or may yet be; a retry with the same request id tells."""


class Refusal(enum.StrEnum):
    """Why a request's past can't be known any more."""

    SESSION_EXPIRED = "SESSION_EXPIRED"
    """Its session was idle for too long, made room for another, or never was."""
    SEQUENCE_PASSED = "SEQUENCE_PASSED"
    """The client has said before that it will never send this sequence again."""
    REQUEST_FORGOTTEN = "REQUEST_FORGOTTEN"
    """A retry of a request that may be among those that aren't remembered any more."""


_RETRYABLE = {system.ENOSPC, system.EDQUOT, system.EMFILE, system.ENFILE, system.ENOMEM}


class Error(Exception):
    """Base of every error that kvstore raises on purpose.

    ``outcome``: what became of the write that a client's call was for; None where that doesn't
    apply, or where it is plain from the error's kind. ``attempts``: how often the call was tried;
    0 where it never left. ``request_id``: under which a write was sent, where it had one. To send
    it again with, only one that the caller chose will do: those of a session end with the call.
    """

    outcome: Outcome | None = None
    attempts: int = 0
    request_id: str | None = None

    @property
    def retryable(self) -> bool:
        """Whether the same call may go well later, as it is.

        A client has tried already for as long as it was told to. A write whose ``outcome`` is
        unknown isn't done twice only under the same request id.
        """
        return False

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own calls the class with `args`, which aren't what every class here takes.
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(kind: type[Error], args: tuple[object, ...], state: dict[str, object]) -> Error:
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class InvalidArgumentError(Error, ValueError):
    """The caller's input breaks a documented limit or rule; nothing was written."""


class TooLargeError(InvalidArgumentError):
    """A request, or the answer to it, is larger than one message may be."""


class FutureRevisionError(InvalidArgumentError):
    """A revision was asked for that the store hasn't come to."""


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
    (``None`` where the system reported none). ``is_final``: whatever the number, it stays so until
    the file or database is opened anew, as after a sync that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        code: IntegrityCode = IntegrityCode.IO_ERROR,
        path: str | None = None,
        offset: int | None = None,
        errno: int | None = None,
        is_final: bool = False,
    ) -> None:
        where = "" if path is None else f" in {path}"
        if offset is not None:
            where += f" at byte {offset}"
        super().__init__(f"{code}: {message}{where}")
        self.code = code
        self.path = path
        self.offset = offset
        self.errno = errno
        self.is_final = is_final

    def __reduce__(self) -> tuple[object, ...]:
        # OSError keeps `errno` elsewhere than the rest.
        state = {**self.__dict__, "errno": self.errno}
        return _restored, (type(self), self.args, state)

    @property
    def retryable(self) -> bool:
        """The system lacked space, descriptors or memory: the same may go well later."""
        return self.errno in _RETRYABLE and not self.is_final


class CorruptionError(StorageError):
    """Bytes were read that are provably not what was written; none of them was used."""


class AlreadyOpenError(StorageError):
    """Another process, or another handle in this one, holds the directory's lock."""


class OutOfMemoryError(StorageError, MemoryError):
    """There was no memory for something that storage needed; ``errno`` is ``ENOMEM``."""


class UnavailableError(Error):
    """No leader, or no contact with a majority; nothing was proposed, a retry is safe.

    ``code``: the trouble of a member's own storage that led to it, where it was that.
    """

    def __init__(self, message: str = "", *, code: IntegrityCode | None = None) -> None:
        super().__init__(message)
        self.code = code

    @property
    def retryable(self) -> bool:
        return True


class OverloadedError(UnavailableError):
    """The server has too much to do already; nothing was proposed, and a retry adds to it."""


class OutcomeUnknownError(UnavailableError):
    """The write was sent, and whether it was applied, or will be, isn't known.

    Retrying with the same request id gives the first result and applies nothing twice. A write that
    has none, as a transaction, isn't sent again by itself: read before writing again.
    """

    @property
    def retryable(self) -> bool:
        return self.request_id is not None


class ForgottenError(Error):
    """A write was refused because nobody knows any more whether it was applied before.

    This try of it was not applied. Whether an earlier one was, only reading can tell.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(_REFUSALS[refusal])
        self.refusal = refusal


_REFUSALS = {
    Refusal.SESSION_EXPIRED: "the session has expired, or never was: open another one, and read "
    "before writing again what may have been written",
    Refusal.SEQUENCE_PASSED: "the session has gone past this sequence: its client has said that "
    "it won't send it again",
    Refusal.REQUEST_FORGOTTEN: "a retry of a request that may have been applied and forgotten: "
    "read before writing again",
}


class AnswerLostError(Error):
    """A write was done, once, but its answer came to nobody, and what it read isn't remembered.

    ``revision``: at which it was done. ``succeeded``: of a transaction, whether its conditions
    held; of others true.
    """

    outcome = Outcome.APPLIED

    def __init__(self, revision: int, succeeded: bool) -> None:
        super().__init__(
            f"done at revision {revision}, but what it read is lost with the answer to it"
        )
        self.revision = revision
        self.succeeded = succeeded


class ResourceExhaustedError(Error):
    """A bound that callers share is reached; nothing was written."""

    @property
    def retryable(self) -> bool:
        return True


class NoSpaceError(ResourceExhaustedError):
    """The store has reached its quota: until there is room only reads and deletes are taken."""


class NotFoundError(Error):
    """What was named isn't there; nothing was written."""


class LeaseNotFoundError(NotFoundError):
    """There is no such lease, or no more; nothing was written."""


class LeaseLostError(Error):
    """A lease that was to be kept alive has expired, or may have: its keys are gone, or will be.

    What was done since under its protection may have been done by others at the same time.
    """


class CompactedError(Error):
    """History was asked for that is forgotten already.

    ``oldest``: the revision that it begins with now; 0 where the server didn't say.
    """

    def __init__(self, message: str, oldest: int = 0) -> None:
        super().__init__(message)
        self.oldest = oldest


class ConflictError(Error):
    """Others came first, or what was to be made is there already; nothing was written.

    ``key``: of a conditional batch, the first that isn't as it was expected.
    """

    def __init__(self, message: str, key: bytes | None = None) -> None:
        super().__init__(message)
        self.key = key


class RefusedError(Error):
    """As things stand the server does no such thing; nothing was changed."""


class NotLeaderError(Error):
    """This member does not lead; ``leader`` is the member that does (0 when unknown)."""

    def __init__(self, leader: int, leader_address: str | None = None) -> None:
        super().__init__(f"not the leader; leader_hint={leader}")
        self.leader = leader
        self.leader_address = leader_address

    @property
    def retryable(self) -> bool:
        return True


class PermissionDeniedError(Error):
    """The caller may not do this: only an operator may, or a user with the right to."""


class UnauthenticatedError(Error):
    """The server doesn't know who asks: a user and a password are missing, or wrong."""


class DeadlineExceededError(Error, TimeoutError):
    """The call was not finished within its deadline; a write may still be applied later."""

    @property
    def retryable(self) -> bool:
        return True


class UnsupportedError(Error):
    """The server is too old to know what it was asked, or its mode has no such thing."""


class BatchError(Error):
    """Of many operations some failed.

    ``failures`` has the error of each that did, by its place, from 0 on. ``taken`` is how many were
    begun: all before it that aren't among the failures were done, none from it on was. ``results``:
    of a pipeline, each operation's result or error, in order. The cause is what the caller's own
    iterator raised, if it did.
    """

    def __init__(
        self,
        failures: dict[int, Error],
        taken: int,
        results: list[bool | bytes | Error | None] | None = None,
        *,
        cause: BaseException | None = None,
    ) -> None:
        self.failures = dict(sorted(failures.items()))
        self.taken = taken
        self.results = results
        said = []
        if cause is not None:
            said.append(f"the iterator of items failed after {taken}: {cause}")
        if failures:
            place, first = next(iter(self.failures.items()))
            said.append(f"{len(failures)} of {taken} operations failed; number {place}: {first}")
        super().__init__("; ".join(said))


class InternalError(Error):
    """A defect in kvstore, or a failure that has no better name."""
