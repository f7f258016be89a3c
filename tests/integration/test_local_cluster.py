"""``kvctl cluster``: real processes that outlive the command that started them."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration import process


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own, which ends before those that it starts."""
    return process.run("kvctl", *arguments, env=process.environment(**variables))


def kvctl(*arguments: str, **variables: str) -> str:
    done = run(*arguments, **variables)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def wait_until(condition: Callable[[], bool]) -> None:
    """A signal takes a moment to reach each thread of a process."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("tls", [False, True])
def test_a_local_cluster_is_started_broken_and_stopped(tmp_path: Path, tls: bool) -> None:
    directory = f"--dir={tmp_path / 'c'}"
    secure = ["--tls"] if tls else []
    try:
        said = kvctl("cluster", "start", directory, "--nodes=3", *secure)
        assert said.startswith("3 members run: kvctl --addr ")
        addresses = kvctl("cluster", "addresses", directory).strip()
        ca = [f"--tls-ca={tmp_path / 'c' / 'pki' / 'ca.pem'}"] if tls else []
        client = [f"--addr={addresses}", "--timeout=20", *ca]
        assert kvctl(*client, "put", "k", "v") == "created\n"
        assert kvctl("cluster", "kill", "1", directory) == "member 1 is dead\n"
        assert kvctl(*client, "get", "k") == "v"
        status = kvctl("cluster", "status", directory)
        assert [line.split()[1] for line in status.splitlines()[1:]] == ["down", "runs", "runs"]
        second = psutil.Process(int(status.splitlines()[2].split()[-1]))
        assert kvctl("cluster", "pause", "2", directory) == "member 2 stands still\n"
        wait_until(lambda: second.status() == psutil.STATUS_STOPPED)
        assert kvctl("cluster", "resume", "2", directory) == "member 2 goes on\n"
        wait_until(lambda: second.status() != psutil.STATUS_STOPPED)
        kvctl("cluster", "start", directory)
        assert kvctl(*client, "get", "k") == "v"
        # Over the members' sockets; a follower names its leader by the address for clients.
        over_sockets = [directory, "--timeout=20", *ca]
        assert kvctl(*over_sockets, "put", "k", "w") == "overwritten\n"
        assert kvctl(*over_sockets, "member", "list").count("voter") == 3
        assert "serving" in kvctl("cluster", "logs", "1", directory)
        twice = run("cluster", "start", directory, "--nodes=5")
        assert twice.returncode == 1
        assert b"holds 3 members already" in twice.stderr
        unknown = run("cluster", "kill", "7", directory)
        assert unknown.returncode == 1
        assert b"there is no member 7" in unknown.stderr
    finally:
        stopped = run("cluster", "stop", directory)
    assert stopped.stdout == b"stopped 3 members\n"
    again = run("cluster", "kill", "1", directory)
    assert again.returncode == 1
    assert b"member 1 doesn't run" in again.stderr


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    refused = run("cluster", "start", f"--dir={tmp_path}")
    assert refused.returncode == 1
    assert b"isn't empty and holds no local cluster" in refused.stderr
    missing = run("cluster", "status", f"--dir={tmp_path / 'nowhere'}")
    assert missing.returncode == 1
    assert b"there is no local cluster" in missing.stderr


def members_of(said: str) -> set[str]:
    return {line.split()[0] for line in said.splitlines() if line.split()[0].isdecimal()}


def test_members_come_and_go(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    where = {"KVCTL_DIR": str(directory)}
    try:
        kvctl("cluster", "start", "--nodes=3", "--tls", **where)
        said = kvctl("cluster", "env", **where)
        variables = dict(line.removeprefix("export ").split("=", 1) for line in said.splitlines())
        assert variables["KVCTL_DIR"] == str(directory)
        assert kvctl("put", "k", "v", **variables) == "created\n"
        del variables["KVCTL_DIR"]
        assert kvctl("get", "k", **variables) == "v"
        assert kvctl("cluster", "add", **where).startswith("member 4 votes: 127.0.0.1:")
        assert kvctl("cluster", "remove", "1", **where).startswith("member 1 is removed")
        assert members_of(kvctl("member", "list", **where)) == {"2", "3", "4"}
        # One that was removed while it was away, and by another way.
        kvctl("cluster", "kill", "2", **where)
        kvctl("--timeout=20", "member", "remove", "2", **where)
        started = run("cluster", "start", **where)
        assert (started.returncode, started.stderr) == (
            0,
            b"member 2 was removed from the cluster: it isn't started any more\n",
        )
        assert members_of(kvctl("cluster", "status", **where)) == {"3", "4"}
        unknown = run("cluster", "remove", "2", **where)
        assert unknown.returncode == 1
        assert b"there is no member 2; this cluster has 3, 4" in unknown.stderr
        # Too few would be left that answer.
        kvctl("cluster", "kill", "3", **where)
        refused = run("--timeout=1", "member", "remove", "4", **where)
        assert refused.returncode == 4
    finally:
        run("cluster", "stop", **where)


def test_what_the_command_line_says_goes_before_the_environment(tmp_path: Path) -> None:
    refused = run("--addr=127.0.0.1:1", "--timeout=1", "get", "k", KVCTL_DIR=str(tmp_path))
    assert b"127.0.0.1:1: Connection refused" in refused.stderr
    refused = run("get", "k", KVCTL_DIR=str(tmp_path), KVCTL_ADDR="127.0.0.1:1")
    assert b"no kvd serves in" in refused.stderr


def processes_of(directory: Path) -> list[list[str]]:
    return [
        one.info["cmdline"]
        for one in psutil.process_iter(["cmdline"])
        if any(str(directory) in word for word in one.info["cmdline"] or [])
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    directory = tmp_path / "c"
    arguments = [*process.command("kvctl"), "cluster", "start", f"--dir={directory}"]
    for _ in range(2):
        starting = subprocess.Popen(
            arguments, env=process.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: (directory / "member-1.log").exists())
        starting.send_signal(number)
        said, complained = starting.communicate(timeout=60)
        assert said == b""
        assert complained.strip() == b"interrupted: what was started is stopped again"
        assert starting.returncode == 128 + number
        assert processes_of(directory) == []
        assert not directory.exists()


def test_a_start_that_failed_half_way_does_not_block_the_next(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    (missing / "cryptography").mkdir(parents=True)
    (missing / "cryptography" / "__init__.py").write_text(
        "raise ModuleNotFoundError('none', name='cryptography')"
    )
    directory = tmp_path / "c"
    where = f"--dir={directory}"
    path = f"{missing}:{process.environment()['PYTHONPATH']}"
    failed = run("cluster", "start", where, "--nodes=1", "--tls", PYTHONPATH=path)
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"kvctl: kvctl pki needs the 'cryptography' package")
    assert not directory.exists()
    try:
        kvctl("cluster", "start", where, "--nodes=1", "--tls")
        kvctl("cluster", "stop", where)
        # As one that was killed while it made them leaves it.
        (directory / "unfinished").touch()
        (directory / "cluster.json").unlink()
        kvctl("cluster", "start", where, "--nodes=1")
        assert not (directory / "pki").exists()
    finally:
        kvctl("cluster", "stop", where)
