"""Codecs: two implementations of each that read each other, and no GIL where there need be none."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvstore
from kvstore._engine.table import native as compression

CODECS = ("lz4", "zstd", "snappy")
chance = random.Random(7)
PAYLOADS = {
    "zeros": bytes(10_000),
    "text": b"the same words " * 300,
    "half noise": chance.randbytes(2000) + bytes(3000),
}


@pytest.fixture(params=["library", "package"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    compression.only_packages(request.param == "package")
    yield request.param
    compression.only_packages(False)


def need(codec: str, way: str) -> None:
    if way == "library" and not compression.does_without_gil(codec):
        pytest.skip(f"this machine has no lib{codec}")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_was_packed_is_unpacked(codec: str, way: str, payload: str) -> None:
    need(codec, way)
    raw = PAYLOADS[payload]
    packed = compression.packed(codec, raw)
    assert packed is not None
    assert len(packed) <= len(raw) * 7 // 8
    assert compression.unpacked(codec, packed, len(raw)) == raw


@pytest.mark.parametrize("codec", CODECS)
def test_library_and_package_read_each_other(codec: str) -> None:
    need(codec, "library")
    raw = PAYLOADS["half noise"]
    by_library = compression.packed(codec, raw)
    try:
        compression.only_packages(True)
        by_package = compression.packed(codec, raw)
        assert by_library is not None
        assert by_package is not None
        assert compression.unpacked(codec, by_library, len(raw)) == raw
    finally:
        compression.only_packages(False)
    assert compression.unpacked(codec, by_package, len(raw)) == raw


@pytest.mark.parametrize("codec", CODECS)
def test_noise_is_left_as_it_is(codec: str, way: str) -> None:
    need(codec, way)
    assert compression.packed(codec, chance.randbytes(5000)) is None


@pytest.mark.parametrize("codec", CODECS)
def test_damage_and_a_wrong_size_are_refused(codec: str, way: str) -> None:
    need(codec, way)
    raw = PAYLOADS["half noise"]
    packed = compression.packed(codec, raw)
    assert packed is not None
    for wrong in (b"", b"\xff" * 30, packed[:-1], packed[1:], packed[: len(packed) // 2]):
        with pytest.raises(ValueError, match="ended with -1"):
            compression.unpacked(codec, wrong, len(raw))
    for size in (len(raw) - 1, len(raw) + 1, 1):
        with pytest.raises(ValueError, match="ended with -1"):
            compression.unpacked(codec, packed, size)


WITHOUT = """
    import sys
    sys.modules.update({"lz4.block": None, "zstandard": None, "cramjam": None})
    import kvstore
    from kvstore._engine.table import native as compression
    compression.only_packages(True)
    try:
        kvstore.open(sys.argv[1], compression=sys.argv[2])
    except kvstore.errors.ConfigurationError as error:
        print(error)
"""


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_that_is_not_installed_is_refused_before_anything_is_made(
    tmp_path: Path, codec: str
) -> None:
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT), tmp_path / "db", codec],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"pip install 'kvstore-raft[{codec}]'" in said.stdout
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("codec", CODECS)
def test_a_database_is_read_whatever_its_blocks_were_packed_with(
    tmp_path: Path, codec: str
) -> None:
    with kvstore.open(tmp_path / "db", compression=codec, write_buffer_size=64 << 10) as db:
        for k in range(2000):
            db.put(b"%06d" % k, b"words and words " * 10)
        db.flush()
        assert db.stats()["table_bytes"] < 2000 * 160 // 2
    with kvstore.open(tmp_path / "db") as db:
        assert sum(1 for _ in db) == 2000
        db.verify()


# A thread keeps the GIL from the moment the flush has made its file until that file is whole: were
# the GIL needed for a single block in between, the file would never become whole.
HOLD = """
    import ctypes, os, sys, threading, time
    import kvstore

    path, codec = sys.argv[1], sys.argv[2]
    libc = ctypes.PyDLL(None)                   # unlike CDLL, keeps the GIL in each call
    sys.setswitchinterval(1000)                 # and nobody asks for it in between
    MAGIC = b"\\x89kvsst\\r\\n"

    def is_whole(file):
        end = libc.lseek(file, -8, os.SEEK_END)
        if end < 0:
            return False
        into = ctypes.create_string_buffer(8)
        got = libc.pread(file, into, 8, ctypes.c_long(end))
        return end > 100 and got == 8 and into.raw == MAGIC

    db = kvstore.open(path, compression=codec, background=False, write_buffer_size=1 << 28)
    for k in range(150_000):
        db.put(b"%08d" % k, b"%08d" % k * 15)
    flush = threading.Thread(target=db.flush)
    flush.start()
    while not (tables := [name for name in os.listdir(path) if name.endswith(".sst")]):
        time.sleep(0)                           # lets the flush come so far
    file = os.open(os.path.join(path, tables[0]), os.O_RDONLY)
    early = not is_whole(file)
    deadline = time.monotonic() + 30
    while not is_whole(file) and time.monotonic() < deadline:
        pass
    print("early" if early else "late", "whole" if is_whole(file) else "stuck")
    flush.join()
    db.close()
"""


@pytest.mark.parametrize("codec", ["none", *CODECS])
def test_a_flush_needs_no_gil_for_its_blocks(tmp_path: Path, codec: str) -> None:
    if codec != "none":
        need(codec, "library")
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HOLD), tmp_path / "db", codec],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert said.stdout.split() == ["early", "whole"]
