"""kvstore: an embedded, ordered key-value store and a replicated server, with clients for it.

Names are loaded on first use, so that ``import kvstore`` costs nothing, a program that only
embeds the store never loads gRPC, and one that is only a client never loads the store.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kvstore.extras import missing_package

if TYPE_CHECKING:
    from kvstore.client import (
        TLS,
        AsyncClient,
        Client,
        Delete,
        Event,
        EventKind,
        Get,
        KeyValue,
        Put,
        RetryPolicy,
    )
    from kvstore.engine import (
        DB,
        Change,
        ChangeFeed,
        ChangeKind,
        Iterator,
        Options,
        PrefixedDB,
        RawIterator,
        RepairReport,
        Snapshot,
        WriteBatch,
        destroy_db,
        open,
        repair_db,
    )
    from kvstore.errors import (
        AlreadyOpenError,
        AnswerLostError,
        BatchError,
        ClosedError,
        CompactedError,
        ConfigurationError,
        ConflictError,
        CorruptionError,
        DeadlineExceededError,
        Error,
        ForgottenError,
        FutureRevisionError,
        IntegrityCode,
        InternalError,
        InvalidArgumentError,
        IteratorInvalidError,
        LeaseLostError,
        LeaseNotFoundError,
        NoSpaceError,
        NotFoundError,
        NotLeaderError,
        Outcome,
        OutcomeUnknownError,
        OutOfMemoryError,
        OverloadedError,
        PermissionDeniedError,
        RefusedError,
        ResourceExhaustedError,
        StorageError,
        TooLargeError,
        UnauthenticatedError,
        UnavailableError,
        UnsupportedError,
    )

__all__ = [
    "DB",
    "TLS",
    "AlreadyOpenError",
    "AnswerLostError",
    "AsyncClient",
    "BatchError",
    "Change",
    "ChangeFeed",
    "ChangeKind",
    "Client",
    "ClosedError",
    "CompactedError",
    "ConfigurationError",
    "ConflictError",
    "CorruptionError",
    "DeadlineExceededError",
    "Delete",
    "Error",
    "Event",
    "EventKind",
    "ForgottenError",
    "FutureRevisionError",
    "Get",
    "IntegrityCode",
    "InternalError",
    "InvalidArgumentError",
    "Iterator",
    "IteratorInvalidError",
    "KeyValue",
    "LeaseLostError",
    "LeaseNotFoundError",
    "NoSpaceError",
    "NotFoundError",
    "NotLeaderError",
    "Options",
    "OutOfMemoryError",
    "Outcome",
    "OutcomeUnknownError",
    "OverloadedError",
    "PermissionDeniedError",
    "PrefixedDB",
    "Put",
    "RawIterator",
    "RefusedError",
    "RepairReport",
    "ResourceExhaustedError",
    "RetryPolicy",
    "Snapshot",
    "StorageError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "WriteBatch",
    "__version__",
    "destroy_db",
    "open",
    "repair_db",
]

__version__: str
"""Of the installed package; ``unknown`` where there is none."""

_HOMES = {
    "kvstore.client": (
        "TLS",
        "AsyncClient",
        "Client",
        "Delete",
        "Event",
        "EventKind",
        "Get",
        "KeyValue",
        "Put",
        "RetryPolicy",
    ),
    "kvstore.engine": (
        "DB",
        "Change",
        "ChangeFeed",
        "ChangeKind",
        "Iterator",
        "Options",
        "PrefixedDB",
        "RawIterator",
        "RepairReport",
        "Snapshot",
        "WriteBatch",
        "destroy_db",
        "open",
        "repair_db",
    ),
    "kvstore.errors": (
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
        "RefusedError",
        "ResourceExhaustedError",
        "StorageError",
        "TooLargeError",
        "UnauthenticatedError",
        "UnavailableError",
        "UnsupportedError",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return importlib.import_module("kvstore.version").version()
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'kvstore' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        line = missing_package(f"kvstore.{name}", error)
        if line is None:
            raise
        raise ModuleNotFoundError(line, name=error.name) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if find_spec("grpc") is None:
    # The library alone is installed. What can't be loaded isn't offered, or `from kvstore import *`
    # and whatever goes through all names would fail; who asks for it is told what to install.
    __all__ = [name for name in __all__ if _HOME.get(name) != "kvstore.client"]
