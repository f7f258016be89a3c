from __future__ import annotations

import datetime
import json
import ssl
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.cli.kvctl import kvctl
from kvstore.errors import ConfigurationError
from kvstore.server.peers.names import member_name, parse_member_name
from kvstore.server.tls import pki

CONFIG = """\
cluster_id = "{cluster}"
self_id = 1
data_dir = "d"
[[nodes]]
node_id = 1
client_addr = "db1:1"
peer_addr = "10.0.0.1:2"
[[nodes]]
node_id = 2
client_addr = "db2:1"
peer_addr = "10.0.0.2:2"
[peer_tls]
ca = "ca"
cert = "c"
key = "k"
"""


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    return pki.init(tmp_path / "pki", "Orders", 100)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(kvctl, ["pki", *map(str, arguments)])


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Join two contexts in memory; return the server's end. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [near, far]
    for _ in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return far


def context(role: ssl._SSLMethod, ca: Path, stem: Path | None) -> ssl.SSLContext:
    made = ssl.SSLContext(role)
    made.load_verify_locations(ca)
    made.verify_mode = ssl.CERT_REQUIRED
    if stem is not None:
        made.load_cert_chain(f"{stem}.pem", f"{stem}.key")
    return made


def test_members_know_each_other_by_name(authority: pki.Authority) -> None:
    for member in (1, 2):
        authority.issue_member(member, ["127.0.0.1"], 30)
    root = authority.directory
    ca = root / "peer-ca.pem"
    one = context(ssl.PROTOCOL_TLS_CLIENT, ca, root / "member-1/peer")
    two = context(ssl.PROTOCOL_TLS_SERVER, ca, root / "member-2/peer")
    seen = handshake(two, one, member_name("Orders", 2)).getpeercert()
    assert seen is not None
    assert ("DNS", "member-1.orders.kvstore") in seen["subjectAltName"]
    assert ("IP Address", "127.0.0.1") in seen["subjectAltName"]
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(two, one, member_name("Orders", 3))


def test_a_clients_certificate_opens_no_door_between_members(authority: pki.Authority) -> None:
    authority.issue_member(1, ["a"], 30)
    authority.issue_client("alice", 30)
    root = authority.directory
    member = context(ssl.PROTOCOL_TLS_SERVER, root / "peer-ca.pem", root / "member-1/peer")
    alice = context(ssl.PROTOCOL_TLS_CLIENT, root / "peer-ca.pem", root / "client-alice")
    with pytest.raises(ssl.SSLError, match="certificate"):
        handshake(member, alice, member_name("Orders", 1))
    server = context(ssl.PROTOCOL_TLS_SERVER, root / "ca.pem", root / "member-1/server")
    alice = context(ssl.PROTOCOL_TLS_CLIENT, root / "ca.pem", root / "client-alice")
    assert handshake(server, alice, "a").getpeercert()


def test_keys_are_for_the_owner_alone(authority: pki.Authority) -> None:
    authority.issue_member(1, ["a"], 30)
    authority.issue_client("alice", 30)
    keys = list(authority.directory.rglob("*.key"))
    assert len(keys) == 5
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}


def test_a_certificate_ends_with_its_authority(authority: pki.Authority) -> None:
    (made,) = authority.issue_client("alice", 365)
    assert pki.facts(made).not_after == pki.facts(authority.directory / "ca.pem").not_after


def test_renewal_keeps_names_and_changes_the_key(authority: pki.Authority) -> None:
    _, peer = authority.issue_member(1, ["a", "10.0.0.1"], 5)
    old, old_key = pki.facts(peer), peer.with_suffix(".key").read_bytes()
    authority.renew(peer, 50)
    new = pki.facts(peer)
    assert (new.names, new.subject, new.issuer) == (old.names, old.subject, old.issuer)
    assert new.not_after > old.not_after
    assert peer.with_suffix(".key").read_bytes() != old_key
    context(ssl.PROTOCOL_TLS_CLIENT, authority.directory / "peer-ca.pem", peer.with_suffix(""))


def test_the_commands_make_a_clusters_certificates_from_its_configuration(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    config = tmp_path / "c.toml"
    config.write_text(CONFIG.format(cluster="orders"))
    assert run("init", "--cluster-id=orders", "--dir", directory).exit_code == 0
    assert run("issue", "--config", config, "--dir", directory).exit_code == 0
    assert pki.facts(directory / "member-2/server.pem").names == ("db2", "10.0.0.2")
    assert pki.facts(directory / "member-2/peer.pem").names[0] == "member-2.orders.kvstore"
    config.write_text(CONFIG.format(cluster="others"))
    refusal = run("issue", "--config", config, "--dir", directory)
    assert "is the authority of cluster orders, but" in str(refusal.exception)


def test_renew_takes_what_expires_soon_and_nothing_else(authority: pki.Authority) -> None:
    authority.issue_client("soon", 10)
    authority.issue_client("later", 90)
    said = run("renew", "--dir", authority.directory).output
    assert "client-soon.pem" in said
    assert "client-later.pem" not in said
    assert "nothing expires" in run("renew", "--dir", authority.directory).output
    assert "client-later.pem" in run("renew", "--all", "--dir", authority.directory).output


def test_show_tells_names_and_days_left(authority: pki.Authority) -> None:
    authority.issue_client("alice", 30)
    shown = run("show", "--dir", authority.directory)
    assert shown.exit_code == 0
    assert "29 days" in shown.output
    (facts,) = json.loads(
        run("show", "--output=json", authority.directory / "client-alice.pem").output
    )
    assert (facts["subject"], facts["days_left"], facts["authority"]) == ("CN=alice", 29, False)


def test_show_fails_on_an_expired_certificate(
    authority: pki.Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_BACKDATED", datetime.timedelta(days=10))
    authority.issue_client("alice", -1)
    shown = run("show", "--dir", authority.directory)
    assert shown.exit_code == 1
    assert "EXPIRED" in shown.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["init", "--cluster-id=a b"], 'cluster_id = "a b"; it must be'),
        (["issue", "--member=1", "--host=a b"], "neither a host name nor an IP address"),
        (["issue", "--client=a/b"], "client name 'a/b' must be"),
        (["issue", "--config=none.toml"], "failed to read --config=none.toml"),
        (["show", "none.pem"], "failed to read certificate none.pem: No such file"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] != "init":
        pki.init(tmp_path / "pki", "x", 9)
    outcome = run(*arguments)
    assert isinstance(outcome.exception, ConfigurationError)
    assert complaint in str(outcome.exception)


def test_an_authority_is_never_overwritten(authority: pki.Authority) -> None:
    before = (authority.directory / "ca.key").read_bytes()
    with pytest.raises(ConfigurationError, match="nothing was changed"):
        pki.init(authority.directory, "Orders", 1)
    assert (authority.directory / "ca.key").read_bytes() == before


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "kvstore.server.tls.pki")
    monkeypatch.delattr("kvstore.server.tls.pki")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    outcome = run("show", "--dir", tmp_path)
    assert "pip install 'kvstore-raft[pki]'" in str(outcome.exception)


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("member-3.orders.kvstore", ("orders", 3)),
        ("MEMBER-3.Orders.kvstore", ("orders", 3)),
        ("member-3.a.b.kvstore", ("a.b", 3)),
        ("member-0.orders.kvstore", None),
        ("member-3.orders.kvstore.evil.com", None),
        ("*.orders.kvstore", None),
        ("db3.example.com", None),
    ],
)
def test_only_a_members_name_is_read_as_one(name: str, parsed: tuple[str, int] | None) -> None:
    assert parse_member_name(name) == parsed


def test_an_authority_that_was_begun_is_made_anew(tmp_path: Path) -> None:
    """As a process that was killed leaves it."""
    pki.init(tmp_path, "orders", 10)
    before = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "cluster.txt").unlink()
    with pytest.raises(ConfigurationError, match="holds a certificate authority already"):
        pki.init(tmp_path, "orders", 10)
    (tmp_path / "unfinished").touch()
    pki.init(tmp_path, "orders", 10).issue_member(1, ["db1"], 5)
    assert (tmp_path / "ca.pem").read_bytes() != before
    assert not (tmp_path / "unfinished").exists()
    with pytest.raises(ConfigurationError, match="holds a certificate authority already"):
        pki.init(tmp_path, "orders", 10)
