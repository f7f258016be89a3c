"""What came of all cases: a table by region and code, and one JSON document."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.integrity.cases import Case
from tests.integrity.verdicts import GOOD, Outcome, Verdict

__all__ = ["Tally"]

EXAMPLES_MAX = 20
KNOWN = {
    ("kvd-files", "older", "/PEERS"): "an earlier list of the same member's peers looks as it did "
    "then; a peer that was wiped or rolled back since is met as it was known then",
}
"""What can't be noticed, by source and the first words, and what follows from it."""


class Tally:
    """Counts verdicts by form and region, and keeps what went unnoticed."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.undetected: list[tuple[Case, str, Verdict]] = []
        self.cases = 0

    def add(self, case: Case, form: str, region: str, verdict: Verdict) -> None:
        """One case."""
        self.cases += 1
        known = (case.source, *case.words[:2]) in KNOWN
        good = verdict.outcome in GOOD or known
        word = verdict.code or str(verdict.outcome)
        if verdict.outcome is Outcome.DETECTED and not verdict.code:
            word = "said in words"
        if known:
            word = "known"
        self.counts[form, region][word if good else "UNDETECTED"] += 1
        if not good:
            self.undetected.append((case, region, verdict))

    def table(self) -> str:
        """Markdown: a line for each form and region, a column for each code and outcome."""
        columns = sorted({word for counted in self.counts.values() for word in counted})
        columns.sort(key=lambda word: (word == "UNDETECTED", not word.isupper(), word))
        if "UNDETECTED" not in columns:
            columns.append("UNDETECTED")
        lines = [
            "| form | region | cases | " + " | ".join(columns) + " |",
            "|---" * (len(columns) + 3) + "|",
        ]
        for (form, region), counted in sorted(self.counts.items()):
            figures = " | ".join(str(counted[word] or "") for word in columns)
            lines.append(f"| {form} | {region} | {counted.total()} | {figures} |")
        return "\n".join(lines)

    def examples(self) -> str:
        """Some of what went unnoticed, with what repeats it."""
        lines: list[str] = []
        seen: Counter[tuple[str, str, str]] = Counter()
        for case, region, verdict in self.undetected:
            alike = (case.source, region, case.words[0])
            seen[alike] += 1
            if seen[alike] == 1 and len(lines) < EXAMPLES_MAX:
                lines.append(f"{verdict.outcome}: {region}: {verdict.detail}\n    --case '{case}'")
        return "\n".join(lines)

    def write(self, path: Path, **facts: Any) -> None:
        """The JSON document."""
        document = {
            **facts,
            "cases": self.cases,
            "undetected": len(self.undetected),
            "regions": [
                {"form": form, "region": region, **counted}
                for (form, region), counted in sorted(self.counts.items())
            ],
            "undetected_cases": [
                {"case": str(case), "region": region, **verdict._asdict()}
                for case, region, verdict in self.undetected
            ],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
