"""iterator(limit=): so many entries at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import kvstore
from kvstore._engine.files.native import MemoryFileSystem
from kvstore.errors import ClosedError, InvalidArgumentError

KEYS = [b"a%02d" % number for number in range(10)]


@pytest.fixture
def db() -> Iterator[kvstore.DB]:
    with kvstore.DB("/db", filesystem=MemoryFileSystem(), background=False) as opened:
        opened.update({key: key.upper() for key in KEYS[::2]})
        opened.flush()
        opened.update({key: key.upper() for key in KEYS[1::2]})
        yield opened


@pytest.mark.parametrize("limit", [0, 1, 3, 10, 11, 1 << 70, None])
@pytest.mark.parametrize("reverse", [False, True])
def test_it_gives_so_many_and_no_more(db: kvstore.DB, limit: int | None, reverse: bool) -> None:
    wanted = sorted(KEYS, reverse=reverse)[:limit]
    bounds: dict[str, Any] = {"reverse": reverse, "include_value": False, "limit": limit}
    assert list(db.iterator(**bounds)) == wanted
    with db.snapshot() as snapshot:
        assert list(snapshot.iterator(**bounds)) == wanted
    assert list(db.prefixed_db(b"a").iterator(**bounds)) == [key[1:] for key in wanted]


def test_moving_back_gives_none_of_them_back(db: kvstore.DB) -> None:
    walk = db.iterator(limit=2, include_value=False)
    assert walk.next() == KEYS[0]
    assert walk.prev() == KEYS[0]
    walk.seek(KEYS[7])
    assert next(walk) == KEYS[7]
    assert list(walk) == []
    walk.seek_to_start()
    assert list(walk) == []
    walk.close()
    with pytest.raises(ClosedError):
        next(walk)


def test_columns_obey_it(db: kvstore.DB) -> None:
    pytest.importorskip("numpy")
    rows = [0 if keys is None else len(keys) for keys, _ in db.scan(rows=3, key_width=3, limit=7)]
    assert rows == [3, 3, 1]


@pytest.mark.parametrize("limit", ["1", 1.0, True])
def test_what_is_no_number_is_refused(db: kvstore.DB, limit: Any) -> None:
    with pytest.raises(TypeError, match="limit must be an int or None"):
        db.iterator(limit=limit)
    with pytest.raises(TypeError, match="limit must be an int or None"):
        db.prefixed_db(b"").iterator(limit=limit)


def test_a_negative_one_is_refused(db: kvstore.DB) -> None:
    with pytest.raises(InvalidArgumentError, match="limit=-1 is negative"):
        db.iterator(limit=-1)


def test_the_type_takes_that_of_its_entries() -> None:
    assert kvstore.Iterator[bytes].__args__ == (bytes,)
