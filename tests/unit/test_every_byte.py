"""Each byte of a small directory of each mode is changed: the document says what must come of it.

One bit of each byte, by its place, and every bit of every 16th; all of all where
``KVSTORE_EVERY_BIT`` is set (some minutes), but for what is opened to be written as well.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.cli.cluster.local import LocalCluster, LocalMember
from kvstore.engine import DB
from kvstore.errors import ConfigurationError, CorruptionError
from kvstore.raft import Bundle, Entry, EntryKind, HardState, Membership, SnapshotMeta
from kvstore.replica.backup_file import BackupInfo, BackupParser, encode_backup
from kvstore.replica.checkpoint_stream import CheckpointReader
from kvstore.replica.log_note import NoteFile
from kvstore.replica.packets import SnapshotPart, decode_packet, encode_packet
from kvstore.replica.storage import Identity, MemberLog
from kvstore.replica.work import AtOnce
from kvstore.server.config.cluster_config import ClusterConfig, Node
from kvstore.server.config.data_directory import LOCK, DataDirectory
from kvstore.server.nodes.history import HistoryFile
from kvstore.server.peers.identity import read_identity, start_identity
from kvstore.server.peers.registry import Known, PeerRegistry
from tests.integrity.coverage import MENDED, NO_EFFECT, REFUSED, STANDS_ASIDE, coverage
from tests.integrity.regions import Region, kind_of_file, regions

COVER = coverage()
ALL_BITS = bool(os.environ.get("KVSTORE_EVERY_BIT"))
SMALL_BYTES = 16 << 10
"""Of larger files, which are reserved space but for their beginning, so much and the last bytes."""
MEMBERS = Membership(voters=frozenset({1, 2, 3}))
ME = Identity("cluster-a", 2)

Outcome = str
Judge = Callable[[], Outcome]


def bits(parts: list[Region]) -> Iterator[tuple[Region, int, int]]:
    """(region, offset, mask) of all that is to be changed."""
    for part in parts:
        for at in range(part.start, part.stop):
            if part.name in ("RESERVE", "spare", "log: unused space") and at - part.start >= 64:
                break
            for bit in range(8):
                if ALL_BITS or at % 16 == 0 or bit == (at * 5 + 3) % 8:
                    yield part, at, 1 << bit


def sweep(
    path: str,
    content: bytes,
    change: Callable[[int, int], object],
    judge: Judge,
    *,
    without: frozenset[tuple[str, Outcome]] = frozenset(),
) -> set[str]:
    """Change each byte, judge, and change it back; the names of all regions that there were.

    ``change(offset, mask)`` turns bits over. ``without``: what is allowed of others alone.
    """
    parts = regions(path, content)
    if not content:
        return {kind_of_file(path)}
    assert parts[0].start == 0
    assert parts[-1].stop == len(content)
    assert all(one.stop == after.start for one, after in itertools.pairwise(parts))
    wrong = []
    for part, at, mask in bits(parts):
        change(at, mask)
        outcome = judge()
        change(at, mask)
        if outcome not in COVER[part.name].outcomes or (part.name, outcome) in without:
            wrong.append((part.name, at, mask, outcome))
    assert not wrong, f"{len(wrong)} in {path}: {wrong[:10]}"
    assert judge() == NO_EFFECT
    return {part.name for part in parts}


def outcome_of(read: Callable[[], object], expected: object) -> Outcome:
    """What comes of reading: the code, or nothing at all; never something else than was written."""
    try:
        found = read()
    except CorruptionError as error:
        assert error.path, f"{error} names no file"
        return str(error.code)
    except ConfigurationError:
        return REFUSED
    assert found == expected
    return NO_EFFECT


# --- the library -----------------------------------------------------------------------------

ENGINE = {
    "background": False,
    "block_size": 256,
    "compression": None,
    "write_buffer_size": 64 << 10,
}


def library(*, closed: bool, wal: bool = True) -> MemoryFileSystem:
    """Tables of two levels with a deleted range, and a log."""
    disk = MemoryFileSystem()
    for opening in range(2):
        db = DB("/db", filesystem=disk, wal=wal, **ENGINE)
        for number in range(12):
            db.put(b"key%02d" % number, b"value%d" % opening * (number % 4 + 1))
        db.delete_range(b"key03", b"key05")
        db.flush()
        if opening == 0:
            db.compact_range()
        if wal:
            for number in range(3):
                db.put(b"more%d" % number, b"log %d" % opening, sync=number < 2)
        if opening == 0 or closed:
            db.close()
            continue
        left = disk.crash(keep="all")
        db.close()
        disk = left
    return disk


def rows(disk: MemoryFileSystem) -> list[tuple[bytes, bytes]]:
    with DB("/db", filesystem=disk, read_only=True, **ENGINE) as db:
        found = list(db)
        assert list(db.iterator(reverse=True)) == found[::-1]
        assert all(db.get(key) == value for key, value in found)
        db.verify()
        return found


def flip_in(disk: MemoryFileSystem, path: str) -> Callable[[int, int], object]:
    return lambda at, mask: disk.flip_bit(path, at, mask.bit_length() - 1)


@pytest.mark.parametrize("wal", [True, False])
def test_every_byte_of_a_closed_database(wal: bool) -> None:
    disk = library(closed=True, wal=wal)
    whole = rows(disk)
    seen: set[str] = set()
    for path in disk.files("/db"):
        seen |= sweep(
            path,
            disk.read_file(path),
            flip_in(disk, path),
            lambda: outcome_of(lambda: rows(disk), whole),
            without=frozenset({("log: payload", NO_EFFECT)}),
        )
    expected = {name for name in COVER if name.startswith(("table", "manifest"))}
    # What is small gives its reserve back when it is closed, and a log what it would write over.
    expected |= {"IDENTITY", "CURRENT", "END", "LOCK"}
    if wal:
        expected |= {
            "log: segment header",
            "log: record header",
            "log: payload",
            "log: padding",
        }
    else:
        expected.add("RESERVE")
    assert seen == expected


def test_every_byte_of_a_log_that_was_not_closed() -> None:
    """Past the last sync a record that doesn't check was torn, and with it what came after."""
    disk = library(closed=False)
    whole = rows(disk)
    before = [*whole[:-1], (b"more2", b"log 0")]
    path = max(path for path in disk.files("/db/wal") if path.endswith(".wal"))
    content = disk.read_file(path)
    parts = regions(path, content)
    durable = max(
        int.from_bytes(content[part.start + 32 : part.start + 40], "little")
        for part in parts
        if part.name == "log: record header"
    )
    cut = 0
    for part, at, mask in bits(parts):
        disk.flip_bit(path, at, mask.bit_length() - 1)
        try:
            found: object = rows(disk)
        except CorruptionError as error:
            found = error.code.value
        disk.flip_bit(path, at, mask.bit_length() - 1)
        if part.start < durable or found != before:
            outcome = NO_EFFECT if found == whole else found
            allowed = COVER[part.name].outcomes
            if part.start >= durable:
                # Of a mark that nobody waited for nothing but itself is gone.
                allowed = allowed | {NO_EFFECT}
            assert outcome in allowed, (part, at, mask)
        else:
            cut += 1
    assert cut


def test_a_database_opened_to_be_written_sees_what_one_sees_that_is_only_read() -> None:
    disk = library(closed=True)
    with DB("/db", filesystem=disk.crash(keep="all"), **ENGINE) as db:
        whole = list(db)

    def read(hurt: MemoryFileSystem) -> list[tuple[bytes, bytes]]:
        with DB("/db", filesystem=hurt, **ENGINE) as db:
            db.verify()
            return list(db)

    for path in disk.files("/db"):
        content = disk.read_file(path)
        for part, at, mask in bits(regions(path, content)):
            if at % (8 if ALL_BITS else 127) or mask != 1 << (at * 5 + 3) % 8:
                continue
            hurt = disk.crash(keep="all")
            hurt.flip_bit(path, at, mask.bit_length() - 1)
            outcome = outcome_of(lambda hurt=hurt: read(hurt), whole)  # type: ignore[misc]
            assert outcome in COVER[part.name].outcomes, (path, part, at, mask)


# --- a member --------------------------------------------------------------------------------


def member() -> MemoryFileSystem:
    """Its log and the note of it, closed, after some history."""
    disk = MemoryFileSystem()
    disk.make_directories("/node2")
    for opening in range(2):
        log = open_member(disk)
        if log.is_new:
            log.found(MEMBERS)
        first = 2 + 6 * opening
        log.save(
            Bundle(
                1,
                hard_state=HardState(opening + 1, vote=2, commit=first),
                entries=tuple(
                    Entry(opening + 1, index, EntryKind.COMMAND, b"data" * (index % 3))
                    for index in range(first, first + 6)
                ),
                must_sync=True,
            )
        )
        log.write_mark(SnapshotMeta(first, opening + 1, MEMBERS))
        log.close()
    return disk


def open_member(disk: MemoryFileSystem) -> MemberLog:
    note = NoteFile(disk, "/node2/LOGEND")
    return MemberLog("/node2/log", ME, filesystem=disk, note=note, segment_bytes=4096)


def member_says(disk: MemoryFileSystem) -> Any:
    """What its log says; that it stands aside, or which entries it lacks the data of."""
    log = open_member(disk.crash(keep="all"))
    if log.short:
        assert log.hard_state.damaged
        assert (log.hard_state.term, log.hard_state.vote) == (2, 2)
        log.close()
        return STANDS_ASIDE
    hollow = log.hollow
    entries = [
        entry._replace(data=b"") if entry.index in hollow else entry for entry in log.entries
    ]
    found = log.identity, log.hard_state, log.mark, log.first_readable, entries
    log.close()
    return (MENDED, hollow, found) if hollow else found


def test_every_byte_of_a_members_log() -> None:
    disk = member()
    whole = member_says(disk)

    def judge() -> Outcome:
        try:
            found = member_says(disk)
        except CorruptionError as error:
            return str(error.code)
        match found:
            case "stands aside":
                return STANDS_ASIDE
            case "mended", hollow, (*rest, entries):
                assert rest == list(whole[:-1])
                # All that it knows is as it was; it knows of which entries it lacks the data.
                assert [
                    entry._replace(data=b"") if entry.index in hollow else entry
                    for entry in whole[-1]
                ] == entries
                return MENDED
        assert found == whole
        return NO_EFFECT

    seen: set[str] = set()
    for path in disk.files("/node2"):
        seen |= sweep(path, disk.read_file(path), flip_in(disk, path), judge)
    assert seen == {name for name in COVER if name.startswith("log")} - {
        "log: end",
        "log: unused space",
    } | {"LOGEND"}


# --- kvd's own files -------------------------------------------------------------------------

CONFIG = ClusterConfig(
    "c", 1, "d", (Node(1, "a:1", "a:2"), Node(2, "b:1", "b:2")), "a:1", "a:2", join=False
)


def cluster_directory(path: Path) -> Callable[[], object]:
    """Of a cluster's member; what reads all of it."""
    DataDirectory(path, "cluster-node").close()
    identity = start_identity(path, CONFIG)
    PeerRegistry(path, identity.incarnation).admit(2, Known(5, 1), present=True)
    HistoryFile(path, "me", AtOnce()).save([(5, 1), (1000, 7)])

    def read() -> object:
        DataDirectory(path, "cluster-node").close()
        found = read_identity(path, CONFIG)
        assert found is not None
        return found, PeerRegistry(path, found.incarnation).known()

    return read


def embedded_directory(path: Path) -> Callable[[], object]:
    """Of an embedded kvd, but for its members."""
    DataDirectory(path, "embedded").close()
    return lambda: DataDirectory(path, "embedded").close()


@pytest.mark.parametrize("make", [cluster_directory, embedded_directory])
def test_every_byte_of_kvds_own_files(
    tmp_path: Path, make: Callable[[Path], Callable[[], object]]
) -> None:
    read = make(tmp_path)
    whole = read()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert set(names) <= {name for name in COVER if ":" not in name}
    for name in names:
        file = tmp_path / name
        content = file.read_bytes()
        if name == LOCK:
            content = content or b"1\n"

        def change(at: int, mask: int, file: Path = file, content: bytes = content) -> None:
            there = file.read_bytes() or content
            file.write_bytes(there[:at] + bytes([there[at] ^ mask]) + there[at + 1 :])

        if name == "LOCK":
            for part, at, mask in bits(regions(name, content)):
                change(at, mask)
                assert outcome_of(read, whole) in COVER[part.name].outcomes
            continue
        sweep(str(file), content, change, lambda: outcome_of(read, whole))


def test_marks_of_history_are_whole_or_none(tmp_path: Path) -> None:
    """None of them is ever another one: what is lost is only kept for longer."""
    kept = HistoryFile(tmp_path, "me", AtOnce())
    kept.save([(5, 1), (1000, 7)])
    content = (tmp_path / "HISTORY").read_bytes()
    for _, at, mask in bits(regions("HISTORY", content)):
        (tmp_path / "HISTORY").write_bytes(
            content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]
        )
        assert kept.load() == []


def test_every_byte_of_a_local_clusters_file(tmp_path: Path) -> None:
    members = [LocalMember(number, f"h:{number}", f"p:{number}", 100 + number) for number in (1, 2)]
    LocalCluster(tmp_path, members, tls=True).save()
    file = tmp_path / "cluster.json"
    content = bytearray(file.read_bytes())

    def change(at: int, mask: int) -> None:
        content[at] ^= mask
        file.write_bytes(content)

    def read() -> object:
        found = LocalCluster.load(tmp_path)
        return found.members, found.tls

    sweep(str(file), bytes(content), change, lambda: outcome_of(read, (members, True)))


# --- what travels ----------------------------------------------------------------------------


def backup() -> bytes:
    disk = MemoryFileSystem()
    with DB("/db", filesystem=disk, **ENGINE) as db:
        db.put(b"key", b"value")
        db.flush()
        db.checkpoint("/copy")
    stream = CheckpointReader(disk, "/copy")
    info = BackupInfo("a-cluster", 9, 2, 5, 77, 1, 1_700_000_000, stream.total)
    return b"".join(encode_backup(info, stream.read, chunk_bytes=512))


def test_every_byte_of_a_backup() -> None:
    content = bytearray(backup())

    def read() -> object:
        parser = BackupParser("a.kvs")
        parser.feed(bytes(content))
        return parser.finish()

    whole = read()

    def change(at: int, mask: int) -> None:
        content[at] ^= mask

    seen = sweep("a.kvs", bytes(content), change, lambda: outcome_of(read, whole))
    assert seen == {name for name in COVER if name.startswith("backup")}


def test_every_byte_of_a_part_of_a_snapshot() -> None:
    part = SnapshotPart(1, 2, 7, SnapshotMeta(9, 6, MEMBERS), 5000, 1000, b"some data" * 20)
    content = bytearray(encode_packet(part))

    def change(at: int, mask: int) -> None:
        content[at] ^= mask

    sweep("part", bytes(content), change, lambda: outcome_of(lambda: decode_packet(content), part))


def test_every_region_is_in_the_list_and_nothing_else_is() -> None:
    files = {kind_of_file(name) for name in COVER if ":" not in name}
    assert files == {
        *("CURRENT", "END", "HISTORY", "IDENTITY", "KVSTORE", "LOCK", "LOGEND", "MEMBER", "PEERS"),
        *("RESERVE", "SCRUB", "cluster.json", "part", "spare"),
    }
