"""Uses the installed library as somebody would who has nothing else; prints ``works``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import kvstore
from kvstore.compat import plyvel

with tempfile.TemporaryDirectory() as name:
    here = Path(name)
    with kvstore.open(here / "library") as db:
        db.put(b"a", b"1")
        with db.write_batch() as batch:
            batch.put(b"b", b"2")
        assert db.get(b"a") == b"1"
        assert list(db) == [(b"a", b"1"), (b"b", b"2")]
    with kvstore.open(here / "library") as db:
        assert db.get(b"b") == b"2"
    with plyvel.DB(str(here / "plyvel"), create_if_missing=True, compression=None) as other:
        other.put(b"k", b"v")
        assert other.get(b"k") == b"v"
print("works")
