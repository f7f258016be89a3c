"""``kvctl db``: a library's database from the command line, which what only reads leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from kvstore import DB
from kvstore.cli.kvctl import run as run_kvctl

ENTRIES = {b"user/%03d" % n: b"value %d" % n for n in range(300)} | {b"\xff\x00": b"\x00\xff"}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    with DB(tmp_path / "db") as db:
        db.update(ENTRIES)
        db.flush()
        db.put(b"late", b"in the log")
        db.delete(b"user/000")
    return tmp_path / "db"


class Ended(NamedTuple):
    """Of a kvctl."""

    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ended(*arguments: str | Path, status: int = 0) -> Ended:
        code = run_kvctl(["db", *map(str, arguments)])
        said = Ended(*capsys.readouterr())
        assert code == status, said
        return said

    return ended


def bytes_of(directory: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def first_table(directory: Path) -> Path:
    return sorted(directory.glob("*.sst"))[0]


def test_what_reads_writes_no_byte(run: Run, database: Path, tmp_path: Path) -> None:
    before = bytes_of(database)
    there = ("--path", database)
    run("stat", *there)
    run("list", *there)
    run("get", "late", *there)
    run("dump", *there, "--file", tmp_path / "dump.csv")
    run("verify", *there)
    run("sst", first_table(database), "--keys")
    run("wal", sorted((database / "wal").glob("*.wal"))[-1], status=0)
    assert bytes_of(database) == before


def test_stat_counts(run: Run, database: Path) -> None:
    fields = json.loads(run("stat", "--path", database, "-o", "json").stdout)
    assert fields["keys"] == len(ENTRIES)  # one came, one went
    assert fields["last_sequence"] == len(ENTRIES) + 2
    assert fields["table_bytes"] == sum(f.stat().st_size for f in database.glob("*.sst"))
    assert "keys" in run("stat", "--path", database).stdout


def test_list_and_get_print_as_those_of_a_server_do(run: Run, database: Path) -> None:
    there = ("--path", database)
    listed = run("list", "user/", "--limit=2", *there)
    assert listed.stdout == "user/001\tvalue 1\nuser/002\tvalue 2\n"
    last = json.loads(run("list", "--reverse", "--limit=1", "-o", "json", *there).stdout)
    assert last == [{"key": "ff00", "value": "00ff", "encoding": "hex"}]
    assert run("list", "lat", "--keys", *there).stdout == "late\n"
    assert run("get", "late", *there).stdout == "in the log"
    assert run("get", "--hex", "ff00", *there).stdout == "00ff\n"
    assert "key not found: user/000" in run("get", "user/000", *there, status=3).stderr


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_dump_is_loaded_elsewhere(run: Run, database: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / f"dump.{form}"
    run("dump", "--path", database, "--file", file)
    done = run("load", file, "--path", tmp_path / "new", "-o", "json")
    assert json.loads(done.stdout) == {"loaded": len(ENTRIES)}
    with DB(database) as one, DB(tmp_path / "new") as other:
        assert dict(one.items()) == dict(other.items())


def test_a_wrong_file_is_not_loaded(run: Run, database: Path, tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text('{"kvstore_export": 1, "revision": 1}\n{"key": "new", "value": "x"}\n')
    run("load", file, "--path", tmp_path / "new", status=1)
    assert not (tmp_path / "new").exists()


def test_compact_gives_room_back(run: Run, database: Path) -> None:
    with DB(database) as db:
        for n in range(300):
            db.delete(b"user/%03d" % n)
    fields = json.loads(run("compact", "--path", database, "-o", "json").stdout)
    assert fields["table_bytes"] < fields["table_bytes_before"]


def test_tables_and_segments_say_what_they_hold(run: Run, database: Path) -> None:
    properties = json.loads(run("sst", first_table(database), "-o", "json").stdout)
    assert properties["entries"] == len(ENTRIES)
    lines = run("sst", first_table(database), "--keys", "--limit=1").stdout.splitlines()
    assert lines == ["user/000\t1\tput\t7"]
    segment = sorted((database / "wal").glob("*.wal"))[-1]
    records = json.loads(run("wal", segment, "-o", "json").stdout)
    # The put and the delete: the flush before them let go of the segment with the rest.
    assert len(records) == 2


def test_damage_is_told_and_repaired(run: Run, database: Path) -> None:
    table = first_table(database)
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 1
    table.write_bytes(data)
    run("verify", "--path", database, status=5)
    run("sst", table, "--keys", status=5)
    run("repair", "--path", database, status=5)
    run("verify", "--path", database)


@pytest.mark.parametrize("verb", ["stat", "list", "dump", "compact", "repair"])
def test_what_is_of_a_kvd_is_refused(run: Run, tmp_path: Path, verb: str) -> None:
    data = tmp_path / "data"
    member = data / "node1"
    (member / "log").mkdir(parents=True)
    (member / "state-1").mkdir()
    (data / "KVSTORE").touch()
    for directory, said in ((data, "kvd's data directory"), (member / "state-1", "a member's")):
        assert said in run(verb, "--path", directory, status=1).stderr


@pytest.mark.parametrize("verb", ["stat", "list", "compact"])
def test_what_is_no_database_is_told(run: Run, tmp_path: Path, verb: str) -> None:
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "none"):
        told = run(verb, "--path", directory, status=1).stderr
        assert "there is nothing" in told or "holds no kvstore database" in told
        assert not directory.exists() or not [*directory.iterdir()]


def test_one_that_is_in_use_is_left_alone(run: Run, database: Path) -> None:
    with DB(database):
        assert "in use" in run("list", "--path", database, status=1).stderr


@pytest.mark.parametrize("words", [["sst", "x.sst"], ["sst", "000001.sst"], ["wal", "1.log"]])
def test_files_that_are_none_are_told(run: Run, words: list[str], tmp_path: Path) -> None:
    assert run(words[0], tmp_path / words[1], status=1).stderr.count("\n") == 1
