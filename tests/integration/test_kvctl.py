"""kvctl against a real kvd: what it prints, what it exits with, bytes in and bytes out."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from click import Context
from click.testing import CliRunner

from kvstore.cli.kvctl import kvctl as kvctl_commands
from tests.integration.cluster import free_addresses
from tests.integration.process import Certificates, Kvd, command, environment, run

ANY_BYTES = bytes(range(256)) * 3


def kvctl(
    kvd: Kvd, *arguments: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    return run("kvctl", *arguments, stdin=stdin, env=environment(KVCTL_ADDR=kvd.address))


def test_put_get_and_del_tell_what_they_did(kvd: Kvd) -> None:
    assert kvctl(kvd, "put", "colour", "green").stdout == b"created\n"
    assert kvctl(kvd, "put", "colour", "blue").stdout == b"overwritten\n"
    assert kvctl(kvd, "get", "colour").stdout == b"blue"
    assert kvctl(kvd, "del", "colour").stdout == b"deleted\n"


@pytest.mark.parametrize("verb", ["get", "del"])
def test_a_key_that_is_not_there_exits_with_3(kvd: Kvd, verb: str) -> None:
    ended = kvctl(kvd, verb, "nowhere")
    assert ended.returncode == 3
    assert ended.stdout == b""
    assert ended.stderr == b"kvctl: key not found: nowhere\n"


def test_any_bytes_go_in_by_standard_input_and_come_out_by_a_pipe(kvd: Kvd) -> None:
    assert kvctl(kvd, "put", "bytes", "-", stdin=ANY_BYTES).returncode == 0
    assert kvctl(kvd, "get", "bytes").stdout == ANY_BYTES


def test_any_bytes_can_be_keys_and_values_in_hexadecimal(kvd: Kvd) -> None:
    key, value = "00ff0a1b", ANY_BYTES.hex()
    assert kvctl(kvd, "put", "--hex", key, value).returncode == 0
    assert kvctl(kvd, "get", "--hex", key).stdout == value.encode() + b"\n"
    with kvd.client() as client:
        assert client.get(bytes.fromhex(key)) == ANY_BYTES
    assert kvctl(kvd, "del", "--hex", key).stdout == b"deleted\n"


def test_keys_that_are_no_unicode_pass_through_the_command_line(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.put(b"\xff\xfe", b"raw")
    ended = subprocess.run(
        [*(os.fsencode(part) for part in command("kvctl")), b"get", b"\xff\xfe"],
        env=environment(KVCTL_ADDR=kvd.address),
        capture_output=True,
        check=True,
    )
    assert ended.stdout == b"raw"


def test_a_value_that_looks_like_an_option_goes_after_two_dashes(kvd: Kvd) -> None:
    assert kvctl(kvd, "put", "--", "minus", "-5").returncode == 0
    assert kvctl(kvd, "get", "minus").stdout == b"-5"


def test_a_value_taken_for_an_option_is_told_where_to_go(kvd: Kvd) -> None:
    ended = kvctl(kvd, "put", "minus", "-5")
    assert ended.returncode == 2
    assert b"A KEY or VALUE that begins with - goes after --." in ended.stderr


def test_json_is_for_scripts(kvd: Kvd) -> None:
    kvctl(kvd, "put", "json", "grün")
    assert json.loads(kvctl(kvd, "get", "json", "--output=json").stdout) == {
        "key": "json",
        "found": True,
        "value": "grün",
        "encoding": "utf-8",
    }
    missing = kvctl(kvd, "--output=json", "get", "json-missing")
    assert missing.returncode == 3
    assert json.loads(missing.stdout)["found"] is False
    assert json.loads(kvctl(kvd, "put", "json", "x", "--output=json").stdout)["overwritten"] is True
    assert json.loads(kvctl(kvd, "del", "json", "--output=json").stdout)["deleted"] is True


def test_a_terminal_gets_escapes_instead_of_control_characters(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.put(b"evil", b"\x1b]0;owned\x07\xff")
    terminal, standard_output = pty.openpty()
    with subprocess.Popen(
        [*command("kvctl"), "get", "evil"],
        stdout=standard_output,
        env=environment(KVCTL_ADDR=kvd.address),
    ) as process:
        os.close(standard_output)
        shown = os.read(terminal, 1024)
        assert process.wait(30) == 0
    os.close(terminal)
    assert shown == b"\\x1b]0;owned\\x07\\xff\r\n"


def test_a_request_id_makes_a_put_repeatable(kvd: Kvd) -> None:
    first = ["put", "--request-id=kvctl-1", "repeat", "1"]
    assert kvctl(kvd, *first).stdout == b"created\n"
    assert kvctl(kvd, "put", "repeat", "2").stdout == b"overwritten\n"
    assert kvctl(kvd, *first).stdout == b"created\n"
    assert kvctl(kvd, "get", "repeat").stdout == b"2"
    reused = kvctl(kvd, "put", "--request-id=kvctl-1", "repeat", "other")
    assert reused.returncode == 1
    assert reused.stderr.startswith(b"kvctl: ")
    assert b"request_id" in reused.stderr


def test_status_shows_five_members(kvd: Kvd) -> None:
    *shown, scrub = kvctl(kvd, "status").stdout.decode().splitlines()
    assert scrub.startswith("scrub: member 1 ")
    assert shown[1].split()[:3] == ["member", "role", "term"]
    assert [line.split()[0] for line in shown[2:]] == ["1", "2", "3", "4", "5"]
    assert sum("leader" in line for line in shown[2:]) == 1
    status = json.loads(kvctl(kvd, "status", "--output=json").stdout)
    assert len(status["members"]) == 5
    assert status["leader_id"] in range(1, 6)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["put", "", "v"], b"key"),
        (["put", "k" * 1025, "v"], b"key"),
        (["put", "--request-id=", "k", "v"], b"request_id"),
        (["--addr=nowhere", "get", "k"], b"malformed server address 'nowhere'; expected host:port"),
        (["--tls-ca=/nowhere/ca.pem", "get", "k"], b"failed to read TLS CA certificate PEM"),
        (["--tls-ca=/dev/null", "get", "k"], b"PEM from /dev/null: it is not a regular file"),
        (["--tls-cert=/nowhere", "get", "k"], b"a client certificate needs its key"),
    ],
)
def test_a_refused_request_exits_with_1_and_one_line(
    kvd: Kvd, arguments: list[str], complaint: bytes
) -> None:
    ended = kvctl(kvd, *arguments)
    assert ended.returncode == 1
    assert ended.stdout == b""
    assert ended.stderr.count(b"\n") == 1
    assert complaint in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["put", "k"],
        ["get"],
        ["fetch", "k"],
        ["get", "--nonsense", "k"],
        ["get", "--hex", "xyz"],
        ["--output=xml", "get", "k"],
        ["--timeout=0", "get", "k"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    ended = run("kvctl", *arguments)
    assert ended.returncode == 2
    assert b"Usage: kvctl" in ended.stderr


def test_a_server_that_is_not_there_exits_with_4() -> None:
    (address,) = free_addresses(1)
    ended = run("kvctl", f"--addr={address}", "--timeout=2", "get", "k")
    assert ended.returncode == 4
    assert ended.stderr == f"kvctl: cannot connect to {address}: Connection refused\n".encode()


def test_tls_is_spoken_with_the_right_authority_only(
    tmp_path: Path, certificates: Certificates
) -> None:
    stranger = Certificates.make(tmp_path)
    with Kvd(tmp_path / "data", certificates=certificates) as server:
        trusting = f"--tls-ca={certificates.ca}"
        assert kvctl(server, trusting, "put", "k", "v").stdout == b"created\n"
        assert kvctl(server, "get", trusting, "k").stdout == b"v"
        assert kvctl(server, f"--tls-ca={stranger.ca}", "--timeout=1", "get", "k").returncode == 4
        assert kvctl(server, "--timeout=1", "get", "k").returncode == 4


@pytest.mark.parametrize(
    "verb", [None, *sorted(kvctl_commands.list_commands(Context(kvctl_commands)))]
)
def test_help_teaches_by_example(verb: str | None) -> None:
    """On each, as docs/operations.md says."""
    shown = CliRunner().invoke(kvctl_commands, [*([verb] if verb else []), "--help"])
    assert shown.exit_code == 0
    assert "Examples:" in shown.stdout
