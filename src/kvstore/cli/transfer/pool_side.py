"""A pool of RADOS as a side of ``kvctl copy``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from kvstore.beyond.rados.driven import DrivenPool
from kvstore.beyond.rados.walking import Found, walk
from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.transfer.sides import Pair
from kvstore.errors import Error, StorageError

__all__ = ["PoolSide"]

GETS = 128
"""Values that are read at one time, whatever their size."""


class PoolSide:
    """A store in a pool, without a gateway."""

    def __init__(self, pool: DrivenPool) -> None:
        self._pool = pool

    def put(self, pairs: Sequence[Pair]) -> None:
        _check([key for key, _ in pairs], self._pool.put(pairs))

    def delete(self, keys: Sequence[bytes]) -> None:
        _check(keys, self._pool.delete(keys))

    def get(self, keys: Sequence[bytes]) -> Iterator[bytes | StorageError | None]:
        for first in range(0, len(keys), GETS):
            some = keys[first : first + GETS]
            for key, result in zip(some, self._pool.get(some), strict=True):
                if isinstance(result, Error) and not isinstance(result, StorageError):
                    _name(key)
                    raise result
                assert result is None or isinstance(result, bytes | StorageError)
                yield result

    def keys(self, prefix: bytes) -> Iterator[Sequence[bytes]]:
        for page in self.pages(prefix):
            yield [*(key for key, _ in page.pairs), *page.damaged]

    def pages(self, prefix: bytes) -> Iterator[Found]:
        """The same with values."""
        return walk(self._pool, prefix)


def _check(keys: Sequence[bytes], results: Sequence[object]) -> None:
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, Error):
            _name(key)
            raise result


def _name(key: bytes) -> None:
    click.echo(f"kvctl: at key {printable(key)}:", err=True)
