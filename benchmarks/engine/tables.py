"""Markdown of what turns left: medians with their spread, ratios, and where kvstore loses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.engine.peers.by_name import TITLES

__all__ = ["engine_report"]

COMPARED_UNITS = frozenset(("µs", "ms", "s", "KiB", "MiB"))
"""Less is better. Counts, and what is a ratio itself, are told alone."""

WORST_NAMED = 12

Turns = Sequence[Mapping[str, Any]]
Ratio = tuple[float, float, float]
"""Median, least and largest of peer / kvstore, each of the turns of one round."""


def engine_report(turns: Turns, *, cpu: bool = False) -> list[str]:
    """Tables of all sections, the headline first. ``cpu``: processor time where there is one."""
    sections: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for turn in turns:
        key = (turn["section"], turn["title"], turn["data"])
        sections.setdefault(key, []).append(turn)
    lines: list[str] = []
    ratios: list[tuple[str, str, Ratio]] = []
    for (name, title, data), found in sections.items():
        lines += ["", f"#### {title} (`{name}`)", "", f"{data}; {_rounds(found)}.", ""]
        table = _Table(found, cpu)
        lines += table.lines()
        ratios += [(peer, f"{figure} ({name})", each) for figure, peer, each in table.ratios()]
        lines += [
            f"- **{TITLES[turn['engine']]} failed in turn {turn['turn'] + 1}**: {turn['failure']}"
            for turn in found
            if "failure" in turn
        ]
    return [*_headline(ratios), *lines]


def _rounds(turns: Turns) -> str:
    count = len({turn["turn"] for turn in turns})
    return f"{count} turn{'s' if count > 1 else ''} of each"


class _Table:
    def __init__(self, turns: Turns, cpu: bool) -> None:
        self.engines = list(dict.fromkeys(turn["engine"] for turn in turns))
        self.engines.sort(key=list(TITLES).index)
        self.units: dict[str, str] = {}
        self.values: dict[tuple[str, str], dict[int, float]] = {}
        for turn in turns:
            for name, figure in turn.get("figures", {}).items():
                value = figure["cpu"] if cpu else figure["value"]
                if value is not None:
                    self.units[name] = figure["unit"]
                    self.values.setdefault((name, turn["engine"]), {})[turn["turn"]] = value

    def ratio(self, figure: str, peer: str) -> Ratio | None:
        if self.units[figure] not in COMPARED_UNITS:
            return None
        own = self.values.get((figure, "kvstore"), {})
        others = self.values.get((figure, peer), {})
        found = [others[turn] / own[turn] for turn in own if turn in others and own[turn] > 0]
        return (median(found), min(found), max(found)) if found else None

    def ratios(self) -> Iterable[tuple[str, str, Ratio]]:
        for figure in self.units:
            for peer in self.engines:
                ratio = None if _is_ours(peer) else self.ratio(figure, peer)
                if ratio is not None:
                    yield figure, peer, ratio

    def lines(self) -> list[str]:
        peers = [engine for engine in self.engines if not _is_ours(engine)]
        if "kvstore" not in self.engines:
            peers = []
        heads = [
            "median (spread)",
            *(TITLES[engine] for engine in self.engines),
            *(f"times {TITLES[peer]}" for peer in peers),
        ]
        lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
        for figure, unit in self.units.items():
            cells = [f"{figure}, {unit}"]
            cells += [_spread(self.values.get((figure, engine))) for engine in self.engines]
            cells += [_ratio(self.ratio(figure, peer)) for peer in peers]
            lines.append(f"| {' | '.join(cells)} |")
        return lines


def _is_ours(engine: str) -> bool:
    return engine.startswith("kvstore")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _spread(values: Mapping[int, float] | None) -> str:
    """The median, and largest less least as a share of it."""
    if not values:
        return ""
    middle = median(values.values())
    told = _number(middle)
    if len(values) > 1 and middle > 0:
        told += f" ({(max(values.values()) - min(values.values())) / middle:.0%})"
    return told


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    middle, least, largest = ratio
    told = f"{middle:.2f}"
    if least != largest:
        told += f" ({least:.2f} to {largest:.2f})"
    return f"**{told}**" if middle < 1 else told


def _headline(ratios: Sequence[tuple[str, str, Ratio]]) -> list[str]:
    """Of each peer: in how many lines kvstore is better, worse or neither, and the worst ones."""
    lines = []
    for peer in dict.fromkeys(peer for peer, _, _ in ratios):
        of_peer = [(ratio, line) for name, line, ratio in ratios if name == peer]
        worse = sorted(each for each in of_peer if each[0][2] < 1)
        better = sum(ratio[1] > 1 for ratio, _ in of_peer)
        told = (
            f"- Beside {TITLES[peer]} kvstore is better in {better} of {len(of_peer)} lines, worse "
            f"in {len(worse)}, and in {len(of_peer) - better - len(worse)} the turns disagree or "
            f"tie; the median of the ratios is {median(ratio[0] for ratio, _ in of_peer):.2f}."
        )
        if worse:
            named = [f"{line} {ratio[0]:.2f}" for ratio, line in worse[:WORST_NAMED]]
            told += f" Worst: {', '.join(named)}"
            more = len(worse) - len(named)
            told += f", and {more} more." if more else "."
        lines.append(told)
    if lines:
        lines = [
            "A ratio is the peer's figure by kvstore's of the same round: above 1 kvstore is "
            "better, below 1 (bold) worse. Memory, disk, latency and time count a line each.",
            "",
            *lines,
        ]
    return lines
