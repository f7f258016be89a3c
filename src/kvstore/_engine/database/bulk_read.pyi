from typing import Any

from kvstore._engine.database.column import Sink
from kvstore._engine.database.database import Database
from kvstore._engine.database.iterator import Iterator

def get_many(
    db: Database, prefix: bytes, keys: object, values: Sink, found: Any, sequence: int | None
) -> None:
    """The values of the keys into the sink; ``found``: a writable buffer of a byte for each key."""

def count_rows(keys: object) -> int:
    """The rows of an array or a pair (data, offsets)."""

def read_rows(rows: Iterator, most: int, keys: Sink | None, values: Sink | None) -> int:
    """Up to ``most`` of the iterator's next entries into the sinks; how many there were."""
