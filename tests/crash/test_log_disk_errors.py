"""Real files that fail under the log: an error, where a store through a map would be a signal."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PUTS = """
import os
import sys
import kvstore

def fill(db, count):
    for _ in range(count):
        db.put(os.urandom(16), bytes(400))

db = kvstore.open(sys.argv[1], write_buffer_size=1 << 20)
"""
TRUNCATED = """
fill(db, 100)
db.sync()
os.truncate(sys.argv[1] + "/wal/000001.wal", 0)
fill(db, 1000)
print("alive")
"""
# The third segment is in the first one's file, whose pages are not in memory then.
RECYCLED = """
while db.stats()["log"]["segment"] < 2:
    fill(db, 10)
feed = db.changes()  # else nothing of the log would be left, and no spare segment
db.flush()
spare = [name for name in os.listdir(sys.argv[1] + "/wal") if name.endswith(".spare")]
assert spare
db.sync()
file = os.open(sys.argv[1] + "/wal/" + spare[0], os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
while db.stats()["log"]["segment"] < 3:
    fill(db, 10)
db.sync()
print("ready", flush=True)
sys.stdin.readline()
try:
    while True:
        fill(db, 10)
except kvstore.StorageError as error:
    print(error.errno, flush=True)
assert db.get(b"nothing") is None
os._exit(0)
"""


def test_a_log_that_is_cut_short_by_somebody_else_does_not_kill_the_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PUTS + TRUNCATED, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n")


@pytest.fixture
def loop_disk(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A file system of its own, and the file in memory that is its device."""
    if os.geteuid() or not all(map(shutil.which, ("losetup", "mkfs.ext4", "mount"))):
        pytest.skip("needs root, losetup, mkfs.ext4 and mount")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    device = os.memfd_create("kvstore-test-disk", os.MFD_ALLOW_SEALING)
    os.truncate(device, 64 << 20)
    path = f"/proc/{os.getpid()}/fd/{device}"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", path], check=True, timeout=60)
    made = subprocess.run(
        ["mount", "-o", "loop,errors=continue", path, str(mounted)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if made.returncode:
        os.close(device)
        pytest.skip(f"no loop devices here: {made.stderr.strip()}")
    yield device, mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True, timeout=60)
    os.close(device)


def test_a_device_that_fails_under_a_recycled_segment_is_an_error(loop_disk):
    device, mounted = loop_disk
    with subprocess.Popen(
        [sys.executable, "-c", PUTS + RECYCLED, str(mounted / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # From here on every read and write above the first MiB of the device fails.
        os.truncate(device, 1 << 20)
        fcntl.fcntl(device, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        out, _ = process.communicate("go\n", timeout=60)
    assert (process.returncode, out) == (0, "5\n")
