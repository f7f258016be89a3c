"""``kvctl snapshot``: saved from a cluster that serves, checked, and a new one begun with it."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import AsyncClient, Client
from kvstore.errors import Error, StorageError, UnavailableError
from kvstore.replica.backup_file import BackupParser
from tests.integration.cluster import Cluster
from tests.integration.process import Kvd, run

KEYS = 300
REVISIONS = KEYS + 1, KEYS + 2
"""Of so many writes: a store that is empty when the model is enabled begins at revision 1."""


def snapshot(*arguments: str) -> dict[str, object]:
    """Run ``kvctl snapshot`` and return its JSON."""
    ended = run("kvctl", "--output=json", "snapshot", *arguments)
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(ended.stdout)
    assert isinstance(shown, dict)
    return shown


def fill(client: Client) -> None:
    for n in range(KEYS):
        client.put(b"key %d" % n, b"%d" % n * 1000, request_id=f"request {n}")
    client.delete(b"key 0")


def check(client: Client) -> None:
    assert client.get(b"key 0") is None
    for n in range(1, KEYS):
        assert client.get(b"key %d" % n) == b"%d" % n * 1000
    # What was written before is remembered: a retry gets its first answer and does nothing.
    assert client.put(b"key 0", b"0" * 1000, request_id="request 0") is False
    assert client.get(b"key 0") is None
    assert client.put(b"after", b"it") is False
    assert client.get(b"after") == b"it"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file saved from a cluster named "test" that holds what :func:`check` looks for."""
    directory = tmp_path_factory.mktemp("saved")
    file = directory / "file.kvs"
    with Cluster(directory, admin="everybody") as cluster:
        cluster.start()
        with cluster.client() as client:
            fill(client)
        # A follower gives it as well, and not less than was acknowledged by the leader.
        follower = 1 + cluster.leader() % 3
        info = snapshot("save", str(file), f"--addr={cluster.clients[follower]}")
        assert info["cluster"] == "test"
        assert info["member"] == follower
        assert info["revision"] in REVISIONS
        left = {path.name for path in (cluster.data(follower) / f"node{follower}").iterdir()}
        assert not any(name.startswith("outgoing") for name in left), left
        asyncio.run(save_with_asyncio(cluster, directory / "other.kvs"))
    assert snapshot("status", str(directory / "other.kvs"))["revision"] in REVISIONS
    return file


async def save_with_asyncio(cluster: Cluster, file: Path) -> None:
    async with AsyncClient(list(cluster.clients.values()), timeout=15) as client:
        file.write_bytes(b"".join([piece async for piece in client.save_snapshot()]))


def test_a_file_tells_what_it_holds(saved: Path) -> None:
    info = snapshot("status", str(saved))
    assert info["outcome"] == "whole"
    assert info["cluster"] == "test"
    assert info["revision"] in REVISIONS
    assert info["bytes"] == saved.stat().st_size
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    table = run("kvctl", "snapshot", "status", str(saved)).stdout.decode().splitlines()
    assert table[0].split()[:4] == ["outcome", "cluster", "member", "index"]
    assert table[1].split()[:2] == ["whole", "test"]


def test_a_new_cluster_begins_with_a_file_and_survives_restarts(
    saved: Path, tmp_path: Path
) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        for member in cluster.members:
            cluster.write_config(member, cluster="restored")
        # Two on one machine, the third by itself, as on another one.
        both = [f"--config={cluster.config(member)}" for member in (1, 2)]
        assert snapshot("restore", str(saved), *both)["outcome"] == "restored"
        snapshot("restore", str(saved), f"--config={cluster.config(3)}")
        cluster.start()
        with cluster.client() as client:
            check(client)
            cluster.kill()
            cluster.start()
            assert client.get(b"after") == b"it"
            # Each member has it all: any two of them are enough.
            cluster.kill(cluster.leader())
            assert client.get(b"key 7") == b"7" * 1000
        again = run("kvctl", "snapshot", "restore", str(saved), *both)
        assert again.returncode == 1
        assert b"is not empty: it holds " in again.stderr


def test_an_embedded_kvd_is_saved_and_restored_as_well(tmp_path: Path) -> None:
    file = str(tmp_path / "file.kvs")
    with Kvd(tmp_path / "old", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        fill(client)
        assert snapshot("save", file, f"--addr={kvd.address}")["cluster"] == "embedded"
        again = run("kvctl", f"--addr={kvd.address}", "snapshot", "save", file)
        assert again.returncode == 1
        assert b"exists already" in again.stderr
    snapshot("restore", file, f"--data-dir={tmp_path / 'new'}")
    for _ in range(2):
        with Kvd(tmp_path / "new", admin="everybody") as kvd, kvd.wait_serving().client() as client:
            assert client.get(b"key 7") == b"7" * 1000
            client.delete(b"after")
            check(client)


def test_a_cluster_becomes_an_embedded_kvd(saved: Path, tmp_path: Path) -> None:
    snapshot("restore", str(saved), f"--data-dir={tmp_path / 'data'}")
    with Kvd(tmp_path / "data", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        check(client)


def test_a_save_while_clients_write_holds_all_that_was_acknowledged_before(tmp_path: Path) -> None:
    acknowledged = 0
    stopping = threading.Event()
    begun = threading.Event()

    def write(client: Client) -> None:
        nonlocal acknowledged
        while not stopping.is_set():
            client.put(b"%d" % (acknowledged + 1), b"x" * 5000)
            acknowledged += 1
            if acknowledged == 100:
                begun.set()

    file = str(tmp_path / "file.kvs")
    with Kvd(tmp_path / "old", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        writer = threading.Thread(target=write, args=(client,))
        writer.start()
        assert begun.wait(30)
        before = acknowledged
        info = snapshot("save", file, f"--addr={kvd.address}")
        after = acknowledged + 1
        stopping.set()
        writer.join(30)
    revision = info["revision"]
    assert isinstance(revision, int)
    snapshot("restore", file, f"--data-dir={tmp_path / 'new'}")
    with Kvd(tmp_path / "new", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        # A store that was empty when the model was enabled began at revision 1.
        held = revision if client.get(b"%d" % revision) is not None else revision - 1
        assert before <= held <= after
        assert client.get(b"%d" % held) == b"x" * 5000
        assert client.get(b"%d" % (held + 1)) is None
        assert all(client.get(b"%d" % n) is not None for n in range(1, held, 7))
        assert client.put(b"1", b"goes on") is True


def test_what_is_left_of_a_lost_majority_can_be_saved_stale(tmp_path: Path) -> None:
    with Cluster(tmp_path, admin="everybody") as cluster:
        cluster.start()
        with cluster.client() as client:
            for n in range(20):
                client.put(b"%d" % n, b"v")
        leader = cluster.leader()
        cluster.kill(*(member for member in cluster.members if member != leader))
        file = str(tmp_path / "file.kvs")
        address = f"--addr={cluster.clients[leader]}"
        refused = run("kvctl", address, "--timeout=1", "snapshot", "save", file)
        assert refused.returncode == 4
        assert not Path(file).exists()
        assert snapshot("save", file, "--stale", address)["revision"] in (20, 21)


@pytest.mark.parametrize(
    ("at", "code"), [(3, "INVALID_MAGIC"), (40, "CHECKSUM"), (-1, "CHECKSUM"), (-60, "CHECKSUM")]
)
def test_a_damaged_file_is_named_and_nothing_is_made_of_it(
    saved: Path, tmp_path: Path, at: int, code: str
) -> None:
    bad = bytearray(saved.read_bytes())
    bad[at] ^= 1
    file = tmp_path / "bad.kvs"
    file.write_bytes(bad)
    for arguments in (["status"], ["restore", f"--data-dir={tmp_path / 'data'}"]):
        ended = run("kvctl", "snapshot", *arguments, str(file))
        assert ended.returncode == 5
        assert ended.stderr.startswith(f"kvctl: {code}".encode())
        assert str(file).encode() in ended.stderr
    assert not (tmp_path / "data").exists()


def test_restoring_refuses_what_makes_no_new_cluster(saved: Path, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 2, admin="everybody")
    configs = [f"--config={cluster.config(member)}" for member in cluster.members]
    cases = [
        (configs, 1, b"cluster_id = 'test' is the cluster that was saved"),
        ([], 2, b"give --config for members of a cluster, or --data-dir"),
        ([*configs, "--data-dir=x"], 2, b"give --config for members of a cluster"),
        ([configs[0], configs[0]], 1, b"is given twice"),
        ([f"--data-dir={tmp_path}"], 1, b"is not empty"),
        ([f"--data-dir={tmp_path / 'no' / 'where'}"], 1, b"its parent directory does not exist"),
    ]
    for arguments, status, complaint in cases:
        ended = run("kvctl", "snapshot", "restore", str(saved), *arguments)
        assert ended.returncode == status, ended.stderr
        assert complaint in ended.stderr
    cluster.write_config(1, cluster="restored")
    other = run("kvctl", "snapshot", "restore", str(saved), *configs)
    assert b"has another cluster_id or other [[nodes]]" in other.stderr
    cluster.write_config(2, cluster="restored", settings="join = true")
    joining = run("kvctl", "snapshot", "restore", str(saved), *configs)
    assert b"member 2 has join = true" in joining.stderr
    assert not any(cluster.data(member).exists() for member in cluster.members)


def test_one_snapshot_at_a_time_and_a_client_that_left_leaves_nothing(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        for n in range(64):
            client.put(b"%d" % n, bytes([n]) * (1 << 20))
        pieces = client.save_snapshot()
        next(pieces)
        with pytest.raises(Error, match="another snapshot of this member is being saved"):
            next(client.save_snapshot(timeout=5))
        del pieces
        # The first one's end is noticed, and its checkpoint is gone before the next one begins.
        assert sum(map(len, client.save_snapshot(timeout=30))) > 64 << 20
    assert not list((tmp_path / "data").glob("node*/outgoing*"))


def test_a_full_disk_leaves_neither_half_a_file_nor_half_a_directory(
    saved: Path, tmp_path: Path
) -> None:
    small = ["prlimit", "--fsize=20000"]
    restoring = [f"--data-dir={tmp_path / 'data'}"]
    ended = run("kvctl", "snapshot", "restore", str(saved), *restoring, wrapper=small)
    assert ended.returncode == 5
    assert b"IO_ERROR" in ended.stderr
    with Kvd(tmp_path / "other", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        fill(client)
        before = set(tmp_path.iterdir())
        saving = [f"--addr={kvd.address}", "snapshot", "save", str(tmp_path / "file.kvs")]
        ended = run("kvctl", *saving, wrapper=small)
    assert ended.returncode == 5
    assert b"IO_ERROR: failed to write: File too large in " in ended.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_kvd_that_is_told_to_stop_in_the_middle_of_a_save_stops(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        for n in range(64):
            client.put(b"%d" % n, bytes([n]) * (1 << 20))
        pieces = client.save_snapshot()
        parser = BackupParser("file.kvs")
        parser.feed(next(pieces))
        assert kvd.terminate() == 0
        with pytest.raises((UnavailableError, StorageError)):
            finish(parser, pieces)
    with Kvd(tmp_path / "data", admin="everybody") as kvd, kvd.wait_serving().client() as client:
        assert client.get(b"63") == bytes([63]) * (1 << 20)
    assert not list((tmp_path / "data").glob("node*/outgoing*"))


def finish(parser: BackupParser, pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        parser.feed(piece)
    parser.finish()
