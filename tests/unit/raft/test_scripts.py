"""Every scenario of ``testdata`` comes out as written there.

``REWRITE_RAFT_SCRIPTS=1 pytest tests/unit/raft/test_scripts.py`` writes the outcomes anew; read
the difference before you keep it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .raft_script import Script, read, write

SCRIPTS = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_comes_out_as_written(path: Path) -> None:
    blocks = read(path)
    assert any(block.command for block in blocks), f"{path.name} has no commands"
    script = Script()
    rewrite = os.environ.get("REWRITE_RAFT_SCRIPTS") == "1"
    for block in blocks:
        if not block.command:
            continue
        outcome = script.run(block.command)
        if rewrite:
            block.outcome = outcome
        else:
            assert outcome == block.outcome, f"{path.name}: {block.command}"
    if rewrite:
        write(path, blocks)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 10
