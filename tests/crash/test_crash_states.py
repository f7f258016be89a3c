"""More than 20,000 after-crash disks of a library and of a cluster's members; ``make crash-states``
opens as many as one likes."""

from __future__ import annotations

import os
import random

import pytest

from kvstore._engine.files.native import MemoryFileSystem
from kvstore.engine import DB
from tests.crash.states.library import OPTIONS, LibraryStates
from tests.crash.states.member import MemberStates
from tests.crash.states.moments import Case, Moments, Tally, digest_of

pytestmark = pytest.mark.timeout(1200)
"""Of a test that takes half a minute: machines are shared."""


# With a sanitizer, which is for the code that runs and not for the disks it runs on, one of each,
# and of members half its disks: opening one is slow there.
FEWER = "ASAN_OPTIONS" in os.environ


@pytest.mark.parametrize("seed", range(1, 2 if FEWER else 7))
def test_a_library_holds_what_it_acknowledged(seed: int) -> None:
    tally = Tally()
    LibraryStates(seed, ways=6, tally=tally).run()
    assert len(tally.states) > 1700


@pytest.mark.parametrize("seed", range(1, 2 if FEWER else 4))
def test_members_hold_what_they_acknowledged(seed: int) -> None:
    tally = Tally()
    MemberStates(seed, ways=1 if FEWER else 2, tally=tally).run()
    assert len(tally.states) > (2000 if FEWER else 3300)


def test_a_write_that_was_lost_is_seen() -> None:
    """The check itself: a database that doesn't sync where it says so."""

    class Forgetful(LibraryStates):
        def _settle(self) -> None:
            super()._settle()
            self.promise[:] = [b"what was acknowledged and isn't there"]

    with pytest.raises(AssertionError, match=r"states library --seed 1 --case \d+:0"):
        Forgetful(1, ways=1, tally=Tally()).run()


def test_a_vote_that_was_forgotten_is_seen() -> None:
    class Forgetful(MemberStates):
        def _note_votes(self) -> None:
            super()._note_votes()
            self.votes[1] = self.votes[1][0] + 100, 1

    with pytest.raises(AssertionError, match="states member --seed 1") as raised:
        Forgetful(1, ways=1, tally=Tally()).run()
    assert "forgot term" in str(raised.value.__cause__)


def test_a_case_is_the_same_disk_again() -> None:
    def taken(only: Case | None) -> dict[Case, int]:
        disk = MemoryFileSystem()
        found: dict[Case, int] = {}
        moments: Moments[None] = Moments(
            disk,
            7,
            3,
            lambda: None,
            lambda one: found.setdefault(one.case, one.digest),
            Tally(),
            only,
        )
        with DB("/db", filesystem=disk, **OPTIONS) as db:
            for number in range(5):
                db.put(b"%d" % number, random.Random(number).randbytes(100), sync=number % 2 == 0)
        moments.check()
        return found

    every = taken(None)
    case = next(case for case in every if case.way == 3)
    assert len(set(every.values())) > 10
    again = taken(case)
    assert again.keys() == {case}
    assert digest_of(MemoryFileSystem()) != again[case]
