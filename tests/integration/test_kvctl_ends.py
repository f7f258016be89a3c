"""How kvctl and kvd end when somebody presses Ctrl-C, or nobody takes what they print."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.process import Kvd, command, environment

# Signals come this long after the first line of the program: while it loads, and after.
MOMENTS_S = (0.0, 0.01, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4)

# Says so when Ctrl-C is taken care of: what comes before is Python's own, and two small modules.
PROGRAM = """
import sys
import kvstore.cli.entry as entry

def told(number, handler):
    taken(number, handler)
    entry.signal = taken
    sys.stdout.write("begun\\n")
    sys.stdout.flush()

taken, entry.signal = entry.signal, told
entry.{name}()
"""


def begun(name: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """The command, from its entry on."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(name=name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**variables),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


def interrupted(process: subprocess.Popen[bytes], after_s: float) -> bytes:
    """What it said on standard error; it ended as by Ctrl-C."""
    select.select([], [], [], after_s)
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    return complained


@pytest.mark.parametrize("after_s", MOMENTS_S)
def test_ctrl_c_ends_kvctl_with_130_at_any_moment(kvd: Kvd, after_s: float) -> None:
    process = begun("kvctl", "watch", "--prefix", "x", KVCTL_ADDR=kvd.address)
    assert interrupted(process, after_s).strip() == b""


@pytest.mark.parametrize("after_s", MOMENTS_S[:5])
def test_ctrl_c_ends_a_kvd_that_has_not_begun(tmp_path: Path, after_s: float) -> None:
    process = begun("kvd", "--listen_addr=127.0.0.1:0", f"--data_dir={tmp_path / 'data'}")
    select.select([], [], [], after_s)
    process.send_signal(signal.SIGINT)
    _, complained = process.communicate(timeout=60)
    assert b"Traceback" not in complained
    # It serves already where this machine is fast, and stops as asked then.
    assert process.returncode in (0, 130)


def test_who_reads_no_more_is_no_news(kvd: Kvd) -> None:
    with kvd.client() as client:
        client.put_many({b"pipe/%05d" % n: b"x" * 100 for n in range(5000)})
    listing = subprocess.Popen(
        [*command("kvctl"), "list", "pipe/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KVCTL_ADDR=kvd.address),
    )
    assert listing.stdout is not None
    assert listing.stdout.readline().startswith(b"pipe/00000")
    listing.stdout.close()
    assert listing.stderr is not None
    assert listing.stderr.read() == b""
    assert listing.wait(60) == 141


@pytest.mark.parametrize("words", [["get", "full"], ["list"], ["status", "-o", "json"], ["--help"]])
def test_an_output_that_is_full_is_told_in_a_line(kvd: Kvd, words: list[str]) -> None:
    with kvd.client() as client:
        client.put(b"full", b"value")
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*command("kvctl"), *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(KVCTL_ADDR=kvd.address),
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    assert ended.stderr.count(b"\n") == 1
    assert b"No space left on device" in ended.stderr


def test_a_closed_output_is_told_in_a_line(kvd: Kvd) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command("kvctl"), "count"],
        stderr=subprocess.PIPE,
        env=environment(KVCTL_ADDR=kvd.address),
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr == b"kvctl: standard output is closed\n"


@pytest.mark.parametrize(
    "words",
    [
        ["snapshot", "status", "{}/none.kvs"],
        ["snapshot", "status", "{}"],
        ["snapshot", "save", "{}/none/x.kvs"],
        ["put", "k", "--file", "{}/none"],
        ["txn", "{}/none"],
    ],
)
def test_a_file_that_is_not_there_is_no_damage(kvd: Kvd, tmp_path: Path, words: list[str]) -> None:
    admin = os.fspath(kvd.data_dir)
    ended = subprocess.run(
        [*command("kvctl"), f"--dir={admin}", *(word.format(tmp_path) for word in words)],
        capture_output=True,
        env=environment(),
        check=False,
        timeout=60,
    )
    assert ended.returncode in (1, 2)
    assert b"Traceback" not in ended.stderr
