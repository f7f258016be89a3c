"""What is for threads is what is for asyncio: the same names, arguments, results and words.

There is one implementation, the asynchronous one; a method for threads hands its arguments to it,
and waits. That it hands on each of them, under its own name, is read from its source here, so that
the two can't drift apart without a test that fails.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

import pytest

from kvstore import client, testing
from kvstore.client.operating import AsyncOperating, Operating
from kvstore.client.pipeline import AsyncPipeline, Pipeline

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
    (AsyncPipeline, Pipeline),
    (AsyncOperating, Operating),
    (testing.AsyncMemoryClient, testing.MemoryClient),
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
    "look",
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


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_faces_say_the_same(asynchronous: type[Any], blocking: type[Any]) -> None:
    theirs = public(blocking)
    for name, member in public(asynchronous).items():
        if name not in theirs or name in FIELDS | DIFFERENT:
            continue
        said, word = inspect.getdoc(member) or "", inspect.getdoc(theirs[name]) or ""
        refers = re.search(rf"[Ss]ee :\w+:`(?:kvstore\.)?\w+\.{name}`", said)
        same = re.sub(r"Async(?=[A-Z])", "", said.replace("async with", "with")).rstrip(".")
        assert refers or word.startswith(same), (asynchronous, name)


def functions(kind: type[Any]) -> dict[str, ast.FunctionDef]:
    """The public methods that a class defines itself, as they are written."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        one.name: one
        for one in tree.body
        if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")
    }


def mishandled(function: ast.FunctionDef) -> list[str]:
    """Arguments of a method that its body doesn't use, or hands on to that of the same name under
    another name."""
    arguments = function.args
    own = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    used = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    wrong = [name for name in own if name != "self" and name not in used]
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            if call.func.attr != function.name:
                continue
            handed = [*call.args, *(keyword.value for keyword in call.keywords)]
            names = {one.id for one in handed if isinstance(one, ast.Name)}
            wrong += [name for name in own - {"self"} if name not in names]
            for keyword in call.keywords:
                if isinstance(keyword.value, ast.Name) and keyword.value.id != keyword.arg:
                    wrong.append(f"{keyword.arg}={keyword.value.id}")
    return wrong


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS, ids=lambda kind: kind.__name__)
def test_every_argument_is_handed_on(asynchronous: type[Any], blocking: type[Any]) -> None:
    for function in functions(blocking).values():
        if function.name in DIFFERENT:
            continue
        assert not mishandled(function), (blocking, function.name)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("work.client.scan(start, end, limit=limit)", []),
        ("work.client.scan(start, end)", ["limit"]),
        ("work.client.scan(start, limit=end)", ["limit", "limit=end"]),
        ("work.client.scan(start, end, limit=limit, reverse=end)", ["reverse=end"]),
        ("work.client.other(start, end)", ["limit"]),
    ],
)
def test_what_is_not_handed_on_is_found(body: str, wrong: list[str]) -> None:
    (function,) = ast.parse(f"def scan(self, start, end, *, limit):\n    return {body}").body
    assert isinstance(function, ast.FunctionDef)
    assert sorted(set(mishandled(function))) == wrong


def test_the_names_of_the_package_are_where_they_are_looked_for() -> None:
    assert sorted(client._HOME) == sorted(client.__all__)
    assert [name for name in client.__all__ if not hasattr(client, name)] == []
    assert set(client.__all__) <= set(dir(client))
    with pytest.raises(AttributeError, match="no attribute 'Clients'"):
        client.Clients  # noqa: B018


def test_what_operators_ask_is_loaded_by_the_thread_that_asks() -> None:
    """A fork while the loop's thread imports would leave the child with a lock that nobody gives
    back."""
    for function in functions(Operating).values():
        begun = {one.attr for one in ast.walk(function) if isinstance(one, ast.Attribute)}
        assert "_operating" in begun, function.name
        assert "_begun" not in begun, function.name
