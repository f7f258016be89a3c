"""kvctl's commands for ranges, transactions, watches, leases, locks and elections."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore.client import Client
from tests.integration.etcd import Etcd
from tests.integration.model_server import KINDS, ModelServer, started, store
from tests.integration.process import command, environment, kvctl_here


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """One for all tests of the module, which use keys of their own."""
    with started(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def client(server: ModelServer) -> Iterator[Client]:
    with server.client() as made:
        yield made


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A prefix that no other test has."""
    return f"{request.node.name}/"


def kvctl(
    server: ModelServer, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return kvctl_here("--addr", server.address, "--timeout=30", *arguments, stdin=stdin)


class Running:
    """A kvctl that goes on until it is told to end."""

    def __init__(self, server: ModelServer, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*command("kvctl"), *arguments],
            env=environment(KVCTL_ADDR=server.address, KVCTL_TIMEOUT="30"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().rstrip("\n")

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal; the status."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        _, self.stderr = self._process.communicate(timeout=60)
        return self._process.returncode

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


def objects(done: subprocess.CompletedProcess[bytes]) -> list[Any]:
    return [json.loads(line) for line in lines(done)]


def test_get_prints_a_line_for_each_key(server: ModelServer, client: Client, place: str) -> None:
    keys = [f"{place}{n}".encode() for n in range(5)]
    first = store(client, *keys, value=b"one\ttwo")
    assert lines(kvctl(server, "get", "--prefix", place)) == [
        f"{key.decode()}\tone\\ttwo" for key in keys
    ]
    assert lines(kvctl(server, "get", "--prefix", place, "--limit=2", "--keys-only")) == [
        keys[0].decode(),
        keys[1].decode(),
    ]
    assert lines(
        kvctl(server, "get", "--range", f"{place}1", f"{place}3", "--keys-only", "--reverse")
    ) == [
        keys[2].decode(),
        keys[1].decode(),
    ]
    last = keys[4].hex()
    assert lines(kvctl(server, "get", "--from-key", last, "--limit=1", "--hex")) == [
        f"{keys[4].hex()}\t{b'one'.hex()}09{b'two'.hex()}"
    ]
    assert lines(kvctl(server, "get", "--prefix", place, "--count")) == ["5"]
    store(client, keys[0], value=b"new")
    client.delete_range(keys[1], keys[4])
    assert lines(kvctl(server, "get", "--prefix", place, "--count")) == ["2"]
    assert lines(kvctl(server, "get", "--prefix", place, "--count", f"--rev={first}")) == ["5"]
    assert kvctl(server, "get", keys[0].decode(), f"--rev={first}").stdout == b"one\ttwo"
    (entry,) = objects(kvctl(server, "get", "--prefix", keys[0].decode(), "--output=jsonl"))
    listed = kvctl(server, "get", "--prefix", keys[0].decode(), "--output=json")
    assert json.loads(listed.stdout) == [entry]
    assert entry == {
        "key": keys[0].decode(),
        "value": "new",
        "create_revision": first,
        "mod_revision": first + 1,
        "version": 2,
        "lease": None,
        "encoding": "utf-8",
    }
    gone = kvctl(server, "get", f"{place}none", f"--rev={first}")
    assert (gone.returncode, gone.stdout) == (3, b"")
    assert lines(kvctl(server, "get", "--prefix", f"{place}none")) == []


@pytest.mark.parametrize("words", [["a", "b", "--prefix"], ["a", "--prefix", "--from-key"]])
def test_keys_are_said_in_one_way(server: ModelServer, words: list[str]) -> None:
    for verb in ("get", "del", "watch"):
        assert kvctl(server, verb, *words).returncode == 2


def test_del_removes_many(server: ModelServer, client: Client, place: str) -> None:
    store(client, *(f"{place}{n}".encode() for n in range(5)))
    assert lines(kvctl(server, "del", "--range", f"{place}1", f"{place}3")) == ["deleted 2"]
    (gone,) = objects(kvctl(server, "del", "--prefix", place, "--output=json"))
    assert gone["deleted"] == 3
    assert kvctl(server, "del", "--prefix", place).returncode == 3
    assert kvctl(server, "del", "--prefix", place, "--request-id=x").returncode == 2


TXN = """value("{0}a") = "1"

put {0}a "2 3"
get {0}a
del --prev-kv --prefix {0}x

get --prefix {0}

"""


def test_a_transaction_is_read_as_etcdctl_reads_it(
    server: ModelServer, client: Client, place: str
) -> None:
    store(client, f"{place}a".encode(), value=b"1")
    revision = store(client, f"{place}x".encode(), value=b"\x00")
    text = TXN.format(place).encode()
    said = lines(kvctl(server, "txn", stdin=text))
    assert said == [
        f"succeeded at revision {revision + 1}",
        "put",
        "get 1",
        f"{place}a\t2 3",
        "deleted 1",
        f"{place}x\t\\x00",
    ]
    assert lines(kvctl(server, "txn", "-", stdin=text))[0].startswith("failed at revision")
    if isinstance(server, Etcd):
        store(client, f"{place}a".encode(), value=b"1")
        theirs = subprocess.run(
            ["etcdctl", f"--endpoints={server.address}", "txn"],
            input=text,
            env={"ETCDCTL_API": "3", "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        assert theirs.stdout.startswith(b"SUCCESS")


def test_a_transaction_is_json_both_ways(server: ModelServer, place: str) -> None:
    txn = {
        "if": [{"key": f"{place}a", "field": "version", "is": "==", "than": 0}],
        "then": [{"put": {"key": f"{place}a", "value": "1"}}, {"get": {"prefix": place}}],
        "else": [{"del": {"key": f"{place}a", "previous": True}}],
    }
    text = json.dumps(txn).encode()
    (first,) = objects(kvctl(server, "txn", "--output=json", stdin=text))
    assert first["succeeded"] is True
    entry = {
        "key": f"{place}a",
        "value": "1",
        "create_revision": first["revision"],
        "mod_revision": first["revision"],
        "version": 1,
        "lease": None,
    }
    assert first["results"] == [
        {"put": {"previous": None}},
        {"get": {"count": 1, "keys": [entry]}},
    ]
    (second,) = objects(kvctl(server, "txn", "--output=json", stdin=text))
    assert second["succeeded"] is False
    assert second["results"] == [{"del": {"deleted": 1, "previous": [entry]}}]


def test_a_wrong_transaction_is_a_wrong_usage(server: ModelServer, place: str) -> None:
    wrong = kvctl(server, "txn", stdin=b"mod(a = 1\n")
    assert wrong.returncode == 2
    assert b"no condition" in wrong.stderr
    twice = kvctl(server, "txn", stdin=f"\nput {place}a 1\nput {place}a 2\n".encode())
    assert twice.returncode == 1
    assert b"duplicate key" in twice.stderr
    assert b"(not applied)" in twice.stderr


def test_watch_prints_changes_until_ctrl_c(server: ModelServer, client: Client, place: str) -> None:
    first = store(client, f"{place}a".encode(), value=b"1")
    with Running(server, "watch", "--prefix", place, f"--rev={first}", "--prev") as watch:
        assert watch.line() == f"{first}\tput\t{place}a\t1"
        second = store(client, f"{place}a".encode(), value=b"2\n")
        assert watch.line() == f"{second}\tput\t{place}a\t2\\n\twas 1"
        client.delete_range(prefix=place.encode())
        assert watch.line() == f"{second + 1}\tdelete\t{place}a\twas 2\\n"
        assert watch.end() == 130
        assert watch.stderr.strip() == b""
    found = objects(
        kvctl(server, "watch", f"{place}a", f"--rev={first}", "--count=3", "--output=json")
    )
    assert [(one["event"], one["revision"], one.get("value")) for one in found] == [
        ("put", first, "1"),
        ("put", second, "2\n"),
        ("delete", second + 1, None),
    ]


def test_history_and_compact_are_about_the_past(
    server: ModelServer, client: Client, place: str
) -> None:
    key = f"{place}a"
    store(client, key.encode(), value=b"1")
    last = store(client, key.encode(), value=b"2")
    assert lines(kvctl(server, "history", key)) == [
        f"{last - 1}\tput\t{key}\t1",
        f"{last}\tput\t{key}\t2",
    ]
    assert lines(kvctl(server, "compact", str(last))) == [f"history begins at {last}"]
    assert lines(kvctl(server, "history", key)) == [f"{last}\tput\t{key}\t2"]
    again = kvctl(server, "compact", str(last))
    assert again.returncode == 1
    assert b"compacted" in again.stderr
    assert kvctl(server, "get", key, f"--rev={last - 1}").returncode == 1


def test_leases_are_named_by_their_ids(server: ModelServer, client: Client, place: str) -> None:
    ((lease, ttl),) = (line.split("\t") for line in lines(kvctl(server, "lease", "grant", "600")))
    assert ttl == "600s"
    assert client.put(f"{place}a".encode(), b"1", lease=int(lease, 16)) is False
    assert lease in lines(kvctl(server, "lease", "list"))
    said = lines(kvctl(server, "lease", "ttl", lease, "--keys"))
    assert said[0].endswith("s left of 600s")
    assert said[1:] == [f"{place}a"]
    assert lines(kvctl(server, "lease", "keep-alive", lease, "--once")) == ["600s"]
    with Running(server, "lease", "keep-alive", lease) as keeper:
        assert keeper.line() == "600s"
        assert keeper.end() == 130
    (fields,) = objects(kvctl(server, "lease", "ttl", lease, "--output=json"))
    assert (fields["id"], fields["granted_ttl"]) == (lease, 600)
    assert lines(kvctl(server, "lease", "revoke", lease)) == ["revoked"]
    assert client.get_entry(f"{place}a".encode()) is None
    for words in (["ttl", lease], ["revoke", lease], ["keep-alive", lease]):
        gone = kvctl(server, "lease", *words)
        assert gone.returncode == 3
    assert kvctl(server, "lease", "revoke", "xyz").returncode == 2
    chosen = objects(kvctl(server, "lease", "grant", "600", "--id=abc123", "--output=json"))
    assert chosen[0]["id"] == "abc123"
    assert lines(kvctl(server, "lease", "revoke", "abc123")) == ["revoked"]


def test_put_goes_with_a_lease(server: ModelServer, client: Client, place: str) -> None:
    with client.lease(60) as lease:
        put = kvctl(server, "put", f"--lease={lease.id:x}", f"{place}a", "1")
        assert put.stdout == b"created\n"
        entry = client.get_entry(f"{place}a".encode())
        assert entry is not None
        assert entry.lease == lease.id
    gone = kvctl(server, "put", f"--lease={lease.id:x}", f"{place}a", "1")
    assert gone.returncode == 3
    assert b"lease not found (not applied)" in gone.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lock_is_held_until_a_signal_and_given_up_then(
    server: ModelServer, client: Client, place: str, number: signal.Signals
) -> None:
    status = 130 if number is signal.SIGINT else 143
    with Running(server, "lock", place) as holder:
        key, fence = holder.line().split("\t")
        assert key.startswith(place)
        busy = kvctl(server, "lock", place, "--wait=0", "--", "true")
        assert busy.returncode == 4
        assert b"others held it for 0 s" in busy.stderr
        # Who only waits leaves nothing behind either.
        with (
            client.watch(prefix=f"{place}/".encode()) as queue,
            Running(server, "lock", place) as waiter,
        ):
            assert next(queue).entry.create_revision > int(fence)
            assert waiter.end(number) == status
        assert client.count(prefix=f"{place}/".encode()) == 1
        assert holder.end(number) == status
    assert client.count(prefix=f"{place}/".encode()) == 0


def test_a_command_runs_under_a_lock(server: ModelServer, client: Client, place: str) -> None:
    script = 'echo "$KVCTL_LOCK_KEY $KVCTL_LOCK_FENCE"; exit 7'
    with Running(server, "lock", place, "--", "sh", "-c", script) as done:
        key, fence = done.line().split()
        assert done.wait() == 7
    assert key.startswith(f"{place}/")
    assert int(fence) > 0
    assert client.count(prefix=place.encode()) == 0
    missing = kvctl(server, "lock", place, "--", "/nowhere")
    assert missing.returncode == 1
    assert b"can't run /nowhere" in missing.stderr
    killed = kvctl(server, "lock", place, "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137


def test_a_command_whose_lock_is_lost_is_ended(
    server: ModelServer, client: Client, place: str
) -> None:
    script = "trap 'echo told; exit 0' TERM; echo began; while :; do sleep 0.1; done"
    with Running(server, "lock", "--ttl=2", place, "--", "sh", "-c", script) as holder:
        assert holder.line() == "began"
        (entry,) = client.range(prefix=place.encode())
        client.revoke_lease(entry.lease)
        assert holder.line() == "told"
        assert holder.wait() == 1
        assert b"has expired" in holder.stderr


def test_candidates_lead_one_after_the_other(
    server: ModelServer, client: Client, place: str
) -> None:
    with (
        Running(server, "elect", place, "one") as one,
        Running(server, "elect", "--listen", place) as listener,
    ):
        key, _ = one.line().split("\t")
        assert listener.line() == f"{key}\tone"
        with Running(server, "elect", place, "two", "--output=json") as two:
            assert one.end() == 130
            fields = json.loads(two.line())
            assert listener.line() == f"{fields['key']}\ttwo"
            assert fields["fence"] > 0
            assert two.end() == 130
        assert listener.end() == 130
    assert client.count(prefix=place.encode()) == 0
    assert kvctl(server, "elect", place).returncode == 2
    assert kvctl(server, "elect", place, "one", "--listen").returncode == 2


def test_help_of_each_command_has_examples_or_says_it_all(server: ModelServer) -> None:
    for words in (
        ["get"],
        ["del"],
        ["txn"],
        ["watch"],
        ["history"],
        ["compact"],
        ["lease"],
        ["lease", "grant"],
        ["lock"],
        ["elect"],
    ):
        assert kvctl(server, *words, "--help").returncode == 0
