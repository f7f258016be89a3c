"""A pool of RADOS as a side of ``kvctl copy``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import click

from kvstore.beyond.rados.driven import DrivenPool
from kvstore.beyond.rados.walking import Found, FoundKeys, walk, walk_keys
from kvstore.cli.interface.data_bytes import printable
from kvstore.cli.transfer.sides import Pair
from kvstore.errors import Error, StorageError

__all__ = ["PoolSide"]

GETS_MIN, GETS_MAX, GET_BYTES = 16, 128, 16 << 20
"""Values that are read at one time: the fewest at first, then as many as those bytes have room for,
were each as large as the largest of those before."""


class PoolSide:
    """A store in a pool, without a gateway."""

    def __init__(self, pool: DrivenPool) -> None:
        self._pool = pool

    def put(self, pairs: Sequence[Pair]) -> None:
        _check([key for key, _ in pairs], self._pool.put(pairs))

    def delete(self, keys: Sequence[bytes]) -> None:
        _check(keys, self._pool.delete(keys))

    def get(self, keys: Sequence[bytes]) -> Iterator[bytes | StorageError | None]:
        at, count = 0, GETS_MIN
        while some := keys[at : at + count]:
            results = self._pool.get(some)
            at += len(some)
            largest = max(len(it) if isinstance(it, bytes) else 0 for it in results)
            count = max(GETS_MIN, min(GETS_MAX, GET_BYTES // max(1, largest)))
            for key, result in zip(some, results, strict=True):
                if isinstance(result, Error) and not isinstance(result, StorageError):
                    _name(key)
                    raise result
                assert result is None or isinstance(result, bytes | StorageError)
                yield result

    def keys(self, prefix: bytes) -> Iterator[Sequence[bytes]]:
        """Raises StorageError for a bucket that can't be read: nobody knows what is in it."""
        for page in self.key_pages(prefix):
            for bucket, error in page.unread.items():
                click.echo(f"kvctl: bucket {printable(bucket)} can't be read:", err=True)
                raise error
            yield [*page.keys, *page.damaged]

    def key_pages(self, prefix: bytes) -> Iterator[FoundKeys]:
        """The same with what is damaged, and buckets that can't be read."""
        return walk_keys(self._pool, prefix)

    def leased(self, prefix: bytes) -> Set[bytes]:
        return frozenset()  # a pool has no leases

    def pages(self, prefix: bytes) -> Iterator[Found]:
        """Keys with values, what is damaged, and buckets that can't be read."""
        return walk(self._pool, prefix)


def _check(keys: Sequence[bytes], results: Sequence[object]) -> None:
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, Error):
            _name(key)
            raise result


def _name(key: bytes) -> None:
    click.echo(f"kvctl: at key {printable(key)}:", err=True)
