"""A share of ``make integrity``, and whether it can see: what it must not let pass it doesn't."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time

import pytest

from tests.integrity.cases import Case, cases_of
from tests.integrity.forms import all_sources, judge_of
from tests.integrity.regions import regions
from tests.integrity.report import KNOWN, Tally
from tests.integrity.sources import Source
from tests.integrity.verdicts import GOOD, Outcome, Verdict
from tests.integrity.workers import judge_safely, judged

CASES = 60
SOURCES = (
    "library-closed",
    "library-zstd",
    "library-died",
    "member-closed",
    "member-died",
    "member-snapshot",
    "member-ready",
    "embedded",
    "backup",
    "snapshot-sent",
    "kvd-files",
    "kvd-embedded",
    "kvd-cluster",
)


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    return all_sources()


def untouched(source: Source) -> Case:
    """A cut beyond a file's end changes nothing."""
    return Case(source.name, ("cut", next(iter(source.files)), str(1 << 40)))


def test_there_are_these_sources(sources: dict[str, Source]) -> None:
    assert tuple(sources) == SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_no_damage_of_a_sample_goes_unnoticed(sources: dict[str, Source], name: str) -> None:
    source = sources[name]
    judge = judge_of(sources)
    cases = [case for case in cases_of(source, 10, 1) if (name, *case.words[:2]) not in KNOWN]
    chosen = [untouched(source), *random.Random(name).sample(cases, min(CASES, len(cases)))]
    verdicts = list(judged(chosen, judge, 1, source.seconds_max))
    assert verdicts[0] == (chosen[0], Verdict(Outcome.NO_EFFECT))
    assert [(str(case), verdict) for case, verdict in verdicts if verdict.outcome not in GOOD] == []


@pytest.mark.parametrize("name", ["library-closed", "backup"])
def test_regions_leave_no_byte_out(sources: dict[str, Source], name: str) -> None:
    for path, content in sources[name].files.items():
        at = 0
        for region in regions(path, content):
            assert region.start == at
            at = region.stop
        assert at == len(content)


def test_other_data_than_was_written_is_seen(sources: dict[str, Source]) -> None:
    """All of another's files together are whole: only what they hold is wrong."""
    for name in ("library-closed", "member-closed", "embedded", "snapshot-sent"):
        source = sources[name]
        theirs = {path: source.foreign[path] for path in source.foreign if "third" not in path}
        swapped = {**sources, name: dataclasses.replace(source, files=theirs)}
        verdict = judge_of(swapped)(untouched(swapped[name]))
        if name == "library-closed":
            assert verdict.outcome is Outcome.WRONG
        else:
            # A member's log says whose it is, and the leader says what it sends.
            assert verdict.outcome in (Outcome.WRONG, Outcome.DETECTED)


def test_entries_that_were_promised_and_are_not_there_are_seen(
    sources: dict[str, Source],
) -> None:
    source = sources["member-closed"]
    truth = dataclasses.replace(source.truth, durable=source.truth.last + 1)
    asked = {source.name: dataclasses.replace(source, truth=truth)}
    verdict = judge_of(asked)(untouched(source))
    assert verdict.outcome is Outcome.WRONG
    assert "promised entries are gone" in verdict.detail


def test_a_crash_a_hang_and_too_much_memory_are_seen_and_the_rest_goes_on() -> None:
    cases = [Case("none", (word,)) for word in ("well", "crash", "well", "hang", "memory", "well")]

    def judge(case: Case) -> Verdict:
        match case.words[0]:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(600)
            case "memory":
                bytearray(8 << 30)
        return Verdict(Outcome.NO_EFFECT)

    found = {case: verdict.outcome for case, verdict in judged(cases, judge, 1, 3)}
    assert [found[case] for case in cases[:5]] == [
        Outcome.NO_EFFECT,
        Outcome.CRASHED,
        Outcome.NO_EFFECT,
        Outcome.HANGS,
        Outcome.MEMORY,
    ]


def test_an_error_that_nobody_expects_is_seen() -> None:
    def judge(case: Case) -> Verdict:
        raise AssertionError("a defect")

    verdict = judge_safely(Case("none", ("any",)), judge)
    assert verdict == Verdict(Outcome.UNNAMED, "", "AssertionError: a defect")


def test_the_table_counts_by_region_and_names_what_went_unnoticed() -> None:
    tally = Tally()
    case = Case("library-closed", ("flip", "/db/CURRENT", "3", "1"))
    tally.add(case, "library", "CURRENT", Verdict(Outcome.DETECTED, "CHECKSUM_MISMATCH"))
    tally.add(case, "library", "CURRENT", Verdict(Outcome.WRONG, "", "other values"))
    lines = tally.table().splitlines()
    assert lines[0] == "| form | region | cases | CHECKSUM_MISMATCH | UNDETECTED |"
    assert lines[2] == "| library | CURRENT | 2 | 1 | 1 |"
    assert "--case 'library-closed flip /db/CURRENT 3 1'" in tally.examples()
