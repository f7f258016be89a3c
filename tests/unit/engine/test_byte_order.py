"""A build for a big-endian machine would write another format: it is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HEADER = Path(__file__).parents[3] / "src/kvstore/_engine/primitives/byte_order.h"
COMPILER = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize(
    ("order", "refused"), [("__ORDER_LITTLE_ENDIAN__", False), ("__ORDER_BIG_ENDIAN__", True)]
)
def test_a_build_for_a_big_endian_machine_is_refused(order: str, refused: bool) -> None:
    assert COMPILER is not None
    done = subprocess.run(
        [COMPILER, "-E", "-x", "c++", "-U__BYTE_ORDER__", f"-D__BYTE_ORDER__={order}", HEADER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == refused
    assert ("little-endian machines only" in done.stderr) == refused
