"""A start that can't be: one clear line, the right exit status, nothing written, nothing lost."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from kvstore.server.config.data_directory import MARKER
from tests.integration.process import Certificates, Kvd, environment, run

ANY_PORT = "--listen_addr=127.0.0.1:0"


def refusal(*arguments: str, **kwargs: Any) -> str:
    """Return the one line that a kvd prints before it exits with 1."""
    ended = run("kvd", *arguments, **kwargs)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == b""
    lines = ended.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--tls_profile=prod"], "unsupported --tls_profile=prod; expected dev or secure"),
        (["--mode=raft"], "unsupported --mode=raft; expected embedded, cluster-node or rados"),
        (
            ["--tls_profile=secure"],
            "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH",
        ),
        (
            ["--tls_profile=secure", "--tls_cert=c.pem"],
            "secure TLS profile requires both --tls_cert=PATH and --tls_key=PATH",
        ),
        (["--mode=cluster-node"], "--mode=cluster-node requires --config=PATH"),
        (
            ["--config=cluster.toml"],
            "--config has no effect with --mode=embedded; use --mode=cluster-node",
        ),
        (["--data_dir="], "--data_dir is empty; expected the path of a directory"),
        (
            ["--tls_cert=c.pem"],
            "--tls_cert and --tls_key have no effect with --tls_profile=dev; "
            "use --tls_profile=secure",
        ),
        (
            ["--log_level=loud"],
            "unsupported --log_level=loud; expected debug, info, warning or error",
        ),
        (["--log_format=xml"], "unsupported --log_format=xml; expected json or console"),
        (
            ["--listen_addr=nowhere"],
            "failed to start gRPC server on nowhere: malformed address; expected host:port",
        ),
        (
            ["--listen_addr=127.0.0.1:70000"],
            "failed to start gRPC server on 127.0.0.1:70000: malformed address; expected host:port",
        ),
        (
            ["--listen_addr=192.0.2.1:0"],
            "failed to start gRPC server on 192.0.2.1:0: no such address on this machine",
        ),
    ],
)
def test_wrong_values_are_refused_in_one_line(tmp_path: Path, flags: list[str], line: str) -> None:
    data_dir = tmp_path / "data"
    assert refusal(f"--data_dir={data_dir}", *flags) == line
    assert not data_dir.exists()


@pytest.mark.parametrize("arguments", [["--nonsense"], ["surplus"], ["--tls_cert"]])
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    ended = run("kvd", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert b"Error: " in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_and_unreadable_pem_files_are_named(
    tmp_path: Path, certificates: Certificates
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\x00\x01")
    secure = ["--tls_profile=secure", f"--data_dir={tmp_path / 'data'}", ANY_PORT]
    gone = tmp_path / "gone.pem"
    assert refusal(*secure, f"--tls_cert={gone}", f"--tls_key={certificates.key}") == (
        f"failed to read TLS certificate PEM from {gone}: No such file or directory"
    )
    assert refusal(*secure, f"--tls_cert={certificates.cert}", f"--tls_key={gone}") == (
        f"failed to read TLS private key PEM from {gone}: No such file or directory"
    )
    assert refusal(*secure, f"--tls_cert={garbage}", f"--tls_key={certificates.key}") == (
        f"failed to read TLS certificate PEM from {garbage}: not a PEM file"
    )
    assert refusal(*secure, f"--tls_cert={certificates.cert}", f"--tls_key={garbage}") == (
        f"failed to read TLS private key PEM from {garbage}: not a PEM file"
    )
    assert not (tmp_path / "data").exists()


def test_an_address_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refusal(f"--listen_addr={address}", f"--data_dir={tmp_path / 'data'}")
    assert line == f"failed to start gRPC server on {address}: address already in use"
    assert not (tmp_path / "data").exists()


def test_the_address_of_another_kvd_is_refused(kvd: Kvd, tmp_path: Path) -> None:
    line = refusal(f"--listen_addr={kvd.address}", f"--data_dir={tmp_path / 'data'}")
    assert line == f"failed to start gRPC server on {kvd.address}: address already in use"


def test_the_data_directory_of_another_kvd_is_refused_and_the_other_serves_on(kvd: Kvd) -> None:
    line = refusal(ANY_PORT, f"--data_dir={kvd.data_dir}")
    assert line == f"data directory {kvd.data_dir} is in use by another kvd (process {kvd.pid})"
    with kvd.client() as client:
        client.put(b"still", b"here")
        assert client.get(b"still") == b"here"


def test_a_directory_of_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("chapter one")
    line = refusal(ANY_PORT, f"--data_dir={tmp_path}")
    assert line.startswith(f"{tmp_path} is not a kvstore data directory: it holds 'novel.txt'")
    assert [entry.name for entry in tmp_path.iterdir()] == ["novel.txt"]


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text("kvstore-data format=2 mode=embedded crc32=fa8e4090\n")
    line = refusal(ANY_PORT, f"--data_dir={tmp_path}")
    assert line == (
        f"data directory {tmp_path} has format version 2, newer than the 1 that this kvd knows; "
        "use a newer kvstore"
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [MARKER]


def without_privileges() -> list[str]:
    """Return what makes root an ordinary user, whom permissions bind."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []


def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    data_dir.chmod(0o555)
    line = refusal(ANY_PORT, f"--data_dir={data_dir}", wrapper=without_privileges())
    assert line == f"cannot use data directory {data_dir}: no permission to write there"
    assert list(data_dir.iterdir()) == []


def test_flags_come_from_the_environment_too(tmp_path: Path) -> None:
    line = refusal(env=environment(KVD_TLS_PROFILE="from-environment"), cwd=tmp_path)
    assert line == "unsupported --tls_profile=from-environment; expected dev or secure"


def test_a_member_behind_a_link_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Kvd(data):
        pass
    (data / "node2").rename(tmp_path / "moved")
    (data / "node2").symlink_to(tmp_path / "moved")
    assert refusal(f"--data_dir={data}", ANY_PORT) == (
        f"{data}/node2 is a symbolic link: kvd follows none to files of its own; move or mount it "
        "there instead"
    )


def test_check_says_beforehand_what_a_start_would(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Kvd(data) as kvd:
        flags = (f"--data_dir={data}", f"--listen_addr={kvd.address}")
        in_use = run("kvd", "check", *flags)
        assert in_use.returncode == 2
        assert in_use.stdout.decode().splitlines() == [
            f"error: data directory {data} is in use by another kvd (process {kvd.pid})",
            f"error: failed to start gRPC server on {kvd.address}: address already in use",
            "2 errors, 0 warnings",
        ]
        assert run("kvd", "check", "--running", *flags).returncode == 0
    free = run("kvd", "check", f"--data_dir={data}", env=environment(KVD_LISTEN_ADDR="[::1]:0"))
    assert (free.returncode, free.stdout) == (0, b"kvd can start: nothing wrong, 0 warnings\n")
