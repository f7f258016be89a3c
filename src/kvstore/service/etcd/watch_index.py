"""Which watches a key's events are for: single keys by a look-up, ranges by an interval tree.

Watches of the same range share a place. A change of a place's key is found in O(log n + m log n)
steps, n being the different ranges and m those that hold the key (interval tree, Cormen et al.,
chapter 14, here a treap: Aragon and Seidel 1989); what was found for a key is remembered until a
place comes or goes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvstore.service.etcd.watch_topic import Form, Topic

__all__ = ["Place", "WatchIndex"]

FOUND_MAX: Final = 8192
"""Keys of which is remembered what was found."""

FOUND_KEY_BYTES_MAX: Final = 1024
"""Longer keys are looked for again each time."""


class Place:
    """A range of keys that is watched, as long as it is. ``end``: None for no end.

    ``live``: how many watches of it are to get events at the moment that they happen.
    """

    __slots__ = ("end", "left", "live", "order", "priority", "reach", "right", "start", "topics")

    def __init__(self, start: bytes, end: bytes | None, priority: float) -> None:
        self.start = start
        self.end = end
        self.order = (start, end is None, end or b"")
        self.topics: dict[Form, Topic] = {}
        self.live = 0
        # Of the tree: a heap by priority, and the farthest end below and including this one.
        self.priority = priority
        self.left: Place | None = None
        self.right: Place | None = None
        self.reach = end

    def gather(self) -> None:
        """Take the children's reach into account."""
        reach = self.end
        for child in (self.left, self.right):
            if reach is not None and child is not None:
                reach = None if child.reach is None else max(reach, child.reach)
        self.reach = reach


class WatchIndex:
    """The places that are watched."""

    def __init__(self, rng: random.Random) -> None:
        """``rng`` shapes the tree: whoever chooses the keys shouldn't know what it gives."""
        self._draw = rng.random
        self._keys: dict[bytes, Place] = {}
        self._ranges: dict[tuple[bytes, bytes | None], Place] = {}
        self._root: Place | None = None
        self._found: dict[bytes, tuple[Place, ...]] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._ranges)

    def place(self, key: bytes, range_end: bytes) -> Place:
        """The place of a range, ``range_end`` as in etcd: empty for ``key`` alone, one zero byte
        for no end. Made if there is none."""
        if not range_end:
            place = self._keys.get(key)
            if place is None:
                place = self._keys[key] = Place(key, key + b"\0", 0.0)
                self._found.clear()
            return place
        end = None if range_end == b"\0" else range_end
        place = self._ranges.get((key, end))
        if place is None:
            place = self._ranges[key, end] = Place(key, end, self._draw())
            self._root = _insert(self._root, place)
            self._found.clear()
        return place

    def remove(self, place: Place) -> None:
        """Forget a place that nobody watches any more."""
        if self._keys.get(place.start) is place:
            del self._keys[place.start]
        else:
            del self._ranges[place.start, place.end]
            self._root = _remove(self._root, place)
        self._found.clear()

    def find(self, key: bytes) -> tuple[Place, ...]:
        """The places that hold ``key``."""
        found = self._found.get(key)
        if found is None:
            single = self._keys.get(key)
            found = (*_holding(self._root, key), *(() if single is None else (single,)))
            if len(key) <= FOUND_KEY_BYTES_MAX:
                if len(self._found) >= FOUND_MAX:
                    self._found.clear()
                self._found[key] = found
        return found

    def is_live(self, key: bytes) -> bool:
        """Whether somebody is to get an event of ``key`` at the moment that it happens."""
        return any(place.live for place in self.find(key))


def _holding(root: Place | None, key: bytes) -> Iterator[Place]:
    waiting = [root]
    while waiting:
        place = waiting.pop()
        if place is None or (place.reach is not None and place.reach <= key):
            continue
        waiting.append(place.left)
        if place.start <= key:
            if place.end is None or place.end > key:
                yield place
            waiting.append(place.right)


def _insert(root: Place | None, place: Place) -> Place:
    if root is None:
        return place
    if place.order < root.order:
        root.left = _insert(root.left, place)
        if root.left.priority < root.priority:
            return _rotated_right(root)
    else:
        root.right = _insert(root.right, place)
        if root.right.priority < root.priority:
            return _rotated_left(root)
    root.gather()
    return root


def _remove(root: Place | None, place: Place) -> Place | None:
    assert root is not None, "the place isn't in the tree"
    if root is place:
        return _merged(root.left, root.right)
    if place.order < root.order:
        root.left = _remove(root.left, place)
    else:
        root.right = _remove(root.right, place)
    root.gather()
    return root


def _merged(left: Place | None, right: Place | None) -> Place | None:
    """One tree of two, all of ``left`` being before all of ``right``."""
    if left is None or right is None:
        return right if left is None else left
    if left.priority < right.priority:
        left.right = _merged(left.right, right)
        left.gather()
        return left
    right.left = _merged(left, right.left)
    right.gather()
    return right


def _rotated_right(root: Place) -> Place:
    top = root.left
    assert top is not None
    root.left = top.right
    top.right = root
    root.gather()
    top.gather()
    return top


def _rotated_left(root: Place) -> Place:
    top = root.right
    assert top is not None
    root.right = top.left
    top.left = root
    root.gather()
    top.gather()
    return top
