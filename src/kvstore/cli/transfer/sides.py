"""Where ``kvctl copy`` copies to: a group, or what can stand for one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import click

from kvstore.cli.transfer.plan import Plan, There
from kvstore.client import Client
from kvstore.errors import Error, StorageError

__all__ = ["GroupSide", "Pair", "Side", "chunks", "goes_on", "refuse_others"]

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


@contextlib.contextmanager
def goes_on(how_many: Callable[[], int]) -> Iterator[None]:
    """Whatever ends it before its time: say what stays, and how it goes on."""
    try:
        yield
    except (Error, click.ClickException, KeyboardInterrupt, SystemExit):
        click.echo(
            f"kvctl: at least {how_many()} keys were copied, and stay; the same command with "
            "--mirror goes on from there",
            err=True,
        )
        raise
