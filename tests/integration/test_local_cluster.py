"""``kvctl cluster``: real processes that outlive the command that started them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration import process


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """In a process of its own, which ends before those that it starts."""
    return process.run("kvctl", *arguments, env=process.environment())


def kvctl(*arguments: str) -> str:
    done = run(*arguments)
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
