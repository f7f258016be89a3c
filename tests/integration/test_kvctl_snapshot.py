"""What kvctl reads in backup files: keys, values, and how two of them differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kvstore.cli.files.snapshot_keys import differences
from kvstore.cli.transfer.dump import Pair
from tests.integration.process import Kvd, run


class Saved(NamedTuple):
    monday: Path
    tuesday: Path


@pytest.fixture(scope="module")
def saved(kvd: Kvd, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    directory = tmp_path_factory.mktemp("saved")
    files = Saved(directory / "monday.kvs", directory / "tuesday.kvs")
    with kvd.client() as client:
        client.put_many((b"job/%03d" % n, b"of monday") for n in range(300))
        client.put(b"bin\xff", bytes(range(256)))
        save(kvd, files.monday)
        client.put(b"job/000", b"of tuesday")
        client.delete(b"job/001")
        client.put(b"new", b"")
        save(kvd, files.tuesday)
    return files


def save(kvd: Kvd, file: Path) -> None:
    assert run("kvctl", f"--dir={kvd.data_dir}", "snapshot", "save", str(file)).returncode == 0


def test_keys_are_listed_as_they_were(saved: Saved) -> None:
    listed = run("kvctl", "snapshot", "list", str(saved.monday), "job/", "--keys")
    assert listed.stdout.decode().split() == [f"job/{n:03}" for n in range(300)]
    last = run("kvctl", "snapshot", "list", str(saved.tuesday), "--reverse", "--limit=2", "-ojson")
    assert [one["key"] for one in json.loads(last.stdout)] == ["new", "job/299"]
    backwards = run("kvctl", "snapshot", "list", str(saved.monday), "job/", "--keys", "--reverse")
    assert backwards.stdout.decode().split() == [f"job/{n:03}" for n in range(299, -1, -1)]


def test_a_value_comes_out_byte_for_byte(saved: Saved) -> None:
    key = b"bin\xff".hex()
    found = run("kvctl", "snapshot", "get", str(saved.monday), key, "--hex", "-o", "raw")
    assert found.stdout == bytes(range(256))
    assert run("kvctl", "snapshot", "get", str(saved.monday), "job/000").stdout == b"of monday"
    assert run("kvctl", "snapshot", "get", str(saved.tuesday), "job/001").returncode == 3


def test_two_files_are_compared(saved: Saved) -> None:
    found = run("kvctl", "snapshot", "diff", str(saved.monday), str(saved.tuesday))
    assert (found.returncode, found.stdout) == (1, b"~\tjob/000\n-\tjob/001\n+\tnew\n")
    some = run("kvctl", "snapshot", "diff", *map(str, saved), "--prefix=job/", "-o", "json")
    assert json.loads(some.stdout)[0] == {
        "key": "job/000",
        "before": "of monday",
        "after": "of tuesday",
        "encoding": "utf-8",
    }
    same = run("kvctl", "snapshot", "diff", str(saved.monday), str(saved.monday))
    assert (same.returncode, same.stdout) == (0, b"")


def test_a_damaged_file_ends_with_5_and_leaves_nothing(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    data = bytearray(saved.monday.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged.kvs"
    damaged.write_bytes(data)
    for verb in (["list"], ["get"], ["diff", str(saved.monday)]):
        done = run("kvctl", "snapshot", *verb, str(damaged), *(["k"] if verb == ["get"] else []))
        assert done.returncode == 5, done
        assert done.stdout == b""
    assert run("kvctl", "snapshot", "list", str(tmp_path / "none")).returncode == 1
    assert os.listdir(place) == []


def sides(**pairs: str) -> Iterator[Pair]:
    return iter([Pair(key.encode(), value.encode()) for key, value in sorted(pairs.items())])


def test_differences_of_sides_in_order() -> None:
    found = [*differences(sides(a="1", b="2", d="4", z="9"), sides(b="2", c="3", d="5"))]
    assert found == [
        (b"a", b"1", None),
        (b"c", None, b"3"),
        (b"d", b"4", b"5"),
        (b"z", b"9", None),
    ]
    assert [*differences(sides(), sides())] == []
