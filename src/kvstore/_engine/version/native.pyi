"""Types of the room version."""

from typing import Any, NamedTuple

# manifest.pyx

class TableEntry(NamedTuple):
    level: int
    number: int
    file_bytes: int
    entries: int
    tombstones: int
    min_sequence: int
    max_sequence: int
    smallest: bytes
    largest: bytes

class Edit:
    last_sequence: int | None
    flushed_sequence: int | None
    applied_index: int | None
    retain_from: int | None
    next_number: int | None
    removed: list[tuple[int, int]]
    added: list[TableEntry]
    def __init__(self, **given: Any) -> None: ...

def encode_edit(edit: Edit) -> bytes: ...
def decode_edit(payload: bytes) -> Edit: ...
def frame_edit(number: int, payload: bytes) -> bytes: ...
def file_header(number: int) -> bytes: ...
def manifest_name(number: int) -> str: ...
def parse_manifest(data: bytes, number: int, path: str) -> tuple[list[Edit], int]: ...
