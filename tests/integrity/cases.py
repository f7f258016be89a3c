"""What is done to a tree of files: each damage is a short list of words that repeats it.

``Case("library-closed", ("flip", "/db/wal/000001.wal", "133", "4"))`` is a case; its words are
printed where it fails and taken by ``python -m tests.integrity --case``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.integrity.regions import Region, is_exhaustive, kind_of_file, regions
from tests.integrity.trees import Tree

if TYPE_CHECKING:
    from tests.integrity.sources import Source

__all__ = ["Case", "cases_of", "damaged", "region_of"]

SECTOR_BYTES = 512
"""What a device writes at once."""


class _Most(NamedTuple):
    """How many cases of a kind a file has at most. ``samples``: bytes, beside what is asked for."""

    cuts: int
    ranges: int
    exchanges: int
    samples: int


_OF_EVERY_BYTE = _Most(cuts=60, ranges=30, exchanges=24, samples=1 << 30)
_OF_A_SAMPLE = _Most(cuts=6, ranges=4, exchanges=6, samples=24)


class Case(NamedTuple):
    """One damage to one source. The second word is the path that it is counted under."""

    source: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join((self.source, *self.words))


# --- doing it ------------------------------------------------------------------------------------


def damaged(source: Source, case: Case) -> Tree:
    """The source's files after ``case``."""
    files = dict(source.files)
    kind, path, *rest = case.words
    if kind in _WITH_OTHERS:
        _WITH_OTHERS[kind](files, source, path, *rest)
    else:
        files[path] = _WITHIN[kind](files[path], *map(int, rest))
    return files


def _flip(content: bytes, at: int, mask: int) -> bytes:
    return content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :]


def _cut(content: bytes, size: int) -> bytes:
    return content[:size]


def _zero(content: bytes, start: int, size: int) -> bytes:
    stop = min(start + size, len(content))
    return content[:start] + bytes(stop - start) + content[stop:]


def _shift(content: bytes, start: int, stop: int, by: int) -> bytes:
    """Bytes ``start`` to ``stop`` stand ``by`` further on; what came after them there is gone."""
    part = content[start:stop]
    part = bytes(by) + part[: len(part) - by] if by > 0 else part[-by:] + bytes(-by)
    return content[:start] + part[: stop - start] + content[stop:]


def _swap(content: bytes, one: int, other: int, size: int) -> bytes:
    """Two ranges of the same size, the first before the second, stand in each other's place."""
    first, second = content[one : one + size], content[other : other + size]
    return content[:one] + second + content[one + size : other] + first + content[other + size :]


def _grow(content: bytes, size: int, seed: int) -> bytes:
    return content + random.Random(seed).randbytes(size)


_WITHIN: dict[str, Callable[..., bytes]] = {
    "flip": _flip,
    "cut": _cut,
    "zero": _zero,
    "shift": _shift,
    "swap": _swap,
    "grow": _grow,
}


def _remove(files: dict[str, bytes], path: str) -> None:
    for name in [name for name in files if name == path or name.startswith(path + "/")]:
        del files[name]


def _gone(files: dict[str, bytes], source: Source, path: str) -> None:
    """The file, or everything below a directory."""
    _remove(files, path)


def _older(files: dict[str, bytes], source: Source, path: str, other: str) -> None:
    """As ``other`` was at an earlier moment: the file, or everything below a directory."""
    _replace(files, source.older, path, other)


def _foreign(files: dict[str, bytes], source: Source, path: str, other: str) -> None:
    """As ``other`` is in another database, or in a member of another cluster."""
    _replace(files, source.foreign, path, other)


def _replace(files: dict[str, bytes], others: Tree, path: str, other: str) -> None:
    _remove(files, path)
    for name, content in others.items():
        if name == other or name.startswith(other + "/"):
            files[path + name[len(other) :]] = content


def _names(files: dict[str, bytes], source: Source, path: str, other: str) -> None:
    """Two files, or directories, have each other's name."""
    moved = {}
    for name in list(files):
        for old, new in ((path, other), (other, path)):
            if name == old or name.startswith(old + "/"):
                moved[new + name[len(old) :]] = files.pop(name)
                break
    files.update(moved)


def _astray(
    files: dict[str, bytes], source: Source, path: str, at: str, whose: str, other: str, *place: str
) -> None:
    """A range of another file was written here: ``whose`` is ``own`` or ``foreign``."""
    start, size = map(int, place)
    written = (files if whose == "own" else source.foreign)[other][start : start + size]
    content = files[path]
    files[path] = content[: int(at)] + written + content[int(at) + len(written) :]


_WITH_OTHERS: dict[str, Callable[..., None]] = {
    "gone": _gone,
    "older": _older,
    "foreign": _foreign,
    "names": _names,
    "astray": _astray,
}


# --- choosing it ---------------------------------------------------------------------------------


def region_of(source: Source, case: Case) -> str:
    """What of which kind of file is damaged."""
    kind, path, *rest = case.words
    content = source.files.get(path)
    if content is None:
        return "directory: " + path.rpartition("/")[2].partition("-")[0]
    if kind in ("gone", "older", "foreign", "names", "grow"):
        return f"{kind_of_file(path)}: whole file"
    at = int(rest[0])
    for region in regions(path, content):
        if region.start <= at < region.stop:
            return region.name
    return f"{kind_of_file(path)}: whole file"


def cases_of(source: Source, samples: int, seed: int) -> list[Case]:
    """The cases of a source: each byte of what must have each byte damaged, ``samples`` of the
    other bytes of each file, and everything else that can be done to each file."""
    cases = list(_all_cases(source, samples, seed))
    if not source.at_most:
        return cases
    return random.Random(seed).sample(cases, min(source.at_most * samples // 200 + 1, len(cases)))


def _all_cases(source: Source, samples: int, seed: int) -> Iterator[Case]:
    chance = random.Random(f"{seed} {source.name}")
    most = _OF_EVERY_BYTE if source.every_byte else _OF_A_SAMPLE
    kinds: dict[str, list[str]] = {}
    for path in sorted(source.files):
        kinds.setdefault(kind_of_file(path), []).append(path)
    foreign: dict[str, list[str]] = {}
    for path in sorted(source.foreign):
        foreign.setdefault(kind_of_file(path), []).append(path)
    for path in sorted(source.files):
        parts = regions(path, source.files[path])
        kind = kind_of_file(path)
        content = source.files[path]
        for words in _bytes(path, parts, min(samples, most.samples), source.every_byte, chance):
            yield Case(source.name, words)
        for words in _cuts(path, content, parts, most.cuts, chance):
            yield Case(source.name, words)
        for words in _ranges(path, content, parts, most.ranges, chance):
            yield Case(source.name, words)
        for words in _whole(path, source, kinds[kind], foreign.get(kind, []), chance):
            yield Case(source.name, words)
        alike = kinds[kind], foreign.get(kind, [])
        for words in _between(path, parts, source, *alike, most.exchanges, chance):
            yield Case(source.name, words)
    for words in source.directories:
        yield Case(source.name, words)


Words = tuple[str, ...]


def _words(*words: object) -> Words:
    return tuple(str(word) for word in words)


def _bytes(
    path: str, parts: list[Region], samples: int, every_byte: bool, chance: random.Random
) -> Iterator[Words]:
    sampled = []
    for region in parts:
        if not is_exhaustive(region) or not every_byte:
            sampled.append(region)
        else:
            for at in range(region.start, region.stop):
                yield _words("flip", path, at, 1 << chance.randrange(8))
    if not sampled:
        return
    if every_byte:
        for region in sampled:
            for at in sorted({region.start, region.stop - 1}):
                yield _words("flip", path, at, 1 << chance.randrange(8))
        weights = [region.stop - region.start for region in sampled]
    else:
        weights = [1] * len(sampled)
    for region in chance.choices(sampled, weights, k=samples):
        at = chance.randrange(region.start, region.stop)
        yield _words("flip", path, at, chance.choice((1 << chance.randrange(8), 0xFF)))


def _some(items: list[int], count: int, chance: random.Random) -> list[int]:
    return sorted(items if len(items) <= count else chance.sample(items, count))


def _cuts(
    path: str, content: bytes, parts: list[Region], most: int, chance: random.Random
) -> Iterator[Words]:
    edges = sorted({0} | {region.start for region in parts})
    middles = [(region.start + region.stop) // 2 for region in parts]
    used = max((region.stop for region in parts if "unused" not in region.name), default=0)
    for size in {*_some(edges, most, chance), *_some(middles, most, chance)}:
        if size < len(content):
            yield _words("cut", path, size)
    for _ in range(most // 6 if used else 0):
        yield _words("cut", path, chance.randrange(used))
    yield _words("grow", path, chance.choice((1, 8, 96, 4096)), chance.randrange(1 << 30))


def _ranges(
    path: str, content: bytes, parts: list[Region], most: int, chance: random.Random
) -> Iterator[Words]:
    used = max((region.stop for region in parts if "unused" not in region.name), default=0)
    if not used:
        return
    for region in chance.sample(parts, min(len(parts), most)):
        yield _words("zero", path, region.start, region.stop - region.start)
    for sector in _some([*range(0, used, SECTOR_BYTES)], most, chance):
        yield _words("zero", path, sector, SECTOR_BYTES)
    at = chance.randrange(used)
    yield _words("zero", path, at, len(content) - at)
    for by in (1, 8, 48, SECTOR_BYTES):
        for sign in (1, -1):
            start = chance.choice(parts).start
            stop = chance.choice((used, len(content)))
            if start + by < stop:
                yield _words("shift", path, start, stop, sign * by)


def _whole(
    path: str,
    source: Source,
    alike: list[str],
    foreign: list[str],
    chance: random.Random,
) -> Iterator[Words]:
    yield _words("gone", path)
    for other, content in source.older.items():
        if kind_of_file(other) == kind_of_file(path) and content != source.files[path]:
            yield _words("older", path, other)
    for other in foreign:
        yield _words("foreign", path, other)
    for other in alike:
        if other > path and source.files[other] != source.files[path]:
            yield _words("names", path, other)
    stranger = chance.choice(sorted(source.files))
    if kind_of_file(stranger) != kind_of_file(path):
        yield _words("names", path, stranger)


def _between(
    path: str,
    parts: list[Region],
    source: Source,
    alike: list[str],
    foreign: list[str],
    most: int,
    chance: random.Random,
) -> Iterator[Words]:
    """Ranges in each other's place: within the file, of its like, of another database's."""
    if len(parts) < 2:
        return
    content = source.files[path]
    for _ in range(most):
        first, second = sorted(chance.sample(parts, 2))
        size = min(first.stop - first.start, second.stop - second.start)
        if content[first.start : first.start + size] != content[second.start : second.start + size]:
            yield _words("swap", path, first.start, second.start, size)
    places = [("own", other, source.files[other]) for other in alike if other != path]
    places += [("foreign", other, source.foreign[other]) for other in foreign]
    for whose, other, theirs in places:
        for region in _chosen(regions(other, theirs), most // len(places), chance):
            like = [part for part in parts if part.name == region.name]
            size = region.stop - region.start
            at = chance.choice(like or parts).start
            if content[at : at + size] != theirs[region.start : region.stop]:
                yield _words("astray", path, at, whose, other, region.start, size)


def _chosen(parts: list[Region], count: int, chance: random.Random) -> list[Region]:
    used = [region for region in parts if "unused" not in region.name]
    return chance.sample(used, min(len(used), max(count, 1)))
