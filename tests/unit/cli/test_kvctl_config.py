"""``kvctl config``: what is wrong with a configuration, what is in force, and an example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.cli.files.config import EXAMPLE
from kvstore.cli.kvctl import run
from kvstore.server.config.cluster_config import load_cluster_config

CONFIG = """
cluster_id = "test"
self_id = 1
data_dir = "{data}"
[[nodes]]
node_id = 1
client_addr = "127.0.0.1:50051"
peer_addr = "127.0.0.1:50052"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kvd.toml"
    path.write_text(CONFIG.format(data=str(tmp_path / "data")))
    return path


def test_the_example_is_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "example"]) == 0
    assert capsys.readouterr().out == EXAMPLE
    path = tmp_path / "example.toml"
    path.write_text(EXAMPLE)
    config = load_cluster_config(str(path))
    assert [node.node_id for node in config.nodes] == [1, 2, 3]
    # What is commented out is what kvd takes anyway, or says something that it knows.
    path.write_text(EXAMPLE.replace("# forward", "forward").replace("# join", "join"))
    assert load_cluster_config(str(path)) == config


def test_what_is_in_force_is_shown(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVD_HEARTBEAT_MS", "70")
    assert run(["config", "show", str(file), "-o", "json"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert (fields["cluster_id"], fields["heartbeat_ms"]) == ("test", 70)
    assert fields["election_timeout_ms"] == 500
    assert run(["config", "show", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "etcd_api\ttrue" in lines
    assert "nodes\tnode_id=1 client_addr=127.0.0.1:50051 peer_addr=127.0.0.1:50052" in lines


def test_all_that_is_wrong_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(file.read_text() + 'nonsense = 1\n[peer_tls]\nca = "none"\n')
    assert run(["config", "validate", str(file), "-o", "json"]) == 2
    fields = json.loads(capsys.readouterr().out)
    assert fields["valid"] is False
    assert sum(one["fault"] for one in fields["findings"]) >= 2
    assert run(["config", "validate", str(file)]) == 2
    assert capsys.readouterr().out.endswith("kvd would not start\n")


def test_a_file_that_kvd_can_start_with_is_valid(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(["config", "validate", str(file), "--running", "-o", "json"])
    fields = json.loads(capsys.readouterr().out)
    assert (status, fields["valid"]) == (0, True), fields


@pytest.mark.parametrize(("verb", "status"), [("validate", 2), ("show", 1)])
def test_a_file_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, status: int
) -> None:
    assert run(["config", verb, str(tmp_path / "none")]) == status
    said = capsys.readouterr()
    assert "No such file" in said.out + said.err
