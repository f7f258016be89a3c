"""Where ``kvctl copy`` copies to: a group, or what can stand for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Protocol, TypeAlias

import click

from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.transfer.export import KEY_BYTES_MAX
from kvstore.cli.transfer.plan import Plan, There
from kvstore.client import Client
from kvstore.errors import Error, StorageError

__all__ = [
    "GroupSide",
    "Pair",
    "Side",
    "chunks",
    "goes_on",
    "refuse_others",
    "refuse_to_empty",
    "refuse_too_long",
]

Pair: TypeAlias = tuple[bytes, bytes]

CHUNK_KEYS, CHUNK_BYTES = 1000, 8 << 20
"""That are handed on at one time."""


class Side(Protocol):
    """Where keys come to."""

    def put(self, pairs: Sequence[Pair]) -> None:
        """Store them, some of :func:`chunks`, each by itself and no key twice. Raises Error when
        one fails."""

    def delete(self, keys: Sequence[bytes]) -> None:
        """Remove them, likewise."""

    def get(self, keys: Sequence[bytes]) -> Iterator[bytes | StorageError | None]:
        """Their values, None where there is none; an error where it is damaged."""

    def keys(self, prefix: bytes) -> Iterator[Sequence[bytes]]:
        """Those that begin so, some at a time."""

    def leased(self, prefix: bytes) -> Set[bytes]:
        """Those of them that go with a lease."""


class GroupSide:
    """A group, through a client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def put(self, pairs: Sequence[Pair]) -> None:
        self.client.put_many(pairs)

    def delete(self, keys: Sequence[bytes]) -> None:
        with self.client.pipeline() as listed:
            for key in keys:
                listed.delete(key)

    def get(self, keys: Sequence[bytes]) -> Iterator[bytes | StorageError | None]:
        for _, value in self.client.get_many(keys):
            yield value

    def keys(self, prefix: bytes) -> Iterator[Sequence[bytes]]:
        for page in self.client.range(prefix=prefix, keys_only=True).pages():
            yield [entry.key for entry in page]

    def leased(self, prefix: bytes) -> Set[bytes]:
        pages = self.client.range(prefix=prefix, keys_only=True).pages()
        return {entry.key for page in pages for entry in page if entry.lease}


def chunks(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Some at a time, as many as are handed on together."""
    chunk: list[Pair] = []
    size = 0
    for key, value in pairs:
        if len(chunk) >= CHUNK_KEYS or (chunk and size + len(value) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((key, value))
        size += len(key) + len(value)
    if chunk:
        yield chunk


def refuse_others(side: Side, plan: Plan) -> None:
    """Raises ClickException where such keys are there already, and nobody said what of them."""
    if plan.there is There.REFUSED and any(side.keys(plan.begin)):
        raise click.ClickException(
            "there are such keys already where they would come to: --merge copies beside them, "
            "--mirror has those go that the source doesn't have"
        )


def refuse_to_empty(keys: int, new: Side, plan: Plan) -> None:
    """Raises ClickException where a mirror of a source with so many ``keys``, none, would remove
    all that there is: rather the source is another than was meant."""
    if keys or plan.there is not There.MIRRORED or plan.empties:
        return
    if any(new.keys(plan.begin)):
        raise click.ClickException(
            "the source has no such keys, and --mirror would remove all that there are where they "
            "come to: --allow-empty does"
        )


def refuse_too_long(old: Client, plan: Plan, revision: int) -> None:
    """Raises ClickException where a key would get longer than a key may be."""
    more = len(plan.begin) - len(plan.prefix)
    if more <= 0:
        return
    for page in old.range(prefix=plan.prefix, revision=revision, keys_only=True).pages():
        for entry in page:
            if len(entry.key) + more > KEY_BYTES_MAX:
                raise click.ClickException(
                    f"with --to-prefix {printable(entry.key)} would have {len(entry.key) + more} "
                    f"bytes, more than {KEY_BYTES_MAX}"
                )


@contextlib.contextmanager
def goes_on(plan: Plan, how_many: Callable[[], int]) -> Iterator[None]:
    """Whatever ends it before its time: say what stays, and how it goes on."""
    try:
        yield
    except (Error, KeyboardInterrupt, SystemExit):
        click.echo(
            f"kvctl: at least {how_many()} keys were copied, and stay; {plan.again} goes on from "
            "there",
            err=True,
        )
        raise
