"""Types of the room version."""

from typing import Any, NamedTuple

from kvstore._engine.files.native import FileSystem, TwoCopies

# edit.pyx

ID_BYTES: int

class UnknownField(ValueError): ...

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
    file_id: bytes
    range_deletes: int = 0
    superseded: int = 0

class Edit:
    last_sequence: int | None
    flushed_sequence: int | None
    applied_index: int | None
    retain_from: int | None
    next_number: int | None
    log_id: bytes | None
    log_first: int | None
    log_segment: int | None
    log_end: int | None
    removed: list[tuple[int, int]]
    added: list[TableEntry]
    def __init__(self, **given: Any) -> None: ...

def encode_edit(edit: Edit) -> bytes: ...
def decode_edit(payload: bytes) -> Edit: ...

# manifest.pyx

END: str
END_MAGIC: bytes

def end_note(disk: FileSystem, directory: str, database_id: bytes) -> TwoCopies: ...
def note_end(note: TwoCopies, number: int, size: int, segment: int, offset: int) -> bool: ...
def first_end(note: TwoCopies, number: int, size: int) -> bytes: ...
def noted_end(noted: bytes | None) -> tuple[int, int, int, int]: ...
def frame_edit(number: int, payload: bytes, seed: int) -> bytes: ...
def file_header(number: int, database_id: bytes) -> bytes: ...
def check_features(
    read_only_compatible: int, incompatible: int, read_only: bool, path: str
) -> None: ...
def manifest_name(number: int) -> str: ...
def parse_manifest(
    data: bytes,
    number: int,
    path: str,
    database_id: bytes | None = None,
    read_only: bool = False,
) -> tuple[list[Edit], int]: ...
