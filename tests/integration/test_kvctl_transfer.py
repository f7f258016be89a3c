"""kvctl export, import and copy against real kvds: all comes over, also what changes meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.process import Kvd, command, environment, run

Ended = subprocess.CompletedProcess[bytes]
BINARY = {b"bin/%d\xff" % n: bytes(range(256)) for n in range(5)}
TEXT = {b"text/%03d" % n: b'line %d\r\nnext, "quoted"' % n for n in range(200)}
ALL = BINARY | TEXT


def kvctl(kvd: Kvd, *arguments: str, stdin: bytes | None = None) -> Ended:
    return run("kvctl", f"--addr={kvd.address}", *arguments, stdin=stdin)


def said(ended: Ended) -> str:
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode()


def held(kvd: Kvd) -> dict[bytes, bytes]:
    with kvd.client() as client:
        return {entry.key: entry.value for entry in client.range()}


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Kvd]:
    with Kvd(tmp_path / "other") as server:
        yield server.wait_serving()


@pytest.fixture(autouse=True)
def filled(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.delete_range(prefix=b"")
        client.put_many(ALL)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_is_exported_is_imported_elsewhere(
    kvd: Kvd, other: Kvd, tmp_path: Path, form: str
) -> None:
    file = tmp_path / f"all.{form}"
    assert said(kvctl(kvd, "export", "--file", str(file))).startswith("exported 205 keys")
    assert file.stat().st_mode & 0o777 == 0o600
    told = said(kvctl(other, "import", str(file), "--dry-run"))
    assert told == "205 keys would be new, 0 changed, 0 stay\n"
    assert held(other) == {}
    assert said(kvctl(other, "import", str(file))) == "imported 205 keys\n"
    assert held(other) == ALL
    with other.client() as client:
        client.put(b"text/000", b"changed")
    told = said(kvctl(other, "import", str(file), "--dry-run", "-o", "json"))
    assert json.loads(told) == {"new": 0, "changed": 1, "same": 204}


@pytest.mark.parametrize(
    ("pair", "prefix_map", "why"),
    [
        ({"key": "k" * 1025, "value": ""}, "x=y", b"key 2 would have 1025 bytes"),
        ({"key": "k", "value": "v" * ((1 << 20) + 1)}, "x=y", b"the value of key 2 has 1,048,577"),
        ({"key": "k" * 1024, "value": ""}, "k=jobs/", b"key 2 would have 1028 bytes"),
        ({"key": "k", "value": ""}, "k=", b"key 2 would have 0 bytes"),
    ],
)
def test_what_no_server_takes_is_told_before_anything_is_stored(
    other: Kvd, tmp_path: Path, pair: dict[str, str], prefix_map: str, why: bytes
) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text(f'{{"key": "first-{len(why)}", "value": "1"}}\n{json.dumps(pair)}\n')
    before = held(other)
    ended = kvctl(other, "import", str(file), "--prefix-map", prefix_map)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"kvctl: ")
    assert why in ended.stderr
    assert held(other) == before


def test_an_export_of_nothing_is_told(kvd: Kvd, tmp_path: Path) -> None:
    """A file's name where a prefix is wanted would be a backup with nothing in it."""
    file = tmp_path / "all.jsonl"
    for said_file in ([], ["--file", str(file)]):
        ended = kvctl(kvd, "export", "all.jsonl", *said_file)
        assert ended.returncode == 3
        assert ended.stdout == b""
        assert ended.stderr == b"kvctl: no key begins with all.jsonl; a file is given by --file\n"
        assert not file.exists()


def test_a_pipe_carries_it_under_another_prefix(kvd: Kvd) -> None:
    exported = kvctl(kvd, "export", "text/")
    assert exported.returncode == 0
    renamed = kvctl(kvd, "import", "-", "--prefix-map", "text/=copy/", stdin=exported.stdout)
    assert said(renamed) == "imported 200 keys\n"
    assert held(kvd)[b"copy/199"] == TEXT[b"text/199"]


def test_it_is_of_one_revision(kvd: Kvd, tmp_path: Path) -> None:
    with kvd.client() as client:
        entry = client.get_entry(b"text/199")
        assert entry is not None
        client.put(b"text/000", b"later")
    then = kvctl(kvd, "export", "text/", f"--rev={entry.mod_revision}")
    lines = [json.loads(line) for line in then.stdout.splitlines()]
    assert lines[0] == {"kvstore_export": 1, "revision": entry.mod_revision}
    assert lines[1]["value"] == TEXT[b"text/000"].hex()
    assert lines[-1] == {"kvstore_export_end": 200}


def test_a_file_that_is_wrong_changes_nothing(kvd: Kvd, tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_bytes(b'{"kvstore_export": 1, "revision": 1}\n{"key": "new", "value": "x"}\n')
    ended = kvctl(kvd, "import", str(file))
    assert ended.returncode == 1
    assert b"cut short" in ended.stderr
    assert b"new" not in held(kvd)
    assert kvctl(kvd, "import", str(tmp_path / "none")).returncode == 1
    assert kvctl(kvd, "import", str(tmp_path)).returncode == 1
    streamed = kvctl(kvd, "import", "-", stdin=file.read_bytes())
    assert streamed.returncode == 1
    assert b"keys were stored before" in streamed.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_export_that_is_broken_off_leaves_no_file_that_looks_whole(
    kvd: Kvd, tmp_path: Path, number: signal.Signals
) -> None:
    with kvd.client() as client:
        client.put_many({b"large/%04d" % n: os.urandom(200_000) for n in range(100)})
    file = tmp_path / "out" / "all.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"as it was")
    process = subprocess.Popen(
        [*command("kvctl"), "export", "--file", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KVCTL_ADDR=kvd.address),
    )
    while process.poll() is None and len([*file.parent.iterdir()]) < 2:
        pass  # until it has begun to write
    process.send_signal(number)
    _, complained = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was faster than the signal")
    assert file.read_bytes() == b"as it was"
    assert b"Traceback" not in complained
    if number is not signal.SIGKILL:
        assert process.returncode == 128 + number
        assert [*file.parent.iterdir()] == [file]


def test_a_disk_that_is_full_leaves_the_file_as_it_was(kvd: Kvd) -> None:
    ended = kvctl(kvd, "export", "--file", "/dev/none/x")
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1


def test_a_copy_has_what_changes_meanwhile_and_is_compared(kvd: Kvd, other: Kvd) -> None:
    stop = threading.Event()

    def write() -> None:
        with kvd.client() as client:
            for n in range(10_000):
                if stop.is_set():
                    return
                client.put(b"text/%03d" % (n % 150), b"version %d" % n)
                client.delete(b"text/%03d" % (150 + n % 50))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        begun = run("kvctl", "copy", "--from", kvd.address, "--to", other.address)
    finally:
        stop.set()
        writer.join()
    # Whoever writes on is compared at the revision up to which all was copied.
    assert begun.returncode == 0, begun.stderr + begun.stdout
    done = run("kvctl", "copy", f"--from={kvd.address}", f"--to={other.address}", "--merge")
    assert done.returncode == 0, done.stderr
    now, then = held(kvd), held(other)
    assert {key: then[key] for key in now} == now


def test_a_copy_under_another_prefix(kvd: Kvd, other: Kvd) -> None:
    words = ["copy", "bin/", f"--from={kvd.address}", f"--to={other.address}", "--to-prefix=b/"]
    told = json.loads(said(run("kvctl", *words, "-o", "json")))
    assert told["equal"] is True
    assert told["keys"] == told["copied"] == 5
    assert held(other) == {b"b/" + key[4:]: value for key, value in BINARY.items()}
    again = run("kvctl", *words)
    assert again.returncode == 1
    assert b"has 5 such keys already" in again.stderr
    assert run("kvctl", *words, "--merge").returncode == 0


def test_a_mirror_has_what_the_source_has_and_writes_what_differs(kvd: Kvd, other: Kvd) -> None:
    with other.client() as client:
        client.put_many(ALL | {b"bin/zzz": b"of an earlier copy", b"text/000": b"old"})
    words = ["copy", f"--from={kvd.address}", f"--to={other.address}", "-o", "json"]
    assert run("kvctl", *words, "--merge", "--mirror").returncode == 2
    told = json.loads(said(run("kvctl", *words, "--mirror", "--until-quiet=100ms")))
    assert (told["equal"], told["copied"], told["removed"]) == (True, 1, 1)
    assert held(other) == ALL


def test_what_cannot_be_copied_so_is_a_wrong_use(kvd: Kvd, tmp_path: Path) -> None:
    pool = f"rados:{tmp_path / 'nothing.toml'}"
    for words in (
        [f"--from={pool}", f"--to={pool}"],
        [f"--from={pool}", f"--to={kvd.address}", "--until-quiet=1"],
    ):
        assert run("kvctl", "copy", *words).returncode == 2
    ended = run("kvctl", "copy", f"--from={kvd.address}", f"--to={pool}")
    assert ended.returncode == 1
    assert b"nothing.toml" in ended.stderr


def test_sides_that_differ_are_told(kvd: Kvd, other: Kvd) -> None:
    with other.client() as client:
        client.put(b"bin/zzz", b"of somebody else")
    words = ["copy", "bin/", f"--from={kvd.address}", f"--to={other.address}", "--merge"]
    told = json.loads(said(run("kvctl", *words, "-o", "json")))
    assert (told["equal"], told["extra"]) == (True, 1)


@pytest.mark.parametrize(
    ("prefix", "namespace", "to_prefix"),
    [
        ("bin/", "", "bin/x/"),
        ("bin/x/", "", "bin/"),
        ("bin/", "", "bin/"),
        ("", "n1/", ""),
        ("", "bin/", "x/"),
    ],
)
def test_a_copy_into_what_is_copied_is_refused_before_anything_is_written(
    kvd: Kvd, prefix: str, namespace: str, to_prefix: str
) -> None:
    before = held(kvd)
    to = f"--to=kv://{kvd.address}/?namespace={namespace}" if namespace else f"--to={kvd.address}"
    words = ["copy", prefix, f"--from={kvd.address}", to, f"--to-prefix={to_prefix}", "--merge"]
    ended = run("kvctl", *words)
    assert ended.returncode == 1
    assert b"both sides are one store" in ended.stderr
    assert held(kvd) == before


def test_a_copy_beside_what_is_copied_is_made(kvd: Kvd) -> None:
    words = ["copy", "bin/", f"--from={kvd.address}", f"--to={kvd.address}", "--to-prefix=b/"]
    said(run("kvctl", *words))
    with kvd.client() as client:
        assert client.count(prefix=b"b/") == client.count(prefix=b"bin/") > 0


def test_a_copy_from_nowhere_ends_with_4(kvd: Kvd) -> None:
    words = ["copy", "--from=127.0.0.1:1", f"--to={kvd.address}", "--merge", "--timeout=1"]
    assert run("kvctl", *words).returncode == 4
