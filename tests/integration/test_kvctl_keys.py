"""kvctl's verbs for keys against a real kvd: conditions, lists, sizes, numbers, an editor."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.process import Kvd, command, environment, run

Ended = subprocess.CompletedProcess[bytes]


def kvctl(kvd: Kvd, *arguments: str, stdin: bytes | None = None) -> Ended:
    return run("kvctl", f"--addr={kvd.address}", *arguments, stdin=stdin)


def lines(ended: Ended) -> list[str]:
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode().splitlines()


def objects(ended: Ended) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def store(kvd: Kvd, **values: str) -> None:
    with kvd.client() as client:
        for key, value in values.items():
            client.put(key.replace("__", "/").encode(), value.encode())


def test_a_put_with_a_condition_is_refused_where_it_does_not_hold(kvd: Kvd) -> None:
    assert lines(kvctl(kvd, "put", "--if-absent", "cond", "1")) == ["created"]
    again = kvctl(kvd, "put", "--if-absent", "cond", "2")
    assert again.returncode == 1
    assert again.stdout == b""
    with kvd.client() as client:
        entry = client.get_entry(b"cond")
    assert entry is not None
    assert b"nothing was stored: cond was changed at revision %d" % entry.mod_revision in (
        again.stderr
    )
    old = kvctl(kvd, "put", "--if-revision", str(entry.mod_revision + 1), "cond", "2", "-o", "json")
    assert old.returncode == 1
    assert json.loads(old.stdout)["stored"] is False
    now = kvctl(kvd, "put", "--if-revision", str(entry.mod_revision), "--prev", "cond", "2")
    assert lines(now) == ["overwritten", "1"]


def test_a_put_with_a_time_has_a_lease_of_its_own(kvd: Kvd) -> None:
    assert lines(kvctl(kvd, "put", "--ttl=5m", "timed", "x")) == ["created"]
    with kvd.client() as client:
        entry = client.get_entry(b"timed")
        assert entry is not None
        status = client.lease_status(entry.lease)
        assert status is not None
        assert status.granted_ttl == 300
        before = client.leases()
        assert kvctl(kvd, "put", "--ttl=5m", "--if-absent", "timed", "y").returncode == 1
        assert client.leases() == before


def test_a_file_is_stored_byte_for_byte(kvd: Kvd, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(bytes(range(256)))
    assert lines(kvctl(kvd, "put", "from-file", "--file", str(file))) == ["created"]
    assert kvctl(kvd, "get", "from-file", "-o", "raw").stdout == bytes(range(256))
    missing = kvctl(kvd, "put", "from-file", "--file", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert missing.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["put", "k"],
        ["put", "k", "v", "--file", "f"],
        ["put", "k", "v", "--if-absent", "--if-revision", "1"],
        ["put", "k", "v", "--ttl", "soon"],
        ["put", "k", "v", "--ttl", "5", "--lease", "abc"],
        ["put", "k", "v", "--prev", "--request-id", "x"],
        ["get", "a", "b", "--range", "c"],
        ["get", "a", "--limit", "1"],
        ["get", "a", "b", "--prefix"],
        ["list", "--limit", "0"],
        ["list", "--count", "--limit", "1"],
        ["list", "--delimiter", "/", "--reverse"],
        ["sizes", "--delimiter", ""],
        ["incr", "n", "much"],
    ],
)
def test_what_makes_no_sense_is_a_wrong_usage(kvd: Kvd, words: list[str]) -> None:
    ended = kvctl(kvd, *words)
    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


def test_several_keys_are_read_and_removed_at_once(kvd: Kvd) -> None:
    store(kvd, many__a="1", many__b="2")
    found = kvctl(kvd, "get", "many/a", "many/none", "many/b")
    assert found.returncode == 3
    assert found.stdout == b"many/a\t1\nmany/b\t2\n"
    assert found.stderr == b"kvctl: key not found: many/none\n"
    gone = kvctl(kvd, "rm", "many/a", "many/none", "many/b")
    assert (gone.returncode, gone.stdout) == (3, b"deleted 2\n")
    assert lines(kvctl(kvd, "count", "many/")) == ["0"]


def test_a_dry_run_removes_nothing(kvd: Kvd) -> None:
    store(kvd, dry__a="1", dry__b="2")
    assert lines(kvctl(kvd, "del", "--prefix", "dry/", "--dry-run")) == ["dry/a", "dry/b"]
    assert objects(kvctl(kvd, "del", "dry/a", "dry/c", "--dry-run", "-o", "json")) == {
        "would_delete": ["dry/a"],
        "encoding": "utf-8",
    }
    assert lines(kvctl(kvd, "count", "dry/")) == ["2"]


def test_a_list_is_read_page_by_page_at_one_revision(kvd: Kvd) -> None:
    store(kvd, **{f"page__{n}": str(n) for n in range(5)})
    first = kvctl(kvd, "list", "page/", "--limit=2")
    assert lines(first) == ["page/0\t0", "page/1\t1"]
    assert first.stderr.startswith(b"there is more: --after page/1 --rev ")
    revision = first.stderr.split()[-1].decode()
    store(kvd, page__2="changed", page__9="new")
    rest = kvctl(kvd, "list", "page/", "--after=page/1", f"--rev={revision}")
    assert lines(rest) == ["page/2\t2", "page/3\t3", "page/4\t4"]
    assert rest.stderr == b""
    backwards = kvctl(kvd, "ls", "page/", "--reverse", "--after=page/3", "--keys")
    assert lines(backwards) == ["page/2", "page/1", "page/0"]
    assert lines(kvctl(kvd, "list", "page/", "--count")) == ["6"]
    assert lines(kvctl(kvd, "list", "page/", "--after=page/9")) == []
    assert objects(kvctl(kvd, "list", "page/none", "-o", "json")) == []


def test_folders_are_listed_once(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.put_many({b"dir/%d/%04d" % (n % 3, n): b"" for n in range(300)})
        client.put(b"dir/file", b"")
        client.put(b"dir/0", b"")
    expected = ["dir/0\t", "dir/0/\t100", "dir/1/\t100", "dir/2/\t100", "dir/file\t"]
    assert lines(kvctl(kvd, "list", "dir/", "--delimiter=/")) == expected
    two = kvctl(kvd, "list", "dir/", "--delimiter=/", "--limit=2")
    assert lines(two) == expected[:2]
    after = bytes.fromhex("6469722f302fff").hex()
    rest = kvctl(
        kvd, "list", b"dir/".hex(), "--delimiter=2f", "--hex", f"--after={after}", "-o", "raw"
    )
    assert lines(rest) == ["dir/1/", "dir/2/", "dir/file"]


def test_sizes_are_told_by_prefix(kvd: Kvd) -> None:
    store(kvd, big__a__1="x" * 1000, big__a__2="x", big__b__1="xx", big__c="x")
    found = objects(kvctl(kvd, "sizes", "big/", "-o", "json"))
    assert [(one["prefix"], one["keys"], one["value_bytes"]) for one in found] == [
        ("big/a/", 2, 1001),
        ("big/b/", 1, 2),
        ("big/", 1, 1),
    ]
    assert found[0]["largest"] == "big/a/1"
    assert len(objects(kvctl(kvd, "sizes", "big/", "--top=1", "-o", "json"))) == 1
    (all_of_it,) = objects(kvctl(kvd, "sizes", "big/", "--depth=0", "-o", "json"))
    assert all_of_it["keys"] == 4


def test_numbers_are_added_to(kvd: Kvd) -> None:
    assert lines(kvctl(kvd, "incr", "number")) == ["1"]
    assert lines(kvctl(kvd, "incr", "number", "41")) == ["42"]
    assert lines(kvctl(kvd, "incr", "number", "--", "-2")) == ["40"]
    store(kvd, word="forty", largest=str((1 << 63) - 1))
    for key in ("word", "largest"):
        ended = kvctl(kvd, "incr", key)
        assert ended.returncode == 1
        assert b"nothing was changed" in ended.stderr
        assert ended.stderr.count(b"\n") == 1


def edit(kvd: Kvd, key: str, script: str) -> Ended:
    variables = {"EDITOR": f"sh -c '{script}' editor", "KVCTL_ADDR": kvd.address}
    return run("kvctl", "edit", key, env=environment(**variables))


def test_a_value_is_changed_in_an_editor(kvd: Kvd) -> None:
    store(kvd, edited="one")
    assert lines(edit(kvd, "edited", "echo two >> $1")) == ["stored"]
    assert kvctl(kvd, "get", "edited").stdout == b"onetwo"
    assert lines(edit(kvd, "edited", "true")) == ["nothing was changed"]
    assert lines(edit(kvd, "edited-new", "echo first > $1")) == ["stored"]
    assert kvctl(kvd, "get", "edited-new").stdout == b"first\n"


def test_what_somebody_else_changed_meanwhile_is_not_overwritten(kvd: Kvd, tmp_path: Path) -> None:
    store(kvd, both="one")
    other = f"{tmp_path / 'kvctl'} put both theirs; echo mine > $1"
    program = tmp_path / "kvctl"
    program.write_text(f'#!/bin/sh\nexec {" ".join(command("kvctl"))} "$@"\n')
    program.chmod(0o755)
    ended = edit(kvd, "both", other)
    assert ended.returncode == 1
    kept = Path(ended.stderr.decode().rstrip("\n").rpartition(" ")[2])
    assert kept.read_text() == "mine"
    kept.unlink()
    assert kvctl(kvd, "get", "both").stdout == b"theirs"


@pytest.mark.parametrize("script", ["exit 3", "echo x > $1; exit 1"])
def test_an_editor_that_fails_changes_nothing(kvd: Kvd, script: str) -> None:
    store(kvd, kept="as it was")
    ended = edit(kvd, "kept", script)
    assert ended.returncode == 1
    assert b"the editor ended with status" in ended.stderr
    assert kvctl(kvd, "get", "kept").stdout == b"as it was"


def test_an_editor_that_is_not_there_is_told(kvd: Kvd) -> None:
    ended = run(
        "kvctl", "edit", "k", env=environment(EDITOR="/nowhere/editor", KVCTL_ADDR=kvd.address)
    )
    assert ended.returncode == 1
    assert b"can't run the editor" in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["compact", str(1 << 64)],
        ["get", "n", "--rev", str(1 << 64)],
        ["list", "--rev", str(1 << 63)],
        ["watch", "n", "--rev", str(1 << 63)],
        ["put", "k", "v", "--if-revision", str(1 << 66)],
    ],
)
def test_a_number_that_no_message_has_room_for_is_refused(kvd: Kvd, words: list[str]) -> None:
    refused = kvctl(kvd, *words)
    assert refused.returncode == 1
    assert refused.stderr.count(b"\n") == 1
    assert words[-1].encode() in refused.stderr
