"""All forms: what is damaged, and who judges what came of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.integrity import backups, embedded, kvd_files, library, member
from tests.integrity.cases import Case, damaged
from tests.integrity.sources import Source
from tests.integrity.trees import Tree
from tests.integrity.verdicts import Verdict

__all__ = ["all_sources", "judge_of"]

_JUDGES: dict[str, Callable[[Source, Tree], Verdict]] = {
    "library": library.judge,
    "member": member.judge,
    "embedded": embedded.judge,
    "backup": backups.judge_backup,
    "checkpoint": backups.judge_checkpoint,
    "kvd-files": kvd_files.judge,
    "kvd": kvd_files.judge_running,
    "cluster": kvd_files.judge_cluster,
}


def all_sources() -> dict[str, Source]:
    """By name. Takes a second or two."""
    made = [
        *library.sources(),
        *member.sources(),
        *embedded.sources(),
        *backups.sources(),
        *kvd_files.sources(),
    ]
    return {source.name: source for source in made}


def judge_of(sources: dict[str, Source]) -> Callable[[Case], Verdict]:
    """Judges a case of any of these."""

    def judge(case: Case) -> Verdict:
        source = sources[case.source]
        return _JUDGES[source.form](source, damaged(source, case))

    return judge
