"""Errors travel: between processes of a pool, through queues and logs, with all that they say."""

import copy
import errno
import pickle

import pytest

from kvstore import errors
from kvstore.errors import Error, IntegrityCode, NotLeaderError, Outcome, Refusal, StorageError

KINDS = sorted(
    (
        kind
        for kind in (getattr(errors, name) for name in errors.__all__)
        if issubclass(kind, Exception)
    ),
    key=lambda kind: kind.__name__,
)


def example(kind: type[Error]) -> Error:
    if issubclass(kind, StorageError):
        return kind(
            "no room",
            code=IntegrityCode.TRUNCATED_RECORD,
            path="/db/000001.sst",
            offset=17,
            errno=errno.ENOSPC,
        )
    if issubclass(kind, errors.ForgottenError):
        return kind(Refusal.SEQUENCE_PASSED)
    if issubclass(kind, NotLeaderError):
        return kind(3, "127.0.0.1:7000")
    if issubclass(kind, errors.BatchError):
        return kind({}, 7, cause=LookupError("no more"))
    if issubclass(kind, errors.AnswerLostError):
        return kind(7, False)
    return kind("what went wrong")


def said(error: Error) -> dict[str, object]:
    names = ("code", "path", "offset", "errno", "retryable", "refusal", "leader", "leader_address")
    return {
        "kind": type(error),
        "text": str(error),
        "args": error.args,
        "attributes": vars(error),
        **{name: getattr(error, name, None) for name in names},
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_keeps_what_it_says_when_it_is_pickled_or_copied(kind, way):  # type: ignore[no-untyped-def]
    error = example(kind)
    error.outcome = Outcome.UNKNOWN
    error.add_note("seen while testing")
    before = said(error)
    again = way(error)
    assert again is not error
    assert said(again) == before == said(error)


def test_a_storage_error_without_a_place_stays_without() -> None:
    again = pickle.loads(pickle.dumps(StorageError("gone")))
    assert (again.path, again.offset, again.errno, again.retryable) == (None, None, None, False)
    assert (again.code, str(again)) == (IntegrityCode.IO_ERROR, "IO_ERROR: gone")
