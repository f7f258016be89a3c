"""README.md: its examples run and give what stands beside them, and so do figures of the docs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import kvstore
from kvstore.raft import Options
from kvstore.server.metrics.pages import LOOP_WAIT_S
from kvstore.state import MemoryBounds
from tests.integration.process import Kvd, environment, run
from tests.samples.python import check

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONSOLE = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


def test_the_librarys_example_runs(tmp_path: Path) -> None:
    assert check(PYTHON[0].replace("/tmp/", f"{tmp_path}/"), {}) == 6


def test_the_clients_example_runs(kvd: Kvd) -> None:
    block = PYTHON[1].replace("127.0.0.1:50051", kvd.address)
    assert check(block, {"kvstore": kvstore}) == 5


def test_the_console_says_what_kvctl_says(kvd: Kvd) -> None:
    (block,) = (block for block in CONSOLE if "kvctl put" in block)
    looked_at = 0
    for said in block.split("$ ")[1:]:
        command, _, output = said.partition("\n")
        words = shlex.split(command.partition(";")[0])
        if words[0] != "kvctl" or words[1] not in ("put", "get"):
            continue
        done = run(*words, env=environment(KVCTL_ADDR=kvd.address))
        code = str(done.returncode) if "echo $?" in command else ""
        text = (done.stdout + done.stderr).decode().strip()
        assert f"{text}\n{code}".strip() == output.strip()
        looked_at += 1
    assert looked_at == 3


@pytest.mark.parametrize(
    ("page", "words", "figure"),
    [
        ("wire-protocol.md", "The cluster remembers the newest {:,} of", MemoryBounds().requests),
        ("operations.md", "while it lacks more than {:,} entries", Options().promote_lag_max),
        ("operations.md", "figures within {:.0f} s, or no place", LOOP_WAIT_S),
    ],
)
def test_these_figures_of_the_docs_are_the_codes(page: str, words: str, figure: float) -> None:
    assert words.format(figure) in (ROOT / "docs" / page).read_text()
