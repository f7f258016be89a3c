from typing import Any

from kvstore._engine.database import Database
from kvstore._engine.iterator import Iterator

class Memory:
    """A buffer; arrays are made of it without a copy."""

class Sink:
    """Takes rows: into a writable 2-D array of bytes, or of any size as data and offsets."""

    rows: int
    data: Memory
    offsets: Memory
    def __init__(self, array: Any = None) -> None: ...

def put_many(db: Database, prefix: bytes, keys: object, values: object, sync: bool) -> int: ...
def get_many(
    db: Database, prefix: bytes, keys: object, values: Sink, found: Any, sequence: int | None
) -> None: ...
def count_rows(keys: object) -> int:
    """The rows of an array or a pair (data, offsets)."""

def read_rows(rows: Iterator, most: int, keys: Sink | None, values: Sink | None) -> int:
    """Up to ``most`` of the iterator's next entries into the sinks; how many there were."""
