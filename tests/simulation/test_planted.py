"""The planted bugs fit the source as it is, and the simulator finds the quickest of them.

``python -m tests.simulator.planted`` hunts them all, in some minutes; ``-m tests.simulator.unseen``
runs the tests that see what the simulator doesn't.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.simulator.planted import ROOT, describe, hunt, plant
from tests.simulator.unseen import is_seen, named_test

PLANTED = Path(__file__).parent / "planted"
PATCHES = sorted(PLANTED.glob("*.patch"))


def test_there_are_at_least_thirty():
    assert len(PATCHES) >= 30


@pytest.mark.parametrize("patch", sorted(PLANTED.rglob("*.patch")), ids=lambda patch: patch.stem)
def test_each_fits_the_source_and_says_what_it_breaks(patch):
    subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, check=True)
    assert describe(patch).endswith((".", ")"))


def test_a_patch_that_does_not_fit_is_told(tmp_path):
    patch = tmp_path / "again.patch"
    patch.write_text(PATCHES[0].read_text().replace("\n-", "\n-something else"))
    with pytest.raises(subprocess.CalledProcessError):
        plant(patch, tmp_path / "copy")


@pytest.mark.parametrize(
    "name",
    [
        "heartbeat_commits_unmatched",
        "requests_forgotten",
        "forgotten_request_is_new",
        "sessions_expire_by_local_clock",
        "proposed_anew_in_its_term",
    ],
)
def test_the_simulator_finds(name):
    assert 0 < hunt(PLANTED / f"{name}.patch", 20).seeds <= 20


def test_a_patch_that_breaks_nothing_is_not_found(tmp_path):
    patch = tmp_path / "harmless.patch"
    patch.write_text(
        "A comment that nobody reads.\n\n"
        "--- a/src/kvstore/replica/harmless.py\n+++ b/src/kvstore/replica/harmless.py\n"
        "@@ -0,0 +1 @@\n+# Nothing.\n"
    )
    assert hunt(patch, 1).seeds == 0


def test_of_what_the_simulator_does_not_see_each_names_the_test_that_does():
    for patch in (PLANTED / "unseen").glob("*.patch"):
        file, _, test = named_test(patch).partition("::")
        assert f"def {test.partition('[')[0]}(" in (PLANTED.parents[2] / file).read_text()


@pytest.mark.parametrize(
    "name", ["read_confirmed_by_learners", "damage_healed_at_once", "installation_not_finished"]
)
def test_a_unit_test_sees(name):
    assert is_seen(PLANTED / "unseen" / f"{name}.patch")


def test_a_patch_that_breaks_nothing_is_not_seen(tmp_path):
    patch = tmp_path / "harmless.patch"
    patch.write_text(
        "A comment that nobody reads.\n\n"
        "Seen by: tests/unit/raft/test_reads.py::test_reads_beyond_the_bound_are_refused\n\n"
        "--- a/src/kvstore/replica/harmless.py\n+++ b/src/kvstore/replica/harmless.py\n"
        "@@ -0,0 +1 @@\n+# Nothing.\n"
    )
    assert not is_seen(patch)
