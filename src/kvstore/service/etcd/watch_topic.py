"""Events that are alike to many watches: encoded once, kept once, counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kvstore.state.mvcc.answers import Event

if TYPE_CHECKING:
    from kvstore.service.etcd.watch_index import Place
    from kvstore.service.etcd.watch_stream import Watch

__all__ = ["Chunk", "Encode", "Form", "Topic", "Writing", "weight_of"]

Encode = Callable[[Event, bool], Any]
"""An event as a front sends it, with what the key was before or without. Any thread."""

EVENT_WEIGHT: Final = 128
"""What an event takes in memory, and more than on the wire, beside keys and values."""


_OBJECT_WEIGHT: Final = 64
"""What an encoded event takes beside its bytes."""


class Form(NamedTuple):
    """What watches of one range have alike: which events they get and how they look."""

    encode: Encode
    prev_kv: bool = False
    no_puts: bool = False
    no_deletes: bool = False


class Chunk:
    """Events of one topic, of whole revisions, in order.

    ``pieces`` are the events, encoded, ``revisions`` and ``weights`` theirs; ``weight`` of all.
    ``revision``: what a message with them says that the store was at. ``holders``: how many watches
    have them in their queues.
    """

    __slots__ = ("_joined", "holders", "pieces", "revision", "revisions", "weight", "weights")

    def __init__(
        self, revision: int, revisions: list[int], pieces: list[Any], weights: list[int]
    ) -> None:
        self.revision = revision
        self.revisions = revisions
        self.pieces = pieces
        self.weights = weights
        self.weight = sum(weights)
        self.holders = 0
        self._joined: bytes | None = None

    def joined(self) -> bytes:
        """The pieces, being bytes, as one; made once for all who send them."""
        if self._joined is None:
            self._joined = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        return self._joined

    def since(self, revision: int) -> Chunk | None:
        """Without the events before ``revision``; None if none is left."""
        if self.revisions[0] >= revision:
            return self
        first = next((n for n, each in enumerate(self.revisions) if each >= revision), None)
        return None if first is None else self._part(first, len(self.pieces))

    def parts(self, weight_max: int) -> Iterator[Chunk]:
        """In parts of no more than so much, unless a single event is more."""
        first = weight = 0
        for place, each in enumerate(self.weights):
            if weight and weight + each > weight_max:
                yield self._part(first, place)
                first, weight = place, 0
            weight += each
        yield self._part(first, len(self.pieces)) if first else self

    def _part(self, first: int, stop: int) -> Chunk:
        return Chunk(
            self.revision,
            self.revisions[first:stop],
            self.pieces[first:stop],
            self.weights[first:stop],
        )


class Topic:
    """The watches of one range and one form. Those that are up to date are ``live``."""

    __slots__ = ("form", "live", "place", "watches")

    def __init__(self, place: Place, form: Form) -> None:
        self.place = place
        self.form = form
        self.watches = 0
        self.live: dict[Watch, None] = {}


class Writing:
    """Gathers the events of a page or more, for the topics that they are for."""

    def __init__(self, find: Callable[[bytes], Iterable[Place]]) -> None:
        """``find``: the places that hold a key."""
        self._find = find
        # Of each topic: revisions, pieces, weights.
        self._written: dict[Topic, tuple[list[int], list[Any], list[int]]] = {}
        self.lacking: set[Topic] = set()
        """Topics that want to know what a key was, where nobody knows yet."""

    def add(
        self, revision: int, events: Iterable[Event], wanted: Callable[[Topic], object]
    ) -> None:
        """Encode the events of a revision for each topic that is wanted."""
        for event in events:
            pieces: dict[tuple[Encode, bool], Any] = {}
            for place in self._find(event.kv.key):
                for topic in place.topics.values():
                    form = topic.form
                    left_out = form.no_deletes if event.is_delete else form.no_puts
                    if left_out or not wanted(topic):
                        continue
                    shape = (form.encode, form.prev_kv)
                    piece = pieces.get(shape)
                    if piece is None:
                        piece = pieces[shape] = form.encode(event, form.prev_kv)
                    if form.prev_kv and event.previous is None and event.previous_revision:
                        self.lacking.add(topic)
                    weight = weight_of(event, form.prev_kv)
                    if isinstance(piece, bytes):
                        # In JSON it takes a third more.
                        weight = max(weight, _OBJECT_WEIGHT + len(piece))
                    self._write(topic, revision, piece, weight)

    def _write(self, topic: Topic, revision: int, piece: Any, weight: int) -> None:
        written = self._written.get(topic)
        if written is None:
            written = self._written[topic] = ([], [], [])
        written[0].append(revision)
        written[1].append(piece)
        written[2].append(weight)

    def chunks(self, revision: int | None) -> Iterator[tuple[Topic, Chunk]]:
        """What was gathered. ``revision``: what messages are to say; None: that of the last event
        of each."""
        for topic, (revisions, pieces, weights) in self._written.items():
            stands = revisions[-1] if revision is None else revision
            yield topic, Chunk(stands, revisions, pieces, weights)


def weight_of(event: Event, prev_kv: bool) -> int:
    """Bytes that an event counts as."""
    weight = EVENT_WEIGHT + len(event.kv.key) + len(event.kv.value)
    if prev_kv and event.previous is not None:
        weight += len(event.previous.key) + len(event.previous.value)
    return weight
