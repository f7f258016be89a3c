"""What a Range takes of the keys that are there, and whether a compare holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from heapq import nlargest, nsmallest
from itertools import islice
from operator import itemgetter
from typing import Any, Final, Protocol

from kvstore.state.mvcc.answers import GatheredAnswer, KeyValue, RangeAnswer
from kvstore.state.mvcc.requests import (
    Compare,
    CompareResult,
    CompareTarget,
    Range,
    SortOrder,
    SortTarget,
)
from kvstore.state.mvcc.source import Source, Standing, Store, StoredSource, span_of
from kvstore.state.mvcc.varints import I64_MAX

__all__ = [
    "Gathered",
    "GatheringStore",
    "Keep",
    "MakeGathered",
    "gather",
    "holds",
    "may_be_gathered",
    "take",
]

_FIELDS = KeyValue._fields
_SORT_BY: Final[dict[int, Callable[[KeyValue], Any]]] = {
    SortTarget.VERSION: itemgetter(_FIELDS.index("version")),
    SortTarget.CREATE: itemgetter(_FIELDS.index("create_revision")),
    SortTarget.MOD: itemgetter(_FIELDS.index("mod_revision")),
    SortTarget.VALUE: itemgetter(_FIELDS.index("value")),
}
_COMPARED: Final[dict[int, int]] = {
    CompareTarget.VERSION: _FIELDS.index("version"),
    CompareTarget.CREATE: _FIELDS.index("create_revision"),
    CompareTarget.MOD: _FIELDS.index("mod_revision"),
    CompareTarget.VALUE: _FIELDS.index("value"),
    CompareTarget.LEASE: _FIELDS.index("lease"),
}
_ABSENT = KeyValue(b"", 0, 0, 0, b"", 0)
_DESCEND = int(SortOrder.DESCEND)
_KEY = int(SortTarget.KEY)
_VALUE = int(CompareTarget.VALUE)
_EQUAL, _GREATER, _LESS, _NOT_EQUAL = (int(result) for result in CompareResult)


Keep = Callable[[KeyValue], None]
"""Is told of each key that an answer holds, and may raise for it."""


class Gathered(Protocol):
    """Keys of a range as somebody wants them: see ``kvstore._service.native.KeyValues``."""

    @property
    def count(self) -> int: ...

    @property
    def more(self) -> bool: ...

    @property
    def is_full(self) -> bool: ...

    def take(self, walk: Any, most: int, /) -> bool: ...


MakeGathered = Callable[[int, int, int, bool], Gathered]
"""Of ``model_from``, the limit (0: none), ``bytes_max``, and whether only keys are wanted."""


class GatheringStore(Store, Protocol):
    """A store that hands its walks on."""

    def gather(
        self,
        start: bytes,
        stop: bytes,
        sequence: int,
        take: Callable[[Any, int], bool],
        *,
        reverse: bool,
    ) -> None:
        """Let ``take`` take so many of the versions at a time, until it says False."""


_SORTED_MAX: Final = 1000
"""Of the keys that are sorted by something else so many at most aren't told of."""


def take(
    source: Source,
    request: Range,
    revision: int,
    current: int,
    keep: Keep | None = None,
) -> RangeAnswer:
    """The answer to a checked Range at ``revision`` (0: the source's newest).

    ``current``: the revision that the answer tells. Keys with the same field to sort by come in
    the order of keys, whichever way is sorted. ``keep`` is told of all but a few that are sorted.
    """
    if not request.range_end:
        return _take_one(source, request, revision, current, keep)
    span = span_of(request.key, request.range_end)
    if request.count_only:
        return RangeAnswer(current, (), False, source.count(span, revision))
    by_key = request.sort_target == _KEY
    descending = request.sort_order == _DESCEND
    found = source.visible(span, revision, reverse=by_key and descending)
    filtered = any(request[-4:])
    if filtered:
        found = filter(partial(_passes, request), found)
    limit = request.limit if 0 < request.limit < I64_MAX else None
    most = None if limit is None else limit + 1
    if request.keys_only and request.sort_target != SortTarget.VALUE:
        found = map(_without_value, found)
    if keep is not None and (by_key or most is None or most > _SORTED_MAX):
        found = _kept(found, keep)
    if by_key:
        taken = list(islice(found, most))
    elif most is None:
        taken = sorted(found, key=_SORT_BY[request.sort_target], reverse=descending)
    else:
        best = nlargest if descending else nsmallest
        taken = best(most, found, key=_SORT_BY[request.sort_target])
    more = limit is not None and len(taken) > limit
    if more:
        taken.pop()
    count = source.count(span, revision) if more or filtered else len(taken)
    if request.keys_only:
        taken = [_without_value(kv) for kv in taken]
    return RangeAnswer(current, tuple(taken), more, count)


def may_be_gathered(request: Range) -> bool:
    """Whether what a checked Range takes are keys as they come, or the first so many of them."""
    return (
        bool(request.range_end)
        and not request.count_only
        and request.sort_target == _KEY
        and not any(request[-4:])
        and not span_of(request.key, request.range_end).is_empty
    )


def gather(
    store: GatheringStore, request: Range, now: Standing, make: MakeGathered, bytes_max: int
) -> GatheredAnswer | None:
    """As :func:`take`, for what :func:`may_be_gathered`, into what ``make`` makes.

    None where keys and values, each with what ``make`` adds, come to more than ``bytes_max``.
    """
    span, revision = span_of(request.key, request.range_end), max(request.revision, 0)
    limit = request.limit if 0 < request.limit < I64_MAX else 0
    keys = make(now.model_from, limit, bytes_max, request.keys_only)
    reverse = request.sort_order == _DESCEND
    store.gather(*span.stored, revision or now.revision, keys.take, reverse=reverse)
    if keys.is_full:
        return None
    count = keys.count
    if keys.more:
        count = StoredSource(store, now.model_from, now.revision).count(span, revision)
    return GatheredAnswer(now.revision, keys, count)


def _take_one(
    source: Source, request: Range, revision: int, current: int, keep: Keep | None
) -> RangeAnswer:
    kv = source.get(request.key, revision)
    if kv is None:
        return RangeAnswer(current, (), False, 0)
    if request.count_only or not _passes(request, kv):
        return RangeAnswer(current, (), False, 1)
    if request.keys_only:
        kv = _without_value(kv)
    if keep is not None:
        keep(kv)
    return RangeAnswer(current, (kv,), False, 1)


def _without_value(kv: KeyValue) -> KeyValue:
    return kv if not kv.value else kv._replace(value=b"")


def _kept(found: Iterator[KeyValue], keep: Keep) -> Iterator[KeyValue]:
    for kv in found:
        keep(kv)
        yield kv


def _passes(request: Range, kv: KeyValue) -> bool:
    """Whether a key is within those bounds of its revisions that are set."""
    min_mod, max_mod, min_create, max_create = request[-4:]
    return not (
        (max_mod and kv.mod_revision > max_mod)
        or (min_mod and kv.mod_revision < min_mod)
        or (max_create and kv.create_revision > max_create)
        or (min_create and kv.create_revision < min_create)
    )


def holds(source: Source, compare: Compare) -> bool:
    """Whether a compare is true of its key, or of every key of its range, by the newest state.

    Where there is none it is judged as if all fields were 0, but no compare with a value is true.
    A target that isn't known is taken for equal and a result that isn't for true, as etcd does.
    """
    if not compare.range_end:
        kv = source.get(compare.key)
        if kv is not None:
            return _matches(compare, kv)
    else:
        some = False
        for kv in source.visible(span_of(compare.key, compare.range_end)):
            if not _matches(compare, kv):
                return False
            some = True
        if some:
            return True
    return compare.target != _VALUE and _matches(compare, _ABSENT)


def _matches(compare: Compare, kv: KeyValue) -> bool:
    operand: Any = compare.operand
    index = _COMPARED.get(compare.target)
    field: Any = operand if index is None else kv[index]
    result = compare.result
    if result == _EQUAL:
        return bool(field == operand)
    if result == _GREATER:
        return bool(field > operand)
    if result == _LESS:
        return bool(field < operand)
    return result != _NOT_EQUAL or bool(field != operand)
