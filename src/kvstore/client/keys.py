"""Which keys are meant: one, those with a prefix, or those of a range; and conditions on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from kvstore.client.requests import NUMBER_MAX, NUMBER_MIN, BytesLike, as_bytes
from kvstore.errors import InvalidArgumentError

__all__ = ["Compare", "Field", "KeyRange", "Keys", "Relation", "keys_of", "selected"]

Operand = TypeVar("Operand", int, bytes)

Field = Literal["version", "create_revision", "mod_revision", "lease", "value"]
Relation = Literal["==", "!=", "<", ">"]

# As a range's end: there is none.
_OPEN: Final = b"\0"


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys as etcd's API says them: ``end`` empty for the single ``key``, one zero byte for all
    from ``key`` on, else the first key that isn't in it."""

    key: bytes
    end: bytes = b""

    @property
    def single(self) -> bool:
        return not self.end


def single(key: BytesLike) -> KeyRange:
    """One key. Raises InvalidArgumentError for an empty one."""
    as_key = as_bytes(key, "key")
    if not as_key:
        raise InvalidArgumentError("a key has at least one byte")
    return KeyRange(as_key)


def with_prefix(prefix: BytesLike) -> KeyRange:
    """All keys that begin with ``prefix``; with an empty one, all there are."""
    as_prefix = as_bytes(prefix, "prefix")
    kept = as_prefix.rstrip(b"\xff")
    end = kept[:-1] + bytes([kept[-1] + 1]) if kept else _OPEN
    return KeyRange(as_prefix or _OPEN, end)


def between(start: BytesLike | None, end: BytesLike | None) -> KeyRange:
    """Keys from ``start`` on that are less than ``end``. Raises InvalidArgumentError for none."""
    first = as_bytes(start, "start") if start else b"\0"
    if end is None:
        return KeyRange(first, _OPEN)
    stop = as_bytes(end, "end")
    if stop <= first:
        raise InvalidArgumentError(f"the range is empty: {first!r} is not less than {stop!r}")
    return KeyRange(first, stop)


def selected(start: BytesLike | None, end: BytesLike | None, prefix: BytesLike | None) -> KeyRange:
    """The range that a caller's arguments mean; all keys where none is given.

    Raises InvalidArgumentError for a prefix with bounds, and for an empty range.
    """
    if prefix is None:
        return between(start, end)
    if start is not None or end is not None:
        raise InvalidArgumentError("a prefix, or start and end, but not both")
    return with_prefix(prefix)


def selected_or_key(
    key: BytesLike | None,
    start: BytesLike | None,
    end: BytesLike | None,
    prefix: BytesLike | None,
) -> KeyRange:
    """The same where a single key can be given."""
    if key is None:
        return selected(start, end, prefix)
    if start is not None or end is not None or prefix is not None:
        raise InvalidArgumentError("a key, a prefix, or start and end")
    return single(key)


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction: of every key of ``keys`` the field stands so to the operand.

    Where there is no such key its numbers count as 0, and no comparison with a value holds.
    """

    keys: KeyRange
    field: Field
    relation: Relation
    operand: int | bytes


class Comparable(Generic[Operand]):
    """A field of keys; comparing it gives a :class:`Compare`."""

    __slots__ = ("_field", "_keys")

    def __init__(self, keys: KeyRange, field: Field) -> None:
        self._keys = keys
        self._field: Field = field

    def __eq__(self, operand: Operand) -> Compare:  # type: ignore[override]
        return self._compare("==", operand)

    def __ne__(self, operand: Operand) -> Compare:  # type: ignore[override]
        return self._compare("!=", operand)

    def __lt__(self, operand: Operand) -> Compare:
        return self._compare("<", operand)

    def __gt__(self, operand: Operand) -> Compare:
        return self._compare(">", operand)

    __hash__ = None  # type: ignore[assignment]

    def _compare(self, relation: Relation, operand: Operand) -> Compare:
        wanted = bytes if self._field == "value" else int
        if not isinstance(operand, wanted):
            raise TypeError(
                f"{self._field} is compared with {wanted.__name__}, not {type(operand).__name__}"
            )
        if isinstance(operand, int) and not NUMBER_MIN <= operand <= NUMBER_MAX:
            raise InvalidArgumentError(f"{self._field} is a number of 64 bits, not {operand}")
        return Compare(self._keys, self._field, relation, operand)


class Keys:
    """A key, or a range of them, whose fields can be compared in a transaction.

    Of a range a condition holds if it does for every key in it.

    >>> client.key(b"a").mod_revision == 3
    >>> client.keys(prefix=b"jobs/").lease == 0
    """

    __slots__ = ("range",)

    def __init__(self, keys: KeyRange) -> None:
        self.range = keys

    @property
    def value(self) -> Comparable[bytes]:
        return Comparable(self.range, "value")

    @property
    def version(self) -> Comparable[int]:
        """How often it was written since it came into being; 0: it isn't there."""
        return Comparable(self.range, "version")

    @property
    def create_revision(self) -> Comparable[int]:
        """When it came into being; 0: it isn't there."""
        return Comparable(self.range, "create_revision")

    @property
    def mod_revision(self) -> Comparable[int]:
        """When it was last written; 0: it isn't there."""
        return Comparable(self.range, "mod_revision")

    @property
    def lease(self) -> Comparable[int]:
        """The id of its lease; 0: it has none."""
        return Comparable(self.range, "lease")

    def exists(self) -> Compare:
        """The key is there."""
        return self.version > 0

    def absent(self) -> Compare:
        """The key isn't there; of a range, none of them."""
        return self.version == 0


def keys_of(
    key: BytesLike | None = None,
    *,
    start: BytesLike | None = None,
    end: BytesLike | None = None,
    prefix: BytesLike | None = None,
) -> Keys:
    """The keys that are meant. Raises InvalidArgumentError."""
    return Keys(selected_or_key(key, start, end, prefix))
