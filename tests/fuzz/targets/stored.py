"""What is read from the disk: each input as it is, and with its checksums made right again."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kvstore._engine.files.native import MemoryFileSystem
from kvstore._engine.log.native import Log
from kvstore._engine.table.native import CacheFace, TableFile, build_block
from kvstore._engine.version.native import (
    decode_edit,
    encode_edit,
    parse_manifest,
)
from kvstore._state.native import RequestMemory
from kvstore.errors import ConfigurationError, CorruptionError, StorageError
from kvstore.raft import codec
from kvstore.replica.backup_file import BackupParser
from kvstore.replica.checkpoint_stream import CheckpointReader, CheckpointWriter
from kvstore.replica.log_note import LogNote, NoteFile
from kvstore.server.config.cluster_config import load_cluster_config
from kvstore.state.mvcc import auth_records, records
from kvstore.state.requests import RECORD_HEAD_BYTES, check_record, encode_record
from kvstore.state.sessions import decode_session
from kvstore.state.stored import StoredState, encode_state, stored_state
from tests.fuzz import resealing
from tests.fuzz.targets.target import Run, plain
from tests.fuzz.test_fuzz_backup import FILE, FILES, disk_with
from tests.fuzz.test_fuzz_log import SEGMENT, valid
from tests.fuzz.test_fuzz_manifest import BATCH, ID, STORY, manifest_of, meant, replay
from tests.fuzz.test_fuzz_table import NEWEST, VERSIONS, small_table, use_block
from tests.unit.server.test_cluster_config import GOOD, PEER_TLS, SECURE

__all__ = ["TARGETS"]


def both_ways(run: Run, reseal: Callable[[bytes], bytes]) -> Run:
    """As it is, and resealed."""

    def twice(data: bytes) -> object:
        return run(data), run(reseal(data))

    return twice


def code_of(error: StorageError) -> str:
    """The code, and the words without their numbers."""
    return "".join(letter for letter in str(error).split(" in /")[0] if not letter.isdigit())


# --- the engine's files --------------------------------------------------------------------------


def _log(data: bytes) -> object:
    disk = MemoryFileSystem()
    disk.write_file(SEGMENT, data)
    try:
        with Log("/log", filesystem=disk) as log:
            found = list(log.replay())
    except CorruptionError as error:
        assert error.path == SEGMENT
        assert disk.read_file(SEGMENT) == data, "a refusal changes nothing"
        return code_of(error)
    with Log("/log", filesystem=disk) as again:
        assert list(again.replay()) == found, "what was found is found again"
    return len(found), log.recovery.cut_bytes > 0


def _manifest(data: bytes) -> object:
    try:
        edits, left_out = parse_manifest(data, 3, "/MANIFEST-000003", ID)
    except CorruptionError as error:
        assert error.path == "/MANIFEST-000003"
        return code_of(error)
    assert edits
    for edit in edits:
        assert decode_edit(encode_edit(edit)) == edit
    return len(edits), left_out > 0


def _batch(data: bytes) -> object:
    found = replay(data)
    if found is not None or 0x80 not in data:
        assert found == meant(data)
    return found is None


@functools.cache
def _tables() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "table"
        made = []
        for compression in (None, "zstd", "snappy", "lz4"):
            path.unlink(missing_ok=True)
            made.append(small_table(path, compression=compression))
        return made


def _table(data: bytes) -> object:
    """With right checksums it may say anything: it must be refused, or read to an end."""
    disk = MemoryFileSystem()
    disk.write_file("/t", data)
    try:
        with TableFile(disk, "/t", 7, CacheFace(1 << 20)) as table:
            for key in (b"", b"key001", b"key015", b"zzz"):
                table.get(key, NEWEST)
            cursor, count = table.cursor(read_ahead=1024), 0
            entry = cursor.first()
            while entry is not None and count < 10_000:
                entry, count = cursor.next(), count + 1
            assert count < 10_000, "a small table has few entries"
            table.verify()
            return count
    except CorruptionError as error:
        return code_of(error)


def _block(data: bytes) -> object:
    use_block(data)
    return len(data) // 64


# --- what members store and send whole -----------------------------------------------------------


def _backup(data: bytes) -> object:
    parser = BackupParser("file.kvs")
    try:
        for start in range(0, len(data), 1000):
            parser.feed(data[start : start + 1000])
        parser.finish()
    except CorruptionError as error:
        return code_of(error)
    return "whole"


@functools.cache
def _stream() -> bytes:
    stream = CheckpointReader(disk_with(FILES), "/out")
    return stream.read(0, stream.total)


def _snapshot_stream(data: bytes) -> object:
    disk = MemoryFileSystem()
    disk.make_directories("/in/there")
    writer = CheckpointWriter(disk, "/in/there", len(data))
    try:
        for start in range(0, len(data), 100):
            writer.write(data[start : start + 100])
        writer.finish()
    except CorruptionError as error:
        return code_of(error)
    finally:
        assert all(path.startswith("/in/there/") for path in disk.files("/")), "nothing outside"
    return len(disk.files("/in"))


@functools.cache
def _notes() -> bytes:
    disk = MemoryFileSystem()
    file = NoteFile(disk, "/LOGEND")
    for number in range(1, 4):
        file.write(LogNote(number, 4096, number, 1), bytes(range(16)))
    return disk.read_file("/LOGEND")


def _note(data: bytes) -> object:
    disk = MemoryFileSystem()
    disk.write_file("/LOGEND", data)
    try:
        file = NoteFile(disk, "/LOGEND")
    except CorruptionError as error:
        return code_of(error)
    file.write(LogNote(9, 128, 9, 2), file.log_id or bytes(range(16)))
    assert NoteFile(disk, "/LOGEND").found == LogNote(9, 128, 9, 2)
    return file.found is None, bool(file.damage)


# --- records -------------------------------------------------------------------------------------


def _state(data: bytes) -> object:
    holder: Any = SimpleNamespace(get=lambda key: data, path="/state")
    state = stored_state(holder)
    assert state is not None
    assert encode_state(state) == data
    return state.level


def _requests(data: bytes) -> object:
    time_ms = check_record(data)
    memory = RequestMemory(64)
    try:
        memory.load(data, RECORD_HEAD_BYTES, 1, time_ms)
    except ValueError as error:
        return str(error)[:20]
    return len(memory)


def _round(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Run:
    """What decodes says the same once it was encoded and decoded again."""

    def there_and_back(data: bytes) -> object:
        found = decode(data)
        assert decode(encode(found)) == found
        return None

    return there_and_back


_RECORDS: dict[str, Run] = {
    "hard state": _round(codec.decode_hard_state, codec.encode_hard_state),
    "membership": _round(codec.decode_membership, codec.encode_membership),
    "mark": _round(codec.decode_snapshot_meta, codec.encode_snapshot_meta),
    "entry": _round(codec.decode_entry, codec.encode_entry),
    "state": _state,
    "requests": _requests,
    "session": decode_session,
    "key": lambda data: records.decode_key(b"key", data, 9, 3),
    "event key": records.decode_event_key,
    "event": records.decode_event,
    "lease key": records.decode_lease_key,
    "lease": _round(records.decode_lease, records.encode_lease),
    "attachment": records.decode_attachment_key,
    "alarm": records.decode_alarm_key,
    "auth": _round(auth_records.decode_auth, auth_records.encode_auth),
    "user": _round(auth_records.decode_user, auth_records.encode_user),
    "role": _round(auth_records.decode_role, auth_records.encode_role),
}


def _records(data: bytes) -> object:
    """Each input is shown to all: what one takes is most likely damaged for the others."""
    said = []
    for name, run in _RECORDS.items():
        try:
            run(data)
            said.append(name)
        except CorruptionError:
            pass
    return tuple(said)


def _record_seeds() -> list[bytes]:
    membership = codec.Membership(voters=frozenset({1, 2, 300}), learners=frozenset({7}))
    return [
        codec.encode_hard_state(codec.HardState(term=3, vote=2, commit=7)),
        codec.encode_membership(membership),
        codec.encode_snapshot_meta(codec.SnapshotMeta(5, 2, membership)),
        codec.encode_entry(codec.Entry(3, 9, codec.EntryKind.COMMAND, b"data")),
        encode_state(StoredState(5, 2, 9, 77, 1000, 5)),
        encode_state(StoredState(5, 2, 9, 77, 1000, 5, 4, -1, 1)),
        encode_record(1234, [(bytes(range(16)), 99), (bytes(16), 7)]),
        records.encode_key(5, 2, -7, b"value"),
        records.event_key(9, 2),
        records.encode_event(False, b"key", 3),
        records.lease_key(-7),
        records.encode_lease(records.LeaseRecord(1, 60, 30)),
        records.attachment_key(7, b"key"),
        records.alarm_key(1, 1),
        auth_records.encode_auth(auth_records.AuthRecord(True, 4, bytes(32))),
    ]


# --- configuration -------------------------------------------------------------------------------


def _config(data: bytes) -> object:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            load_cluster_config(file.name, {})
        except ConfigurationError as error:
            said = str(error).replace(file.name, "")
            assert len(said) < 10_000
            return said[:30]
    return "taken"


TARGETS = [
    plain("log", lambda: [valid().rstrip(b"\0") + bytes(8)], both_ways(_log, resealing.log)),
    plain("manifest", lambda: [manifest_of(3, STORY)], both_ways(_manifest, resealing.manifest)),
    plain("batch", lambda: [BATCH], _batch),
    plain("table", _tables, both_ways(_table, resealing.table)),
    plain("block", lambda: [build_block(VERSIONS, 4), build_block(VERSIONS, 1)], _block),
    plain("backup", lambda: [FILE], both_ways(_backup, resealing.backup)),
    plain("snapshot-stream", lambda: [_stream()], _snapshot_stream),
    plain("log-note", lambda: [_notes()], both_ways(_note, resealing.two_copies)),
    plain("records", _record_seeds, _records),
    plain("config", lambda: [GOOD.encode(), (SECURE + GOOD + PEER_TLS).encode()], _config),
]
