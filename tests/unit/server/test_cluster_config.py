from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from kvstore.errors import ConfigurationError
from kvstore.server.config.cluster_config import (
    OVERRIDES,
    ClusterConfig,
    Node,
    PeerTls,
    load_cluster_config,
)

GOOD = """\
cluster_id = "orders-eu"
self_id = 2
data_dir = "/var/lib/kvstore"

[[nodes]]
node_id = 1
client_addr = "127.0.0.1:50051"
peer_addr = "127.0.0.1:50052"

[[nodes]]
node_id = 2
client_addr = "127.0.0.2:50051"
peer_addr = "127.0.0.2:50052"

[[nodes]]
node_id = 3
client_addr = "127.0.0.3:50051"
peer_addr = "127.0.0.3:50052"
"""

SECURE = 'tls_profile = "secure"\ntls_cert = "s.pem"\ntls_key = "s.key"\n'
PEER_TLS = '[peer_tls]\nca = "ca.pem"\ncert = "p.pem"\nkey = "p.key"\n'


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ClusterConfig]:
    def loaded(text: str, **overrides: str | bool) -> ClusterConfig:
        file = tmp_path / "node.toml"
        file.write_text(text)
        return load_cluster_config(str(file), overrides)

    return loaded


Load = Callable[..., ClusterConfig]


def test_a_plain_file_gives_every_setting_its_value_or_default(load: Load) -> None:
    config = load(GOOD)
    assert dataclasses.asdict(config) == {
        "cluster_id": "orders-eu",
        "self_id": 2,
        "data_dir": "/var/lib/kvstore",
        "nodes": tuple(
            {
                "node_id": n,
                "client_addr": f"127.0.0.{n}:50051",
                "peer_addr": f"127.0.0.{n}:50052",
            }
            for n in (1, 2, 3)
        ),
        "client_addr": "127.0.0.2:50051",
        "peer_addr": "127.0.0.2:50052",
        "tls_profile": "dev",
        "tls_cert": None,
        "tls_key": None,
        "tls_client_ca": None,
        "peer_tls": None,
        "peer_secret_file": None,
        "insecure_peers": False,
        "forward": False,
        "join": False,
        "heartbeat_ms": 50,
        "election_timeout_ms": 500,
        "snapshot_mib_per_s": 256,
        "log_tail_mib": 1024,
        "metrics_address": None,
        "log_level": "info",
        "log_format": "console",
        "admin": "operators",
        "insecure_clients": False,
        "front": "auto",
        "etcd_api": True,
        "history_s": 3600,
        "history_mib": 1024,
        "history_revisions": 0,
        "quota_mib": 0,
        "scrub_round_hours": 168,
        "slow_call_ms": 100,
    }
    assert config.node(3) == Node(3, "127.0.0.3:50051", "127.0.0.3:50052")
    assert config.node(4) is None


def test_listen_addresses_may_differ_from_those_that_others_dial(load: Load) -> None:
    config = load('client_addr = "0.0.0.0:50051"\npeer_addr = "0.0.0.0:50052"\n' + GOOD + PEER_TLS)
    assert config.client_addr == "0.0.0.0:50051"
    assert config.node(2) == Node(2, "127.0.0.2:50051", "127.0.0.2:50052")


def test_peer_tls_files_come_from_a_table(load: Load) -> None:
    config = load(SECURE + GOOD + PEER_TLS)
    assert config.peer_tls == PeerTls("ca.pem", "p.pem", "p.key")


def test_peer_tls_off_is_said_in_so_many_words(load: Load) -> None:
    assert load(SECURE + 'peer_tls = "off"\n' + GOOD).peer_tls is None
    assert load(SECURE + GOOD, peer_tls="off").peer_tls is None


@pytest.mark.parametrize(
    "text",
    [
        'peer_addr = "0.0.0.0:50052"\n' + GOOD,
        'peer_addr = "[::]:50052"\n' + GOOD,
        GOOD.replace("127.0.0.3:50052", "db3.example.org:50052"),
        GOOD.replace("127.0.0.1:50052", "10.0.0.1:50052"),
        SECURE + 'peer_tls = "off"\npeer_addr = "0.0.0.0:50052"\n' + GOOD,
        'peer_secret_file = "s"\npeer_addr = "0.0.0.0:50052"\n' + GOOD,
    ],
)
def test_members_beyond_this_machine_need_tls_or_so_many_words(load: Load, text: str) -> None:
    with pytest.raises(ConfigurationError, match="members would talk in plain text"):
        load(text)
    assert load("insecure_peers = true\n" + text).insecure_peers
    assert load(text, insecure_peers="true").insecure_peers
    assert load(text.replace('peer_tls = "off"\n', "") + PEER_TLS).peer_tls is not None
    with pytest.raises(ConfigurationError, match="contradicts"):
        load("insecure_peers = true\n" + text.replace('peer_tls = "off"\n', "") + PEER_TLS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST"])
def test_members_of_one_machine_need_none(load: Load, host: str) -> None:
    config = load(f'peer_addr = "{host}:50052"\npeer_secret_file = "s"\n' + GOOD)
    assert (config.insecure_peers, config.peer_secret_file) == (False, "s")


def test_flags_win_over_the_file(load: Load) -> None:
    config = load(
        GOOD,
        self_id="3",
        data_dir="/elsewhere",
        forward="true",
        peer_tls_ca="x",
        peer_tls_cert="y",
        peer_tls_key="z",
    )
    assert config.self_id == 3
    assert config.client_addr == "127.0.0.3:50051"
    assert config.data_dir == "/elsewhere"
    assert config.forward
    assert config.peer_tls == PeerTls("x", "y", "z")
    off = 'peer_tls = "off"\n' + GOOD
    config = load(off, peer_tls_ca="x", peer_tls_cert="y", peer_tls_key="z")
    assert config.peer_tls == PeerTls("x", "y", "z")
    assert "self_id" in OVERRIDES


def test_one_to_nine_nodes_are_accepted(load: Load) -> None:
    for size in (1, 9):
        assert len(load(_sized(size)).nodes) == size


def test_founders_with_other_lists_have_other_digests(load: Load) -> None:
    one = load(GOOD)
    assert load(GOOD, self_id="1").founders_digest == one.founders_digest
    assert (
        load(GOOD.replace("127.0.0.3:50052", "127.0.0.4:50052")).founders_digest
        != one.founders_digest
    )
    assert load(GOOD.replace("orders-eu", "orders-us")).founders_digest != one.founders_digest


def _sized(size: int) -> str:
    head = GOOD.partition("[[nodes]]")[0].replace("self_id = 2", "self_id = 1")
    return head + "".join(
        f'[[nodes]]\nnode_id = {n}\nclient_addr = "h{n}:1"\npeer_addr = "127.0.0.{n}:2"\n'
        for n in range(1, size + 1)
    )


def _replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


REFUSED = {
    "not TOML": ("self_id = = 1", "not valid TOML"),
    "a key twice": ("self_id = 1\n" + GOOD, "not valid TOML: Cannot overwrite a value"),
    "a misspelt key": ("tls_profil = 'secure'\n" + GOOD, "unknown key tls_profil; did you mean"),
    "an unknown key": ("zzz = 1\n" + GOOD, "unknown key zzz; expected cluster_id, self_id"),
    "a misspelt key of a node": (
        _replaced("node_id = 3", "node_idd = 3"),
        "unknown key nodes[2].node_idd; did you mean nodes[2].node_id?",
    ),
    "a misspelt key of peer_tls": (
        GOOD + '[peer_tls]\ncaa = "x"\n',
        "unknown key peer_tls.caa; did you mean peer_tls.ca?",
    ),
    "no cluster id": (_replaced('cluster_id = "orders-eu"', ""), "cluster_id is missing"),
    "no self id": (_replaced("self_id = 2", ""), "self_id is missing"),
    "no data directory": (_replaced('data_dir = "/var/lib/kvstore"', ""), "data_dir is missing"),
    "no nodes": (GOOD.partition("[[nodes]]")[0], "[[nodes]] is missing"),
    "nodes of another kind": ("nodes = 3\n" + GOOD.partition("[[nodes]]")[0], "array of tables"),
    "ten nodes": (_sized(10), "10 [[nodes]]; a cluster has 1 to 9"),
    "self is no node": (_replaced("self_id = 2", "self_id = 7"), "self_id = 7 is none of the"),
    "id zero": (_replaced("node_id = 3", "node_id = 0"), "nodes[2].node_id = 0; it must be a numb"),
    "an id as text": (_replaced("self_id = 2", 'self_id = "2"'), 'self_id = "2"; it must be a num'),
    "an id as truth": (_replaced("self_id = 2", "self_id = true"), "self_id = true; it must be"),
    "an id twice": (
        _replaced("node_id = 3", "node_id = 1"),
        "nodes[2].node_id = 1 is taken by nodes[0]; ids must be unique",
    ),
    "an address twice": (
        _replaced("127.0.0.3:50051", "127.0.0.1:50051"),
        'nodes[2].client_addr = "127.0.0.1:50051" is taken by nodes[0].client_addr',
    ),
    "client and peer address equal": (
        _replaced("127.0.0.3:50052", "127.0.0.3:50051"),
        "nodes[2].peer_addr",
    ),
    "equal listen addresses": (
        'client_addr = "0.0.0.0:1"\npeer_addr = "127.0.0.2:1"\n' + GOOD,
        "clients and peers need a port each",
    ),
    "an address without port": (_replaced("127.0.0.3:50051", "c"), 'must be "host:port"'),
    "port zero": (_replaced("127.0.0.3:50051", "c:0"), "with a port from 1 to 65535"),
    "port too high": (_replaced("127.0.0.3:50051", "c:65536"), "with a port from 1 to 65535"),
    "an address that can't be dialled": (
        _replaced("127.0.0.3:50051", "0.0.0.0:1"),
        "can't be dialled",
    ),
    "a cluster id with a space": (_replaced("orders-eu", "orders eu"), 'cluster_id = "orders eu"'),
    "an empty path": (_replaced("/var/lib/kvstore", ""), 'data_dir = ""; it must be a text'),
    "an unknown profile": ('tls_profile = "none"\n' + GOOD, '"none"; it must be "dev" or "secure"'),
    "secure without certificate": (
        'tls_profile = "secure"\n' + GOOD,
        "secure TLS profile requires both tls_cert and tls_key",
    ),
    "secure without peer certificates": (SECURE + GOOD, "secure TLS profile requires [peer_tls]"),
    "dev with certificate": ('tls_cert = "x"\n' + GOOD, "tls_cert has no effect"),
    "dev with client authority": ('tls_client_ca = "x"\n' + GOOD, "tls_client_ca has no effect"),
    "half of peer_tls": (GOOD + '[peer_tls]\nca = "x"\n', "peer_tls.cert is missing"),
    "an empty peer_tls": (GOOD + "[peer_tls]\n", "peer_tls.ca is missing"),
    "peer_tls of another kind": ('peer_tls = "on"\n' + GOOD, 'peer_tls = "on"; give "off" or a'),
    "forward as text": ('forward = "yes"\n' + GOOD, 'forward = "yes"; it must be true or false'),
    "an impatient election": (
        "heartbeat_ms = 200\nelection_timeout_ms = 500\n" + GOOD,
        "election_timeout_ms = 500 is too short",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_file_is_refused_in_one_line_that_names_the_key(
    load: Load, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(text)
    assert complaint in str(refusal.value)
    assert "node.toml: " in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"self_id": "two"}, '--self_id = "two"; it must be a number from 1'),
        ({"peer_tls": "on"}, "--peer_tls=on is not known; give off"),
        ({"peer_tls": "off", "peer_tls_ca": "x"}, "--peer_tls=off contradicts --peer_tls_ca"),
        ({"peer_tls_ca": "x"}, "peer_tls.cert is missing"),
        ({"forward": "perhaps"}, '--forward = "perhaps"; it must be true or false'),
    ],
)
def test_a_bad_flag_is_refused(load: Load, overrides: dict[str, str], complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(GOOD, **overrides)
    assert complaint in str(refusal.value)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigurationError, match=f"failed to read --config={missing}: No such"):
        load_cluster_config(str(missing))
    missing.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8 text"):
        load_cluster_config(str(missing))
