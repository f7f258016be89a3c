"""``kvd check`` names everything that is wrong, and touches nothing."""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.cli.kvd_check import kvd_check
from kvstore.errors import ConfigurationError
from kvstore.replica import Group
from kvstore.server.config.cluster_config import load_cluster_config
from kvstore.server.config.data_directory import DataDirectory
from kvstore.server.peers.identity import start_identity
from kvstore.server.peers.registry import PeerRegistry
from kvstore.server.tls import pki
from tests.integration.cluster import free_addresses

Write = Callable[..., Path]


def check(*arguments: object) -> Result:
    return CliRunner().invoke(kvd_check, list(map(str, arguments)))


def errors(*arguments: object) -> list[str]:
    """The errors, when there are some."""
    result = check(*arguments)
    assert result.exit_code == 2, result.output
    return [
        line.removeprefix("error: ") for line in result.output.splitlines() if "error: " in line
    ]


def warnings(*arguments: object) -> list[str]:
    """The warnings, when there is nothing worse."""
    result = check(*arguments)
    assert result.exit_code == 0, result.output
    return [line for line in result.output.splitlines() if line.startswith("warning: ")]


@pytest.fixture
def authority(tmp_path: Path) -> pki.Authority:
    pki.init(tmp_path / "pki", "orders", 365)
    made = pki.Authority(tmp_path / "pki")
    made.issue_member(1, ["127.0.0.1"], 90)
    made.issue_member(2, ["127.0.0.1"], 90)
    return made


@pytest.fixture
def write(tmp_path: Path, authority: pki.Authority) -> Write:
    """Write the file of a sound member 1, with ``changes`` in place of its lines."""
    addresses = iter(free_addresses(6))
    nodes = "".join(
        f'[[nodes]]\nnode_id = {node}\nclient_addr = "{next(addresses)}"\n'
        f'peer_addr = "{next(addresses)}"\n'
        for node in (1, 2, 3)
    )

    def write(**changes: str) -> Path:
        own = authority.directory / "member-1"
        lines = {
            "cluster_id": '"orders"',
            "self_id": "1",
            "data_dir": f'"{tmp_path / "data"}"',
            "tls_profile": '"secure"',
            "tls_cert": f'"{own / "server.pem"}"',
            "tls_key": f'"{own / "server.key"}"',
            "ca": f'"{authority.directory / "peer-ca.pem"}"',
            "cert": f'"{own / "peer.pem"}"',
            "key": f'"{own / "peer.key"}"',
        } | changes
        tls = "".join(f"{key} = {lines.pop(key)}\n" for key in ("ca", "cert", "key"))
        text = "".join(f"{key} = {value}\n" for key, value in lines.items())
        path = tmp_path / "kvd.toml"
        path.write_text(f"{text}[peer_tls]\n{tls}{nodes}")
        return path

    return write


def test_a_sound_member_passes_and_nothing_is_made(write: Write, tmp_path: Path) -> None:
    path = write()
    before = sorted(tmp_path.rglob("*"))
    result = check(path)
    assert result.output == "kvd can start: nothing wrong, 0 warnings\n"
    assert result.exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_everything_that_is_wrong_is_named_at_once(write: Write, tmp_path: Path) -> None:
    path = write(
        tls_profil='"dev"',
        heartbeat_ms="400",
        log_level='"loud"',
        data_dir='"/nonexistent/data"',
        tls_key=f'"{tmp_path}/none"',
        client_addr='"192.0.2.1:50051"',
    )
    found = "\n".join(errors(path))
    for part in (
        "unknown key tls_profil; did you mean tls_profile?",
        'log_level = "loud"',
        "election_timeout_ms = 500 is too short",
        "its parent directory does not exist",
        f"private key PEM from {tmp_path}/none: No such file",
        "192.0.2.1:50051: no such address on this machine",
    ):
        assert part in found
    assert len(found.splitlines()) == 6


def test_each_node_and_key_is_looked_at_whatever_the_others_are(tmp_path: Path) -> None:
    path = tmp_path / "kvd.toml"
    path.write_text(
        "[[nodes]]\nnode_id = 0\n[[nodes]]\nnode_id = 1\nclient_addr = 'a:1'\npeer_addr = 'a:1'\n"
    )
    found = "\n".join(errors(path))
    for part in (
        "cluster_id is missing",
        "self_id is missing",
        "data_dir is missing",
        "nodes[0].node_id = 0",
        "nodes[0].client_addr is missing",
        "nodes[0].peer_addr is missing",
        'nodes[1].peer_addr = "a:1" is taken by nodes[1].client_addr',
    ):
        assert part in found


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    path = tmp_path / "kvd.toml"
    path.write_text("self_id = \n")
    assert [re.sub("TOML:.*", "TOML", line) for line in errors(path)] == [f"{path}: not valid TOML"]
    assert errors(tmp_path / "none") == [
        f"failed to read --config={tmp_path / 'none'}: No such file or directory"
    ]


def test_flags_count_as_they_do_for_kvd(write: Write) -> None:
    assert errors(write(), "--self_id=9")[0].endswith(
        "self_id = 9 is none of the [[nodes]] (1, 2, 3)"
    )
    assert errors("--tls_profile=prod", "--admin=none", "--peer_addr=a:1") == [
        "unsupported --tls_profile=prod; expected dev or secure",
        "unsupported --admin=none; expected operators or everybody",
        "--peer_addr has no effect with --mode=embedded; use --mode=cluster-node",
    ]


# --- certificates --------------------------------------------------------------------------------


def test_a_certificate_of_another_member(write: Write, authority: pki.Authority) -> None:
    other = authority.directory / "member-2"
    path = write(cert=f'"{other / "peer.pem"}"', key=f'"{other / "peer.key"}"')
    (found,) = errors(path)
    assert "is not this member's, whose name is member-1.orders.kvstore" in found


def test_a_key_of_another_certificate(write: Write, authority: pki.Authority) -> None:
    path = write(key=f'"{authority.directory / "member-2" / "peer.key"}"')
    (found,) = errors(path)
    assert "it does not belong to the certificate in" in found


def test_a_certificate_of_another_authority(write: Write, authority: pki.Authority) -> None:
    (found,) = errors(write(ca=f'"{authority.directory / "ca.pem"}"'))
    assert "isn't one that members with" in found


def test_a_certificate_that_may_not_dial(write: Write, authority: pki.Authority) -> None:
    own = authority.directory / "member-1"
    path = write(
        ca=f'"{authority.directory / "ca.pem"}"',
        cert=f'"{own / "server.pem"}"',
        key=f'"{own / "server.key"}"',
    )
    assert any("doesn't let this member dial others" in found for found in errors(path))


@pytest.mark.parametrize(("days", "said"), [(0, "has expired on"), (5, "expires in 4 days")])
def test_the_end_of_a_certificate(
    write: Write, authority: pki.Authority, days: int, said: str
) -> None:
    authority.renew(authority.directory / "member-1" / "peer.pem", days)
    found = errors(write()) if days == 0 else warnings(write())
    assert len(found) == 1
    assert said in found[0]


def test_an_authority_that_has_ended(
    write: Write, authority: pki.Authority, tmp_path: Path
) -> None:
    pki.init(tmp_path / "over", "orders", 0)
    ended, good = tmp_path / "over" / "peer-ca.pem", authority.directory / "peer-ca.pem"
    found = errors(write(ca=f'"{ended}"'))
    assert any(f"certificate authority {ended} has expired on" in line for line in found)
    # Beside a good one, as while authorities are exchanged, it is no more than worth a word.
    both = tmp_path / "both.pem"
    both.write_bytes(ended.read_bytes() + good.read_bytes())
    (found_beside,) = warnings(write(ca=f'"{both}"'))
    assert f"certificate authority {both} has expired on" in found_beside


def test_a_key_that_others_can_read(write: Write, authority: pki.Authority) -> None:
    (authority.directory / "member-1" / "server.key").chmod(0o644)
    (found,) = errors(write())
    assert "its mode 0644 lets others read or replace it" in found


def test_a_server_certificate_without_the_name_that_clients_dial(
    write: Write, authority: pki.Authority
) -> None:
    authority.issue_member(1, ["db1.example.org"], 90)
    (found,) = warnings(write())
    assert "clients that dial 127.0.0.1 refuse certificate" in found


# --- the data directory --------------------------------------------------------------------------


def embedded(data: Path) -> tuple[str, ...]:
    return (f"--data_dir={data}", "--listen_addr=127.0.0.1:0")


def test_a_directory_in_use(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with DataDirectory(data, "embedded"):
        assert errors(*embedded(data)) == [
            f"data directory {data} is in use by another kvd (process {os.getpid()})"
        ]
        assert warnings("--running", *embedded(data)) == []
    assert warnings(*embedded(data)) == []


def open_group(data: Path, members: int = 5) -> Group:
    return Group(
        str(data),
        cluster="embedded",
        wake=lambda: None,
        rng=random.Random(1),
        members=members,
        threaded=False,
    )


def test_an_embedded_kvd_that_lost_a_members_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "embedded").close()
    group = open_group(data)
    while not group.leader_replica():
        group.tick()
        for replica in group.replicas.values():
            replica.sync_storage()
        group.turn()
    group.close()
    assert warnings(*embedded(data)) == []
    shutil.rmtree(data / "node3" / "log")
    shutil.rmtree(data / "node4")
    for member, found in zip((3, 4), warnings(*embedded(data)), strict=True):
        assert f" {data}/node{member} has no log but other members have data: it " in found
    shutil.rmtree(data / "node5" / "log")
    for member, found in zip((3, 4, 5), errors(*embedded(data)), strict=True):
        assert found.startswith(f"{data}/node{member} has no log but other members have data, and ")
    with pytest.raises(ConfigurationError, match="node3 has no log"):
        open_group(data)


def test_an_embedded_kvd_whose_founding_was_cut_off(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "embedded").close()
    group = open_group(data)
    for replica in group.replicas.values():
        replica.sync_storage()
    group.close()
    shutil.rmtree(data / "node3")
    assert warnings(*embedded(data)) == []
    open_group(data).close()


def test_a_look_leaves_the_lock_to_be_taken(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "embedded").close()
    assert warnings(*embedded(data)) == []
    with open(data / "LOCK") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_directory_of_another_kind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "cluster-node").close()
    assert errors(*embedded(data)) == [
        f"data directory {data} was made with --mode=cluster-node, not --mode=embedded; "
        "a directory keeps its mode"
    ]
    (tmp_path / "photos").mkdir(mode=0o700)
    (tmp_path / "photos" / "cat.jpg").touch()
    assert "it holds 'cat.jpg'" in errors(*embedded(tmp_path / "photos"))[0]
    assert errors(*embedded(tmp_path / "photos" / "cat.jpg"))[0].endswith("it is not a directory")


def test_links_and_open_directories(tmp_path: Path) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "embedded").close()
    (data / "node2").symlink_to(tmp_path)
    data.chmod(0o755)
    result = check(*embedded(data))
    assert f"error: {data}/node2 is a symbolic link" in result.output
    assert f"warning: others can enter {data} (mode 0755)" in result.output
    assert result.exit_code == 2


def test_a_directory_of_another_member(write: Write, tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data", "cluster-node").close()
    start_identity(tmp_path / "data", load_cluster_config(str(write()), {"self_id": 2}))
    (found,) = errors(write())
    assert f"{tmp_path / 'data'} belongs to member 2, not to member 1" in found


def test_a_member_that_was_removed(write: Write, tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data", "cluster-node").close()
    start_identity(tmp_path / "data", load_cluster_config(str(write())))
    PeerRegistry(tmp_path / "data").remove([1])
    (found,) = errors(write())
    assert "member 1 was removed from cluster 'orders'" in found


@pytest.mark.parametrize("left", ["PEERS", "node1"])
def test_a_member_whose_identity_is_gone(write: Write, tmp_path: Path, left: str) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "cluster-node").close()
    if left == "PEERS":
        PeerRegistry(data).remove([2])
    else:
        (data / left).mkdir(mode=0o700)
    (found,) = errors(write())
    assert f"it is gone, but {left} is there" in found


def test_what_another_directory_knew_of_members(write: Write, tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data", "cluster-node").close()
    identity = start_identity(tmp_path / "data", load_cluster_config(str(write())))
    PeerRegistry(tmp_path / "data", identity.incarnation + 2).remove([2])
    (found,) = errors(write())
    assert str(tmp_path / "data" / "PEERS") in found


def fill_disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    real = os.statvfs

    def full(path: object) -> os.statvfs_result:
        values = list(real(path))  # type: ignore[call-overload]
        values[4] = free_bytes // values[1]  # f_bavail, f_frsize
        return os.statvfs_result(values)

    monkeypatch.setattr("kvstore.server.checks.directory.os.statvfs", full)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, 4 << 20)
    (found,) = errors(*embedded(tmp_path / "data"))
    assert "4 MiB free; a new log takes 80 MiB" in found


def test_a_disk_that_a_member_with_a_log_has_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    DataDirectory(data, "embedded").close()
    monkeypatch.setattr("kvstore.server.checks.directory.is_unfounded", lambda *_: False)
    fill_disk(monkeypatch, 4 << 20)
    assert check(*embedded(data)).exit_code == 0
    fill_disk(monkeypatch, 512 << 10)
    (found,) = errors(*embedded(data))
    assert "512 KiB free; a start takes 1024 KiB" in found


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_an_address_in_use(tmp_path: Path, listening: str) -> None:
    family = socket.AF_INET6 if ":" in listening else socket.AF_INET
    with socket.socket(family) as other:
        try:
            other.bind((listening, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        other.listen()
        port = other.getsockname()[1]
        host = "[::1]" if ":" in listening else "127.0.0.1"
        arguments = (f"--data_dir={tmp_path / 'data'}", f"--listen_addr={host}:{port}")
        assert errors(*arguments) == [
            f"failed to start gRPC server on {host}:{port}: address already in use"
        ]
        assert warnings("--running", *arguments) == []


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken_for_udp_is_a_warning(write: Write, listening: str) -> None:
    path = write()
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind((listening, 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        found = f"warning: no pulses on {address}: its UDP port is already in use"
        assert found in warnings(f"--peer_addr={address}", path)
        assert found not in warnings("--running", f"--peer_addr={address}", path)
    assert found not in warnings(f"--peer_addr={address}", path)


def test_names_of_members_that_lead_nowhere_are_a_warning(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    text = path.read_text()
    addresses = re.findall(r'peer_addr = "([^"]+)"', text)
    path.write_text(text.replace(addresses[2], "db3.invalid:50052"))
    real = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **words: object) -> object:
        if host == "db3.invalid":
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *arguments, **words)  # type: ignore[arg-type]

    monkeypatch.setattr("kvstore.server.checks.addresses.socket.getaddrinfo", resolve)
    (found,) = warnings(path)
    assert "cannot resolve 'db3.invalid', where a member should be" in found


def test_open_ports_are_said(tmp_path: Path) -> None:
    (found,) = warnings(f"--data_dir={tmp_path / 'data'}", "--listen_addr=0.0.0.0:0")
    assert "clients talk in plain text" in found


# --- what would keep it waiting, or break it -----------------------------------------------------


@pytest.mark.parametrize("key", ["config", "tls_cert", "tls_key", "ca", "cert", "key"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(
    write: Write, tmp_path: Path, key: str
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = pipe if key == "config" else write(**{key: f'"{pipe}"'})
    found = errors(path)
    assert any(f"{pipe}: it is not a regular file" in line for line in found)


def test_a_pipe_or_too_much_as_the_secret_is_named(write: Write, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (found,) = errors(write(peer_secret_file=f'"{tmp_path}/pipe"'))
    assert "it is not a regular file" in found
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    (found,) = errors(write(peer_secret_file=f'"{tmp_path}/large"'))
    assert "it has more than 1048576 bytes" in found


def test_a_device_without_end_is_refused() -> None:
    assert errors("/dev/zero") == ["failed to read --config=/dev/zero: it is not a regular file"]


def test_names_that_no_resolver_takes_are_malformed(tmp_path: Path) -> None:
    name = f"{'a' * 70}.example:50"
    assert errors(f"--data_dir={tmp_path}/data", f"--listen_addr={name}") == [
        f"failed to start gRPC server on {name}: malformed address; expected host:port"
    ]


def test_a_name_too_long_for_a_directory_is_said(write: Write, tmp_path: Path) -> None:
    (found,) = errors(write(data_dir=f'"{tmp_path}/{"a" * 300}"'))
    assert "File name too long" in found


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "self_id = " + "9" * 6000])
def test_toml_beyond_pythons_bounds_is_no_valid_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "kvd.toml").write_text(text)
    (found,) = errors(tmp_path / "kvd.toml")
    assert "not valid TOML" in found


@pytest.mark.parametrize("arguments", [[""], ["--mode=embedded", "kvd.toml"]])
def test_contradictions_are_wrong_usage(arguments: list[str]) -> None:
    result = check(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_without_an_address_nothing_is_said_of_who_reaches_it(tmp_path: Path) -> None:
    (tmp_path / "kvd.toml").write_text('cluster_id = "c"\n')
    assert "prove nothing" not in check(tmp_path / "kvd.toml").output


def test_an_address_of_metrics_is_named_as_such(write: Write) -> None:
    assert errors(write(), "--metrics_addr=:::") == [
        "unsupported --metrics_addr=:::; expected host:port"
    ]
    (found,) = errors(write(metrics_address='"192.0.2.1:9100"'))
    assert found == "failed to start metrics on 192.0.2.1:9100: no such address on this machine"


def test_flags_may_have_hyphens(tmp_path: Path) -> None:
    arguments = [f"--data-dir={tmp_path / 'data'}", "--listen-addr=127.0.0.1:0", "--tls-profile=no"]
    shown = CliRunner().invoke(kvd_check, arguments)
    assert shown.exit_code == 2
    assert "tls_profile" in shown.output
    assert "No such option" not in shown.output


def test_a_missing_exporter_of_traces_is_told_of(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nobody")
    (error,) = errors(write())
    assert "OTEL_TRACES_EXPORTER names the exporter 'nobody', which is missing" in error
