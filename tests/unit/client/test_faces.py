"""What is for threads is what is for asyncio: the same names, arguments and results."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from kvstore import client

PAIRS = [
    (client.AsyncAuth, client.Auth),
    (client.AsyncClient, client.Client),
    (client.AsyncDraft, client.Draft),
    (client.AsyncElection, client.Election),
    (client.AsyncLeadership, client.Leadership),
    (client.AsyncLease, client.Lease),
    (client.AsyncLock, client.Lock),
    (client.AsyncMaintenance, client.Maintenance),
    (client.AsyncRange, client.Range),
    (client.AsyncTransaction, client.Transaction),
    (client.AsyncWatch, client.Watch),
]

# Of one face alone: what many operations and blocking faces use, waiting (which needs a timeout of
# its own where no task can be cancelled), and reading page by page.
ASYNC_ONLY = {
    "calls",
    "doer",
    "go_on",
    "leave",
    "commit",
    "delivery",
    "next_page",
    "place",
}
DIFFERENT = {"wait_lost"}
# Fields of one, properties of the other.
FIELDS = {"id", "revision"}


def public(kind: type[Any]) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and (callable(member) or isinstance(member, property))
    }


def said(member: Any) -> str:
    """A signature, in the words of the blocking face."""
    if isinstance(member, property):
        returned = str(inspect.signature(member.fget).return_annotation)
        return f"property {returned.removeprefix('Async')}"
    text = str(inspect.signature(member))
    text = re.sub(r"Async(?=[A-Z])", "", text)
    text = text.replace("Generator[Event, None]", "Iterator[Event]")
    text = text.replace("Generator[KeyValue, None]", "Iterator[KeyValue]")
    text = text.replace("Generator[bytes, None]", "Iterator[bytes]")
    text = text.replace(
        "Generator[tuple[bytes, bytes | None], None]", "Iterator[tuple[bytes, bytes | None]]"
    )
    return re.sub(r"Awaitable\[(\w+)\]", r"\1", text)


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_faces_have_the_same(asynchronous: type[Any], blocking: type[Any]) -> None:
    ours, theirs = public(asynchronous), public(blocking)
    own = ASYNC_ONLY | FIELDS
    assert set(ours) - own == set(theirs) - own
    for name in set(ours) - own - DIFFERENT:
        assert said(ours[name]) == said(theirs[name]), name


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS, ids=lambda kind: kind.__name__)
def test_everything_says_what_it_is_for(asynchronous: type[Any], blocking: type[Any]) -> None:
    for kind in (asynchronous, blocking):
        assert inspect.getdoc(kind)
        for name, member in public(kind).items():
            if name not in ("id",):
                assert inspect.getdoc(member), (kind, name)
