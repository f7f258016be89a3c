"""What ends a kvd is told by its exit status, and on the last line that it writes."""

from __future__ import annotations

import contextlib
import mmap
import resource
from pathlib import Path

import psutil

from kvstore.errors import Error
from tests.integration.process import Kvd, run

STORAGE_STATUS = 5


def test_damage_found_at_the_start_ends_kvd_with_5(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as server, server.client() as client:
        for n in range(20):
            client.put(b"%d" % n, b"v" * 100)
        server.kill()
    (segment,) = (tmp_path / "data" / "node1" / "log").glob("*1.wal")
    with open(segment, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        # Of the first of them, as what a crash tears is at the end; and its head, as others have
        # what is in it.
        content[content.rfind(b"KR", 0, content.find(b"v" * 100))] ^= 1
    # Which says what the member has promised: without it, it can't stand aside.
    (tmp_path / "data" / "node1" / "LOGEND").unlink()
    damaged = run("kvd", f"--data_dir={tmp_path / 'data'}", "--listen_addr=127.0.0.1:0")
    assert damaged.returncode == STORAGE_STATUS, damaged.stderr
    assert str(segment).encode() in damaged.stderr.splitlines()[-1]


def test_a_write_that_fails_while_it_serves_ends_kvd_with_5(tmp_path: Path) -> None:
    with Kvd(tmp_path / "data") as server, server.client(timeout=2) as client:
        client.put(b"k", b"acknowledged")
        # No room is lacking: the file system refuses what lies beyond.
        psutil.Process(server.pid).rlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with contextlib.suppress(Error, TimeoutError):
            for n in range(4):
                client.put(b"%d" % n, bytes(1 << 19))
        assert server.wait() == STORAGE_STATUS
        assert "File too large" in server.stderr.splitlines()[-1]
    with Kvd(tmp_path / "data") as server, server.client() as client:
        assert client.get(b"k") == b"acknowledged"
