"""A real kvd on a real disk that fills up, and gets room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import Client
from kvstore.errors import DeadlineExceededError, NoSpaceError, UnavailableError
from tests.integration.process import Kvd

VALUE = os.urandom(1 << 20)
WAIT_S = 30.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    place = tmp_path / "data"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1000m", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs can't be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(bytes(1 << 20)):
            pass


def put_until_it_is_refused(client: Client, done: list[bytes], first: int) -> None:
    for number in range(first, first + 1000):
        key = b"%06d" % number
        client.put(key, VALUE)
        done.append(key)


def put_once_there_is_room(client: Client, key: bytes) -> None:
    """The alarm that kvd raises of a disk that is nearly full takes its time to end by itself."""
    end = time.monotonic() + WAIT_S
    while True:
        try:
            client.put(key, VALUE)
            return
        except NoSpaceError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_kvd_refuses_writes_on_a_full_disk_and_goes_on_with_room(disk: Path) -> None:
    filler = disk / "filler"
    done: list[bytes] = []
    with Kvd(disk) as kvd:
        kvd.wait_serving()
        # Full at other places each time: of the log's segment, of the engine's memtable.
        for round_ in range(3):
            with Client(kvd.address, timeout=WAIT_S) as client:
                for number in range(3):
                    key = b"free %d %d" % (round_, number)
                    put_once_there_is_room(client, key)
                    done.append(key)
            fill(filler)
            refused = (UnavailableError, DeadlineExceededError, NoSpaceError)
            with Client(kvd.address, timeout=1.0) as client, pytest.raises(refused):
                put_until_it_is_refused(client, done, round_ * 1000)
            filler.unlink()
        with Client(kvd.address, timeout=WAIT_S) as client:
            put_once_there_is_room(client, b"later")
            for key in done:
                assert client.get(key) == VALUE
        assert kvd.terminate() == 0
