"""System calls on real files that fail, are broken off, or do half of what they were asked for.

What the memory disk can't show: that what is broken off (EINTR) or done in part (short writes and
reads) is gone on with, and a lack of descriptors told as such. The story is ``disk_story``'s, in a
process of its own with ``failing_calls.c`` preloaded; ``KVSTORE_DISK_SWEEP=all`` lets each call up
to the 500th fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.disk_sweep import takes_long
from tests.crash.failing_calls import HALF, SYNCS, UNSEEN
from tests.crash.killing import build, told_by
from tests.integration.disk_trouble import COMPILER

pytestmark = [takes_long, pytest.mark.skipif(COMPILER is None, reason="no C compiler")]

FAILS = [
    ("pwrite", HALF),
    ("pread", HALF),
    *((kind, "EINTR") for kind in ("open", "opendir", "pwrite", "pread", "fallocate", "close")),
    ("ftruncate", "EINTR"),
    ("fdatasync", "EINTR"),
    ("fsync", "EINTR"),
    ("open", "EMFILE"),
    ("opendir", "EMFILE"),
    ("pwrite", "EIO"),
    ("pread", "EIO"),
    ("fdatasync", "EIO"),
    ("rename", "ENOSPC"),
    ("link", "EMLINK"),
    ("unlink", "EROFS"),
    ("mkdir", "EDQUOT"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize(("kind", "error"), FAILS)
def test_calls_of_one_kind_that_fail_one_by_one(
    library: Path, tmp_path: Path, kind: str, error: str
) -> None:
    told = told_by(library, "tests.crash.failing_calls", str(tmp_path), kind, error)
    calls, failed, raised = map(int, told.split())
    print(f"{kind} {error}: {failed} of {calls} calls failed, {raised} steps raised")
    assert failed
    if error in UNSEEN and kind not in SYNCS:
        assert raised == 0
    elif error in ("EIO", "EINTR"):
        assert raised
