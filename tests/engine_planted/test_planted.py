"""The planted bugs fit the engine, name tests that exist, and one is hunted from end to end.

``python -m tests.engine_planted`` hunts them all, in about half an hour.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.engine_planted.hunting import PATCHES, ROOT, Planted, hunt, planted

EACH = pytest.mark.parametrize(
    "patch", sorted(PATCHES.glob("*.patch")), ids=lambda patch: patch.stem
)


def test_there_are_at_least_forty() -> None:
    assert len(list(PATCHES.glob("*.patch"))) >= 40


@EACH
def test_each_fits_the_source(patch: Path) -> None:
    subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, check=True)


@EACH
def test_each_says_what_it_breaks_and_names_a_test_that_exists(patch: Path) -> None:
    bug = planted(patch)
    assert bug.what.endswith(".")
    for test in bug.tests:
        file, _, name = test.partition("::")
        name = name.partition("[")[0]
        text = (ROOT / file).read_text()
        assert not name or re.search(rf"^(?:def {name}\(|{name} = )", text, re.MULTILINE)


def test_a_patch_that_names_no_test_is_refused(tmp_path: Path) -> None:
    patch = tmp_path / "silent.patch"
    patch.write_text("Something.\n\n--- a/x\n+++ b/src/kvstore/_engine/log/log.pyx\n")
    with pytest.raises(ValueError, match="Found by"):
        planted(patch)


def test_a_planted_bug_is_found() -> None:
    bug = planted(PATCHES / "memtable_equal_is_below.patch")
    assert bug.rooms == ("memtable",)
    assert "test_memtable.py" in hunt(bug).how


def test_a_patch_that_breaks_nothing_is_not_found(tmp_path: Path) -> None:
    patch = tmp_path / "harmless.patch"
    patch.write_text(
        "--- /dev/null\n+++ b/src/kvstore/_engine/log/harmless.py\n@@ -0,0 +1 @@\n+# Nothing.\n"
    )
    tests = ("tests/unit/engine/test_byte_order.py",)
    assert hunt(Planted("harmless", patch, "Nothing.", tests, ())).how == ""


def test_tests_that_did_not_run_prove_nothing(tmp_path: Path) -> None:
    patch = tmp_path / "harmless.patch"
    patch.write_text(
        "--- /dev/null\n+++ b/src/kvstore/_engine/log/harmless.py\n@@ -0,0 +1 @@\n+# Nothing.\n"
    )
    tests = ("tests/unit/engine/test_byte_order.py::test_that_is_not_there",)
    with pytest.raises(subprocess.CalledProcessError):
        hunt(Planted("untested", patch, "Nothing.", tests, ()))
